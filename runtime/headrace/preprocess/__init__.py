"""The vocabulary of preprocessing, a folder a kind: spec, NumPy reference, native form."""

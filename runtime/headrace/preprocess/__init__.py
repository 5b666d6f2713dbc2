"""The vocabulary of preprocessing: its typed spec and the slow NumPy reference."""

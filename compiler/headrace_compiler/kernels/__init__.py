"""Preprocessing as native code: Numba sources, their lowering to each target, and their linking."""

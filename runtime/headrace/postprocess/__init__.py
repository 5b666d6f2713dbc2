"""What a bundle does to its model's outputs before they are answered: typed spec and NumPy."""

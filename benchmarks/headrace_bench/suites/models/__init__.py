"""Recipes of models of the usual shapes with random weights, which need no download."""

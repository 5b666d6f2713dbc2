"""Turns a bundle into answers: at the edge in one process, or on a cluster with Ray Serve."""

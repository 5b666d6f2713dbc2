"""What a running service tells: metrics."""

"""Text: strings become the model's tokens."""

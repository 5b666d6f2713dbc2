"""Audio: recordings become one tensor of the model."""

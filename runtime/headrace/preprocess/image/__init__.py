"""Images: encoded bytes become one tensor of the model."""

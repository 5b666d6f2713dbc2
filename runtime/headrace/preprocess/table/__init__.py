"""Tables: columns become one tensor of the model."""

"""Numbers in, numbers out: sessions, and the pipeline round them."""

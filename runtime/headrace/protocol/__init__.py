"""Open Inference Protocol v2 codecs: pure functions on bytes and typed messages, no I/O."""

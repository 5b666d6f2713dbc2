"""Turns a bundle into answers: at the edge in one process, or on a cluster with Ray Serve."""

import os

# ONNX Runtime reports its use from the moment it is imported, unless it is told not to before.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

"""How much one request may ask of the server, checked before anything is allocated for it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one request.

    Attributes:
        max_body_bytes: Of an HTTP body after decompression. An edge should stop reading there, and
            give gRPC the same bound as its longest message.
        max_json_bytes: Of the JSON part alone: parsed, it takes many times its size in memory,
            while binary tensors stay as they came.
        max_json_depth: Of nested arrays and objects.
        max_elements: Of one tensor; no axis and no product of axes may be larger.
        max_bytes_elements: Of one BYTES tensor, each element of which is an object of its own.
        max_entries: Inputs, outputs or parameters of one request.
        max_rank: Axes of one tensor; NumPy ends at 64.
    """

    max_body_bytes: int = 64 << 20
    max_json_bytes: int = 16 << 20
    max_json_depth: int = 64
    max_elements: int = 1 << 26
    max_bytes_elements: int = 1 << 20
    max_entries: int = 256
    max_rank: int = 32

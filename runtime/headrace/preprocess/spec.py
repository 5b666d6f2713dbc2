"""What preprocessing a bundle declares, of any kind.

Each kind has `takes`, the tensors that clients send, and `makes`, the model inputs that they
become; all have the batch axis first.
"""

from collections.abc import Mapping
from typing import Annotated

import numpy as np
from pydantic import Field

from headrace.preprocess.audio.spec import AudioPreprocessing
from headrace.preprocess.image.spec import ImagePreprocessing
from headrace.preprocess.table.spec import TablePreprocessing
from headrace.preprocess.text.spec import TextPreprocessing
from headrace.tensors import Array

Preprocessing = Annotated[
    ImagePreprocessing | AudioPreprocessing | TablePreprocessing | TextPreprocessing,
    Field(discriminator="kind"),
]

Value = bytes | float | int
"""One row of a raw input, of BYTES, FP64 or INT64."""


def raw_row(values: Mapping[str, Value]) -> dict[str, Array]:
    """A request of one row: each value as an array of shape (1,)."""
    return {name: _array(value) for name, value in values.items()}


def _array(value: Value) -> Array:
    if isinstance(value, bytes):
        row: Array = np.empty(1, np.object_)
        row[0] = value
        return row
    return np.array([value], np.float64 if isinstance(value, float) else np.int64)

"""Batches of any size out of a few sample requests."""

from collections.abc import Mapping, Sequence

import numpy as np

from headrace.tensors import Array

_NOISE = 0.01
"""Of a repeated row, as a part of its standard deviation."""


def compose(inputs: Sequence[Mapping[str, Array]], rows: int) -> dict[str, Array]:
    """A batch of exactly `rows` rows: the samples' rows in turn.

    Only samples whose other axes agree with the first one's take part. Where there are too few
    rows they come again, floating-point ones with a little noise that depends on nothing but its
    place in the batch, so that no two rows need be equal.

    Args:
        inputs: One mapping a sample; every array has the batch axis first.
    """
    alike = [sample for sample in inputs if _tail(sample) == _tail(inputs[0])]
    stacked = {name: np.concatenate([sample[name] for sample in alike]) for name in alike[0]}
    return {name: _cycle(array, rows) for name, array in stacked.items()}


def _tail(sample: Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
    return {name: array.shape[1:] for name, array in sample.items()}


def _cycle(array: Array, rows: int) -> Array:
    batch = array[np.arange(rows) % len(array)]
    repeated = batch[len(array) :]
    if not len(repeated) or not np.issubdtype(array.dtype, np.floating):
        return batch
    noise = np.random.default_rng(len(array)).standard_normal(repeated.shape)
    changed = repeated.astype(np.float64) + _NOISE * float(array.astype(np.float64).std()) * noise
    return np.concatenate([array, changed.astype(array.dtype)])

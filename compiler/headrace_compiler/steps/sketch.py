"""Sketches how inputs and outputs are distributed in the samples: the baseline of drift."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from datasketches import kll_floats_sketch

from headrace.bundle.manifest import SKETCHES, SketchEntry, row_size
from headrace.tensors import BATCH, Array, TensorSpec

MOST_FEATURES = 64
"""The largest row whose every place is sketched apart."""
K = 1024
"""Of the sketches, and how many values one holds at most.

KLL compacts by coins that cannot be seeded, and content must not depend on chance; up to K values
it compacts nothing.
"""

Values = npt.NDArray[np.float64]
Role = Literal["input", "output"]
Kind = Literal["feature", "values", "row_mean"]


@dataclass(frozen=True)
class Sketch:
    """One sketch.

    Attributes:
        content: As `kll_floats_sketch.deserialize` reads it.
    """

    entry: SketchEntry
    content: bytes


def sketch(
    inputs: Sequence[Mapping[str, Array]],
    outputs: Sequence[Mapping[str, Array]],
    input_specs: Sequence[TensorSpec],
    output_specs: Sequence[TensorSpec],
) -> tuple[Sketch, ...]:
    """Sketches every tensor; equal values give equal bytes.

    A tensor whose rows have one size of at most `MOST_FEATURES` numbers has a sketch a place. Any
    other has one of all its values, and one of the means of its rows. Integers count as floats,
    and BOOL as 0 and 1. All values of one tensor are held at once.

    Args:
        inputs: One mapping a sample, of arrays by name.
        outputs: What the model gave for each.
        input_specs: Of the arrays in `inputs`; says what a row is.
        output_specs: Of the arrays in `outputs`.
    """
    roles: tuple[tuple[Role, Sequence[Mapping[str, Array]], Sequence[TensorSpec]], ...] = (
        ("input", inputs, input_specs),
        ("output", outputs, output_specs),
    )
    return tuple(
        _sketch(role, spec.name, kind, feature, values)
        for role, samples, specs in roles
        for spec in specs
        for kind, feature, values in _streams(spec, [sample[spec.name] for sample in samples])
    )


def _streams(
    spec: TensorSpec, arrays: Sequence[Array]
) -> Iterator[tuple[Kind, int | None, Values]]:
    """The streams of values of a tensor that are sketched apart."""
    rows = [_rows(spec, array) for array in arrays]
    size = row_size(spec)
    if size is not None and size <= MOST_FEATURES:
        features = np.concatenate(rows)
        for feature in range(size):
            yield "feature", feature, features[:, feature]
        return
    yield "values", None, np.concatenate([part.reshape(-1) for part in rows])
    with np.errstate(invalid="ignore", over="ignore"):  # the mean of both infinities is NaN
        means = [part.mean(axis=1) for part in rows if part.shape[1]]
    yield "row_mean", None, np.concatenate([np.empty(0), *means])


def _rows(spec: TensorSpec, array: Array) -> Values:
    """A tensor as float64 of shape (rows, numbers of a row)."""
    count = array.shape[0] if spec.shape[:1] == (BATCH,) else 1
    size = array.size // count if count else row_size(spec) or 0
    return array.astype(np.float64).reshape(count, size)


def _sketch(role: Role, tensor: str, kind: Kind, feature: int | None, values: Values) -> Sketch:
    known = np.sort(values[~np.isnan(values)] + 0.0)  # of two equal zeros, one has one spelling
    finite = known[np.isfinite(known)]
    place = kind if feature is None else feature
    entry = SketchEntry(
        path=f"{SKETCHES}{role}.{tensor}.{place}.bin",
        role=role,
        tensor=tensor,
        kind=kind,
        feature=feature,
        count=known.size,
        nan_count=values.size - known.size,
        low=float(finite[0]) if finite.size else None,
        high=float(finite[-1]) if finite.size else None,
    )
    return Sketch(entry=entry, content=_serialize(known))


def _serialize(ordered: Values) -> bytes:
    """The sketch of sorted values, or of K evenly spaced ones of them, first and last included."""
    if ordered.size > K:
        ordered = ordered[np.linspace(0, ordered.size - 1, K).round().astype(np.int64)]
    made = kll_floats_sketch(K)
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes an infinity
        made.update(ordered.astype(np.float32))
    return bytes(made.serialize())

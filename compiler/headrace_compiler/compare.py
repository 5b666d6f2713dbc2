"""How far one answer lies from another, and where."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from headrace.bundle.manifest import Tolerance
from headrace.tensors import Array


@dataclass(frozen=True)
class Worst:
    """The element that lies furthest outside its tolerance, or nearest to its edge.

    Attributes:
        output: Its tensor.
        index: Its place in it.
        expected: The reference's value.
        got: The value compared.
        excess: `|got - expected|` less what the tolerance allows; above zero is a failure.
        error: The largest absolute difference of any element of any output.
    """

    output: str
    index: tuple[int, ...]
    expected: float
    got: float
    excess: float
    error: float


def compare(expected: Mapping[str, Array], got: Mapping[str, Array], tolerance: Tolerance) -> Worst:
    """Compares answers that have the same shapes, element by element.

    Raises:
        ValueError: The shapes or the dtypes differ; the message says which.
    """
    found = [_worst(name, expected[name], got[name], tolerance) for name in expected]
    worst = max(found, key=lambda one: one.excess)
    error = max(one.error for one in found)
    return Worst(worst.output, worst.index, worst.expected, worst.got, worst.excess, error)


def _worst(name: str, expected: Array, got: Array, tolerance: Tolerance) -> Worst:
    if expected.shape != got.shape or expected.dtype != got.dtype:
        raise ValueError(
            f"output '{name}' should be {expected.dtype}{list(expected.shape)},"
            f" and is {got.dtype}{list(got.shape)}"
        )
    reference, value = expected.astype(np.float64), got.astype(np.float64)
    # NaN compares false with everything, so it is counted as infinitely far away.
    difference = np.nan_to_num(np.abs(value - reference), nan=np.inf)
    excess = difference - (tolerance.absolute + tolerance.relative * np.abs(reference))
    if not excess.size:
        return Worst(name, (), 0.0, 0.0, -tolerance.absolute, 0.0)
    index = tuple(int(place) for place in np.unravel_index(excess.argmax(), excess.shape))
    return Worst(
        output=name,
        index=index,
        expected=float(reference[index]),
        got=float(value[index]),
        excess=float(excess[index]),
        error=float(difference.max()),
    )

"""Golden cases: what every load replays before the model takes traffic."""

import math
from collections.abc import Sequence

import numpy as np

from headrace.bundle.golden import GoldenCase
from headrace.bundle.manifest import Precision, Tolerance
from headrace_compiler.source import Source
from headrace_compiler.steps.samples import Samples

CASES = 3
"""A few: enough to catch a broken kernel, quick enough to replay at every load."""
MARGIN = 4
"""Another processor adds in another order, and errs by as much again, in each direction."""
REDUCED_MARGIN = 2
"""The error of a reduced precision is mostly its own, and the same on every processor."""
FLOOR = 1e-6
"""Of the largest output: about eight units in the last place of a float32."""


def golden(samples: Samples, source: Source) -> tuple[GoldenCase, ...]:
    """The first samples with the source model's outputs."""
    return tuple(
        GoldenCase(raw=raw, inputs=inputs, outputs=source.run(inputs))
        for raw, inputs in zip(samples.raw[:CASES], samples.inputs[:CASES], strict=True)
    )


def tolerance(cases: Sequence[GoldenCase], error: float, precision: Precision) -> Tolerance:
    """How far a replay of a variant may lie from the golden cases.

    The absolute tolerance is a few times the error that was measured, and one millionth of the
    largest output, rounded up to two digits; the relative one is 1e-5. So it follows the model: a
    deep network gets more room than a shallow one, and neither gets room it does not need.

    Args:
        error: The largest absolute one that the build saw.
    """
    outputs = [array.astype(np.float64) for case in cases for array in case.outputs.values()]
    scale = max(1.0, *(float(np.abs(array).max(initial=0.0)) for array in outputs))
    margin = MARGIN if precision == "fp32" else REDUCED_MARGIN
    return Tolerance(absolute=_round_up(margin * error + FLOOR * scale), relative=1e-5)


def _round_up(value: float) -> float:
    """To two digits, upwards."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / unit) * unit:.1e}")

"""Golden cases: what every load replays before the model takes traffic."""

import math
from dataclasses import dataclass

import numpy as np

from headrace.bundle.golden import GoldenCase
from headrace.bundle.manifest import Parity, Tolerance
from headrace_compiler.source import Source
from headrace_compiler.steps.samples import Samples

CASES = 3
"""A few: enough to catch a broken kernel, quick enough to replay at every load."""
MARGIN = 4
"""Another processor adds in another order, and errs by as much again, in each direction."""
FLOOR = 1e-6
"""Of the largest output: about eight units in the last place of a float32."""


@dataclass(frozen=True)
class Golden:
    """The cases, and how far a replay may lie from them."""

    cases: tuple[GoldenCase, ...]
    tolerance: Tolerance


def golden(samples: Samples, source: Source, parity: Parity) -> Golden:
    """The first samples with the source model's outputs.

    The absolute tolerance is four times the largest error that parity measured, and one millionth
    of the largest output, rounded up to two digits; the relative one is 1e-5. So it follows the
    model: a deep network gets more room than a shallow one, and neither gets room it does not
    need.
    """
    cases = tuple(
        GoldenCase(raw=raw, inputs=inputs, outputs=source.run(inputs))
        for raw, inputs in zip(samples.raw[:CASES], samples.inputs[:CASES], strict=True)
    )
    outputs = [array.astype(np.float64) for case in cases for array in case.outputs.values()]
    scale = max(1.0, *(float(np.abs(array).max(initial=0.0)) for array in outputs))
    absolute = _round_up(MARGIN * parity.max_absolute_error + FLOOR * scale)
    return Golden(cases=cases, tolerance=Tolerance(absolute=absolute, relative=1e-5))


def _round_up(value: float) -> float:
    """To two digits, upwards."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / unit) * unit:.1e}")

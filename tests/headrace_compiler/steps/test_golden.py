"""Golden cases."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.bundle.golden import replay
from headrace.bundle.manifest import Precision
from headrace.engine.session import OrtSession
from headrace_compiler.steps.golden import (
    CASES,
    FLOOR,
    MARGIN,
    REDUCED_MARGIN,
    _round_up,
    golden,
    tolerance,
)

Export = Callable[..., Any]
KINDS: tuple[Precision, ...] = ("fp32", "int8")


def test_cases_hold_what_the_source_model_gave(exported: Export) -> None:
    """A few samples with the reference's outputs, which the graph replays within the tolerance."""
    made = exported()
    cases = golden(made.samples, made.source)
    assert len(cases) == CASES
    expected = made.source.run(made.samples.inputs[1])["output0"]
    assert np.array_equal(cases[1].outputs["output0"], expected)
    assert replay(cases, OrtSession(made.graph.content).run, tolerance(cases, 1e-7, "fp32"))


def test_the_tolerance_follows_the_measured_error(exported: Export) -> None:
    """A few times the error and a floor that grows with the outputs."""
    made = exported(forward="return self.linear(x) * 0 + 1000")
    cases = golden(made.samples, made.source)
    for error in (0.0, 1e-3):
        exact, reduced = (tolerance(cases, error, kind).absolute for kind in KINDS)
        assert exact == pytest.approx(MARGIN * error + FLOOR * 1000, rel=0.1)
        assert reduced == pytest.approx(REDUCED_MARGIN * error + FLOOR * 1000, rel=0.1)


@given(st.floats(1e-30, 1e30))
def test_rounding_goes_upwards(value: float) -> None:
    """To two digits, never below the value, and by a tenth at most."""
    rounded = _round_up(value)
    assert value * (1 - 1e-12) <= rounded <= value * 1.101
    assert rounded == float(f"{rounded:.1e}")

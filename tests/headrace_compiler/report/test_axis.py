"""Axes of points: tight, with round ticks, whatever the values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_compiler.report.axis import latency_axis, logarithmic_axis, tight_axis
from headrace_compiler.report.scatter import Ends, Mark, frontier


def mark(name: str, x: float, y: float) -> Mark:
    """A mark without intervals."""
    return Mark(name, Ends(x), Ends(y), "inside", name)


@given(st.lists(st.floats(1e-3, 1e5), min_size=1, max_size=5))
def test_a_latency_axis_holds_its_values(values: list[float]) -> None:
    """Every value is inside, and there are few ticks that rise, at least one of them."""
    axis = latency_axis(values)
    assert axis.low <= min(values) <= max(values) <= axis.high
    assert 1 <= len(axis.ticks) <= 8
    assert list(axis.ticks) == sorted(set(axis.ticks))
    assert axis.low <= axis.ticks[0] <= axis.ticks[-1] <= axis.high


@given(st.floats(-1e3, 1e3), st.floats(0, 1e3))
def test_a_tight_axis_is_never_empty(low: float, span: float) -> None:
    """One value alone has an axis too."""
    axis = tight_axis(low, low + span)
    assert axis.low < low <= low + span < axis.high
    assert 1 <= len(axis.ticks) <= 7


def test_a_latency_axis_is_logarithmic_where_values_are_far_apart() -> None:
    """Close values are told apart on a linear axis, far ones on a logarithmic one."""
    assert not latency_axis([3.0, 9.0]).logarithmic
    axis = latency_axis([3.0, 31.0])
    assert axis.logarithmic
    assert axis.ticks == (5.0, 10.0, 20.0)


def test_one_value_has_a_logarithmic_axis_too() -> None:
    """Its ends differ."""
    axis = logarithmic_axis(1.0, 1.0)
    assert axis.low < 1.0 < axis.high


@pytest.mark.parametrize(("up", "names"), [(True, ["a", "c", "d"]), (False, ["a"])])
def test_the_frontier_is_what_nothing_beats(up: bool, names: list[str]) -> None:  # noqa: FBT001 - a parameter of the test
    """The fastest begins it, and each that follows is better than those before."""
    marks = [mark("d", 9, 5), mark("b", 3, 0), mark("a", 2, 1), mark("c", 4, 3), mark("e", 9, 4)]
    if not up:
        marks.append(mark("f", 3, 1))
        marks.remove(marks[1])
    assert [each.name for each in frontier(marks, up=up)] == names

"""Histograms that grow, and the ranges read off them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from headrace_compiler.histogram import Histogram

VALUES = arrays(
    np.float32,
    st.integers(1, 50),
    elements=st.floats(-1e6, 1e6, width=32).filter(lambda value: value == 0 or abs(value) > 1e-6),
)


def counted(*portions: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> Histogram:
    """A histogram of these portions, in this order."""
    histogram = Histogram()
    assert all(histogram.add(portion) for portion in portions)
    return histogram


def ranges(histogram: Histogram) -> tuple[tuple[float, float], ...]:
    """By every method."""
    return histogram.minmax(), histogram.percentile(0.9), histogram.entropy()


@given(values=VALUES, cut=st.integers(0, 50), seed=st.integers(0, 9))
def test_ranges_do_not_depend_on_order_or_portions(
    values: np.ndarray[tuple[int, ...], np.dtype[np.float32]], cut: int, seed: int
) -> None:
    """The same values give the same ranges however they come, although the span grows."""
    shuffled = np.random.default_rng(seed).permutation(values)
    whole, parts = counted(values), counted(shuffled[:cut], shuffled[cut:])
    assert np.array_equal(whole.counts, parts.counts)
    assert ranges(whole) == ranges(parts)


@given(values=VALUES)
def test_ranges_lie_inside_what_was_seen(
    values: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
) -> None:
    """No method invents a value, and every value is counted once."""
    histogram = counted(values)
    assert histogram.counts.sum() == values.size
    least, largest = float(values.min()), float(values.max())
    assert histogram.minmax() == (least, largest)
    for low, high in ranges(histogram):
        assert least <= low <= high <= largest


def test_a_percentile_leaves_out_outliers() -> None:
    """Of 20,000 values, one that lies a hundred times further is not in the range."""
    values = np.random.default_rng(0).standard_normal(20_000, np.float32)
    values[7] = 500.0
    low, high = counted(values).percentile(0.999)
    assert -4.5 < low < -3
    assert 3 < high < 4.5


def test_entropy_cuts_a_long_tail_and_keeps_a_short_one() -> None:
    """Values that are few and far are clipped; where the values end at once, none are."""
    generator = np.random.default_rng(0)
    values = generator.standard_normal(200_000).astype(np.float32)
    values[:20] = 100.0
    assert counted(values).entropy()[1] < 50
    flat = generator.uniform(-1, 1, 200_000).astype(np.float32)
    low, high = counted(flat).entropy()
    assert low < -0.95
    assert high > 0.95


def test_zeros_do_not_decide_the_entropy_range() -> None:
    """After a rectifier most values are exactly zero, which int8 holds in any range."""
    generator = np.random.default_rng(0)
    values = generator.uniform(0, 6, 10_000).astype(np.float32)
    values[:8_000] = 0
    low, high = counted(values).entropy()
    assert low == 0
    assert high > 5.5


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_not_counted(bad: float) -> None:
    """A portion with NaN or infinity is refused as a whole."""
    histogram = counted(np.ones(3, np.float32))
    assert not histogram.add(np.array([1, bad], np.float32))
    assert histogram.counts.sum() == 3
    assert histogram.minmax() == (1.0, 1.0)


def test_nothing_and_zeros_have_the_empty_range() -> None:
    """A tensor that was always empty, or always zero, ranges from zero to zero."""
    assert ranges(counted(np.zeros((0, 4), np.float32))) == ((0.0, 0.0),) * 3
    assert ranges(counted(np.zeros((2, 4), np.float32))) == ((0.0, 0.0),) * 3

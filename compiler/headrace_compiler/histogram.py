"""Histograms that grow with what they see, and the ranges that can be read off them.

Bins are powers of two wide and nest exactly, so the counts depend on the values alone and not on
the order or the portions in which they come.
"""

import numpy as np
import numpy.typing as npt

from headrace.tensors import Array

_HALF = 2048
"""Bins on each side of zero; at least half of them are in use, as the span is a power of two."""
_LEVELS = 256
"""Steps of an int8 range."""
_STRIDE = 32
"""Bins by which the ranges differ that are tried for the least divergence."""
_SMALLEST = -64
"""The exponent below which a span is no smaller."""
Counts = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]


class Histogram:
    """Counts of values between -2**exponent and 2**exponent, with their least and largest."""

    def __init__(self) -> None:
        self.low = np.inf
        self.high = -np.inf
        self._exponent = _SMALLEST
        self.counts: Counts = np.zeros(2 * _HALF, np.int64)
        self._zeros = 0

    def add(self, values: Array) -> bool:
        """Counts float32 values of any shape.

        Returns:
            False, and counts nothing, if one of them is NaN or infinite.
        """
        if not values.size:
            return True
        low, high = float(values.min()), float(values.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            return False
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._widen(int(np.frexp(max(abs(low), abs(high)))[1]))
        exponent = _HALF.bit_length() - 1 - self._exponent
        scaled = np.ravel(values).astype(np.float32) * np.float32(2.0**exponent)
        places = np.floor(scaled, out=scaled).astype(np.int32)
        self.counts += np.bincount(places + _HALF, minlength=2 * _HALF)
        self._zeros += values.size - int(np.count_nonzero(values))
        return True

    def minmax(self) -> tuple[float, float]:
        """From the least to the largest value."""
        return (self.low, self.high) if self.low <= self.high else (0.0, 0.0)

    def percentile(self, share: float) -> tuple[float, float]:
        """A range that leaves out at most `1 - share` of the values, half of it on either side."""
        total = np.cumsum(self.counts)
        if not total[-1]:
            return self.minmax()
        outside = (1.0 - share) / 2 * total[-1]
        first = int(np.searchsorted(total, outside, side="right"))
        last = int(np.searchsorted(total, total[-1] - outside, side="left"))
        return self._between(first, last + 1)

    def entropy(self) -> tuple[float, float]:
        """The range, cut to one size on both sides of zero, that loses the least information.

        That is the least Kullback-Leibler divergence between the values clipped to the range and
        the same in as many steps as int8 has: Migacz, "8-bit inference with TensorRT", 2017.
        Zeros are left out, as int8 holds them exactly in any range.
        """
        counts = self.counts.astype(np.float64)
        counts[_HALF] -= self._zeros
        if not counts.any():
            return self.minmax()
        cuts = [self._cut(half) for half in range(_LEVELS // 2, _HALF + 1, _STRIDE)]
        # Of two that lose as little, the wider one.
        return self._between(*min(reversed(cuts), key=lambda cut: _divergence(counts, *cut)))

    def _cut(self, half: int) -> tuple[int, int]:
        """The first bin and the end of a range: on one side of zero where all values are."""
        first = _HALF if self.low >= 0 else _HALF - half
        return first, (_HALF if self.high <= 0 < -self.low else _HALF + half)

    def _widen(self, exponent: int) -> None:
        """Makes room for values below 2**exponent: two bins become one, as often as it takes."""
        for _ in range(min(exponent - self._exponent, 2 * _HALF.bit_length())):
            merged = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.pad(merged, _HALF // 2)
        self._exponent = max(self._exponent, exponent)

    def _between(self, first: int, end: int) -> tuple[float, float]:
        width = 2.0**self._exponent / _HALF
        low, high = (first - _HALF) * width, (end - _HALF) * width
        return max(low, self.low), min(high, self.high)


def _kullback_leibler(wanted: Reals, got: Reals) -> float:
    """Of two counts of the same bins; a bin that `got` lacks counts as one with next to nothing."""
    smooth = 1e-9
    p = wanted / wanted.sum()
    q = got / max(got.sum(), 1.0) + smooth
    used = p > 0
    return float(np.sum(p[used] * np.log(p[used] / q[used])))


def _divergence(counts: Reals, first: int, end: int) -> float:
    """How much information is lost by clipping to some of the bins, and then taking steps."""
    inside = counts[first:end]
    clipped = inside.copy()
    clipped[0] += counts[:first].sum()
    clipped[-1] += counts[end:].sum()
    steps = np.arange(len(inside)) * _LEVELS // len(inside)
    used = inside > 0
    sums = np.bincount(steps, weights=inside, minlength=_LEVELS)
    members = np.bincount(steps, weights=used.astype(np.float64), minlength=_LEVELS)
    mean = np.divide(sums, members, out=np.zeros_like(sums), where=members > 0)
    found = _kullback_leibler(clipped, np.where(used, mean[steps], 0.0))
    # Of so few counts, merging this many bins is expected to lose this much by chance alone.
    merged = int(used.sum()) - int((members > 0).sum())
    return found - merged / (2.0 * float(clipped.sum()))

"""Where values lie on an axis, and which of them are marked. It knows no markup."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

LOGARITHMIC_FROM = 20.0
"""The factor between the largest and the smallest value from which an axis is logarithmic."""
MOST_TICKS = 5
_NEARLY, _TINY = 1e-9, 1e-100
_POINTS_LOGARITHMIC_FROM = 4.0  # points, unlike bars, need no 0 on their axis


@dataclass(frozen=True)
class Axis:
    """From `low` to `high`."""

    low: float
    high: float
    logarithmic: bool
    ticks: tuple[float, ...]

    def place(self, value: float) -> float:
        """Where a value lies, from 0 to 1; values beyond an end lie on it."""
        value = min(max(value, self.low), self.high)
        if self.logarithmic:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def axis_from_zero(top: float) -> Axis:
    """A linear axis from 0 over `top`, for values that are not negative."""
    step = round_up(top / (MOST_TICKS - 1)) if top > _TINY else 1.0
    count = max(1, math.ceil(top / step - _NEARLY))
    ticks = tuple(float(f"{step * number:.6g}") for number in range(count + 1))
    return Axis(0.0, ticks[-1], logarithmic=False, ticks=ticks)


def logarithmic_axis(low: float, high: float) -> Axis:
    """A logarithmic axis over values above 0; its ends are round numbers, and differ."""
    bottom, top = round_down(low), round_up(high)
    if bottom == top:
        bottom, top = round_down(low / 2), round_up(high * 2)
    return Axis(bottom, top, logarithmic=True, ticks=_decades(bottom, top))


def tight_axis(low: float, high: float) -> Axis:
    """A linear axis just over a range; its ticks are round numbers inside."""
    size = max(abs(low), abs(high))
    if high - low <= max(_NEARLY * size, _TINY):
        margin = size / 10 if size > _TINY else 1.0
        low, high = low - margin, high + margin
    margin = (high - low) / 12
    low, high = low - margin, high + margin
    step = round_up((high - low) / MOST_TICKS)
    numbers = range(math.ceil(low / step), math.floor(high / step) + 1)
    ticks = tuple(float(f"{step * number:.9g}") for number in numbers)
    return Axis(low, high, logarithmic=False, ticks=ticks)


def latency_axis(values: Sequence[float]) -> Axis:
    """The axis for points in time, all above 0: tight, and logarithmic where they are far apart."""
    high = max(values)
    low = max(min(values), _NEARLY * high)
    if high < _TINY or high / low < _POINTS_LOGARITHMIC_FROM:
        return tight_axis(low, high)
    margin = (high / low) ** 0.08
    low, high = low / margin, high * margin
    return Axis(low, high, logarithmic=True, ticks=_round_between(low, high))


def round_up(value: float) -> float:
    """The next number of 1, 2 or 5 times a power of ten, upwards."""
    power = 10.0 ** math.floor(math.log10(value))
    found = next(n for n in (1, 2, 5, 10) if n * power >= value * (1 - _NEARLY))
    return float(f"{found * power:.6g}")


def round_down(value: float) -> float:
    """As `round_up`, downwards."""
    power = 10.0 ** math.floor(math.log10(value))
    found = next(n for n in (10, 5, 2, 1) if n * power <= value * (1 + _NEARLY))
    return float(f"{found * power:.6g}")


def _round_between(low: float, high: float) -> tuple[float, ...]:
    """Round numbers between two that are a factor of 4 apart or more; few, and at least two."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 5), (1,)):
        values = [float(f"{digit * 10.0**power:.6g}") for power in powers for digit in digits]
        found = tuple(value for value in values if low <= value <= high)
        if len(found) <= MOST_TICKS + 2:
            return found
    return found[:: math.ceil(len(found) / MOST_TICKS)]


def _decades(low: float, high: float) -> tuple[float, ...]:
    """Both ends, and powers of ten between them, so few that their labels do not meet."""
    first, last = math.floor(math.log10(low)) + 1, math.ceil(math.log10(high)) - 1
    step = max(1, math.ceil((last - first + 1) / (MOST_TICKS - 2)))
    length = math.log10(high / low)
    inner = [10.0**power for power in range(first, last + 1, step)]
    kept = [v for v in inner if 0.15 < math.log10(v / low) / length < 0.85]
    return (low, *kept, high)

"""What every report says alike: figures with their units, intervals, text that is safe to show."""

import math
from collections.abc import Sequence

from headrace.commands.screen import visible

DASH, TIMES = "\N{EN DASH}", "\N{MULTIPLICATION SIGN}"
NOTHING = DASH
REASON_LENGTH = 400
"""Characters of a reason that are shown."""
UNBOUNDED = 1e9
"""What stands for an end that is not known, and all above it."""


def plain(text: str, limit: int = REASON_LENGTH) -> str:
    """Text from a process or a file on one line, without what would steer a terminal."""
    line = visible(" ".join(text.split()))
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def figure(value: float) -> str:
    """A number with three digits that matter; whole ones above a thousand."""
    if not math.isfinite(value):
        return NOTHING if math.isnan(value) else ("∞" if value > 0 else "-∞")
    size = abs(value)
    if isinstance(value, int) or not size:
        return f"{value:,.0f}"
    if size >= UNBOUNDED or size < 1e-3:
        return f"{value:.2e}"
    return f"{value:,.{decimals(value)}f}"


def quantity(value: float, unit: str) -> str:
    """A number with its unit."""
    written = {"1": "", "1/s": "/s"}.get(unit, f" {plain(unit, 20)}")
    return f"{figure(value)}{written}".rstrip()


def spread(low: float | None, high: float | None, unit: str = "1") -> str:
    """An interval; empty where there is none."""
    if low is None or high is None:
        return ""
    return f"({figure(low)}{DASH}{quantity(high, unit)})"


def percent(share: float) -> str:
    """A share of one in percent."""
    return f"{100 * share:.3g} %"


def decimals(value: float) -> int:
    """So many that three digits matter."""
    if not math.isfinite(value) or not value:
        return 0
    return max(0, 2 - math.floor(math.log10(abs(value))))


def count(number: int, noun: str) -> str:
    """A number of things."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def listed(words: Sequence[str]) -> str:
    """Words as a sentence has them: `a, b and c`."""
    *front, last = words or ("",)
    return f"{', '.join(front)} and {last}" if front else last

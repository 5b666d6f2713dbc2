"""A chart of bars below each other; the geometry is apart from the drawing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from headrace_compiler.report.axis import (
    LOGARITHMIC_FROM,
    Axis,
    axis_from_zero,
    logarithmic_axis,
)
from headrace_compiler.report.markup import Markup, tag
from headrace_compiler.report.svg import (
    FOOT,
    HALF,
    PITCH,
    TOP,
    at,
    interval,
    level,
    short,
    svg,
    text,
    tick,
)
from headrace_compiler.report.text import plain


@dataclass(frozen=True)
class Bar:
    """A row of a chart.

    Attributes:
        low: Lower end of the interval, where there is one.
        high: Upper end of it.
        label: The value as it is written.
        own: Whether it stands out.
    """

    name: str
    value: float
    low: float | None
    high: float | None
    label: str
    own: bool

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both ends, if there are both."""
        if self.low is None or self.high is None or math.isnan(self.low + self.high):
            return None
        return self.low, self.high


def make_axis(bars: Sequence[Bar]) -> Axis:
    """The axis for values that are not negative; a linear one begins at 0.

    Logarithmic, where the largest is many times the smallest: on a linear one the small ones could
    not be told apart. An interval's end counts up to twice the largest value.
    """
    values = [bar.value for bar in bars]
    smallest, largest = min(values, default=0.0), max(values, default=0.0)
    ends = [bar.high for bar in bars if bar.high is not None and math.isfinite(bar.high)]
    top = max([largest, *(min(end, 2 * largest) for end in ends)])
    if smallest > 0 and largest / smallest >= LOGARITHMIC_FROM:
        starts = [bar.low for bar in bars if bar.low is not None]
        return logarithmic_axis(min([smallest, *(max(s, smallest / 2) for s in starts)]), top)
    return axis_from_zero(top)


def bar_chart(title: str, bars: Sequence[Bar]) -> Markup:
    """Bars from 0 below each other, or points where the axis is logarithmic.

    A bar's length would say nothing there, since a logarithmic axis has no 0.
    """
    axis = make_axis(bars)
    height = PITCH * len(bars)
    parts = [tick(f"{value:,.6g}", axis.place(value), height) for value in axis.ticks]
    for number, bar in enumerate(bars):
        parts.append(_bar(bar, axis, PITCH * number))
    return svg(title, height + FOOT, parts)


def _bar(bar: Bar, axis: Axis, top: int) -> Markup:
    middle = top + TOP
    return tag(
        "g",
        tag("title", f"{plain(bar.name)}: {bar.label}"),
        text(short(bar.name), "name", 0.0, top + 14),
        text(bar.label, "value", 1.0, top + 14),
        *(_point_of if axis.logarithmic else _bar_of)(bar, axis, middle),
        class_="row own" if bar.own else "row",
    )


def _bar_of(bar: Bar, axis: Axis, middle: int) -> list[Markup]:
    """A bar, and its interval as a line with caps over its end."""
    width, top = at(axis.place(bar.value)), middle - HALF
    parts = [tag("rect", class_="mark", width=width, y=top, height=2 * HALF, rx=1)]
    ends = bar.interval
    if ends:
        inside = (ends[0] >= axis.low, ends[1] <= axis.high)
        parts.append(interval((axis.place(ends[0]), axis.place(ends[1])), inside, middle))
    return parts


def _point_of(bar: Bar, axis: Axis, middle: int) -> list[Markup]:
    """A point, and its interval as a band behind it: most are narrower than the point."""
    parts = [level("track", 0, 1, middle)]
    if bar.interval:
        low, high = bar.interval
        parts.append(level("range", axis.place(low), axis.place(high), middle))
    point = tag("circle", class_="mark", cx=at(axis.place(bar.value)), cy=middle, r=HALF)
    return [*parts, point]

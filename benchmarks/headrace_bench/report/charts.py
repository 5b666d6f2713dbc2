"""Charts as inline SVG: across in percent, down in pixels, so that text never scales.

The geometry (axes, ticks, places) is apart from the drawing, and knows no markup.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from headrace_bench.report.cells import TIMES, plain
from headrace_bench.report.markup import Markup, tag
from headrace_bench.statistics import Verdict

NAME_LENGTH = 24
"""Characters of a name in a chart; the table beside it has all of them."""
_PITCH, _TOP, _FOOT = 46, 27, 24  # of a row: its height, where its mark lies; the axis below
_HALF = 5  # of a bar's height, and of a point's
_LOGARITHMIC_FROM = 20.0
_MOST_TICKS = 5
_ARROWS = "\N{LEFTWARDS ARROW}", "\N{RIGHTWARDS ARROW}"
_FACTORS = (1.02, 1.05, 1.1, 1.2, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0, 1000.0)


@dataclass(frozen=True)
class Bar:
    """A contestant in a chart.

    Attributes:
        low: Lower end of the interval, where there is one.
        high: Upper end of it.
        label: The value as it is written.
        own: Whether it is headrace.
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


@dataclass(frozen=True)
class Change:
    """A metric in a forest plot.

    Attributes:
        factor: By which head is worse than base; below 1 it is better.
        low: Lower end of its interval.
        high: Upper end of it.
        label: Both values as they are written.
    """

    name: str
    factor: float
    low: float
    high: float
    verdict: Verdict
    label: str


@dataclass(frozen=True)
class Axis:
    """From `low` to `high`; a linear one begins at 0."""

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


def make_axis(bars: Sequence[Bar]) -> Axis:
    """The axis for values that are not negative.

    Logarithmic, where the largest is many times the smallest: on a linear one the small ones could
    not be told apart. An interval's end counts up to twice the largest value.
    """
    values = [bar.value for bar in bars]
    smallest, largest = min(values, default=0.0), max(values, default=0.0)
    ends = [bar.high for bar in bars if bar.high is not None and math.isfinite(bar.high)]
    top = max([largest, *(min(end, 2 * largest) for end in ends)])
    if smallest > 0 and largest / smallest >= _LOGARITHMIC_FROM:
        starts = [bar.low for bar in bars if bar.low is not None]
        bottom = min([smallest, *(max(start, smallest / 2) for start in starts)])
        low, high = _round_down(bottom), _round_up(top)
        return Axis(low, high, logarithmic=True, ticks=_decades(low, high))
    step = _round_up(top / (_MOST_TICKS - 1)) if top > 0 else 1.0
    count = max(1, math.ceil(top / step - 1e-9))
    ticks = tuple(float(f"{step * number:.6g}") for number in range(count + 1))
    return Axis(0.0, ticks[-1], logarithmic=False, ticks=ticks)


def reach(changes: Sequence[Change], threshold: float) -> float:
    """How far the axis of a forest plot goes to both sides of 1, as a factor.

    Every estimate and the threshold lie well inside; intervals count up to a limit, so that one
    that says nothing does not hide the others.
    """
    band = math.log1p(threshold)
    far = max([_distance(change.factor) for change in changes], default=0.0)
    ends = [_distance(end) for change in changes for end in (change.low, change.high)]
    widest = min(max(ends, default=0.0), max(2.5 * far, 4 * band))
    return math.exp(max(2 * band, 1.15 * far, 1.08 * widest))


def factor_place(factor: float, far: float) -> float:
    """Where a factor lies on an axis from `1 / far` to `far`, from 0 to 1."""
    if factor <= 0:
        return 0.0
    return min(1.0, max(0.0, 0.5 + 0.5 * math.log(factor) / math.log(far)))


def factor_ticks(threshold: float, far: float) -> tuple[float, ...]:
    """Factors above 1 to mark, as do their inverses: the threshold's, and one further out.

    Labels that would meet are left out.
    """
    edge = factor_place(1 + threshold, far)
    outer = [each for each in _FACTORS if edge + 0.15 < factor_place(each, far) < 0.94]
    inner = [1 + threshold] if edge > 0.58 else []
    return (*inner, *outer[-1:])


def bar_chart(title: str, bars: Sequence[Bar]) -> Markup:
    """Contestants below each other: bars from 0, or points where the axis is logarithmic.

    A bar's length would say nothing there, since a logarithmic axis has no 0.
    """
    axis = make_axis(bars)
    height = _PITCH * len(bars)
    parts = [_tick(f"{value:,.6g}", axis.place(value), height) for value in axis.ticks]
    for number, bar in enumerate(bars):
        parts.append(_bar(bar, axis, _PITCH * number))
    return _svg(title, height + _FOOT, parts)


def forest_plot(title: str, changes: Sequence[Change], threshold: float) -> Markup:
    """Factors with their intervals around 1, worse to the right; the threshold's band is shaded."""
    far, height = reach(changes, threshold), _PITCH * len(changes)
    edge = factor_place(1 + threshold, far)
    parts = [
        tag("rect", class_="band", x=_at(1 - edge), width=_at(2 * edge - 1), y=0, height=height),
        tag("line", class_="even", x1="50%", x2="50%", y1=0, y2=height),
    ]
    for factor in factor_ticks(threshold, far):
        place = factor_place(factor, far)
        parts += [_tick(_times(factor), side, height) for side in (1 - place, place)]
    for text, place in (("← better", 0.0), ("equal", 0.5), ("worse →", 1.0)):
        parts.append(_text(text, "tick", place, height + 34))
    for number, change in enumerate(changes):
        parts.append(_change(change, far, _PITCH * number))
    return _svg(title, height + _FOOT + 18, parts)


def _bar(bar: Bar, axis: Axis, top: int) -> Markup:
    middle = top + _TOP
    return tag(
        "g",
        tag("title", f"{plain(bar.name)}: {bar.label}"),
        _text(_short(bar.name), "name", 0.0, top + 14),
        _text(bar.label, "value", 1.0, top + 14),
        *(_point_of if axis.logarithmic else _bar_of)(bar, axis, middle),
        class_="row own" if bar.own else "row",
    )


def _bar_of(bar: Bar, axis: Axis, middle: int) -> list[Markup]:
    """A bar, and its interval as a line with caps over its end."""
    width, top = _at(axis.place(bar.value)), middle - _HALF
    parts = [tag("rect", class_="mark", width=width, y=top, height=2 * _HALF, rx=1)]
    ends = bar.interval
    if ends:
        inside = (ends[0] >= axis.low, ends[1] <= axis.high)
        parts.append(_interval((axis.place(ends[0]), axis.place(ends[1])), inside, middle))
    return parts


def _point_of(bar: Bar, axis: Axis, middle: int) -> list[Markup]:
    """A point, and its interval as a band behind it: most are narrower than the point."""
    parts = [_line("track", 0, 1, middle)]
    if bar.interval:
        low, high = bar.interval
        parts.append(_line("range", axis.place(low), axis.place(high), middle))
    point = tag("circle", class_="mark", cx=_at(axis.place(bar.value)), cy=middle, r=_HALF)
    return [*parts, point]


def _change(change: Change, far: float, top: int) -> Markup:
    middle = top + _TOP
    inside = (change.low >= 1 / far, change.high <= far)
    ends = (factor_place(change.low, far), factor_place(change.high, far))
    return tag(
        "g",
        tag("title", f"{plain(change.name)}: {change.label}"),
        _text(_short(change.name), "name", 0.0, top + 14),
        _text(change.verdict, "value", 1.0, top + 14),
        _interval(ends, inside, middle),
        tag("circle", class_="mark", cx=_at(factor_place(change.factor, far)), cy=middle, r=_HALF),
        class_=f"row {verdict_class(change.verdict)}",
    )


def verdict_class(verdict: Verdict) -> str:
    """The class of the style sheet that a verdict is drawn with."""
    return verdict.partition(" ")[0]


def _interval(ends: tuple[float, float], inside: tuple[bool, bool], middle: int) -> Markup:
    """A line with a cap at each end that the axis reaches, and an arrow at each it does not."""
    parts = [_line(kind, *ends, middle) for kind in ("halo", "whisker")]
    for place, within, arrow in zip(ends, inside, _ARROWS, strict=True):
        if within:
            y1, y2 = middle - _HALF + 1, middle + _HALF - 1
            parts.append(tag("line", class_="whisker", x1=_at(place), x2=_at(place), y1=y1, y2=y2))
        else:
            parts.append(_text(arrow, "arrow", place, middle + 5))
    return Markup.joined(*parts)


def _line(kind: str, start: float, end: float, y: int) -> Markup:
    return tag("line", class_=kind, x1=_at(start), x2=_at(end), y1=y, y2=y)


def _tick(label: str, place: float, height: int) -> Markup:
    line = tag("line", class_="grid", x1=_at(place), x2=_at(place), y1=0, y2=height)
    return Markup.joined(line, _text(label, "tick", place, height + 16))


def _text(text: str, kind: str, place: float, y: int) -> Markup:
    """Text at a place; at the ends of the chart it stays inside."""
    anchor = "start" if place < 0.02 else "end" if place > 0.98 else "middle"
    return tag("text", text, class_=kind, x=_at(place), y=y, text_anchor=anchor)


def _svg(title: str, height: int, parts: Sequence[Markup]) -> Markup:
    return tag("svg", tag("title", title), *parts, role="img", width="100%", height=height)


def _at(place: float) -> str:
    return f"{100 * place:.2f}%"


def _times(factor: float) -> str:
    return f"{factor:.4g}{TIMES}"


def _short(name: str) -> str:
    return plain(name, NAME_LENGTH)


def _distance(factor: float) -> float:
    """From 1, on a logarithmic axis; of what is no finite factor, as far as any axis goes."""
    largest = math.log(_FACTORS[-1])
    return min(abs(math.log(factor)), largest) if 0 < factor < math.inf else largest


def _round_up(value: float) -> float:
    """The next number of 1, 2 or 5 times a power of ten, upwards."""
    power = 10.0 ** math.floor(math.log10(value))
    found = next(n for n in (1, 2, 5, 10) if n * power >= value * (1 - 1e-9))
    return float(f"{found * power:.6g}")


def _round_down(value: float) -> float:
    """As `_round_up`, downwards."""
    power = 10.0 ** math.floor(math.log10(value))
    found = next(n for n in (10, 5, 2, 1) if n * power <= value * (1 + 1e-9))
    return float(f"{found * power:.6g}")


def _decades(low: float, high: float) -> tuple[float, ...]:
    """Both ends, and powers of ten between them, so few that their labels do not meet."""
    first, last = math.floor(math.log10(low)) + 1, math.ceil(math.log10(high)) - 1
    step = max(1, math.ceil((last - first + 1) / (_MOST_TICKS - 2)))
    length = math.log10(high / low)
    inner = [10.0**power for power in range(first, last + 1, step)]
    kept = [v for v in inner if 0.15 < math.log10(v / low) / length < 0.85]
    return (low, *kept, high)

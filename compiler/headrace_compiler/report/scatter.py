"""Marks over two axes with their intervals, the frontier, a limit, and names that do not meet."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from headrace_compiler.report.axis import Axis
from headrace_compiler.report.labels import (
    Box,
    Spot,
    Widths,
    clear,
    mark_box,
    place_labels,
    text_width,
)
from headrace_compiler.report.markup import Markup, tag
from headrace_compiler.report.svg import at, level, svg, text, upright

HEIGHT = 300
_TOP = 14  # over the plot, for the unit
_LAYERS: tuple[tuple[str, Widths], ...] = (
    ("small", (200, 330)),
    ("medium", (330, 520)),
    ("large", (520, 1100)),
)
"""The names that fit, by the width of the plot; the style sheet shows one of them."""
_RADIUS, _RING = 5, 9
_NAME_LENGTH = 30
Kind = Literal["chosen", "inside", "outside"]


@dataclass(frozen=True)
class Ends:
    """A value with its interval; no ends where it is not known."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def span(self) -> tuple[float, float] | None:
        """Both ends, if there are both."""
        return None if self.low is None or self.high is None else (self.low, self.high)


@dataclass(frozen=True)
class Mark:
    """A candidate in the picture.

    Attributes:
        x: The less, the better.
        kind: `chosen` is ringed, `outside` is hollow.
        said: What it stands for, for those who point at it or hear it.
    """

    name: str
    x: Ends
    y: Ends
    kind: Kind
    said: str


@dataclass(frozen=True)
class Plot:
    """Where marks lie.

    Attributes:
        up: Whether more is better on the `y` axis.
        ticks: Labels of the ticks of both axes.
        units: Of both axes.
        limit: Where on the `y` axis marks turn hollow; None where that is not shown.
        limit_name: What is written at it.
    """

    x: Axis
    y: Axis
    up: bool
    ticks: tuple[Sequence[str], Sequence[str]]
    units: tuple[str, str]
    limit: float | None = None
    limit_name: str = ""

    def down(self, value: float) -> int:
        """Pixels from the top."""
        return round(_TOP + HEIGHT * (1 - self.y.place(value)))


def frontier(marks: Iterable[Mark], *, up: bool) -> tuple[Mark, ...]:
    """The marks that no other one beats on both axes, the fastest first."""

    def badness(mark: Mark) -> float:
        return -mark.y.value if up else mark.y.value

    kept: list[Mark] = []
    for mark in sorted(marks, key=lambda mark: (mark.x.value, badness(mark))):
        if not kept or badness(mark) < badness(kept[-1]):
            kept.append(mark)
    return tuple(kept)


def scatter(title: str, marks: Sequence[Mark], plot: Plot) -> Markup:
    """The picture; the name of the first mark matters, as do those on the frontier."""
    best = frontier(marks, up=plot.up)
    named = (marks[0], *best)
    ranked = sorted(marks, key=lambda mark: (mark.kind != "chosen", mark not in named))
    name = _limit_name(marks, plot)
    parts = _grid(plot)
    if plot.limit is not None:
        parts.append(level("budget", 0, 1, plot.down(plot.limit)))
    parts += [*_steps(best, plot), *(_mark(mark, plot) for mark in reversed(ranked))]
    fixed = [name] if name else []
    for box in fixed:
        parts.append(text(plot.limit_name, "budget", box.place, round(box.bottom) + _TOP - 3))
    parts += [_names(ranked, plot, fixed, kind, widths) for kind, widths in _LAYERS]
    return svg(title, HEIGHT + _TOP + 40, parts, "plot")


def _grid(plot: Plot) -> list[Markup]:
    bottom = HEIGHT + _TOP
    parts = [tag("text", plot.units[1], class_="tick", x=0, y=3, dx=-8, text_anchor="start")]
    for value, label in zip(plot.y.ticks, plot.ticks[1], strict=True):
        y = plot.down(value)
        parts.append(level("grid", 0, 1, y))
        parts.append(tag("text", label, class_="tick", x=0, dx=-8, y=y + 4, text_anchor="end"))
    for value, label in zip(plot.x.ticks, plot.ticks[0], strict=True):
        place = plot.x.place(value)
        parts.append(upright("grid", place, _TOP, bottom))
        parts.append(text(label, "tick", place, bottom + 16))
    return [*parts, text(plot.units[0], "tick", 1.0, bottom + 33)]


def _limit_name(marks: Sequence[Mark], plot: Plot) -> Box | None:
    """Where the name of the limit stands: by its line, where no mark or upright line is."""
    if plot.limit is None:
        return None
    y, width = plot.down(plot.limit) - _TOP, text_width(plot.limit_name, bold=False)
    inner = [(place, -width / 2, width / 2) for place in (0.5, 0.67, 0.33, 0.83)]
    along = ((1.0, -width, 0.0), (0.0, 0.0, width), *inner)
    places = [Box(*across, y + foot - 11, y + foot + 3) for foot in (14, -5) for across in along]
    widths = (_LAYERS[0][1][0], _LAYERS[-1][1][1])
    whole = [_whole(mark, plot) for mark in marks]
    bare = [mark_box(spot) for spot in _spots(marks, plot)]
    free = (box for taken in (whole, bare) for box in places if _is_free(box, taken, widths))
    return next(free, places[0])


def _is_free(box: Box, taken: Sequence[Box], widths: Widths) -> bool:
    return all(clear(box, each, widths) for each in taken)


def _whole(mark: Mark, plot: Plot) -> Box:
    """The room of a mark with its upright line."""
    ends = [plot.down(end) - _TOP for end in (mark.y.value, *(mark.y.span or ()))]
    return Box(plot.x.place(mark.x.value), -_RING, _RING, min(ends) - _RADIUS, max(ends) + _RADIUS)


def _steps(best: Sequence[Mark], plot: Plot) -> list[Markup]:
    """The frontier: what is to be had at most for a latency."""
    parts = []
    for one, other in pairwise(best):
        here, there = plot.x.place(one.x.value), plot.x.place(other.x.value)
        y = plot.down(one.y.value)
        parts.append(level("frontier", here, there, y))
        parts.append(upright("frontier", there, *sorted((y, plot.down(other.y.value)))))
    return parts


def _mark(mark: Mark, plot: Plot) -> Markup:
    place, y = plot.x.place(mark.x.value), plot.down(mark.y.value)
    parts = [tag("title", mark.said)]
    if mark.x.span:
        low, high = mark.x.span
        parts.append(level("error", plot.x.place(low), plot.x.place(high), y))
    if mark.y.span:
        low, high = mark.y.span
        parts.append(upright("error", place, plot.down(high), plot.down(low)))
    if mark.kind == "chosen":
        parts.append(tag("circle", class_="ring", cx=at(place), cy=y, r=_RING))
    parts.append(tag("circle", class_="mark", cx=at(place), cy=y, r=_RADIUS))
    return tag("g", *parts, class_=mark.kind)


def _spots(marks: Sequence[Mark], plot: Plot) -> list[Spot]:
    """Where marks lie in the plot, from its top."""
    return [
        Spot(
            name=_shown(mark, plot),
            place=plot.x.place(mark.x.value),
            y=plot.down(mark.y.value) - _TOP,
            radius=_RING if mark.kind == "chosen" else _RADIUS,
            bold=mark.kind == "chosen",
        )
        for mark in marks
    ]


def _names(
    marks: Sequence[Mark], plot: Plot, fixed: Sequence[Box], kind: str, widths: Widths
) -> Markup:
    spots = _spots(marks, plot)
    kinds = {id(spot): mark.kind for spot, mark in zip(spots, marks, strict=True)}
    labels = [
        tag(
            "text",
            label.spot.name,
            class_=kinds[id(label.spot)],
            x=at(label.spot.place),
            dx=label.dx,
            y=label.y + _TOP,
            text_anchor=label.anchor,
        )
        for label in place_labels(spots, fixed, widths, HEIGHT)
    ]
    return tag("g", *labels, class_=f"names {kind}", aria_hidden="true")


def _shown(mark: Mark, plot: Plot) -> str:
    """The name, with an arrow where the axis does not reach so far."""
    name = mark.name if len(mark.name) <= _NAME_LENGTH else f"{mark.name[: _NAME_LENGTH - 1]}…"
    if mark.y.value < plot.y.low:
        return f"{name} ↓"
    return f"{name} ↑" if mark.y.value > plot.y.high else name

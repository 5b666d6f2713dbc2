"""Lines over the batch size, each named at its end."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from headrace_compiler.report.axis import Axis
from headrace_compiler.report.labels import spread_out
from headrace_compiler.report.markup import Markup, tag
from headrace_compiler.report.svg import at, level, svg, text, upright

_HEIGHT, _TOP, _LINE = 210, 14, 14


@dataclass(frozen=True)
class Curve:
    """One line.

    Attributes:
        label: What is written at its end.
        said: What each of its points stands for.
        points: Batch size and value, by batch size.
        own: Whether it is drawn through, and stands out; the others are dashed.
    """

    label: str
    said: str
    points: Sequence[tuple[int, float]]
    own: bool


def curve_chart(
    title: str, curves: Sequence[Curve], batches: Sequence[int], y: Axis, unit: str
) -> Markup:
    """Curves over the batch sizes, which lie on a logarithmic axis.

    Args:
        title: For readers of the screen.
        curves: Each with one point at least.
        batches: All that are marked below, ascending; two at least.
        y: Of the values.
        unit: Of the values.
    """
    bottom = _HEIGHT + _TOP
    parts = [tag("text", unit, class_="tick", x=0, y=3, dx=-8, text_anchor="start")]
    for value in y.ticks:
        line = _down(value, y)
        label = f"{value:,.6g}"
        parts.append(level("grid", 0, 1, line))
        parts.append(tag("text", label, class_="tick", x=0, dx=-8, y=line + 4, text_anchor="end"))
    for batch in batches:
        parts.append(upright("grid", _across(batch, batches), _TOP, bottom))
        parts.append(
            tag(
                "text",
                str(batch),
                class_="tick",
                x=at(_across(batch, batches)),
                y=bottom + 16,
                text_anchor="middle",
            )
        )
    parts.append(text("batch", "tick", 1.0, bottom + 32))
    drawn = sorted(curves, key=lambda curve: curve.own)
    parts += [_curve(curve, batches, y) for curve in drawn]
    parts += _labels(drawn, y)
    return svg(title, bottom + 38, parts, "plot curves")


def _curve(curve: Curve, batches: Sequence[int], y: Axis) -> Markup:
    places = [(_across(batch, batches), _down(value, y)) for batch, value in curve.points]
    parts = [tag("title", curve.said)]
    for (x1, y1), (x2, y2) in pairwise(places):
        parts.append(tag("line", class_="curve", x1=at(x1), x2=at(x2), y1=y1, y2=y2))
    parts += [tag("circle", class_="mark", cx=at(x), cy=place, r=3) for x, place in places]
    return tag("g", *parts, class_="own" if curve.own else "peer")


def _labels(curves: Sequence[Curve], y: Axis) -> list[Markup]:
    wanted = [float(_down(curve.points[-1][1], y)) for curve in curves]
    places = spread_out(wanted, _LINE, _TOP, _HEIGHT + _TOP)
    return [
        tag(
            "text",
            curve.label,
            class_="end own" if curve.own else "end",
            x="100%",
            dx=8,
            y=round(place) + 4,
            text_anchor="start",
        )
        for curve, place in zip(curves, places, strict=True)
    ]


def _across(batch: int, batches: Sequence[int]) -> float:
    return math.log(batch / batches[0]) / math.log(batches[-1] / batches[0])


def _down(value: float, y: Axis) -> int:
    return round(_TOP + _HEIGHT * (1 - y.place(value)))

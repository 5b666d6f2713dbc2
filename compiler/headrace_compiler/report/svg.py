"""Parts of charts as inline SVG: across in percent, down in pixels, so that text never scales."""

from collections.abc import Sequence

from headrace_compiler.report.markup import Markup, tag
from headrace_compiler.report.text import plain

NAME_LENGTH = 24
"""Characters of a name in a chart; the table beside it has all of them."""
PITCH, TOP, FOOT = 46, 27, 24
"""Of a row: its height, and where its mark lies; of the axis below the rows, its height."""
HALF = 5
"""Of a bar's height, and of a point's."""
_ARROWS = "\N{LEFTWARDS ARROW}", "\N{RIGHTWARDS ARROW}"


def svg(title: str, height: int, parts: Sequence[Markup], kind: str | None = None) -> Markup:
    """A chart as wide as what it stands in; the title is what a reader of the screen hears."""
    label = tag("title", title)
    return tag("svg", label, *parts, role="img", width="100%", height=height, class_=kind)


def at(place: float) -> str:
    """A place from 0 to 1 as it is written."""
    return f"{100 * place:.2f}%"


def text(said: str, kind: str, place: float, y: int) -> Markup:
    """Text at a place; at the ends of the chart it stays inside."""
    anchor = "start" if place < 0.02 else "end" if place > 0.98 else "middle"
    return tag("text", said, class_=kind, x=at(place), y=y, text_anchor=anchor)


def level(kind: str, start: float, end: float, y: int) -> Markup:
    """A line across."""
    return tag("line", class_=kind, x1=at(start), x2=at(end), y1=y, y2=y)


def upright(kind: str, place: float, y1: int, y2: int) -> Markup:
    """A line down."""
    return tag("line", class_=kind, x1=at(place), x2=at(place), y1=y1, y2=y2)


def tick(label: str, place: float, height: int) -> Markup:
    """A line through all rows, and its label below them."""
    line = upright("grid", place, 0, height)
    return Markup.joined(line, text(label, "tick", place, height + 16))


def interval(ends: tuple[float, float], inside: tuple[bool, bool], middle: int) -> Markup:
    """A line with a cap at each end that the axis reaches, and an arrow at each it does not."""
    parts = [level(kind, *ends, middle) for kind in ("halo", "whisker")]
    for place, within, arrow in zip(ends, inside, _ARROWS, strict=True):
        if within:
            parts.append(upright("whisker", place, middle - HALF + 1, middle + HALF - 1))
        else:
            parts.append(text(arrow, "arrow", place, middle + 5))
    return Markup.joined(*parts)


def short(name: str) -> str:
    """A name as a chart has it."""
    return plain(name, NAME_LENGTH)

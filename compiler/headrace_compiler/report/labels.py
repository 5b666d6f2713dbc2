"""Where the names of marks fit into a chart whose width is not known until it is shown.

A box lies at a share of the width, and reaches some pixels to both sides. What is clear of each
other at the narrowest and at the widest, on the same side, is so at every width between, since
both edges move in straight lines.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

_LETTER, _BOLD, _LINE = 7.3, 8.2, 14  # pixels of a letter's width and of a line's height, at 12 px
_GAP, _CORNER = 4, 6

Widths = tuple[int, int]
"""The narrowest and the widest that a chart is shown at, in pixels."""
Anchor = Literal["start", "middle", "end"]


@dataclass(frozen=True)
class Box:
    """What takes room in a chart.

    Attributes:
        place: The share of the width at which it lies.
        left: Pixels from there to its left edge; negative to the left.
        right: Pixels to its right edge.
        top: Pixels from the top of the chart.
        bottom: Pixels from there too.
    """

    place: float
    left: float
    right: float
    top: float
    bottom: float


@dataclass(frozen=True)
class Spot:
    """A mark that may get a name.

    Attributes:
        place: The share of the width at which it lies.
        y: Pixels from the top.
        radius: Of the mark.
        bold: Whether the name is written in bold letters.
    """

    name: str
    place: float
    y: int
    radius: int
    bold: bool


@dataclass(frozen=True)
class Label:
    """A name that fits.

    Attributes:
        dx: Pixels from the place.
        y: Of the letters' foot.
    """

    spot: Spot
    anchor: Anchor
    dx: int
    y: int
    box: Box


def place_labels(
    spots: Sequence[Spot], fixed: Sequence[Box], widths: Widths, height: int
) -> tuple[Label, ...]:
    """Names beside their marks, the first in `spots` first; those that fit nowhere are left out.

    Args:
        spots: What may be named; no name lies on any of their marks.
        fixed: What else no name may lie on.
        widths: Between which the chart is shown.
        height: Of the chart.
    """
    marks = [mark_box(spot) for spot in spots]
    placed: list[Label] = []
    for spot in spots:
        taken = [*fixed, *marks, *(label.box for label in placed)]
        fitting = (
            label
            for label in _sides(spot)
            if _inside(label.box, widths, height)
            and all(clear(label.box, other, widths) for other in taken)
        )
        label = next(fitting, None) or _anyhow(spot, placed, widths, height)
        if label:
            placed.append(label)
    return tuple(placed)


def _anyhow(spot: Spot, placed: Sequence[Label], widths: Widths, height: int) -> Label | None:
    """A place for a bold name, which may lie over other marks rather than be left out."""
    if not spot.bold:
        return None
    fitting = (
        label
        for label in _sides(spot)
        if _inside(label.box, widths, height)
        and all(clear(label.box, other.box, widths) for other in placed)
    )
    return next(fitting, None)


def clear(one: Box, other: Box, widths: Widths) -> bool:
    """Whether two boxes do not touch at any width between the two."""
    if one.bottom <= other.top or other.bottom <= one.top:
        return True
    return any(
        all(a.place * width + a.right <= b.place * width + b.left for width in widths)
        for a, b in ((one, other), (other, one))
    )


def spread_out(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places as near as they can be to those wanted, at least `gap` apart, in their order.

    What does not fit between `low` and `high` reaches over `low`.
    """
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    found = [0.0] * len(wanted)
    floor = low
    for index in order:
        found[index] = max(wanted[index], floor)
        floor = found[index] + gap
    ceiling = high
    for index in reversed(order):
        found[index] = min(found[index], ceiling)
        ceiling = found[index] - gap
    return found


def text_width(text: str, *, bold: bool) -> float:
    """At most so many pixels, as far as can be said without the font."""
    return len(text) * (_BOLD if bold else _LETTER)


def mark_box(spot: Spot) -> Box:
    """The room that a mark takes."""
    r = spot.radius
    return Box(spot.place, -r, r, spot.y - r, spot.y + r)


def _sides(spot: Spot) -> tuple[Label, ...]:
    """Right, left, above, below, and the corners."""
    away, r = spot.radius + _GAP, spot.radius
    width = text_width(spot.name, bold=spot.bold)
    right, left = (0.0, width), (-width, 0.0)
    sides: tuple[tuple[Anchor, int, int], ...] = (
        ("start", away, 0),
        ("end", -away, 0),
        ("middle", 0, -r - _LINE // 2 - 1),
        ("middle", 0, r + _LINE // 2 + 1),
        ("start", away - 3, -r - _CORNER),
        ("start", away - 3, r + _CORNER),
        ("end", 3 - away, -r - _CORNER),
        ("end", 3 - away, r + _CORNER),
    )
    ends = {"start": right, "end": left, "middle": (-width / 2, width / 2)}
    return tuple(
        Label(
            spot,
            anchor,
            dx,
            spot.y + dy + 4,
            Box(
                spot.place,
                ends[anchor][0] + dx,
                ends[anchor][1] + dx,
                spot.y + dy - _LINE / 2,
                spot.y + dy + _LINE / 2,
            ),
        )
        for anchor, dx, dy in sides
    )


def _inside(box: Box, widths: Widths, height: int) -> bool:
    across = all(
        box.place * width + box.left >= 0 and box.place * width + box.right <= width
        for width in widths
    )
    return across and box.top >= 0 and box.bottom <= height

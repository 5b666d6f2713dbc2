"""The forest plot of a gate; the geometry is apart from the drawing, and knows no markup."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from headrace_bench.statistics import Verdict
from headrace_compiler.report.markup import Markup, tag
from headrace_compiler.report.svg import (
    FOOT,
    HALF,
    PITCH,
    TOP,
    at,
    interval,
    short,
    svg,
    text,
    tick,
    upright,
)
from headrace_compiler.report.text import TIMES, plain

_FACTORS = (1.02, 1.05, 1.1, 1.2, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0, 1000.0)


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


def forest_plot(title: str, changes: Sequence[Change], threshold: float) -> Markup:
    """Factors with their intervals around 1, worse to the right; the threshold's band is shaded."""
    far, height = reach(changes, threshold), PITCH * len(changes)
    edge = factor_place(1 + threshold, far)
    parts = [
        tag("rect", class_="band", x=at(1 - edge), width=at(2 * edge - 1), y=0, height=height),
        upright("even", 0.5, 0, height),
    ]
    for factor in factor_ticks(threshold, far):
        place = factor_place(factor, far)
        parts += [tick(_times(factor), side, height) for side in (1 - place, place)]
    for said, place in (("← better", 0.0), ("equal", 0.5), ("worse →", 1.0)):
        parts.append(text(said, "tick", place, height + 34))
    for number, change in enumerate(changes):
        parts.append(_change(change, far, PITCH * number))
    return svg(title, height + FOOT + 18, parts)


def _change(change: Change, far: float, top: int) -> Markup:
    middle = top + TOP
    inside = (change.low >= 1 / far, change.high <= far)
    ends = (factor_place(change.low, far), factor_place(change.high, far))
    return tag(
        "g",
        tag("title", f"{plain(change.name)}: {change.label}"),
        text(short(change.name), "name", 0.0, top + 14),
        text(change.verdict, "value", 1.0, top + 14),
        interval(ends, inside, middle),
        tag("circle", class_="mark", cx=at(factor_place(change.factor, far)), cy=middle, r=HALF),
        class_=f"row {verdict_class(change.verdict)}",
    )


def verdict_class(verdict: Verdict) -> str:
    """The class of the style sheet that a verdict is drawn with."""
    return verdict.partition(" ")[0]


def _times(factor: float) -> str:
    return f"{factor:.4g}{TIMES}"


def _distance(factor: float) -> float:
    """From 1, on a logarithmic axis; of what is no finite factor, as far as any axis goes."""
    largest = math.log(_FACTORS[-1])
    return min(abs(math.log(factor)), largest) if 0 < factor < math.inf else largest

"""Which layers cost accuracy when they are quantized, and which of them were put back."""

import math
from collections.abc import Sequence

from headrace.bundle.measurement import LayerEffect, Measurement, Sensitivity
from headrace_compiler.report.axis import axis_from_zero
from headrace_compiler.report.markup import Markup, tag
from headrace_compiler.report.reading import difference, is_share
from headrace_compiler.report.svg import HALF, at
from headrace_compiler.report.table import Row, figure_cell, scrolled, table
from headrace_compiler.report.text import count, figure, plain

_MOST = 20
_MOST_NAMED = 60


def layers(measurement: Measurement) -> Markup:
    """A table with bars of the worst layers of each graph that broke the budget."""
    if not measurement.sensitivity:
        return Markup()
    metric = next((c.accuracy.metric for c in measurement.candidates if c.accuracy), "")
    return tag(
        "section",
        tag("h2", "Layers", id="layers"),
        *(_searched(each, metric) for each in measurement.sensitivity),
        class_="card",
    )


def _searched(found: Sensitivity, metric: str) -> Markup:
    shown = found.layers[:_MOST]
    restored = [layer for layer in found.layers if layer.restored]
    parts = [tag("p", _told(found, len(restored)), class_="lead")]
    if restored:
        names = ", ".join(plain(layer.node, 100) for layer in restored[:_MOST_NAMED])
        more = len(restored) - _MOST_NAMED
        also = f", and {count(more, 'other')}" if more > 0 else ""
        parts.append(tag("p", f"Put back to float: {names}{also}.", class_="note"))
    if shown:
        parts.append(_table(found.source, shown, metric))
    return tag("div", *parts, class_="part")


def _told(found: Sensitivity, restored: int) -> str:
    said = f"{found.source} broke the accuracy budget."
    if found.made:
        said += f" {plain(found.made, 64)} keeps {count(restored, 'layer')} of it in float"
        said += f", of {len(found.layers):,} that were ranked."
    else:
        said += f" No choice of layers kept it: {count(restored, 'layer')} had been put back."
    return said if found.complete else f"{said} The time limit ended the search."


def _table(source: str, shown: Sequence[LayerEffect], metric: str) -> Markup:
    unit = ", points" if is_share(metric) else ""
    errors = [layer.error if math.isfinite(layer.error) else 0.0 for layer in shown]
    axis = axis_from_zero(max(errors))
    rows = [
        Row(
            "own" if layer.restored else "peer",
            [
                Markup.joined(plain(layer.node, 200), " ", tag("small", plain(layer.operator, 60))),
                _bar(axis.place(error)),
                figure_cell(figure(100 * layer.error), ""),
                figure_cell(difference(layer.loss, metric), ""),
                "put back to float" if layer.restored else "stays quantized",
            ],
            "",
        )
        for layer, error in zip(shown, errors, strict=True)
    ]
    headings = ["layer", "error of outputs", "%", f"loss{unit}", "outcome"]
    title = f"{source}: the {count(len(shown), 'most harmful layer')}, each quantized alone"
    found = table(title, headings, rows, text=frozenset({0, 1, 4}), cards=False)
    return Markup.joined(tag("h3", title), scrolled(title, found))


def _bar(place: float) -> Markup:
    """A bar beside its figure, which says the same: readers of the screen need not hear it."""
    bar = tag("rect", class_="mark", width=at(place), height=2 * HALF, rx=1)
    return tag("svg", bar, class_="bar", height=2 * HALF, aria_hidden="true")

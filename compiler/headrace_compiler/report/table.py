"""Tables: narrow screens show them as lists of cards, or scroll them within themselves."""

from collections.abc import Sequence
from dataclasses import dataclass

from headrace_compiler.report.markup import Markup, tag
from headrace_compiler.report.text import NOTHING


@dataclass(frozen=True)
class Row:
    """Of a table.

    Attributes:
        kind: Its class.
        cells: One for each heading; the first alone, where `said` is all there is to say.
        said: A remark.
    """

    kind: str
    cells: Sequence[str]
    said: str


def figure_cell(value: str, interval: str) -> Markup:
    """A value, and its interval or another remark in small."""
    return Markup.joined(tag("span", value), " ", tag("small", interval))


def table(
    caption: str,
    headings: Sequence[str],
    rows: Sequence[Row],
    *,
    text: frozenset[int],
    cards: bool = True,
) -> Markup:
    """A table, which narrow screens show as cards; or else it keeps its columns there too.

    The roles are said outright, since elements that are no longer laid out as a table lose them.
    The columns in `text` are flush left, those of figures flush right.
    """
    kinds = [None if place in text else "figure" for place in range(len(headings))]
    head = [
        tag("th", heading, scope="col", role="columnheader", class_=kind)
        for heading, kind in zip(headings, kinds, strict=True)
    ]
    return tag(
        "table",
        tag("caption", caption),
        tag("thead", tag("tr", *head, role="row"), role="rowgroup"),
        tag("tbody", *(_row(row, headings, kinds) for row in rows), role="rowgroup"),
        role="table",
        class_=None if cards else "grid",
    )


def scrolled(label: str, content: Markup) -> Markup:
    """What scrolls across within itself, with the keyboard too."""
    return tag("div", content, class_="scroll", role="region", aria_label=label, tabindex=0)


def _row(row: Row, headings: Sequence[str], kinds: Sequence[str | None]) -> Markup:
    """A row; its remark stands beside its name, or below if it has cells of its own."""
    cells = [tag("th", row.cells[0], scope="row", role="rowheader")]
    cells += [
        tag("td", cell, role="cell", class_=kind, data_label=heading)
        for cell, heading, kind in list(zip(row.cells, headings, kinds, strict=False))[1:]
    ]
    rest = len(headings) - len(cells)
    if rest:
        cells.append(tag("td", row.said or NOTHING, role="cell", colspan=rest, class_="said"))
    written = tag("tr", *cells, role="row", class_=row.kind)
    if rest or not row.said:
        return written
    said = tag("td", row.said, role="cell", colspan=len(headings), class_="said")
    return Markup.joined(written, tag("tr", said, role="row", class_="below"))

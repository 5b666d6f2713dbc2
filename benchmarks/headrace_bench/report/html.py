"""A run as one page: no script, no request, nothing that is not in the file."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from headrace_bench.gate import Comparison, GateReport
from headrace_bench.report.cells import (
    NOTHING,
    Column,
    bundles,
    columns,
    figure,
    gate_summary,
    is_own,
    machines,
    metric_name,
    others,
    parameters,
    percent,
    plain,
    quantity,
    ranked,
    ratio_cell,
    ratio_columns,
    ratio_heading,
    remark,
    spread,
    summary,
    times,
    versions,
    worse,
)
from headrace_bench.report.charts import Bar, Change, bar_chart, forest_plot, verdict_class
from headrace_bench.report.markup import Markup, tag
from headrace_bench.result import CaseResult, Metric, contested

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_CHARTED = frozenset({"latency_p50", "throughput", "cpu_per_operation"})
_BETTER = {"lower": "less is better", "higher": "more is better", "neither": ""}


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


def page(results: Sequence[CaseResult]) -> str:
    """A run: charts and a table for each case, then what it stood on."""
    cases = contested(results)
    suites = ", ".join(dict.fromkeys(plain(suite, 60) for suite, _ in cases))
    about = [summary(results)]
    if results:
        seconds = sum(group[0].seconds for group in cases.values())
        began = plain(min(result.started for result in results), 40)
        about += [f"{_count(len(cases), 'case')} in {seconds:.0f} s"]
        about += [began.replace("T", " ").replace("+00:00", " UTC")]
    lines = [" · ".join(about), *(f"{name} ({mark})" for mark, name in machines(results))]
    body = [_header(suites or "No results", "headrace bench", lines), _contents(list(cases))]
    body += [
        _case(suite, case, number, ranked(group))
        for number, ((suite, case), group) in enumerate(cases.items())
    ]
    facts = [("Machine", f"{mark}, {name}") for mark, name in machines(results)]
    facts += [("Bundle", digest) for digest in bundles(results)]
    facts += [(name, said) for name, said in versions(results)]
    body.append(_facts("Machine and versions", facts))
    return _document("headrace bench", body)


def gate_page(report: GateReport) -> str:
    """A gate: its verdict, a forest plot, the table of metrics, then what it stood on."""
    changes = [_change_of(each) for each in report.comparisons]
    lines = [f"{plain(report.head, 200)} against {plain(report.base, 200)}", gate_summary(report)]
    kind = verdict_class(report.verdict)
    body = [_header(report.verdict, "headrace bench gate", [x for x in lines if x], kind)]
    if changes:
        title = (
            f"By which factor each of {_count(len(changes), 'metric')} of head is worse than"
            " that of base, with its interval. The table below has the figures."
        )
        caption = f"Head against base; shaded: the threshold of {percent(report.threshold)}"
        plot = forest_plot(title, changes, report.threshold)
        figures = tag("figure", tag("figcaption", caption), plot, class_="forest")
        body.append(tag("section", figures, _gate_table(report), class_="card"))
    facts = [
        ("Machine", f"{plain(report.fingerprint, 100)}, {plain(report.processor, 100)}"),
        ("Time", f"{report.seconds:.0f} s"),
        ("Intervals", f"{percent(report.confidence)} each, 95 % for all of them together"),
    ]
    if report.other_cores is not None:
        facts.append(("Others", f"kept {report.other_cores:.2f} cores busy meanwhile"))
    body.append(_facts("Machine and method", facts))
    return _document(f"headrace bench gate: {report.verdict}", body)


def _case(suite: str, case: str, number: int, contestants: Sequence[CaseResult]) -> Markup:
    measured = columns(contestants)
    charted = [column for column in measured if column.name in _CHARTED] or measured[:1]
    charts = [_chart(column, contestants) for column in charted]
    chips = [tag("li", said) for said in parameters(contestants[0])]
    without = [result.contestant for result in contestants if not result.metrics]
    notes = [others(contestants)]
    if without:
        notes.append(f"no figures: {', '.join(plain(name, 60) for name in without)}")
    said = "; ".join(note for note in notes if note)
    return tag(
        "section",
        tag("p", plain(suite, 60), class_="over"),
        tag("h2", plain(case, 200), id=f"case-{number}"),
        tag("ul", *chips, class_="chips") if chips else Markup(),
        tag("div", *charts, class_="charts") if charts else Markup(),
        tag("p", f"{said[:1].upper()}{said[1:]}.", class_="note") if said else Markup(),
        _case_table(f"{suite}: {case}", measured, contestants),
        class_="card",
    )


def _chart(column: Column, contestants: Sequence[CaseResult]) -> Markup:
    bars = []
    for result in contestants:
        metric = column.of(result)
        if metric:
            label = quantity(metric.value, metric.unit)
            own = is_own(result.contestant)
            bars.append(Bar(result.contestant, metric.value, metric.low, metric.high, label, own))
    better = _BETTER[column.better]
    title = f"{column.long} of {_count(len(bars), 'contestant')}"
    title += f"; {better}. The table below has the figures." if better else "."
    caption = tag("figcaption", tag("b", column.long), " ", tag("span", better))
    return tag("figure", caption, bar_chart(title, bars))


def _case_table(
    caption: str, measured: Sequence[Column], contestants: Sequence[CaseResult]
) -> Markup:
    ratios = ratio_columns(contestants)
    headings = ["contestant", *(column.short for column in measured)]
    headings += [ratio_heading(*ratio) for ratio in ratios]
    rows = []
    for result in contestants:
        cells = [plain(result.contestant, 200)]
        if result.metrics:
            cells += [_metric_cell(column.of(result)) for column in measured]
            cells += [_figure_cell(*_parted(ratio_cell(result, *ratio))) for ratio in ratios]
        kind = "own" if is_own(result.contestant) else "peer"
        rows.append(Row(kind, cells, remark(result)))
    return _table(plain(caption, 300), headings, rows, text=frozenset({0}))


def _gate_table(report: GateReport) -> Markup:
    headings = ["metric", "base", "head", "head / base", "verdict", "pairs"]
    rows = []
    for each in report.comparisons:
        cells = [
            Markup.joined(metric_name(each.metric), " ", tag("small", _BETTER[each.better])),
            _figure_cell(quantity(each.base, each.unit), ""),
            _figure_cell(quantity(each.head, each.unit), ""),
            _figure_cell(*_parted(times(each))),
            tag("b", each.verdict),
            _figure_cell(str(each.pairs) if each.pairs else "exact", ""),
        ]
        rows.append(Row(verdict_class(each.verdict), cells, plain(each.note)))
    return _table("Metrics of base and head", headings, rows, text=frozenset({0, 4}))


def _change_of(each: Comparison) -> Change:
    label = f"{quantity(each.base, each.unit)} to {quantity(each.head, each.unit)}, {times(each)}"
    return Change(metric_name(each.metric), *worse(each), each.verdict, label)


def _metric_cell(metric: Metric | None) -> Markup:
    if metric is None:
        return _figure_cell(NOTHING, "")
    return _figure_cell(figure(metric.value), spread(metric.low, metric.high))


def _figure_cell(value: str, interval: str) -> Markup:
    return Markup.joined(tag("span", value), " ", tag("small", interval))


def _parted(ratio: str) -> tuple[str, str]:
    """A ratio and its interval."""
    value, _, interval = ratio.partition(" ")
    return value, interval


def _table(
    caption: str, headings: Sequence[str], rows: Sequence[Row], *, text: frozenset[int]
) -> Markup:
    """A table that narrow screens show as a list of cards.

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
    )


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


def _header(title: str, over: str, lines: Sequence[str], kind: str | None = None) -> Markup:
    heading = tag("h1", f"{title[:1].upper()}{title[1:]}", class_=kind)
    lead = [tag("p", line, class_="lead") for line in lines]
    return tag("header", tag("p", over, class_="over"), heading, *lead)


def _contents(cases: Sequence[tuple[str, str]]) -> Markup:
    if len(cases) < 2:
        return Markup()
    links = [
        tag("li", tag("a", f"{plain(suite, 60)}: {plain(case, 60)}", href=f"#case-{number}"))
        for number, (suite, case) in enumerate(cases)
    ]
    return tag("nav", tag("ul", *links, class_="chips"), aria_label="Cases")


def _facts(title: str, facts: Sequence[tuple[str, str]]) -> Markup:
    if not facts:
        return Markup()
    listed = [part for name, said in facts for part in (tag("dt", name), tag("dd", said))]
    return tag("footer", tag("h2", title), tag("dl", *listed))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _document(title: str, body: Sequence[Markup]) -> str:
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", title),
        tag("style", Markup(_style())),
    )
    page = tag("html", head, tag("body", tag("main", *body)), lang="en")
    return f"<!doctype html>\n{page}\n"


def _style() -> str:
    text = files("headrace_bench.report").joinpath("page.css").read_text(encoding="utf-8")
    return re.sub(r"\s*\n\s*", "\n", text)

"""A run as one page: no script, no request, nothing that is not in the file."""

from collections.abc import Sequence

from headrace_bench.gate import Comparison, GateReport
from headrace_bench.report.cells import (
    Column,
    bundles,
    columns,
    gate_summary,
    is_own,
    machines,
    metric_name,
    others,
    parameters,
    ranked,
    ratio_cell,
    ratio_columns,
    ratio_heading,
    remark,
    summary,
    times,
    versions,
    worse,
)
from headrace_bench.report.charts import Change, forest_plot, verdict_class
from headrace_bench.result import CaseResult, Metric, contested
from headrace_compiler.report.bars import Bar, bar_chart
from headrace_compiler.report.document import contents, document, footer, header
from headrace_compiler.report.markup import Markup, tag
from headrace_compiler.report.table import Row, figure_cell, table
from headrace_compiler.report.text import NOTHING, count, figure, percent, plain, quantity, spread

_CHARTED = frozenset({"latency_p50", "throughput", "cpu_per_operation"})
_BETTER = {"lower": "less is better", "higher": "more is better", "neither": ""}


def page(results: Sequence[CaseResult]) -> str:
    """A run: charts and a table for each case, then what it stood on."""
    cases = contested(results)
    suites = ", ".join(dict.fromkeys(plain(suite, 60) for suite, _ in cases))
    about = [summary(results)]
    if results:
        seconds = sum(group[0].seconds for group in cases.values())
        began = plain(min(result.started for result in results), 40)
        about += [f"{count(len(cases), 'case')} in {seconds:.0f} s"]
        about += [began.replace("T", " ").replace("+00:00", " UTC")]
    lines = [" · ".join(about), *(f"{name} ({mark})" for mark, name in machines(results))]
    body = [header(_begun(suites) or "No results", "headrace bench", lines), _contents(list(cases))]
    body += [
        _case(suite, case, number, ranked(group))
        for number, ((suite, case), group) in enumerate(cases.items())
    ]
    facts = [("Machine", f"{mark}, {name}") for mark, name in machines(results)]
    facts += [("Bundle", digest) for digest in bundles(results)]
    facts += [(name, said) for name, said in versions(results)]
    body.append(footer("Machine and versions", facts))
    return document("headrace bench", body)


def gate_page(report: GateReport) -> str:
    """A gate: its verdict, a forest plot, the table of metrics, then what it stood on."""
    changes = [_change_of(each) for each in report.comparisons]
    lines = [f"{plain(report.head, 200)} against {plain(report.base, 200)}", gate_summary(report)]
    kind = verdict_class(report.verdict)
    body = [header(_begun(report.verdict), "headrace bench gate", [x for x in lines if x], kind)]
    if changes:
        title = (
            f"By which factor each of {count(len(changes), 'metric')} of head is worse than"
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
    body.append(footer("Machine and method", facts))
    return document(f"headrace bench gate: {report.verdict}", body)


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
        tag("p", f"{_begun(said)}.", class_="note") if said else Markup(),
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
    title = f"{column.long} of {count(len(bars), 'contestant')}"
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
            cells += [figure_cell(*_parted(ratio_cell(result, *ratio))) for ratio in ratios]
        kind = "own" if is_own(result.contestant) else "peer"
        rows.append(Row(kind, cells, remark(result)))
    return table(plain(caption, 300), headings, rows, text=frozenset({0}))


def _gate_table(report: GateReport) -> Markup:
    headings = ["metric", "base", "head", "head / base", "verdict", "pairs"]
    rows = []
    for each in report.comparisons:
        cells = [
            Markup.joined(metric_name(each.metric), " ", tag("small", _BETTER[each.better])),
            figure_cell(quantity(each.base, each.unit), ""),
            figure_cell(quantity(each.head, each.unit), ""),
            figure_cell(*_parted(times(each))),
            tag("b", each.verdict),
            figure_cell(str(each.pairs) if each.pairs else "exact", ""),
        ]
        rows.append(Row(verdict_class(each.verdict), cells, plain(each.note)))
    return table("Metrics of base and head", headings, rows, text=frozenset({0, 4}))


def _change_of(each: Comparison) -> Change:
    label = f"{quantity(each.base, each.unit)} to {quantity(each.head, each.unit)}, {times(each)}"
    return Change(metric_name(each.metric), *worse(each), each.verdict, label)


def _metric_cell(metric: Metric | None) -> Markup:
    if metric is None:
        return figure_cell(NOTHING, "")
    return figure_cell(figure(metric.value), spread(metric.low, metric.high))


def _parted(ratio: str) -> tuple[str, str]:
    """A ratio and its interval."""
    value, _, interval = ratio.partition(" ")
    return value, interval


def _begun(said: str) -> str:
    """With a capital letter, as a sentence begins."""
    return f"{said[:1].upper()}{said[1:]}"


def _contents(cases: Sequence[tuple[str, str]]) -> Markup:
    if len(cases) < 2:
        return Markup()
    return contents(
        "Cases",
        [
            (f"case-{number}", f"{plain(suite, 60)}: {plain(case, 60)}")
            for number, (suite, case) in enumerate(cases)
        ],
    )

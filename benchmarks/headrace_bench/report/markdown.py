"""A run as Markdown: a comment under a change, or the summary of a CI job."""

import re
from collections.abc import Sequence

from headrace_bench.gate import GateReport
from headrace_bench.report.cells import (
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
)
from headrace_bench.result import CaseResult, contested
from headrace_compiler.report.text import NOTHING, figure, percent, plain, quantity

# Punctuation that Markdown or HTML acts on; underscores inside words and most colons are harmless.
_STEERS = re.compile(
    r"[&<>|\\`*\[\]~#@!$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|:(?=//)|(?<=www)\.", re.IGNORECASE
)
_JOINER = "\u2060"  # after an at sign: a mention, even one made of entities, notifies somebody


def markdown(results: Sequence[CaseResult]) -> str:
    """A run: how it went on the first line, a table for each case, then what it stood on."""
    parts = [f"**headrace bench: {_safe(summary(results))}**"]
    for (suite, case), contestants in contested(results).items():
        about = ", ".join(
            part for part in (*parameters(contestants[0]), others(contestants)) if part
        )
        parts.append(f"#### {_safe(plain(suite, 60))}: {_safe(plain(case, 100))}")
        if about:
            parts.append(_safe(about))
        parts += [_case(ranked(contestants)), *_remarks(contestants)]
    return "\n\n".join([*parts, _details(results)]) + "\n"


def gate_markdown(report: GateReport) -> str:
    """A gate: its verdict on the first line, the table of metrics, then what it stood on."""
    headings = ["metric", "base", "head", "head / base", "verdict", "pairs", "note"]
    rows = [
        [
            metric_name(each.metric),
            quantity(each.base, each.unit),
            quantity(each.head, each.unit),
            times(each),
            each.verdict,
            str(each.pairs or NOTHING),
            plain(each.note),
        ]
        for each in report.comparisons
    ]
    if not any(row[-1] for row in rows):
        headings, rows = headings[:-1], [row[:-1] for row in rows]
    bold = {place for place, each in enumerate(report.comparisons) if each.verdict == "regressed"}
    names = f"{_code(report.head)} against {_code(report.base)}"
    effort = f"threshold {percent(report.threshold)}, {report.seconds:.0f} s"
    parts = [f"**headrace bench gate: {report.verdict}**", f"{names}, {effort}"]
    if said := gate_summary(report):
        parts.append(_safe(said))
    if rows:
        parts.append(_table(headings, rows, bold=bold, text={0, 4, 6}))
    lines = [f"Machine: {_code(report.fingerprint)}, {_safe(plain(report.processor, 100))}"]
    lines.append(f"Intervals: {percent(report.confidence)} each, 95 % for all of them together")
    if report.other_cores is not None:
        lines.append(f"Others kept {report.other_cores:.2f} cores busy meanwhile")
    return "\n\n".join([*parts, _folded("Machine and method", lines)]) + "\n"


def _case(contestants: Sequence[CaseResult]) -> str:
    measured, ratios = columns(contestants), ratio_columns(contestants)
    if not measured:
        return "No figures."
    headings = ["contestant", *(column.short for column in measured)]
    headings += [ratio_heading(*ratio) for ratio in ratios]
    shown = [result for result in contestants if result.metrics]
    rows = []
    for result in shown:
        found = [column.of(result) for column in measured]
        row = [plain(result.contestant, 60)]
        row += [figure(metric.value) if metric else NOTHING for metric in found]
        rows.append(row + [ratio_cell(result, *ratio) for ratio in ratios])
    bold = {place for place, result in enumerate(shown) if is_own(result.contestant)}
    return _table(headings, rows, bold=bold, text={0})


def _remarks(contestants: Sequence[CaseResult]) -> list[str]:
    """What is to be said of contestants, as a list; a reason may come from a crashed process."""
    lines = [
        f"- {_safe(plain(result.contestant, 60))}: {_code(said)}"
        for result in contestants
        if (said := remark(result))
    ]
    return ["\n".join(lines)] if lines else []


def _details(results: Sequence[CaseResult]) -> str:
    lines = [f"Machine: {_code(mark)}, {_safe(processor)}" for mark, processor in machines(results)]
    lines += [f"Bundle: {_code(digest)}" for digest in bundles(results)]
    lines += [f"{_safe(name)}: {_safe(said)}" for name, said in versions(results)]
    return _folded("Machine and versions", lines)


def _folded(title: str, lines: Sequence[str]) -> str:
    listed = "\n".join(f"- {line}" for line in lines)
    return f"<details>\n<summary>{title}</summary>\n\n{listed}\n\n</details>"


def _table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], *, bold: set[int], text: set[int]
) -> str:
    """A table; the columns in `text` are flush left, those of figures flush right."""
    rules = [":--" if place in text else "--:" for place in range(len(headings))]
    lines = [[_safe(heading) for heading in headings], rules]
    for place, row in enumerate(rows):
        mark = "**" if place in bold else ""
        lines.append([f"{mark}{_safe(cell)}{mark}" if cell else "" for cell in row])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _safe(text: str) -> str:
    """Plain text that stays plain: what Markdown or HTML would act on is written as entities."""

    def entity(found: re.Match[str]) -> str:
        return f"&#{ord(found[0])};{_JOINER if found[0] == '@' else ''}"

    return _STEERS.sub(entity, text)


def _code(text: str) -> str:
    """As code: no mention, no link and no emoji is found in it."""
    return f"<code>{_safe(plain(text))}</code>"

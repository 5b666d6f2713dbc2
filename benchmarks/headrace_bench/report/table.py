"""A run on the terminal."""

from collections.abc import Sequence

from headrace.commands.screen import print_table
from headrace_bench.gate import GateReport
from headrace_bench.report.cells import (
    columns,
    gate_summary,
    metric_name,
    others,
    parameters,
    ranked,
    ratio_cell,
    ratio_columns,
    ratio_heading,
    remark,
    times,
)
from headrace_bench.result import CaseResult, contested
from headrace_compiler.report.text import NOTHING, figure, percent, plain, quantity


def print_results(results: Sequence[CaseResult]) -> None:
    """A table for each case; a contestant without figures says why on its line."""
    for (suite, case), contestants in contested(results).items():
        told = (*parameters(contestants[0]), others(contestants))
        about = ", ".join(each for each in told if each)
        title = f"{plain(suite, 60)}: {plain(case, 100)}" + (f" ({about})" if about else "")
        headings, rows = _case(ranked(contestants))
        print_table(title, headings, rows)


def print_gate(report: GateReport) -> None:
    """The verdict, then a table of what was compared."""
    title = f"{report.verdict}: {plain(report.head, 100)} against {plain(report.base, 100)}"
    headings = ("metric", "base", "head", "head / base", "verdict", "pairs", "note")
    rows = [
        (
            metric_name(each.metric),
            quantity(each.base, each.unit),
            quantity(each.head, each.unit),
            times(each),
            each.verdict,
            each.pairs or NOTHING,
            plain(each.note),
        )
        for each in report.comparisons
    ]
    kept = _aligned([headings, *rows], text={0, 4, 6})
    print_table(title, *_without_empty(kept[0], kept[1:]))
    said = [
        ("decided by", gate_summary(report)),
        ("threshold", percent(report.threshold)),
        ("time", f"{report.seconds:.0f} s"),
        ("machine", f"{plain(report.fingerprint, 100)} ({plain(report.processor, 100)})"),
    ]
    if report.other_cores is not None:
        said.append(("others", f"kept {report.other_cores:.2f} cores busy meanwhile"))
    print_table("", ("", ""), [line for line in said if line[1]])


def _case(contestants: Sequence[CaseResult]) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    measured = columns(contestants)
    ratio = next(iter(ratio_columns(contestants)), None)
    headings = ["contestant", *(column.short for column in measured)]
    if ratio:
        headings.append(ratio_heading(*ratio))
    rows = []
    for result in contestants:
        found = [column.of(result) for column in measured]
        row = [plain(result.contestant, 60)]
        row += [figure(metric.value) if metric else NOTHING for metric in found]
        if ratio:
            row.append(ratio_cell(result, *ratio))
        rows.append([*row, remark(result)])
    last = len(headings)
    kept = _aligned([[*headings, "remark"], *rows], text={0, last})
    return _without_empty(kept[0], kept[1:])


def _aligned(rows: Sequence[Sequence[object]], text: set[int]) -> list[list[str]]:
    """Cells of figures end below each other."""
    widths = [max(len(str(cell)) for cell in column) for column in zip(*rows, strict=True)]
    return [
        [
            str(cell) if place in text else str(cell).rjust(widths[place])
            for place, cell in enumerate(row)
        ]
        for row in rows
    ]


def _without_empty(
    headings: Sequence[str], rows: Sequence[Sequence[str]]
) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """The table without its last column, if that says nothing."""
    if any(row[-1] for row in rows):
        return headings, rows
    return headings[:-1], [row[:-1] for row in rows]

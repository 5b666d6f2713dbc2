"""The table of all candidates: what is kept first, then what was dropped, each with its reason."""

from collections.abc import Mapping, Sequence

from headrace.bundle.measurement import Candidate, Dropped, Measurement, Point
from headrace_compiler.report.markup import Markup, tag
from headrace_compiler.report.reading import (
    baseline,
    difference,
    duration,
    first_batch,
    is_share,
    score,
    size_text,
    thread_counts,
    threads_text,
)
from headrace_compiler.report.report import Report
from headrace_compiler.report.table import Row, figure_cell, scrolled, table
from headrace_compiler.report.text import DASH, NOTHING, figure, listed, plain, quantity

_ENGINES: Mapping[str, str] = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}


def candidates(report: Report) -> Markup:
    """Every candidate with all that was measured of it, and what came of it."""
    measurement, kept = report.measurement, report.kept
    ordered = sorted(measurement.candidates, key=lambda each: each.name not in kept)
    dropped = {each.variant: each for each in measurement.selection.dropped}
    counts = thread_counts(measurement)
    metric = _metric(measurement)
    rows = [
        Row(
            "own" if each.name in kept else "peer",
            _cells(each, measurement, counts, metric),
            _outcome(each, report, dropped.get(each.name)),
        )
        for each in ordered
    ]
    headings = _headings(measurement, counts, metric)
    found = table("Candidates", headings, rows, text=frozenset({0}))
    batch = first_batch(measurement)
    told = f"Times are those of batch {batch}: the median, and below it p95 and p99."
    if metric:
        told += f" Losses are against {_reference(measurement)}."
    return tag(
        "section",
        tag("h2", "Candidates", id="candidates"),
        tag("p", told, class_="lead"),
        scrolled("Candidates", found),
        class_="card",
    )


def _reference(measurement: Measurement) -> str:
    found = baseline(measurement.candidates)
    return found.name if found else "the fp32 graph"


def _metric(measurement: Measurement) -> str | None:
    """The name of the metric, if anything was scored."""
    found = [each.accuracy.metric for each in measurement.candidates if each.accuracy]
    return next(iter(found), None)


def _headings(measurement: Measurement, counts: Sequence[int], metric: str | None) -> list[str]:
    scored = []
    if metric:
        unit = ", points" if is_share(metric) else ""
        scored = [plain(metric, 30), f"loss{unit}"]
    times = [f"on {threads_text(threads)}" for threads in counts]
    placed = ["nodes"] if any(each.placement for each in measurement.candidates) else []
    return ["candidate", *times, *scored, "largest error", "size", "load", "memory", *placed]


def _cells(
    candidate: Candidate, measurement: Measurement, counts: Sequence[int], metric: str | None
) -> list[str]:
    batch = first_batch(measurement)
    cells: list[str] = [_named(candidate)]
    cells += [_time(candidate, Point(batch=batch, threads=threads)) for threads in counts]
    if metric:
        cells += _scored(candidate)
    error, load, memory = candidate.error, candidate.load_seconds, candidate.memory_mib
    cells += [
        figure_cell(NOTHING if error is None else figure(error), ""),
        figure_cell(size_text(candidate.size), ""),
        figure_cell(NOTHING if load is None else duration(load), ""),
        figure_cell(NOTHING if memory is None else quantity(memory, "MiB"), ""),
    ]
    if any(each.placement for each in measurement.candidates):
        cells.append(_placement(candidate))
    return cells


def _named(candidate: Candidate) -> Markup:
    """The name, and below it in which precision and arithmetic it runs on which engine."""
    way = f"{candidate.precision}, {_ENGINES[candidate.engine]}"
    if candidate.arithmetic != "fp32":
        way += f", fp32 computed as {candidate.arithmetic}"
    return Markup.joined(candidate.name, " ", tag("small", way))


def _time(candidate: Candidate, point: Point) -> Markup:
    timing = candidate.timing(point)
    if timing is None:
        return figure_cell(NOTHING, "")
    p50, p95, p99 = (1e3 * each for each in (timing.p50, timing.p95, timing.p99))
    return figure_cell(quantity(p50, "ms"), f"{figure(p95)}, {figure(p99)}")


def _scored(candidate: Candidate) -> list[str]:
    accuracy = candidate.accuracy
    if accuracy is None:
        return [figure_cell(NOTHING, ""), figure_cell(NOTHING, "")]
    metric = accuracy.metric
    ends = [score(end, metric).removesuffix(" %") for end in (accuracy.low, accuracy.high)]
    most = f"at most {difference(accuracy.loss_high, metric)}"
    return [
        figure_cell(score(accuracy.value, metric), f"({DASH.join(ends)})"),
        figure_cell(difference(accuracy.loss, metric), most),
    ]


def _placement(candidate: Candidate) -> Markup:
    """How many nodes run where."""
    placed = [
        f"{number:,} {plain(provider, 60).removesuffix('ExecutionProvider')}"
        for provider, number in sorted(candidate.placement.items())
    ]
    return figure_cell(", ".join(placed) or NOTHING, "")


def _outcome(candidate: Candidate, report: Report, dropped: Dropped | None) -> str:
    """What came of a candidate, in full sentences."""
    selection = report.measurement.selection
    if dropped:
        return f"Dropped by the gate “{plain(dropped.gate, 60)}”: {_ended(dropped.reason)}"
    if candidate.fault:
        return f"Does not run here: {_ended(candidate.fault)}"
    points = [choice.point for choice in selection.choices if choice.variant == candidate.name]
    if not points:
        return "Kept." if candidate.name in report.kept else ""
    if len(points) == len(selection.choices):
        return "Chosen at every point at which candidates were compared."
    by_threads: dict[int, list[str]] = {}
    for point in points:
        by_threads.setdefault(point.threads, []).append(str(point.batch))
    told = [
        f"on {threads_text(threads)} at batch {listed(sizes)}"
        for threads, sizes in by_threads.items()
    ]
    return f"Chosen {'; '.join(told)}."


def _ended(reason: str) -> str:
    said = plain(reason)
    return said if said.endswith((".", "!", "?", "…")) else f"{said}."

"""How time and throughput grow with the batch, and what sessions and callers side by side give."""

from collections.abc import Callable, Sequence

from headrace.bundle.measurement import Candidate, Measurement, Point, Timing
from headrace_compiler.report.axis import Axis, axis_from_zero, latency_axis
from headrace_compiler.report.curves import Curve, curve_chart
from headrace_compiler.report.markup import Markup, tag
from headrace_compiler.report.reading import alone, baseline, duration, threads_text
from headrace_compiler.report.report import Report
from headrace_compiler.report.table import Row, figure_cell, scrolled, table
from headrace_compiler.report.text import NOTHING, count, figure

_MOST_COUNTS = 4  # lines of one candidate in a chart; the table has all of them
_MOST_VARIANTS = 4
_LABEL_LENGTH = 6
_BESIDE = "Sessions and callers side by side"
Value = Callable[[Timing], float]


def batches(report: Report) -> Markup:
    """Charts and tables of the chosen variants and fp32; nothing where no time was measured."""
    measurement = report.measurement
    by_name = {each.name: each for each in measurement.candidates}
    chosen = [by_name[name] for name in measurement.selection.chosen]
    reference = baseline(measurement.candidates)
    shown = list(
        dict.fromkeys([*(c.name for c in chosen), *([reference.name] if reference else [])])
    )
    drawn = [by_name[name] for name in shown if alone(by_name[name])]
    if not drawn:
        return Markup()
    return tag(
        "section",
        tag("h2", "Batches, threads and sessions", id="batches"),
        *_charts(drawn, reference),
        _choices(measurement),
        _times(drawn),
        _sessions(drawn),
        class_="card",
    )


def _charts(drawn: Sequence[Candidate], reference: Candidate | None) -> list[Markup]:
    sizes = sorted({t.point.batch for each in drawn for t in alone(each) if t.p50 > 0})
    if len(sizes) < 2:
        return []
    every = [t for each in drawn for t in alone(each)]
    latencies = [t.p50 * 1e3 for t in every if t.p50 > 0]
    axes = (latency_axis(latencies), axis_from_zero(max(t.rows_per_second for t in every)))
    own = [each for each in drawn if each is not reference] or list(drawn)
    charts = []
    for candidate in own[:_MOST_VARIANTS]:
        other = reference if reference in drawn and reference is not candidate else None
        charts += _pair(candidate, other, sizes, axes)
    return [tag("div", *charts, class_="charts broad")]


def _pair(
    candidate: Candidate, other: Candidate | None, sizes: Sequence[int], axes: tuple[Axis, Axis]
) -> list[Markup]:
    """Latency and throughput of one variant, with fp32's beside it."""
    dashed = f", dashed: {other.name}" if other else ""
    kinds: tuple[tuple[str, str, Value], ...] = (
        ("Median time of a batch", "ms", lambda timing: timing.p50 * 1e3),
        ("Throughput", "rows/s", lambda timing: timing.rows_per_second),
    )
    charts = []
    for (name, unit, value), axis in zip(kinds, axes, strict=True):
        curves = _curves(candidate, value, unit, own=True)
        curves += _curves(other, value, unit, own=False) if other else []
        title = (
            f"{name} of {candidate.name} by batch and threads{dashed}. The table has the figures."
        )
        said = tag("span", f"{candidate.name}{dashed}")
        caption = tag("figcaption", tag("b", name), " ", said)
        charts.append(tag("figure", caption, curve_chart(title, curves, sizes, axis, unit)))
    return charts


def _curves(candidate: Candidate, value: Value, unit: str, *, own: bool) -> list[Curve]:
    found: dict[int, list[tuple[int, float]]] = {}
    for timing in alone(candidate):
        if timing.p50 > 0:
            found.setdefault(timing.point.threads, []).append((timing.point.batch, value(timing)))
    return [
        Curve(
            label=threads_text(threads) if own else f"{candidate.name[:_LABEL_LENGTH]}, {threads}",
            said=f"{candidate.name} on {threads_text(threads)}: "
            + ", ".join(f"batch {batch} {figure(number)} {unit}" for batch, number in points),
            points=points,
            own=own,
        )
        for threads, points in _few(list(found.items()))
    ]


def _few(
    items: Sequence[tuple[int, list[tuple[int, float]]]],
) -> list[tuple[int, list[tuple[int, float]]]]:
    """The first, the last, and some between them."""
    if len(items) <= _MOST_COUNTS:
        return list(items)
    last = len(items) - 1
    places = {round(last * number / (_MOST_COUNTS - 1)) for number in range(_MOST_COUNTS)}
    return [items[place] for place in sorted(places)]


def _choices(measurement: Measurement) -> Markup:
    """The variant to run at each point, where it is not the same everywhere."""
    choices = measurement.selection.choices
    if len(measurement.selection.chosen) < 2:
        return Markup()
    sizes = sorted({choice.point.batch for choice in choices})
    counts = sorted({choice.point.threads for choice in choices})
    by_point = {choice.point: choice.variant for choice in choices}
    rows = [
        Row(
            "peer",
            [
                threads_text(threads),
                *(by_point.get(Point(batch=b, threads=threads), NOTHING) for b in sizes),
            ],
            "",
        )
        for threads in counts
    ]
    headings = ["chosen on", *(f"batch {size}" for size in sizes)]
    text = frozenset(range(len(headings)))
    return _titled(
        "Variant chosen at each point", table("Choices", headings, rows, text=text, cards=False)
    )


def _times(drawn: Sequence[Candidate]) -> Markup:
    sizes = sorted({t.point.batch for each in drawn for t in alone(each)})
    rows = []
    for candidate in drawn:
        for threads in sorted({t.point.threads for t in alone(candidate)}):
            found = [candidate.timing(Point(batch=b, threads=threads)) for b in sizes]
            name = Markup.joined(candidate.name, " ", tag("small", threads_text(threads)))
            rows.append(Row("peer", [name, *(_time_cell(timing) for timing in found)], ""))
    headings = ["variant", *(f"batch {size}" for size in sizes)]
    return _titled(
        "Median time of a batch, and rows per second",
        table("Times by batch and threads", headings, rows, text=frozenset({0}), cards=False),
    )


def _time_cell(timing: Timing | None) -> Markup:
    if timing is None:
        return figure_cell(NOTHING, "")
    rate = f"{figure(timing.rows_per_second)}/s"
    return figure_cell(duration(timing.p50), rate if timing.stable else f"{rate}, unsettled")


def _sessions(drawn: Sequence[Candidate]) -> Markup:
    """Several sessions, and several callers of one: throughput against one alone."""
    rows = []
    for candidate in drawn:
        timings = [t for t in candidate.timings if t.point.sessions > 1 or t.point.callers > 1]
        for timing in timings:
            point = timing.point
            single = candidate.timing(Point(batch=point.batch, threads=point.threads))
            cells = [
                candidate.name,
                _way(point),
                figure_cell(figure(point.batch), ""),
                figure_cell(duration(timing.p50), f"p99 {duration(timing.p99)}"),
                figure_cell(f"{figure(timing.rows_per_second)}/s", _gain(timing, single)),
            ]
            rows.append(Row("peer", cells, ""))
    if not rows:
        return Markup()
    headings = ["variant", "side by side", "batch", "median time", "throughput"]
    found = table(_BESIDE, headings, rows, text=frozenset({0, 1}), cards=False)
    return _titled(_BESIDE, found)


def _way(point: Point) -> str:
    threads = threads_text(point.threads)
    if point.sessions > 1:
        return f"{count(point.sessions, 'session')} of {threads}, a caller each"
    return f"one session of {threads}, {count(point.callers, 'caller')}"


def _gain(timing: Timing, single: Timing | None) -> str:
    if single is None or not single.rows_per_second:
        return ""
    return f"{figure(timing.rows_per_second / single.rows_per_second)} times one alone"


def _titled(title: str, found: Markup) -> Markup:
    return Markup.joined(tag("h3", title), scrolled(title, found))

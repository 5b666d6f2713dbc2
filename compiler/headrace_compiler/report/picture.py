"""The picture of a measurement: how exact each candidate is, against how fast."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from headrace.bundle.measurement import Accuracy, Candidate, Measurement, Timing
from headrace_compiler.report.axis import Axis, latency_axis, logarithmic_axis, tight_axis
from headrace_compiler.report.bars import Bar, bar_chart
from headrace_compiler.report.markup import Markup, tag
from headrace_compiler.report.reading import (
    alone,
    baseline,
    chosen_at,
    duration,
    first_batch,
    is_share,
    lower_is_better,
    median_ends,
    score,
    thread_counts,
    threads_text,
)
from headrace_compiler.report.scatter import Ends, Kind, Mark, Plot, scatter
from headrace_compiler.report.text import count, figure, plain

_FAR = 3.0  # times the budget: what loses far more lies on the edge, for the others to be told
_MOST_BARS = 20
_LEAST_ERROR = 1e-12  # of float32 answers; what is smaller lies on the edge
Timed = tuple[Candidate, Timing]


@dataclass(frozen=True)
class _Scale:
    """What lies on the y axis: where each candidate is, and the axis itself."""

    of: Callable[[Candidate], Ends]
    said: Callable[[Candidate], str]
    axis: Axis
    ticks: Sequence[str]
    unit: str
    up: bool
    limit: float | None = None


def picture(measurement: Measurement) -> Markup:
    """One chart for each number of threads; nothing where no time was measured."""
    counts = thread_counts(measurement)
    if not counts:
        return Markup()
    batch = first_batch(measurement)
    groups = {threads: _timed(measurement, batch, threads) for threads in counts}
    everyone = [candidate for group in groups.values() for candidate, _ in group]
    unique = list({candidate.name: candidate for candidate in everyone}.values())
    scale = _accuracy_scale(measurement, unique) or _error_scale(unique)
    charts = [_chart(measurement, threads, group, scale) for threads, group in groups.items()]
    title = "Accuracy against latency" if scale and scale.up else "Error against latency"
    return tag(
        "section",
        tag("h2", title if scale else "Latency", id="picture"),
        tag("p", _explained(measurement, scale), class_="lead"),
        tag("div", *charts, class_="charts broad"),
        class_="card",
    )


def _timed(measurement: Measurement, batch: int, threads: int) -> list[Timed]:
    """Who was timed there, with what was found."""
    return [
        (candidate, timing)
        for candidate in measurement.candidates
        for timing in alone(candidate)
        if (timing.point.batch, timing.point.threads) == (batch, threads) and timing.p50 > 0
    ]


def _explained(measurement: Measurement, scale: _Scale | None) -> str:
    lines = "Median time at the smallest batch; lines are 95 % intervals."
    if scale is None:
        return f"{lines} There is no evaluation data, and no error was measured."
    marks = "The chosen variant is ringed; the stepped line joins what nothing beats on both axes."
    if scale.limit is None and not any(each.accuracy for each in measurement.candidates):
        return f"{lines} {marks} There is no evaluation data: the largest error is shown instead."
    return (
        f"{lines} {marks} Upright lines are the interval of the difference from the fp32 graph;"
        " a candidate is hollow where it reaches beyond the budget or another limit."
    )


def _chart(
    measurement: Measurement, threads: int, group: Sequence[Timed], scale: _Scale | None
) -> Markup:
    batch = first_batch(measurement)
    chosen = chosen_at(measurement, batch, threads)
    caption = tag(
        "figcaption",
        tag("b", threads_text(threads)),
        " ",
        tag("span", f"chosen: {chosen}" if chosen else "nothing was chosen"),
    )
    if scale is None:
        title = f"Median latency of {count(len(group), 'candidate')} on {threads_text(threads)}."
        bars = [_bar(each, timing, own=each.name == chosen) for each, timing in group]
        bars = sorted(bars, key=lambda bar: bar.value)[:_MOST_BARS]
        return tag("figure", caption, bar_chart(title, bars))
    outside = _outside(measurement)
    marks = [
        Mark(
            name=candidate.name,
            x=_milliseconds(timing),
            y=scale.of(candidate),
            kind=_kind(candidate.name, chosen, outside),
            said=f"{candidate.name}: {duration(timing.p50)}, {scale.said(candidate)}",
        )
        for candidate, timing in group
        if not math.isnan(scale.of(candidate).value)
    ]
    if not marks:
        return tag("figure", caption, tag("p", "No candidate was scored.", class_="note"))
    title = (
        f"{scale.unit} against median latency of {count(len(marks), 'candidate')} on"
        f" {threads_text(threads)}. The table of candidates has the figures."
    )
    return tag("figure", caption, scatter(title, marks, _plot(marks, scale, batch)))


def _kind(name: str, chosen: str | None, outside: frozenset[str]) -> Kind:
    return "chosen" if name == chosen else "outside" if name in outside else "inside"


def _outside(measurement: Measurement) -> frozenset[str]:
    """The candidates that a limit refused; those that are only slower are inside."""
    dropped = measurement.selection.dropped
    return frozenset(each.variant for each in dropped if each.gate != "speed")


def _plot(marks: Sequence[Mark], scale: _Scale, batch: int) -> Plot:
    values = [mark.x.value for mark in marks]
    top = 1.5 * max(values)
    ends = [min(end, top) for mark in marks for end in mark.x.span or ()]
    x = latency_axis([*values, *(end for end in ends if end > min(values) / 2)])
    return Plot(
        x=x,
        y=scale.axis,
        up=scale.up,
        ticks=([f"{tick:,.6g}" for tick in x.ticks], scale.ticks),
        units=(f"ms at batch {batch}", scale.unit),
        limit=scale.limit,
        limit_name="budget",
    )


def _milliseconds(timing: Timing) -> Ends:
    low, high = median_ends(timing)
    if low is None or high is None:
        return Ends(timing.p50 * 1e3)
    return Ends(timing.p50 * 1e3, low * 1e3, high * 1e3)


def _bar(candidate: Candidate, timing: Timing, *, own: bool) -> Bar:
    found = _milliseconds(timing)
    label = f"chosen, {duration(timing.p50)}" if own else duration(timing.p50)
    return Bar(candidate.name, found.value, found.low, found.high, label, own)


def _accuracy_scale(measurement: Measurement, candidates: Sequence[Candidate]) -> _Scale | None:
    """The metric, up to a few budgets away from fp32; None where nothing was scored."""
    scored = [found for each in candidates if (found := _finite(each.accuracy))]
    if not scored:
        return None
    metric = scored[0].metric
    up, factor = not lower_is_better(metric), 100.0 if is_share(metric) else 1.0
    reference = baseline(candidates)
    origin = _finite(reference.accuracy) if reference else None
    start = origin.value if origin else None
    budget = measurement.limits.accuracy_loss
    limit = None if start is None else start - budget if up else start + budget

    def of(candidate: Candidate) -> Ends:
        found = _finite(candidate.accuracy)
        return Ends(found.value, *_ends(found, up=up)) if found else Ends(math.nan)

    def said(candidate: Candidate) -> str:
        accuracy = candidate.accuracy
        return f"{plain(metric, 60)} {score(accuracy.value, metric)}" if accuracy else ""

    values = [end for each in scored for end in (each.value, *_ends(each, up=up))]
    if start is not None:
        reach = max(_FAR * budget, 1.2 * median(abs(each.value - start) for each in scored))
        values = [min(max(value, start - reach), start + reach) for value in values]
    low, high = min(values), max(values)
    if limit is not None and (len(scored) == 1 or budget <= 4 * (high - low)):
        low, high = min(low, limit), max(high, limit)
    axis = tight_axis(low, high)
    shown = limit if limit is not None and axis.low < limit < axis.high else None
    ticks = [f"{factor * tick:.6g}" for tick in axis.ticks]
    unit = f"{plain(metric, 30)}, %" if is_share(metric) else plain(metric, 30)
    return _Scale(of, said, axis, ticks, unit if up else f"{unit} (less is better)", up, shown)


def _ends(accuracy: Accuracy, *, up: bool) -> tuple[float, float]:
    """The interval of the difference from fp32, laid around the value."""
    worst, best = accuracy.loss_high - accuracy.loss, accuracy.loss - accuracy.loss_low
    if up:
        return accuracy.value - worst, accuracy.value + best
    return accuracy.value - best, accuracy.value + worst


def _finite(accuracy: Accuracy | None) -> Accuracy | None:
    """What can be drawn: a metric may say something that is no number."""
    if accuracy is None:
        return None
    figures = (accuracy.value, accuracy.loss, accuracy.loss_low, accuracy.loss_high)
    return accuracy if all(math.isfinite(each) for each in figures) else None


def _error_scale(candidates: Sequence[Candidate]) -> _Scale | None:
    """The largest error from the source model; None where it is not known, or of one alone."""
    errors = [max(each.error, _LEAST_ERROR) for each in candidates if each.error]
    if len(errors) < 2:
        return None
    axis = logarithmic_axis(min(errors), max(errors))

    def of(candidate: Candidate) -> Ends:
        return Ends(math.nan if candidate.error is None else candidate.error)

    def said(candidate: Candidate) -> str:
        return f"largest error {figure(candidate.error or 0.0)}"

    ticks = [f"{tick:.0e}" if tick < 1e-3 else f"{tick:.6g}" for tick in axis.ticks]
    return _Scale(of, said, axis, ticks, "largest error", up=False)

"""What is read off a measurement: which points, which candidate to compare with, how sure."""

import math
from collections.abc import Sequence

from headrace.bundle.measurement import Accuracy, Candidate, Measurement, Point, Timing
from headrace.selection import compare_at, ladder, ratio_interval
from headrace_compiler.report.text import count, figure, plain, quantity

_SHARES = frozenset({"top1", "f1"})
_LOWER_IS_BETTER = frozenset({"mean_error"})


def baseline(candidates: Sequence[Candidate]) -> Candidate | None:
    """The fp32 candidate that the others are compared with; None where none runs."""
    return next((c for c in ladder(candidates) if c.precision == "fp32" and not c.fault), None)


def alone(candidate: Candidate) -> tuple[Timing, ...]:
    """What was measured with one session and one caller, by threads and batch."""
    found = [t for t in candidate.timings if t.point.sessions == t.point.callers == 1]
    return tuple(sorted(found, key=lambda t: (t.point.threads, t.point.batch)))


def first_batch(measurement: Measurement) -> int:
    """The smallest batch that was measured; nearly always 1."""
    batches = [t.point.batch for each in measurement.candidates for t in alone(each)]
    return min(batches, default=1)


def thread_counts(measurement: Measurement) -> tuple[int, ...]:
    """The numbers of threads at which any candidate's first batch was timed."""
    batch = first_batch(measurement)
    found = {
        timing.point.threads
        for candidate in measurement.candidates
        for timing in alone(candidate)
        if timing.point.batch == batch
    }
    return tuple(sorted(found))


def chosen_at(measurement: Measurement, batch: int, threads: int) -> str | None:
    """The variant to run there, if candidates were compared there."""
    wanted = Point(batch=batch, threads=threads)
    choices = measurement.selection.choices
    return next((choice.variant for choice in choices if choice.point == wanted), None)


def median_ends(timing: Timing) -> tuple[float | None, float | None]:
    """The 95 % interval of the median in seconds; no ends where there are too few rounds."""
    found = ratio_interval(timing.rounds, [1.0] * len(timing.rounds))
    if math.isinf(found.high):
        return None, None
    return min(found.low, timing.p50), max(found.high, timing.p50)


def speed(ours: Candidate, theirs: Candidate, point: Point) -> tuple[float, float, float] | None:
    """How many times as fast as another a candidate is, and the interval; None if not timed."""
    if ours.timing(point) is None or theirs.timing(point) is None:
        return None
    found = compare_at(ours, theirs, point)
    value, low, high = (
        1 / end if end else math.inf for end in (found.value, found.high, found.low)
    )
    return value, low, high


def is_share(metric: str) -> bool:
    """Whether a metric is a share of one, which people read in percent."""
    return metric in _SHARES


def lower_is_better(metric: str) -> bool:
    """Whether a metric is an error."""
    return metric in _LOWER_IS_BETTER


def score(value: float, metric: str) -> str:
    """A value of a metric as people read it."""
    if not math.isfinite(value):
        return figure(value)
    if is_share(metric):
        return f"{100 * value:.2f} %"
    return f"{value:.4f}" if 0.1 <= abs(value) < 10 else figure(value)


def difference(loss: float, metric: str) -> str:
    """A loss as people read it, without its unit."""
    if not math.isfinite(loss):
        return figure(loss)
    return f"{round(100 * loss, 2) + 0:.2f}" if is_share(metric) else f"{loss:.3g}"


def loss_text(accuracy: Accuracy) -> str:
    """What is lost of a metric, and at most."""
    unit = " points" if is_share(accuracy.metric) else ""
    metric = plain(accuracy.metric, 60)
    most = f"at most {difference(max(0.0, accuracy.loss_high), accuracy.metric)}"
    if accuracy.loss <= 0 >= accuracy.loss_high:
        return f"loses nothing of {metric}"
    if accuracy.loss <= 0:
        return f"shows no loss of {metric} ({most}{unit})"
    return f"loses {difference(accuracy.loss, accuracy.metric)}{unit} of {metric} ({most})"


def duration(seconds: float) -> str:
    """A time in the unit that suits its size."""
    if seconds >= 1:
        return quantity(seconds, "s")
    return quantity(seconds * 1e3, "ms") if seconds >= 1e-4 else quantity(seconds * 1e6, "µs")


def size_text(size: int) -> str:
    """Bytes in the unit that suits them."""
    return quantity(size / 1e6, "MB") if size >= 1e5 else quantity(size / 1e3, "kB")


def threads_text(threads: int) -> str:
    """So many threads."""
    return count(threads, "thread")

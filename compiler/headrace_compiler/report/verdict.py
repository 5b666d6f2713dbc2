"""The head of a report: what was built, and what came of it in a sentence or two."""

from collections.abc import Sequence

from headrace.bundle.measurement import Candidate, Measurement, Point
from headrace_compiler.report.document import header
from headrace_compiler.report.markup import Markup, tag
from headrace_compiler.report.reading import (
    baseline,
    chosen_at,
    duration,
    first_batch,
    loss_text,
    speed,
    thread_counts,
    threads_text,
)
from headrace_compiler.report.report import Report
from headrace_compiler.report.text import figure, listed, plain

_MOST_LISTED = 3


def head(report: Report) -> Markup:
    """Name, version, what came of the build, and whose measurement this is."""
    measurement = report.measurement
    lines: list[Markup | str] = []
    if report.problem:
        lines.append(tag("b", plain(report.problem)))
    lines += [tag("b", said) for said in verdict(measurement)]
    machine = measurement.hardware
    if report.manifest:
        lines.append(Markup.joined("Content ", tag("code", measurement.content)))
    where = f"Measured on {machine.fingerprint}, {machine.processor}"
    lines.append(f"{plain(where, 300)}, {plain(measurement.provider, 100)}")
    if report.manifest and report.manifest.description:
        lines.insert(0, plain(report.manifest.description))
    failed = report.manifest is None
    title = f"No bundle: {plain(report.title, 160)}" if failed else plain(report.title, 160)
    return header(title, "headrace compile", lines, "regressed" if failed else "named")


def verdict(measurement: Measurement) -> tuple[str, ...]:
    """A sentence for each variant that was chosen for the smallest batch on so many threads."""
    batch = first_batch(measurement)
    found: dict[str, list[int]] = {}
    for threads in thread_counts(measurement):
        name = chosen_at(measurement, batch, threads)
        if name:
            found.setdefault(name, []).append(threads)
    by_name = {each.name: each for each in measurement.candidates}
    reference = baseline(measurement.candidates)
    said = [_sentence(by_name[name], reference, batch, counts) for name, counts in found.items()]
    return tuple(said) or (_nothing(measurement),)


def _nothing(measurement: Measurement) -> str:
    if any(candidate.timings for candidate in measurement.candidates):
        return "No variant was chosen on this machine."
    return "No time was measured on this machine."


def _sentence(
    candidate: Candidate, reference: Candidate | None, batch: int, counts: Sequence[int]
) -> str:
    points = [Point(batch=batch, threads=threads) for threads in counts]
    times = [timing.p50 for point in points if (timing := candidate.timing(point))]
    where = [
        f"{duration(time)} on {threads_text(threads)}"
        for time, threads in zip(times, counts, strict=False)
    ]
    parts = [f"{candidate.name} answers in {_several(where)} at batch {batch}"]
    if reference and reference.name != candidate.name:
        ratios = [found[0] for point in points if (found := speed(candidate, reference, point))]
        if ratios:
            factors = _several(list(dict.fromkeys(figure(ratio) for ratio in ratios)))
            parts.append(f"{factors} times as fast as {reference.name}")
    if candidate.name == getattr(reference, "name", None):
        return f"{parts[0]}; no other candidate is faster and keeps to the limits."
    sentence = ", ".join(parts)
    if candidate.accuracy:
        return f"{sentence}, and {loss_text(candidate.accuracy)}."
    return f"{sentence}."


def _several(words: Sequence[str]) -> str:
    """All of a few words; of many, the first and the last."""
    return listed(words) if len(words) <= _MOST_LISTED else f"{words[0]} to {words[-1]}"

"""Two stored runs of one machine, case by case."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from headrace.errors import UsageError
from headrace_bench.gate import Comparison, GateReport, worst_verdict
from headrace_bench.result import CaseResult, Metric, read_results
from headrace_bench.statistics import Interval, judge


def compare_runs(base: Path, head: Path, *, threshold: float) -> GateReport:
    """What changed from one run to another.

    The two were not measured side by side, so what the machine did between them stands in the
    ratios, and no interval holds it; `bench gate` is the comparison to believe.

    Raises:
        UsageError: A run cannot be read, they are of unlike machines, or have no case in common.
    """
    runs = [{_key(result): result for result in read_results(path)} for path in (base, head)]
    fingerprints = {result.fingerprint for run in runs for result in run.values()}
    if len(fingerprints) > 1:
        raise UsageError(
            "bench.fingerprints",
            f"the runs are of unlike machines: {', '.join(sorted(fingerprints))}",
            "figures of one machine say nothing of another; measure both on one",
        )
    comparisons = tuple(_compare(runs[0], runs[1], threshold))
    if not comparisons:
        raise UsageError("bench.nothing", "the runs have no measured case in common")
    sample = next(iter(runs[0].values()))
    return GateReport(
        base=str(base),
        head=str(head),
        threshold=threshold,
        confidence=0.95,
        verdict=worst_verdict([comparison.verdict for comparison in comparisons]),
        comparisons=comparisons,
        fingerprint=sample.fingerprint,
        processor=sample.processor,
        other_cores=None,
        seconds=0.0,
        reason="the runs were not measured side by side",
    )


def _key(result: CaseResult) -> tuple[str, str, str]:
    return result.suite, result.case, result.contestant


def _compare(
    base: Mapping[tuple[str, str, str], CaseResult],
    head: Mapping[tuple[str, str, str], CaseResult],
    threshold: float,
) -> Iterator[Comparison]:
    for key, before in base.items():
        after = head.get(key)
        if after is None or "ok" not in {before.status, after.status}:
            continue
        if before.status != after.status:
            broken = after.status != "ok"
            yield _lost(key, before if not broken else after, broken=broken)
            continue
        for metric in before.metrics:
            other = after.metric(metric.name)
            if other is not None and metric.better != "neither" and min(metric.value, other.value):
                yield _pair(key, metric, other, threshold)


def _lost(key: tuple[str, str, str], result: CaseResult, *, broken: bool) -> Comparison:
    """A case that has figures in one run alone."""
    return Comparison(
        metric=f"{'/'.join(key)} runs",
        unit="1",
        better="higher",
        base=1.0 if broken else 0.0,
        head=0.0 if broken else 1.0,
        ratio=0.0 if broken else 1e9,
        low=0.0 if broken else 1e9,
        high=0.0 if broken else 1e9,
        verdict="too noisy to say"
        if result.status == "disturbed"
        else "regressed"
        if broken
        else "improved",
        pairs=0,
        note=result.reason,
    )


def _pair(key: tuple[str, str, str], base: Metric, head: Metric, threshold: float) -> Comparison:
    value = head.value / base.value
    spread = math.exp(math.hypot(_spread(base), _spread(head)))
    ratio = Interval(value, value / spread, value * spread)
    if base.better == "neither":
        raise AssertionError  # left out above
    return Comparison(
        metric=f"{'/'.join(key)} {base.name}",
        unit=base.unit,
        better=base.better,
        base=base.value,
        head=head.value,
        ratio=ratio.value,
        low=ratio.low,
        high=ratio.high,
        verdict=judge(ratio, threshold=threshold, better=base.better),
        pairs=0,
    )


def _spread(metric: Metric) -> float:
    """Half the width of an interval, as a logarithm; 0 where there is none."""
    if not metric.low or not metric.high:
        return 0.0
    return math.log(metric.high / metric.low) / 2

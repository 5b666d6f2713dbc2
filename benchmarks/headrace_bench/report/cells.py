"""What every form of a report says alike: figures, headings, the order of contestants."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from headrace_bench.gate import Comparison, GateReport
from headrace_bench.result import CaseResult, Metric, Ratio, Status
from headrace_compiler.report.text import DASH, NOTHING, TIMES, UNBOUNDED, decimals, figure, plain

_SHORT: Mapping[str, str] = {
    "latency_p50": "p50",
    "latency_p99": "p99",
    "cpu_per_operation": "CPU/op",
}
_LONG: Mapping[str, str] = {
    "latency_p50": "Median latency",
    "latency_p99": "99th percentile of latency",
    "throughput": "Throughput",
    "cpu_per_operation": "CPU per operation",
}


@dataclass(frozen=True)
class Column:
    """A metric that contestants of a case have."""

    name: str
    unit: str
    better: Literal["lower", "higher", "neither"]

    @property
    def short(self) -> str:
        """As the heading of a column of figures."""
        if (self.name, self.unit) == ("throughput", "1/s"):
            return "rows/s"
        return f"{metric_name(self.name)} {self.unit}".removesuffix(" 1")

    @property
    def long(self) -> str:
        """As the title of a chart."""
        words = plain(self.name.replace("_", " "))
        return _LONG.get(self.name, words[:1].upper() + words[1:])

    def of(self, result: CaseResult) -> Metric | None:
        """This metric of a contestant, if it was measured and is a number."""
        for metric in result.metrics:
            if (metric.name, metric.unit) == (self.name, self.unit):
                return metric if math.isfinite(metric.value) else None
        return None


def columns(results: Sequence[CaseResult]) -> tuple[Column, ...]:
    """The metrics of a case: first those that every suite has, then the others as they come."""
    found: dict[tuple[str, str], Column] = {}
    for result in results:
        for metric in result.metrics:
            column = Column(metric.name, metric.unit, metric.better)
            found.setdefault((metric.name, metric.unit), column)
    known = list(_LONG)
    return tuple(sorted(found.values(), key=lambda c: (*known, c.name).index(c.name)))


def ranked(results: Sequence[CaseResult]) -> tuple[CaseResult, ...]:
    """The contestants of a case, the best by its first metric first, then those without figures."""
    first = next(iter(columns(results)), None)

    def place(result: CaseResult) -> tuple[bool, float]:
        metric = first.of(result) if first else None
        if metric is None:
            return True, 0.0
        return False, -metric.value if metric.better == "higher" else metric.value

    return tuple(sorted(results, key=place))


def ratio_columns(results: Sequence[CaseResult]) -> tuple[tuple[str, str], ...]:
    """The ratios of a case, as pairs of metric and the contestant compared with."""
    return tuple(dict.fromkeys((r.metric, r.other) for result in results for r in result.ratios))


def ratio_heading(metric: str, other: str) -> str:
    """As the heading of a column of ratios."""
    return f"{metric_name(metric)} vs {plain(other, 60)}"


def ratio_cell(result: CaseResult, metric: str, other: str) -> str:
    """A contestant's ratio with its interval."""
    for ratio in result.ratios:
        if (ratio.metric, ratio.other) == (metric, other):
            return times(ratio)
    return f"1{TIMES}" if result.contestant == other and result.status == "ok" else NOTHING


def is_own(contestant: str) -> bool:
    """Whether a contestant is headrace, in whichever layout."""
    return contestant == "headrace" or contestant.startswith(
        ("headrace ", "headrace-", "headrace,")
    )


def remark(result: CaseResult) -> str:
    """Why there are no figures, or what is to be known of them, on one line."""
    reason = plain(result.reason)
    if result.status == "ok":
        return reason
    return f"{result.status}: {reason}" if reason else result.status


def summary(results: Sequence[CaseResult]) -> str:
    """How a run went, in one sentence without an end."""
    if not results:
        return "nothing was measured"
    counts = dict.fromkeys(get_args(Status), 0)
    for result in results:
        counts[result.status] += 1
    said = [f"{counts[status]} {status}" for status in counts if status != "ok" and counts[status]]
    measured = f"{counts['ok']} of {len(results)} contestants measured"
    return ", ".join([measured, *said])


def metric_name(name: str) -> str:
    """A metric's name as people read it."""
    return _SHORT.get(name, plain(name.replace("_", " "), 60))


def parameters(result: CaseResult) -> tuple[str, ...]:
    """What a case was measured with."""
    return tuple(
        f"{plain(name, 60)} {plain(value if isinstance(value, str) else figure(value), 100)}"
        for name, value in result.parameters.items()
    )


def times(ratio: Ratio | Comparison) -> str:
    """A ratio and its interval, all to the same decimals."""
    value = ratio.value if isinstance(ratio, Ratio) else ratio.ratio
    ends = (ratio.low, ratio.high)
    digits = max(decimals(value), 3 if value < 2 else 0)
    said = f"{_factor(value, digits)}{TIMES}"
    if ends == (value, value):
        return said
    return f"{said} ({DASH.join(_factor(end, digits) for end in ends)})"


def worse(comparison: Comparison) -> tuple[float, float, float]:
    """By which factor head is worse than base, and the interval: below 1 it is better."""
    if comparison.better == "lower":
        return comparison.ratio, comparison.low, comparison.high
    ends = (comparison.ratio, comparison.high, comparison.low)
    ratio, low, high = (1 / end if end else math.inf for end in ends)
    return ratio, low, high


def gate_summary(report: GateReport) -> str:
    """What decided a gate's verdict, in one line; empty where nothing did."""
    decisive = [each for each in report.comparisons if each.verdict == report.verdict]
    said = ", ".join(f"{metric_name(each.metric)} {times(each)}" for each in decisive)
    return "; ".join(part for part in (said, plain(report.reason)) if part)


def others(results: Sequence[CaseResult]) -> str:
    """How busy others kept the machine; empty where that is not known."""
    known = [result.other_cores for result in results if result.other_cores is not None]
    if not known:
        return ""
    low, high = f"{min(known):.2f}", f"{max(known):.2f}"
    cores = low if low == high else f"{low} to {high}"
    return f"others kept {cores} cores busy meanwhile"


def versions(results: Sequence[CaseResult]) -> tuple[tuple[str, str], ...]:
    """The contestants that stood on the same packages, and those."""
    found: dict[tuple[tuple[str, str], ...], dict[str, None]] = {}
    for result in results:
        packages = tuple(sorted(result.versions.items()))
        if packages:
            found.setdefault(packages, {})[plain(result.contestant, 100)] = None
    return tuple(
        (", ".join(names), ", ".join(f"{plain(n, 60)} {plain(v, 60)}" for n, v in packages))
        for packages, names in found.items()
    )


def machines(results: Sequence[CaseResult]) -> tuple[tuple[str, str], ...]:
    """Fingerprints and processors; a run has one."""
    found = dict.fromkeys((result.fingerprint, result.processor) for result in results)
    return tuple((plain(fingerprint, 100), plain(name, 100)) for fingerprint, name in found)


def bundles(results: Sequence[CaseResult]) -> tuple[str, ...]:
    """The digests of the bundles of a run."""
    return tuple(dict.fromkeys(plain(result.bundle, 100) for result in results if result.bundle))


def _factor(value: float, digits: int) -> str:
    if math.isfinite(value) and value < UNBOUNDED:
        return f"{value:,.{digits}f}"
    return NOTHING if math.isnan(value) else "∞"

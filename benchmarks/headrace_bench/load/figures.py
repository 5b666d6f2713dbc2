"""What of a run under LoadGen goes into a result, and whether any of it does."""

from collections.abc import Sequence

from headrace_bench.contest import OTHERS_LIMIT
from headrace_bench.load.loadgen import ScenarioResult
from headrace_bench.load.peak import MeasuredPeak
from headrace_bench.result import Metric, Status


def judge(found: ScenarioResult, others: float, cores: int) -> tuple[Status, str]:
    """Whether a run's figures are given, and what is to be known of it."""
    disturbed = _disturbed(others, cores)
    if not found.valid:
        invalid = f"LoadGen: INVALID: {'; '.join(found.reasons)}"
        if disturbed and not found.account.errors:  # nobody knows whose fault it was
            return "disturbed", f"{disturbed}; {invalid}"
        return "failed", invalid
    if disturbed:
        return "disturbed", disturbed
    asked = f"{found.settings.seconds:g} s"
    return "ok", f"{asked}, where MLPerf asks for 600 s" if found.shorter_than_mlperf else ""


def judge_peak(found: MeasuredPeak, others: float, cores: int) -> tuple[Status, str]:
    """As `judge`, of a search."""
    peak = found.peak
    if not peak.met:
        tried = found.runs[-1].settings.rate if found.runs else 0.0
        why = "; ".join(found.runs[-1].reasons) if found.runs else "there was no time to try"
        return "failed", f"no rate met the objective; the last was {tried:.4g} a second: {why}"
    disturbed = _disturbed(others, cores)
    if disturbed:
        return "disturbed", disturbed
    if not peak.complete:
        missed = f"missed at {peak.missed:.4g}" if peak.missed else "no rate was missed"
        return "ok", f"time ran out: met at {peak.met:.4g} a second, {missed}"
    return "ok", ""


def scenario_metrics(found: ScenarioResult) -> tuple[Metric, ...]:
    """The figures of a valid run; percentiles as far as LoadGen's early stopping bears them."""
    logged, account = found.logged, found.account
    metrics = []
    if logged.scenario != "Offline":
        shown = [q for q in (0.5, 0.9, 0.99) if q <= found.settings.target]
        metrics += [_latency(q, logged.latencies_s[q]) for q in shown]
    if logged.rate is not None:
        metrics.append(
            Metric(name="throughput", value=rounded(logged.rate), unit="1/s", better="higher")
        )
    if logged.scheduled_rate is not None:
        value = rounded(logged.scheduled_rate)
        metrics.append(Metric(name="scheduled_rate", value=value, unit="1/s", better="neither"))
    cpu = rounded(1e3 * account.cpu_seconds / account.samples)
    return (*metrics, Metric(name="cpu_per_operation", value=cpu, unit="ms"))


def peak_metrics(found: MeasuredPeak) -> tuple[Metric, ...]:
    """The bracket of the peak, and the run at its lower end."""
    peak, best = found.peak, found.best()
    metrics = [Metric(name="peak_rate", value=rounded(peak.met), unit="1/s", better="higher")]
    if peak.missed is not None:
        value = rounded(peak.missed)
        metrics.append(Metric(name="missed_rate", value=value, unit="1/s", better="neither"))
    if best is not None:
        cpu = rounded(1e3 * best.account.cpu_seconds / best.account.samples)
        metrics.append(Metric(name="cpu_per_operation", value=cpu, unit="ms"))
    return tuple(metrics)


def other_cores(runs: Sequence[ScenarioResult]) -> float:
    """How many cores others kept busy during runs, on average."""
    seconds = sum(run.account.seconds for run in runs)
    busy = sum(run.account.machine_cpu_seconds - run.account.own_cpu_seconds for run in runs)
    return round(max(0.0, busy / seconds), 3) if seconds else 0.0


def _disturbed(others: float, cores: int) -> str:
    if others <= OTHERS_LIMIT * cores:
        return ""
    return f"others kept {others:.2f} of {cores} cores busy meanwhile: no figures"


def _latency(q: float, seconds: float) -> Metric:
    return Metric(name=f"latency_p{round(100 * q)}", value=rounded(1e3 * seconds), unit="ms")


def rounded(value: float) -> float:
    """To five digits."""
    return float(f"{value:.5g}")

"""Made-up results of benchmarks, for tests of how they are told; the figures mean nothing."""

from collections.abc import Sequence

from headrace_bench.gate import Comparison, GateReport
from headrace_bench.result import CaseResult, Metric, Ratio, Status
from headrace_bench.statistics import Verdict


def measured(
    contestant: str,
    p50_ms: float,
    cpu_ms: float,
    memory_mb: float,
    *,
    case: str = "tiny over HTTP",
    reference: tuple[float, float] | None = None,
    reason: str = "",
) -> CaseResult:
    """A contestant with figures; `reference` has the latency and the CPU time of headrace."""
    metrics = (
        Metric(name="latency_p50", value=p50_ms, unit="ms", low=p50_ms * 0.95, high=p50_ms * 1.06),
        Metric(name="latency_p99", value=p50_ms * 2, unit="ms", low=p50_ms * 1.8, high=p50_ms * 3),
        Metric(
            name="throughput",
            value=8e3 / p50_ms,
            unit="1/s",
            better="higher",
            low=7.6e3 / p50_ms,
            high=8.3e3 / p50_ms,
        ),
        Metric(name="cpu_per_operation", value=cpu_ms, unit="ms", low=cpu_ms, high=cpu_ms * 1.02),
        Metric(name="memory", value=memory_mb, unit="MB"),
        Metric(name="start", value=memory_mb / 90, unit="s"),
    )
    ratios: tuple[Ratio, ...] = ()
    if reference:
        pairs = (
            ("latency_p50", p50_ms / reference[0]),
            ("cpu_per_operation", cpu_ms / reference[1]),
        )
        ratios = tuple(
            Ratio(metric=name, other="headrace", value=x, low=x * 0.97, high=x * 1.04)
            for name, x in pairs
        )
    return _result(case, contestant, "ok", reason).model_copy(
        update={"metrics": metrics, "ratios": ratios, "other_cores": 0.07}
    )


def without_figures(
    contestant: str, status: Status, reason: str, *, case: str = "tiny over HTTP"
) -> CaseResult:
    """A contestant that failed, is missing, or was disturbed."""
    return _result(case, contestant, status, reason)


def realistic_results() -> tuple[CaseResult, ...]:
    """Three cases: figures far apart, figures close together, and headrace alone."""
    peers = (
        ("uvicorn, raw ASGI echo", 0.41, 0.065, 48),
        ("fastapi", 2.4, 0.36, 160),
        ("mlserver, gRPC", 4.2, 0.63, 402),
        ("litserve", 6.6, 1.24, 388),
        ("bentoml", 13.0, 2.0, 510),
        ("ray serve, as it comes", 39.0, 9.2, 770),
    )
    tiny = [measured(*peer, reference=(0.62, 0.11)) for peer in peers]
    image, heavy = "CNN, 600 KB image", (7.1, 7.0)
    close = (
        ("uvicorn, raw ASGI and onnxruntime", 7.0, 6.9, 221),
        ("fastapi", 9.4, 9.6, 260),
        ("mlserver", 15.4, 16.0, 520),
        ("bentoml", 17.2, 18.0, 560),
    )
    return (
        measured("headrace", 0.62, 0.11, 131),
        *tiny,
        without_figures("triton", "missing", "no Triton binary for this architecture"),
        without_figures("kserve", "failed", "kserve was killed by signal 9: out of memory"),
        measured("headrace", *heavy, 240, case=image),
        *(measured(*peer, case=image, reference=heavy) for peer in close),
        without_figures("litserve", "disturbed", "others kept 0.91 of 2 cores busy", case=image),
        measured("headrace", 3.5, 3.4, 180, case="EfficientNet-Lite0, batch 1, 2 threads"),
    )


def comparison(  # noqa: PLR0913 - a metric of base and head
    metric: str,
    base: float,
    head: float,
    verdict: Verdict,
    *,
    unit: str = "ms",
    higher: bool = False,
    width: float = 0.03,
    pairs: int = 8,
    note: str = "",
) -> Comparison:
    """A metric of base and head, whose interval goes `width` to both sides of the ratio."""
    return Comparison(
        metric=metric,
        unit=unit,
        better="higher" if higher else "lower",
        base=base,
        head=head,
        ratio=head / base,
        low=head / base * (1 - width),
        high=head / base * (1 + width),
        verdict=verdict,
        pairs=pairs,
        note=note,
    )


def gate_report(comparisons: Sequence[Comparison] | None = None) -> GateReport:
    """A gate that found something of every kind, or what is given."""
    even: Verdict = "no difference shown"
    found = (
        comparison("latency", 0.621, 0.689, "regressed"),
        comparison("throughput", 1612, 1498, "regressed", unit="1/s", higher=True),
        comparison("cpu_per_request", 0.113, 0.1135, even, width=0.015),
        comparison("memory", 131.2, 118.9, "improved", unit="MB", width=0.01),
        comparison("cold_start", 1.21, 1.26, "too noisy to say", unit="s", width=0.25),
        comparison("size", 18.61, 18.61, even, unit="MB", width=0, pairs=0),
        comparison("accuracy", 0.913, 0.9126, even, unit="1", higher=True, width=0, pairs=0),
    )
    return GateReport(
        base="v0.1.0",
        head="working tree",
        threshold=0.05,
        confidence=0.99,
        verdict="regressed" if comparisons is None else "too noisy to say",
        comparisons=found if comparisons is None else tuple(comparisons),
        fingerprint="x86_64-2c-0123456789ab",
        processor="A processor",
        other_cores=0.12,
        seconds=214.3,
    )


def _result(case: str, contestant: str, status: Status, reason: str) -> CaseResult:
    own = {"headrace": "0.1.0"} if contestant == "headrace" else {"uvicorn": "0.54.0"}
    return CaseResult(
        suite="serving",
        case=case,
        contestant=contestant,
        status=status,
        reason=reason,
        parameters={"load": 8, "body": "binary"},
        bundle="sha256:" + "0a" * 32,
        fingerprint="x86_64-2c-0123456789ab",
        processor="A processor",
        versions={"onnxruntime": "1.32.0", **own},
        seconds=64.2,
        started="2030-01-02T03:04:05+00:00",
    )

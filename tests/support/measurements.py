"""Made-up measurements of bundles, for tests of what reads them; the figures mean nothing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headrace.bundle.manifest import Arithmetic, Engine, Precision
from headrace.bundle.measurement import (
    Accuracy,
    Candidate,
    LayerEffect,
    Limits,
    Measurement,
    Point,
    Sensitivity,
    Timing,
)
from headrace.hardware import Hardware
from headrace.selection import select

BATCHES = (1, 2, 4, 8, 16, 32)
HARDWARE = Hardware(
    architecture="x86_64",
    processor="A processor",
    instruction_sets=("avx2", "avx512_bf16", "avx512_vnni", "fma"),
    cores=2,
    memory_mib=7938,
    engines={"onnxruntime": "1.32.0", "openvino": "2026.4.1"},
)


@dataclass(frozen=True)
class Draft:
    """What a candidate is to be like.

    Attributes:
        ms: Median time of one row on one thread; None where it was not timed.
        loss: Of the metric; None where it was not scored.
        growth: The share of `ms` by which each further row costs more.
    """

    name: str
    precision: Precision
    engine: Engine = "onnxruntime"
    arithmetic: Arithmetic = "fp32"
    ms: float | None = 6.0
    loss: float | None = 0.0
    error: float = 1e-6
    size: int = 18_600_000
    growth: float = 0.85
    fault: str = ""


DRAFTS = (
    Draft("fp32", "fp32", ms=9.8, error=2.1e-6),
    Draft("fp32-openvino", "fp32", "openvino", ms=9.1, error=1.9e-6),
    Draft("bf16-openvino", "bf16", "openvino", "bf16", ms=5.6, loss=0.0006, error=0.021),
    Draft("fp16", "fp16", ms=None, loss=None, fault="the engine runs no node of it in fp16"),
    Draft("int8-static", "int8", ms=4.5, loss=0.0262, error=1.31, size=4_900_000),
    Draft("int8-static-mixed", "int8", ms=4.9, loss=0.0018, error=0.4, size=6_300_000),
    Draft(
        "int8-mixed-openvino", "int8", "openvino", ms=4.2, loss=0.0019, error=0.4, size=6_300_000
    ),
    Draft("int8-nncf", "int8", ms=31.0, loss=0.0047, error=0.9, size=5_000_000),
    Draft("int8-nncf-openvino", "int8", "openvino", ms=4.4, loss=0.0047, error=0.9, size=5_000_000),
    Draft("int8-dynamic", "int8", ms=15.2, loss=0.0031, error=0.7, size=5_100_000),
)
"""As a small image classifier has them on a processor with VNNI and bf16."""


def make_measurement(
    drafts: Sequence[Draft] = DRAFTS,
    *,
    limits: Limits | None = None,
    threads: Sequence[int] = (1, 2),
    batches: Sequence[int] = BATCHES,
    metric: str | None = "top1",
    samples: int = 10_000,
    layers: int = 26,
    rounds: int = 12,
) -> Measurement:
    """A measurement that holds together: the selection is what follows from its figures.

    Args:
        drafts: The candidates, the most precise first.
        limits: What they must keep to.
        threads: At which each was timed.
        batches: At which each was timed.
        metric: Of the evaluation data; None where there is none.
        samples: How many were scored.
        layers: Of the sensitivity of the first int8 candidate; 0 for none.
        rounds: Of each point.
    """
    limits = limits or Limits()
    candidates = tuple(
        _candidate(draft, number, threads, batches, metric, samples, rounds)
        for number, draft in enumerate(drafts)
    )
    broken = next((d.name for d in drafts if d.precision == "int8" and not d.fault), None)
    made = next((d.name for d in drafts if "mixed" in d.name), "")
    return Measurement(
        content="0a" * 32,
        hardware=HARDWARE,
        provider="CPUExecutionProvider",
        limits=limits,
        candidates=candidates,
        selection=select(candidates, limits, proven=metric is None),
        sensitivity=(_sensitivity(broken, made, layers),) if broken and layers else (),
    )


def _candidate(
    draft: Draft,
    number: int,
    threads: Sequence[int],
    batches: Sequence[int],
    metric: str | None,
    samples: int,
    rounds: int,
) -> Candidate:
    timed = draft.ms is not None and not draft.fault
    ms = draft.ms or 0.0
    return Candidate(
        name=draft.name,
        precision=draft.precision,
        engine=draft.engine,
        arithmetic=draft.arithmetic,
        graph=f"{number % 16:x}" * 64,
        size=draft.size,
        error=None if draft.fault else draft.error,
        accuracy=_accuracy(metric, draft.loss, samples)
        if metric and draft.loss is not None
        else None,
        timings=_timings(draft, number, threads, batches, rounds) if timed else (),
        load_seconds=0.05 + draft.size / 4e8 if timed else None,
        memory_mib=12 + draft.size / 6e5 + ms if timed else None,
        placement={"CPUExecutionProvider": 57 + number} if timed else {},
        fault=draft.fault,
    )


def _accuracy(metric: str, loss: float, samples: int) -> Accuracy:
    start, sign = (0.35, 1) if metric == "mean_error" else (0.9134, -1)
    value = start + sign * loss
    half = 1.96 * math.sqrt(abs(value * (1 - value)) / samples)
    paired = 1.96 * math.sqrt(max(loss, 0.0) * 1.5 / samples) if loss else 0.0
    return Accuracy(
        metric=metric,
        value=value,
        low=value - half,
        high=value + half,
        loss=loss,
        loss_low=loss - paired,
        loss_high=loss + paired,
        samples=samples,
    )


def _timings(
    draft: Draft, number: int, threads: Sequence[int], batches: Sequence[int], rounds: int
) -> tuple[Timing, ...]:
    points = [Point(batch=b, threads=t) for t in threads for b in batches]
    points += [Point(batch=1, threads=1, callers=2), Point(batch=1, threads=1, sessions=2)]
    return tuple(_timing(draft, number, point, rounds) for point in points)


def _timing(draft: Draft, number: int, point: Point, rounds: int) -> Timing:
    """All candidates were disturbed alike in one round, and a little each for itself."""
    shared = np.random.default_rng(point.batch * 64 + point.threads).lognormal(0, 0.03, rounds)
    own = np.random.default_rng(number).lognormal(0, 0.008, rounds)
    rows = 1 + draft.growth * (point.batch - 1)
    beside = max(point.sessions, point.callers)
    seconds = (draft.ms or 0.0) * 1e-3 * rows / point.threads**0.85 * (1.25 if beside > 1 else 1)
    found = seconds * shared * own
    median = float(np.median(found))
    return Timing(
        point=point,
        rounds=tuple(float(each) for each in found),
        p50=median,
        p95=median * 1.12,
        p99=median * 1.31,
        rows_per_second=point.batch * beside / median,
        runs=rounds * 20,
        stable=point.batch < 32,
    )


def _sensitivity(source: str, made: str, layers: int) -> Sensitivity:
    effects = tuple(
        LayerEffect(
            node=f"/features/features.{number}/conv/Conv",
            operator="Gemm" if number == 3 else "Conv",
            loss=0.012 * 0.75**number - 0.0001,
            error=0.31 * 0.8**number,
            restored=number < 4,
        )
        for number in range(layers)
    )
    return Sensitivity(source=source, made=made, layers=effects, complete=True)

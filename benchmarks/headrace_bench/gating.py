"""From what a user asks of the gate to its report: subjects, their servers, the exact metrics."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from headrace.errors import UsageError
from headrace.hardware import detect_hardware
from headrace_bench.accuracy import evaluation_accuracy, golden_agreement
from headrace_bench.gate import (
    MEASURES,
    Comparison,
    GateEffort,
    GateReport,
    exact_comparison,
    run_gate,
)
from headrace_bench.load.requests import write_request
from headrace_bench.process import Contestant
from headrace_bench.subjects import Subject, open_subjects

EXACT = ("size", "golden_agreement", "accuracy")
"""Metrics that need no repetition."""


@dataclass(frozen=True)
class GateRequest:
    """What the user asks; see `headrace bench gate --help`.

    Attributes:
        points: Percentage points of accuracy that may be lost.
        metrics: The names of those that decide; all, if empty.
        threads: Of the one session.
    """

    base: str
    head: str
    bundle: Path | None
    recipe: Path | None
    threshold: float
    points: float
    metrics: tuple[str, ...]
    threads: int
    effort: GateEffort


def gate_subjects(request: GateRequest, progress: Callable[[str], None]) -> GateReport:
    """Gates head against base.

    Raises:
        UsageError: The two cannot be compared, or a metric is unknown.
        CheckError: One of them does not start, crashes, or answers wrong.
    """
    _check_metrics(request)
    measures = tuple(m for m in MEASURES if _decides(request, m.name))
    with (
        tempfile.TemporaryDirectory(prefix="headrace-gate-") as directory,
        open_subjects(request.base, request.head, request.bundle, Path(directory)) as subjects,
    ):
        progress("comparing answers")
        exact = _exact(request, subjects)
        if not measures and not exact:
            raise UsageError(
                "gate.metric",
                f"nothing is left to compare: {', '.join(request.metrics)} does not apply here",
                "golden_agreement and accuracy are of bundles; accuracy needs --recipe",
            )
        contestants = [
            _contestant(subject, Path(directory), side, request.threads)
            for side, subject in zip(("base", "head"), subjects, strict=True)
        ]
        return run_gate(
            contestants[0],
            contestants[1],
            exact=exact,
            threshold=request.threshold,
            effort=request.effort,
            hardware=detect_hardware(),
            names=(subjects[0].name, subjects[1].name),
            measures=measures,
            progress=progress,
        )


def _check_metrics(request: GateRequest) -> None:
    known = (*(measure.name for measure in MEASURES), *EXACT)
    for name in request.metrics:
        if name not in known:
            raise UsageError(
                "gate.metric", f"there is no metric '{name}'; there are {', '.join(known)}"
            )


def _decides(request: GateRequest, metric: str) -> bool:
    return not request.metrics or metric in request.metrics


def _exact(request: GateRequest, subjects: tuple[Subject, Subject]) -> list[Comparison]:
    """Size, and how well head answers: on labelled data if there is a recipe, or as base does."""
    base, head = subjects
    found = []
    if request.recipe is not None and base.kind != "bundle":
        raise UsageError("gate.recipe", "--recipe is for two bundles")
    if _decides(request, "size"):
        sizes = (base.size_bytes / 1e6, head.size_bytes / 1e6)
        found.append(exact_comparison("size", "MB", *sizes, request.threshold))
    if base.kind == "bundle" and request.recipe is None and _decides(request, "golden_agreement"):
        found.append(golden_agreement(base.bundle, head.bundle))
    if request.recipe is not None and _decides(request, "accuracy"):
        bundles, points = (base.bundle, head.bundle), request.points
        found.append(evaluation_accuracy(*bundles, request.recipe, points=points))
    return found


def _contestant(subject: Subject, scratch: Path, side: str, threads: int) -> Contestant:
    """A subject as `serve --edge` on a free port, with a home of its own."""
    bundle = subject.bundle
    takes_images = bool(bundle.golden_cases()[0].raw)
    request = write_request(bundle, scratch / f"{side}-request", image=takes_images)
    command = [
        *(
            str(subject.python),
            "-P",
            "-m",
            "headrace.cli",
            "serve",
            "--edge",
            str(bundle.path.resolve()),
        ),
        *("--port", "{port}", "--grpc-port", "0", "--json"),
        *("--threads", str(threads)),
    ]
    return Contestant(
        name=side,
        factory="headrace_bench.load.served:open_served",
        arguments={
            "command": command,
            "environment": {
                "HEADRACE_HOME": str(scratch / f"{side}-home"),
                "PYTHONPATH": ":".join(map(str, subject.paths)),
            },
            "cores": threads,
            **request,
        },
    )

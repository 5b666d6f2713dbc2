"""One case: its contestants work in alternation, and each leaves one result."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal
from uuid import uuid4

from headrace.hardware import Hardware
from headrace_bench.measure import Block, quantile
from headrace_bench.process import Contestant, Worker, WorkerError
from headrace_bench.result import CaseResult, Metric, Ratio, Status
from headrace_bench.statistics import bootstrap_median, bootstrap_ratio

OTHERS_LIMIT = 0.25
"""The share of the machine that others may keep busy before figures are withheld."""
_FACTS: Mapping[str, Literal["s", "MB"]] = {"s": "s", "mb": "MB"}


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    Attributes:
        rounds: Blocks of each contestant.
        block_s: Seconds of one block.
        warm_s: Seconds each works before it counts.
        allow_load: Give figures though others keep the machine busy.
    """

    rounds: int
    block_s: float
    warm_s: float
    allow_load: bool = False


QUICK = Effort(rounds=5, block_s=0.2, warm_s=0.2)
FULL = Effort(rounds=15, block_s=0.5, warm_s=1.0)


@dataclass(frozen=True)
class Contest:
    """One case of a suite.

    Attributes:
        load: Callers at once.
        reference: The contestant to which the others are compared.
        bundle: The digest of the bundle in use.
        starts: How often every process is started anew: where its memory comes to lie moves its
            times by some percent, and only several starts tell by how much.
    """

    suite: str
    case: str
    contestants: tuple[Contestant, ...]
    reference: str = "headrace"
    load: int = 1
    parameters: Mapping[str, str | int | float] = field(default_factory=dict)
    bundle: str | None = None
    starts: int = 1


def run_contest(
    contest: Contest,
    effort: Effort,
    hardware: Hardware,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[CaseResult, ...]:
    """Measures every contestant of a case in alternation: A B C, B C A, C A B.

    A contestant that is missing, crashes or answers wrong leaves a result that says so; the others
    go on.
    """
    started, begin = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
    entries = [_Entry(contestant, contest.load) for contestant in contest.contestants]
    starts = min(contest.starts, effort.rounds)
    for start in range(starts):
        rounds = range(start * effort.rounds // starts, (start + 1) * effort.rounds // starts)
        _alternate(contest, entries, effort, rounds, progress)
    reference = next((e for e in entries if e.contestant.name == contest.reference), None)
    seconds = round(time.perf_counter() - begin, 3)
    results = []
    for entry in entries:
        others = _other_cores(entry.blocks)
        status, reason = _status(entry, others, hardware.cores, allow_load=effort.allow_load)
        figures = status == "ok"
        results.append(
            CaseResult(
                suite=contest.suite,
                case=contest.case,
                contestant=entry.contestant.name,
                status=status,
                reason=reason,
                parameters={**contest.parameters, "load": contest.load, "rounds": effort.rounds},
                metrics=_metrics(entry) if figures else (),
                ratios=_ratios(entry, reference) if figures and reference else (),
                bundle=contest.bundle,
                fingerprint=hardware.fingerprint,
                processor=hardware.processor,
                versions=dict(entry.contestant.versions),
                other_cores=others,
                seconds=seconds,
                started=started,
            )
        )
    return tuple(results)


def _alternate(
    contest: Contest,
    entries: Sequence["_Entry"],
    effort: Effort,
    rounds: range,
    progress: Callable[[str], None],
) -> None:
    """Some rounds of a contest, with processes of their own."""
    with ExitStack() as stack:
        for entry in entries:
            progress(f"{contest.case}: starting {entry.contestant.name}")
            entry.start(stack, effort.warm_s)
        for number in rounds:
            progress(f"{contest.case}: round {number + 1} of {effort.rounds}")
            first = number % len(entries)
            for entry in (*entries[first:], *entries[:first]):
                entry.work(effort.block_s)
        for entry in entries:
            entry.finish()
        for entry in entries:
            entry.release()


class _Entry:
    """A contestant on its way through a contest; a fault ends its part and no other's."""

    def __init__(self, contestant: Contestant, load: int) -> None:
        self.contestant = contestant
        self.load = load
        self.groups: list[list[Block]] = []
        self.facts: Mapping[str, float] = {}
        self.fault = ""
        self._worker: Worker | None = None

    def start(self, stack: ExitStack, warm_s: float) -> None:
        """Brings the process up and warms it."""
        self._worker = None
        if self.contestant.missing or self.fault:
            return
        try:
            worker = stack.enter_context(Worker(self.contestant, f"bench-{uuid4().hex[:12]}"))
            self._raise_errors(worker.block(warm_s, self.load))
        except WorkerError as error:
            self.fault = str(error)
        else:
            self._worker = worker
            self.groups.append([])

    @property
    def blocks(self) -> list[Block]:
        """Of all processes, in order."""
        return [block for group in self.groups for block in group]

    def work(self, seconds: float) -> None:
        """Measures one block."""
        if self._worker is None or self.fault:
            return
        try:
            block = self._worker.block(seconds, self.load)
            self._raise_errors(block)
        except WorkerError as error:
            self.fault = str(error)
        else:
            self.groups[-1].append(block)

    def finish(self) -> None:
        """Asks for what is measured once."""
        if self._worker is None or self.fault:
            return
        try:
            self.facts = self._worker.facts()
        except WorkerError as error:
            self.fault = str(error)

    def release(self) -> None:
        """Lets the process end while others do."""
        if self._worker is not None:
            self._worker.release()

    def _raise_errors(self, block: Block) -> None:
        if block.errors or not block.latencies:
            said = block.first_error or "nothing was done"
            raise WorkerError(
                "bench.errors", f"{self.contestant.name}: {block.errors} operations failed: {said}"
            )


def _other_cores(blocks: Sequence[Block]) -> float | None:
    seconds = sum(block.seconds for block in blocks)
    if not seconds:
        return None
    busy = sum(block.machine_cpu_seconds - block.own_cpu_seconds for block in blocks)
    return round(max(0.0, busy / seconds), 3)


def _status(
    entry: _Entry, others: float | None, cores: int, *, allow_load: bool
) -> tuple[Status, str]:
    if entry.contestant.missing:
        return "missing", entry.contestant.missing
    if entry.fault:
        return "failed", entry.fault
    if others is not None and others > OTHERS_LIMIT * cores:
        said = f"others kept {others:.2f} of {cores} cores busy meanwhile"
        return ("ok", said) if allow_load else ("disturbed", f"{said}: no figures")
    return "ok", ""


def _metrics(entry: _Entry) -> tuple[Metric, ...]:
    blocks = entry.blocks
    found = [
        _metric("latency_p50", "ms", [1e3 * quantile(b.latencies, 0.5) for b in blocks]),
        _metric("latency_p99", "ms", [1e3 * quantile(b.latencies, 0.99) for b in blocks]),
        _metric("throughput", "1/s", [rate(b) for b in blocks], "higher"),
        _metric("cpu_per_operation", "ms", [1e3 * cpu_each(b) for b in blocks]),
    ]
    for name, value in entry.facts.items():
        stem, _, unit = name.rpartition("_")
        found.append(Metric(name=stem, value=round(value, 4), unit=_FACTS[unit]))
    return tuple(found)


def _metric(
    name: str,
    unit: Literal["ms", "1/s"],
    values: Sequence[float],
    better: Literal["lower", "higher"] = "lower",
) -> Metric:
    found = bootstrap_median(values)
    return Metric(
        name=name,
        value=_rounded(found.value),
        unit=unit,
        better=better,
        low=_rounded(found.low),
        high=_rounded(found.high),
    )


def rate(block: Block) -> float:
    """Rows a second."""
    return len(block.latencies) * block.rows / block.seconds


def cpu_each(block: Block) -> float:
    """Processor seconds of the subject for each operation."""
    return block.cpu_seconds / len(block.latencies)


def p50(block: Block) -> float:
    """The median latency in seconds."""
    return quantile(block.latencies, 0.5)


def _ratios(entry: _Entry, reference: _Entry) -> tuple[Ratio, ...]:
    """Against the reference, block by block, as they were measured side by side."""
    if entry is reference or reference.fault or not reference.blocks:
        return ()
    found = []
    for name, figure in (
        ("latency_p50", p50),
        ("throughput", rate),
        ("cpu_per_operation", cpu_each),
    ):
        groups = [
            _quotients(figure, own, other)
            for own, other in zip(entry.groups, reference.groups, strict=True)
        ]
        groups = [group for group in groups if group]
        if groups:
            ratio = bootstrap_ratio(groups)
            low, high = _rounded(ratio.low), _rounded(min(ratio.high, 1e9))
            found.append(
                Ratio(
                    metric=name,
                    other=reference.contestant.name,
                    value=_rounded(ratio.value),
                    low=low,
                    high=high,
                )
            )
    return tuple(found)


def _quotients(
    figure: Callable[[Block], float], own: Sequence[Block], other: Sequence[Block]
) -> list[float]:
    pairs = [(figure(a), figure(b)) for a, b in zip(own, other, strict=True)]
    return [a / b for a, b in pairs if a > 0 and b > 0]


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")

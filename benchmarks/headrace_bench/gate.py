"""The gate: base and head in alternation, until a verdict on each metric or the end of the time.

A pair is one start of each of the two. Within a pair short blocks alternate (A B B A), so that what
the machine does to one it does to the other; pairs repeat, because what a start decides (memory
layout, page cache) is the same for all blocks of a process and would pass for a difference.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Literal
from uuid import uuid4

from headrace.errors import CheckError
from headrace.hardware import Hardware
from headrace.tensors import Frozen
from headrace_bench.contest import OTHERS_LIMIT, cpu_each, rate
from headrace_bench.measure import Block, quantile
from headrace_bench.process import Contestant, Worker
from headrace_bench.statistics import Interval, Verdict, bootstrap_ratio, judge

Better = Literal["lower", "higher"]
Pairs = Mapping[str, Sequence[Sequence[tuple[float, float]]]]
"""By metric, for each pair of processes, what base and head had side by side."""


@dataclass(frozen=True)
class GateEffort:
    """How hard to try.

    Attributes:
        min_pairs: Pairs before the first look at the ratios.
        max_pairs: Pairs after which it ends without a verdict.
        blocks: Of one caller, of each side, in one pair. Short ones: a processor's speed changes
            from second to second on a shared machine, and neighbours share it.
        block_s: Seconds of such a block.
        loaded_blocks: Of many callers.
        loaded_block_s: Seconds of such a block.
        warm_s: Seconds that each side works before it counts.
        limit_s: No pair is begun after so many seconds.
        callers: At once, where throughput is measured.
    """

    min_pairs: int = 8
    max_pairs: int = 32
    blocks: int = 40
    block_s: float = 0.03
    loaded_blocks: int = 24
    loaded_block_s: float = 0.05
    warm_s: float = 0.2
    limit_s: float = 600.0
    callers: int = 4


QUICK = GateEffort(
    min_pairs=5,
    max_pairs=10,
    blocks=16,
    block_s=0.02,
    loaded_blocks=8,
    loaded_block_s=0.03,
    warm_s=0.1,
    limit_s=90.0,
)


@dataclass(frozen=True)
class Measure:
    """A metric of the gate and which way is better."""

    name: str
    unit: str
    better: Better


MEASURES = (
    Measure("latency", "ms", "lower"),
    Measure("throughput", "1/s", "higher"),
    Measure("cpu_per_request", "ms", "lower"),
    Measure("memory", "MB", "lower"),
    Measure("cold_start", "s", "lower"),
)

_WORST_FIRST: tuple[Verdict, ...] = (
    "regressed",
    "too noisy to say",
    "improved",
    "no difference shown",
)


class Comparison(Frozen):
    """One metric of base and head.

    Attributes:
        base: The median of base's values.
        head: The median of head's values.
        ratio: Head over base; `low` and `high` are the ends of its interval.
        pairs: Pairs of processes it stands on; 0 for what is exact.
        note: What else is to be known.
    """

    metric: str
    unit: str
    better: Better
    base: float
    head: float
    ratio: float
    low: float
    high: float
    verdict: Verdict
    pairs: int
    note: str = ""


class GateReport(Frozen):
    """What a gate found.

    Attributes:
        verdict: One for all comparisons; see `worst_verdict`.
        confidence: Of each interval: 95 % for all of them together, by Bonferroni's inequality.
        other_cores: How many cores others kept busy meanwhile, on average.
        reason: What else is to be known.
    """

    base: str
    head: str
    threshold: float
    confidence: float
    verdict: Verdict
    comparisons: tuple[Comparison, ...]
    fingerprint: str
    processor: str
    other_cores: float | None
    seconds: float
    reason: str = ""

    @property
    def exit_status(self) -> int:
        """0, 1 for a regression, 4 for no verdict."""
        return {"regressed": 1, "too noisy to say": 4}.get(self.verdict, 0)


@dataclass
class _Tally:
    """What has been measured so far."""

    pairs: dict[str, list[list[tuple[float, float]]]] = field(
        default_factory=lambda: {measure.name: [] for measure in MEASURES}
    )
    seconds: float = 0.0
    others: float = 0.0

    def add(self, metric: str, values: Sequence[tuple[float, float]]) -> None:
        self.pairs[metric].append(list(values))

    def note(self, block: Block) -> None:
        self.seconds += block.seconds
        self.others += block.machine_cpu_seconds - block.own_cpu_seconds


def run_gate(  # noqa: PLR0913 - two sides, how, against what, and where to say so
    base: Contestant,
    head: Contestant,
    *,
    exact: Sequence[Comparison],
    threshold: float,
    effort: GateEffort,
    hardware: Hardware,
    names: tuple[str, str],
    measures: Sequence[Measure] = MEASURES,
    progress: Callable[[str], None] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
) -> GateReport:
    """Compares two things.

    Args:
        base: A `Workload` whose facts are `start_s` and `memory_mb`.
        head: As `base`.
        exact: Comparisons that need no repetition (size, accuracy).
        threshold: The smallest relative change that matters.
        names: How base and head are called.
        measures: Those that decide; without any nothing is started.
        clock: Seconds.

    Raises:
        WorkerError: One of the two does not start, crashes, or answers wrong.
    """
    begin, tally = clock(), _Tally()
    confidence = 1 - 0.05 / max(1, len(measures))
    comparisons: tuple[Comparison, ...] = ()
    for number in range(effort.max_pairs if measures else 0):
        if number and clock() - begin > effort.limit_s:
            break
        progress(f"pair {number + 1}" + _undecided(comparisons))
        measure_pair(base, head, effort, tally, swapped=number % 2 == 1)
        if number + 1 >= min(effort.min_pairs, effort.max_pairs):
            comparisons = compare(tally.pairs, measures, threshold, confidence)
            if all(each.verdict != "too noisy to say" for each in comparisons):
                break
    comparisons = (*compare(tally.pairs, measures, threshold, confidence), *exact)
    others = max(0.0, tally.others / tally.seconds) if measures else 0.0
    busy = others > OTHERS_LIMIT * hardware.cores
    reason = f"others kept {others:.2f} of {hardware.cores} cores busy meanwhile" if busy else ""
    return GateReport(
        base=names[0],
        head=names[1],
        threshold=threshold,
        confidence=confidence,
        verdict=worst_verdict([comparison.verdict for comparison in comparisons]),
        comparisons=comparisons,
        fingerprint=hardware.fingerprint,
        processor=hardware.processor,
        other_cores=round(others, 3),
        seconds=round(clock() - begin, 1),
        reason=reason,
    )


def measure_pair(
    base: Contestant,
    head: Contestant,
    effort: GateEffort,
    tally: _Tally,
    *,
    swapped: bool,
) -> None:
    """Starts both, the second one first if `swapped`, and measures them in alternation."""
    with ExitStack() as stack:
        workers: list[Worker] = []
        for side in (head, base) if swapped else (base, head):
            worker = Worker(side, f"gate-{uuid4().hex[:12]}")
            workers.append(stack.enter_context(worker))
        sides = (workers[1], workers[0]) if swapped else (workers[0], workers[1])
        for worker in workers:
            worker.block(effort.warm_s, effort.callers)
        alone = _alternate(sides, effort.blocks, effort.block_s, 1)
        loaded = _alternate(sides, effort.loaded_blocks, effort.loaded_block_s, effort.callers)
        for pair in (*alone, *loaded):
            for block in pair:
                tally.note(block)
        tally.add("latency", [(1e3 * undisturbed(a), 1e3 * undisturbed(b)) for a, b in alone])
        tally.add("throughput", [(rate(a), rate(b)) for a, b in loaded])
        tally.add("cpu_per_request", [(1e3 * cpu_each(a), 1e3 * cpu_each(b)) for a, b in loaded])
        facts = [worker.facts() for worker in sides]
        for worker in workers:
            worker.release()
        tally.add("memory", [(facts[0]["memory_mb"], facts[1]["memory_mb"])])
        tally.add("cold_start", [(facts[0]["start_s"], facts[1]["start_s"])])


def compare(
    pairs: Pairs, measures: Sequence[Measure], threshold: float, confidence: float
) -> tuple[Comparison, ...]:
    """Each measured metric of base and head, from their pairs."""
    found = []
    for measure in measures:
        groups = pairs[measure.name]
        ratio = bootstrap_ratio(
            [[head / base for base, head in group] for group in groups], confidence=confidence
        )
        flat = [values for group in groups for values in group]
        found.append(
            Comparison(
                metric=measure.name,
                unit=measure.unit,
                better=measure.better,
                base=_middle([base for base, _ in flat]),
                head=_middle([head for _, head in flat]),
                ratio=ratio.value,
                low=ratio.low,
                high=min(ratio.high, 1e9),
                # One pair of processes tells nothing of what differs between any two.
                verdict=judge(ratio, threshold=threshold, better=measure.better)
                if len(groups) > 1
                else "too noisy to say",
                pairs=len(groups),
            )
        )
    return tuple(found)


def undisturbed(block: Block) -> float:
    """The latency in seconds under which a quarter of the requests stay.

    What else the machine does only ever adds to a request's time, and adds least to these.
    """
    return quantile(block.latencies, 0.25)


def exact_comparison(
    metric: str, unit: str, base: float, head: float, threshold: float, *, better: Better = "lower"
) -> Comparison:
    """A metric without noise: its interval is the ratio itself."""
    value = head / base if base else (1.0 if head == base else float("inf"))
    value = min(value, 1e9)
    ratio = Interval(value, value, value)
    return Comparison(
        metric=metric,
        unit=unit,
        better=better,
        base=base,
        head=head,
        ratio=value,
        low=value,
        high=value,
        verdict=judge(ratio, threshold=threshold, better=better),
        pairs=0,
    )


def _alternate(
    sides: tuple[Worker, Worker], count: int, seconds: float, load: int
) -> list[tuple[Block, Block]]:
    """Blocks of both sides, of base first: A B, B A, A B, ..."""
    found = []
    for number in range(count):
        blocks: dict[int, Block] = {}
        for side in (0, 1) if number % 2 == 0 else (1, 0):
            block = sides[side].block(seconds, load)
            if block.errors or not block.latencies:
                said = block.first_error or "no request was answered"
                raise CheckError("bench.errors", f"{block.errors} requests failed: {said}")
            blocks[side] = block
        found.append((blocks[0], blocks[1]))
    return found


def worst_verdict(verdicts: Sequence[Verdict]) -> Verdict:
    """One verdict for all: a regression outweighs doubt, doubt an improvement, and that the rest.

    Raises:
        ValueError: There is none.
    """
    return min(verdicts, key=_WORST_FIRST.index)


def _undecided(comparisons: Sequence[Comparison]) -> str:
    open_ones = [each.metric for each in comparisons if each.verdict == "too noisy to say"]
    return f": not decided are {', '.join(open_ones)}" if open_ones else ""


def _middle(values: Sequence[float]) -> float:
    return float(f"{sorted(values)[len(values) // 2]:.5g}")

"""Which variant to run: a pure function of what was measured.

Candidates pass gates one by one, then climb a ladder from the most precise down: one takes the
place of the candidate before it only where it is faster with confidence. So precision is never
given up for nothing, and each candidate that is not used has a reason with figures.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from headrace.bundle.measurement import (
    Candidate,
    Choice,
    Dropped,
    Limits,
    Point,
    Selection,
)
from headrace.errors import CheckError

PRECISIONS = ("fp32", "bf16", "fp16", "int8", "int4")
"""From the most precise down."""
CONFIDENCE = 0.95
LEAST_ROUNDS = 6
"""Fewer give no interval of that confidence."""


@dataclass(frozen=True)
class Ratio:
    """How many times as long one candidate takes as another.

    Attributes:
        value: The median over rounds that both took part in.
        low: Lower end of the median's interval.
        high: Upper end of it.
        rounds: How many there were.
    """

    value: float
    low: float
    high: float
    rounds: int

    def __str__(self) -> str:
        return f"{self.value:.2f} times ({self.low:.2f} to {self.high:.2f})"


def ratio_interval(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """The ratio of two candidates' times, round by round.

    The interval is the distribution-free one for a median, between two order statistics whose
    coverage follows from the binomial distribution (David and Nagaraja, Order Statistics, 3rd ed.,
    section 7.1). Fewer than six rounds cannot give 95 %: then it is unbounded.

    Raises:
        ValueError: They have no round in common.
    """
    count = min(len(ours), len(theirs))
    if not count:
        raise ValueError("no round in common")
    ratios = np.sort(np.asarray(ours[:count]) / np.maximum(theirs[:count], 1e-12))
    rank = _rank(count)
    low, high = (0.0, math.inf) if rank is None else (ratios[rank], ratios[count - 1 - rank])
    return Ratio(float(np.median(ratios)), float(low), float(high), count)


def _rank(count: int) -> int | None:
    """How many of the smallest values the interval of a median may leave out on each side."""
    tail, term, rank = 0.0, 0.5**count, None
    for place in range(count):
        tail += term
        if tail > (1 - CONFIDENCE) / 2:
            return rank
        rank = place
        term = term * (count - place) / (place + 1)
    return rank


class Gate(Protocol):
    """Says whether a candidate may be used at all."""

    @property
    def name(self) -> str:
        """As a report shows it."""
        ...

    def check(self, candidate: Candidate) -> None:
        """Passes, or raises.

        Raises:
            CheckError: The candidate may not be used; the message is the reason.
        """
        ...


@dataclass(frozen=True)
class Runs:
    """The candidate runs here at all."""

    name: str = "runs here"

    def check(self, candidate: Candidate) -> None:
        """See `Gate.check`."""
        if candidate.fault:
            raise CheckError("selection.runs", candidate.fault)


@dataclass(frozen=True)
class BestOfItsKind:
    """No sibling is the same to run and better."""

    name: str = "siblings"

    def check(self, candidate: Candidate) -> None:
        """See `Gate.check`."""
        if candidate.superseded:
            raise CheckError("selection.siblings", candidate.superseded)


@dataclass(frozen=True)
class WithinAccuracy:
    """What the candidate loses of the metric is proven to be inside the budget."""

    loss: float
    proven: bool
    name: str = "accuracy"

    def check(self, candidate: Candidate) -> None:
        """See `Gate.check`. An fp32 candidate was held to the source model by its parity."""
        if candidate.precision == "fp32":
            return
        accuracy = candidate.accuracy
        if accuracy is None:
            if self.proven:
                return
            raise CheckError(
                "selection.accuracy", "its accuracy is not known: the recipe has no evaluation data"
            )
        if accuracy.loss_high > self.loss:
            raise CheckError(
                "selection.accuracy",
                f"it may lose {accuracy.loss_high:.3g} of {accuracy.metric} (measured"
                f" {accuracy.loss:.3g} on {accuracy.samples} samples), and the budget is"
                f" {self.loss:g}",
            )


@dataclass(frozen=True)
class WithinMemory:
    """One loaded session fits."""

    mebibytes: float
    name: str = "memory"

    def check(self, candidate: Candidate) -> None:
        """See `Gate.check`."""
        if candidate.memory_mib is None:
            raise CheckError("selection.memory", "its memory was not measured")
        if candidate.memory_mib > self.mebibytes:
            raise CheckError(
                "selection.memory",
                f"it takes {candidate.memory_mib:.0f} MiB, and the limit is {self.mebibytes:g}",
            )


@dataclass(frozen=True)
class WithinObjective:
    """One row is answered in time, on the best number of threads."""

    p99_ms: float
    name: str = "latency"

    def check(self, candidate: Candidate) -> None:
        """See `Gate.check`."""
        times = [timing.p99 for timing in candidate.timings if timing.point.batch == 1]
        if times and min(times) * 1e3 > self.p99_ms:
            raise CheckError(
                "selection.latency",
                f"its p99 is {min(times) * 1e3:.3g} ms at best, and the objective is"
                f" {self.p99_ms:g} ms",
            )


def gates(limits: Limits, *, proven: bool) -> tuple[Gate, ...]:
    """The gates that follow from limits, in the order in which they are asked.

    Args:
        proven: Whether a candidate without a measured accuracy was held to the budget elsewhere:
            true of the variants of a bundle, which its build let in.
    """
    optional: list[Gate] = []
    if limits.memory_mib is not None:
        optional.append(WithinMemory(limits.memory_mib))
    if limits.p99_ms is not None:
        optional.append(WithinObjective(limits.p99_ms))
    return (
        Runs(),
        BestOfItsKind(),
        WithinAccuracy(limits.accuracy_loss, proven=proven),
        *optional,
    )


def refused(candidates: Iterable[Candidate], asked: Sequence[Gate]) -> tuple[Dropped, ...]:
    """The candidates that a gate refuses, each with the first reason."""
    found = (_first_refusal(candidate, asked) for candidate in candidates)
    return tuple(each for each in found if each is not None)


def _first_refusal(candidate: Candidate, asked: Sequence[Gate]) -> Dropped | None:
    for gate in asked:
        try:
            gate.check(candidate)
        except CheckError as error:
            return Dropped(variant=candidate.name, gate=gate.name, reason=error.message)
    return None


def ladder(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Candidates from the most precise down; of one precision, the one that errs least first."""

    def place(candidate: Candidate) -> tuple[float, ...]:
        rank = PRECISIONS.index(candidate.precision)
        mixed = candidate.arithmetic != "fp32"
        # In float32, what is lost is the order in which sums were taken.
        loss = candidate.accuracy.loss if candidate.accuracy and rank else 0.0
        return (rank, mixed, candidate.engine != "onnxruntime", loss)

    return sorted(candidates, key=place)


def select(candidates: Sequence[Candidate], limits: Limits, *, proven: bool = False) -> Selection:
    """Chooses a variant for each point at which all candidates were timed.

    Args:
        proven: See `gates`.

    Returns:
        No choice where every candidate was refused.
    """
    dropped = list(refused(candidates, gates(limits, proven=proven)))
    out = {each.variant for each in dropped}
    steps = ladder(candidate for candidate in candidates if candidate.name not in out)
    if not steps:
        return Selection(choices=(), dropped=tuple(dropped))
    choices = tuple(
        Choice(point=point, variant=_climb(steps, point)) for point in compared_points(steps)
    )
    if not choices:  # nothing was timed: the most precise is safe
        return Selection(
            choices=(), dropped=(*dropped, *(_untimed(candidate) for candidate in steps[1:]))
        )
    chosen = {choice.variant for choice in choices}
    slower = [_slower(each, steps, choices) for each in steps if each.name not in chosen]
    return Selection(choices=choices, dropped=(*dropped, *slower))


def compared_points(candidates: Sequence[Candidate]) -> tuple[Point, ...]:
    """The points at which every candidate was timed, often enough for an interval.

    Args:
        candidates: The most precise first: it is timed in every round of a comparison, where
            others may have left it.
    """
    first, *others = candidates
    return tuple(
        timing.point
        for timing in first.timings
        if len(timing.rounds) >= LEAST_ROUNDS
        and timing.point.sessions == timing.point.callers == 1
        and all(other.timing(timing.point) for other in others)
    )


def _climb(steps: Sequence[Candidate], point: Point) -> str:
    incumbent = steps[0]
    for candidate in steps[1:]:
        if compare_at(candidate, incumbent, point).high < 1:
            incumbent = candidate
    return incumbent.name


def compare_at(ours: Candidate, theirs: Candidate, point: Point) -> Ratio:
    """The ratio of two candidates' times at a point.

    Raises:
        ValueError: One of them was not timed there.
    """
    timings = ours.timing(point), theirs.timing(point)
    if timings[0] is None or timings[1] is None:
        raise ValueError(f"not timed at {point}")
    return ratio_interval(timings[0].rounds, timings[1].rounds)


def _slower(candidate: Candidate, steps: Sequence[Candidate], choices: Sequence[Choice]) -> Dropped:
    """Why a candidate that passed every gate was chosen nowhere: where it came nearest."""
    by_name = {each.name: each for each in steps}

    def ratio(choice: Choice) -> Ratio:
        return compare_at(candidate, by_name[choice.variant], choice.point)

    nearest = min(choices, key=lambda choice: ratio(choice).value)
    found, point = ratio(nearest), nearest.point
    span = f" ({found.low:.2f} to {found.high:.2f})" if math.isfinite(found.high) else ""
    reason = (
        f"not faster than {nearest.variant}: {found.value:.2f} times its time{span}"
        f" at batch {point.batch} on {point.threads} thread{'s' if point.threads > 1 else ''},"
        " where it comes nearest"
    )
    return Dropped(variant=candidate.name, gate="speed", reason=reason)


def _untimed(candidate: Candidate) -> Dropped:
    return Dropped(
        variant=candidate.name, gate="speed", reason="its time was not measured on this machine"
    )


def choose(selection: Selection, *, threads: int, batch: int = 1) -> str:
    """The variant to run with so many threads: of the nearest point measured.

    Raises:
        CheckError: The selection chose nothing.
    """
    if not selection.choices:
        raise CheckError("selection.nothing", "no variant was chosen on this machine")

    def distance(choice: Choice) -> tuple[float, float]:
        point = choice.point
        return abs(math.log(point.threads / threads)), abs(math.log(point.batch / batch))

    return min(selection.choices, key=distance).variant

"""Selection: a pure function of a measurement."""

import math
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.bundle.manifest import Engine, Precision
from headrace.bundle.measurement import Accuracy, Candidate, Limits, Point, Timing
from headrace.errors import CheckError
from headrace.selection import choose, compared_points, ratio_interval, select

ONE, TWO = Point(batch=1, threads=1), Point(batch=1, threads=2)


def timing(point: Point, milliseconds: float, rounds: int = 9, noise: float = 0.01) -> Timing:
    """Rounds around a time, with the same small noise for everybody."""
    times = [milliseconds / 1e3 * (1 + noise * math.sin(number)) for number in range(rounds)]
    return Timing(
        point=point,
        rounds=tuple(times),
        p50=milliseconds / 1e3,
        p95=milliseconds / 1e3 * 1.1,
        p99=milliseconds / 1e3 * 1.2,
        rows_per_second=1e3 / milliseconds,
        runs=rounds * 3,
        stable=True,
    )


def accuracy(loss: float, upper: float) -> Accuracy:
    """An accuracy with this loss, and this upper end of it."""
    return Accuracy(
        metric="top1",
        value=0.9 - loss,
        low=0.89 - loss,
        high=0.91 - loss,
        loss=loss,
        loss_low=2 * loss - upper,
        loss_high=upper,
        samples=1000,
    )


def candidate(
    name: str,
    precision: Precision,
    times: Mapping[Point, float] | None = None,
    *,
    engine: Engine = "onnxruntime",
    scored: Accuracy | None = None,
    memory_mib: float | None = None,
    fault: str = "",
) -> Candidate:
    """A candidate with these times in milliseconds."""
    return Candidate(
        name=name,
        precision=precision,
        engine=engine,
        graph="0" * 64,
        size=1,
        accuracy=scored,
        timings=tuple(timing(point, value) for point, value in (times or {}).items()),
        memory_mib=memory_mib,
        fault=fault,
    )


GOOD = accuracy(0.001, 0.003)
FP32 = candidate("fp32", "fp32", {ONE: 10.0, TWO: 6.0})
BF16 = candidate("bf16", "bf16", {ONE: 6.0, TWO: 3.0}, scored=accuracy(0.0, 0.001))
INT8 = candidate("int8", "int8", {ONE: 4.0, TWO: 3.5}, scored=GOOD)


def test_each_number_of_threads_has_its_own_choice() -> None:
    """The fastest candidate inside the budget is chosen at each point by itself."""
    found = select([FP32, BF16, INT8], Limits())
    assert [(choice.point, choice.variant) for choice in found.choices] == [
        (ONE, "int8"),
        (TWO, "bf16"),
    ]
    assert choose(found, threads=1) == "int8"
    assert choose(found, threads=2) == choose(found, threads=16, batch=8) == "bf16"
    assert found.chosen == ("int8", "bf16")
    assert [each.variant for each in found.dropped] == ["fp32"]


def test_only_the_measurement_decides() -> None:
    """With other times and all else equal, the choice flips."""
    slower = INT8.model_copy(update={"timings": (timing(ONE, 12.0), timing(TWO, 9.0))})
    assert select([FP32, INT8], Limits()).chosen == ("int8",)
    found = select([FP32, slower], Limits())
    assert found.chosen == ("fp32",)
    assert found.dropped[0].gate == "speed"
    assert "not faster than fp32: 1.20 times its time" in found.dropped[0].reason


def test_precision_is_not_given_up_for_what_may_be_noise() -> None:
    """A candidate that is a little faster in the median, and not in most rounds, is not chosen."""
    rounds = tuple(0.01 * factor for factor in (0.9, 1.1, 0.95, 1.05, 0.97, 1.02, 0.98))
    close = timing(ONE, 10.0, noise=0.0).model_copy(update={"rounds": rounds})
    steady = timing(ONE, 10.0, rounds=7, noise=0.0)
    fp32 = FP32.model_copy(update={"timings": (steady,)})
    int8 = INT8.model_copy(update={"timings": (close,)})
    assert select([fp32, int8], Limits()).chosen == ("fp32",)


def test_few_rounds_prove_nothing() -> None:
    """With five rounds there is no 95 % interval, however large the difference."""
    quick = INT8.model_copy(update={"timings": (timing(ONE, 1.0, rounds=5),)})
    assert select([FP32, quick], Limits()).chosen == ("fp32",)
    brief = FP32.model_copy(update={"timings": (timing(ONE, 9.0, rounds=3),)})
    assert compared_points([brief, INT8]) == ()


@pytest.mark.parametrize(
    ("changed", "limits", "gate", "words"),
    [
        ({"accuracy": accuracy(0.004, 0.006)}, Limits(), "accuracy", "may lose 0.006 of top1"),
        ({"accuracy": None}, Limits(), "accuracy", "no evaluation data"),
        ({"fault": "it does not load"}, Limits(), "runs here", "it does not load"),
        ({"superseded": "minmax is better"}, Limits(), "siblings", "minmax"),
        ({"memory_mib": 90.0}, Limits(memory_mib=64), "memory", "90 MiB"),
        ({"memory_mib": None}, Limits(memory_mib=64), "memory", "not measured"),
        ({}, Limits(p99_ms=1.5), "latency", "objective is 1.5 ms"),
    ],
)
def test_a_gate_drops_a_candidate_with_its_reason(
    changed: dict[str, object], limits: Limits, gate: str, words: str
) -> None:
    """Each gate says no in a sentence with figures; the others are chosen among the rest."""
    fp32 = FP32.model_copy(
        update={"memory_mib": 10.0, "timings": (timing(ONE, 1.0), timing(TWO, 1.0))}
    )
    found = select([fp32, INT8.model_copy(update=changed)], limits)
    dropped = {each.variant: each for each in found.dropped}["int8"]
    assert dropped.gate == gate
    assert words in dropped.reason
    assert found.chosen == ("fp32",)


def test_a_proven_variant_needs_no_accuracy_of_this_machine() -> None:
    """Variants of a bundle were let in by its build; elsewhere only their time is measured."""
    bare = INT8.model_copy(update={"accuracy": None})
    assert select([FP32, bare], Limits(), proven=True).choices[0].variant == "int8"


def test_nothing_is_chosen_where_every_candidate_is_refused() -> None:
    """There is no silent fallback to one that breaks the limits."""
    found = select([FP32, INT8], Limits(p99_ms=0.001))
    assert found.choices == ()
    assert {each.variant for each in found.dropped} == {"fp32", "int8"}
    with pytest.raises(CheckError):
        choose(found, threads=1)


def test_points_that_one_candidate_lacks_are_not_compared() -> None:
    """So are points of several sessions or callers."""
    both = Point(batch=1, threads=1, sessions=2)
    more = FP32.model_copy(update={"timings": (*FP32.timings, timing(both, 1.0))})
    fewer = INT8.model_copy(update={"timings": (timing(TWO, 1.0), timing(both, 1.0))})
    assert compared_points([more, fewer]) == (TWO,)


def test_a_ratio_is_taken_round_by_round() -> None:
    """What slows a whole round down cancels; the interval is that of order statistics."""
    theirs = [1.0, 5.0, 1.0, 9.0, 1.0, 2.0]
    found = ratio_interval([2 * each for each in theirs], theirs)
    assert (found.value, found.low, found.high, found.rounds) == (2.0, 2.0, 2.0, 6)
    nine = ratio_interval([float(number) for number in range(1, 10)], [1.0] * 9)
    assert (nine.value, nine.low, nine.high) == (5.0, 2.0, 8.0)
    assert ratio_interval([1.0] * 5, [1.0] * 5).high == math.inf


def _coverage(rounds: int, rank: int) -> float:
    """The chance that a median lies between the order statistics `rank` from either end."""
    lower = sum(math.comb(rounds, place) for place in range(rank + 1))
    return 1 - 2 * lower / float(2**rounds)


@given(st.integers(6, 60))
def test_the_interval_covers_the_median_in_95_of_100(rounds: int) -> None:
    """It is the narrowest pair of order statistics with at least that coverage."""
    found = ratio_interval([float(n) for n in range(rounds)], [1.0] * rounds)
    rank = int(found.low)
    assert found.high == rounds - 1 - rank
    assert _coverage(rounds, rank) >= 0.95
    assert _coverage(rounds, rank + 1) < 0.95

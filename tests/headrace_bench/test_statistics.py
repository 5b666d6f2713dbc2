"""Intervals hold what they promise, and verdicts follow from them alone."""

import numpy as np
import pytest

from headrace_bench.gate import worst_verdict
from headrace_bench.statistics import Interval, bootstrap_median, bootstrap_ratio, judge


def pairs_of(ratio: float, generator: np.random.Generator, groups: int = 6) -> list[list[float]]:
    """Ratios as noisy processes give them: 3 % between processes, 6 % within."""
    return [
        list(ratio * np.exp(generator.normal(0, 0.03) + generator.normal(0, 0.06, 8)))
        for _ in range(groups)
    ]


def test_equal_things_are_seldom_called_worse() -> None:
    """Of 400 comparisons of a thing with itself, at most 2 in a hundred are called regressions."""
    generator = np.random.default_rng(1)
    verdicts = [
        judge(bootstrap_ratio(pairs_of(1.0, generator)), threshold=0.05, better="lower")
        for _ in range(400)
    ]
    assert verdicts.count("regressed") <= 8


def test_slower_things_are_found() -> None:
    """Of 100 comparisons with something 10 % slower, at least 90 find it."""
    generator = np.random.default_rng(2)
    verdicts = [
        judge(bootstrap_ratio(pairs_of(1.1, generator)), threshold=0.05, better="lower")
        for _ in range(100)
    ]
    assert verdicts.count("regressed") >= 90


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    """From few groups, the 95 % interval holds the true ratio in at least 93 of 100 cases."""
    generator = np.random.default_rng(3)
    held = 0
    for _ in range(300):
        found = bootstrap_ratio(pairs_of(1.2, generator, groups=5))
        held += found.low <= 1.2 <= found.high
    assert held >= 279


def test_processes_count_and_not_blocks() -> None:
    """Ratios that agree within each process and not between them give a wide interval."""
    apart = bootstrap_ratio([[1.0] * 50, [1.3] * 50, [0.8] * 50])
    mixed = bootstrap_ratio([[1.0, 1.3, 0.8] * 50] * 3)
    assert apart.high - apart.low > 5 * (mixed.high - mixed.low)


def test_one_ratio_says_nothing() -> None:
    """A single pair has an interval without end; no pair is an error."""
    assert bootstrap_ratio([[1.5]]) == Interval(1.5, 0.0, float("inf"))
    with pytest.raises(ValueError, match="at least one pair"):
        bootstrap_ratio([])
    with pytest.raises(ValueError, match="needs a value"):
        bootstrap_median([])


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        ((1.10, 1.02, 1.20), "regressed"),
        ((1.03, 1.02, 1.04), "no difference shown"),
        ((1.03, 1.01, 1.20), "too noisy to say"),
        ((1.10, 0.99, 1.20), "too noisy to say"),
        ((1.00, 0.96, 1.04), "no difference shown"),
        ((0.90, 0.85, 0.95), "improved"),
        ((1.00, 0.00, float("inf")), "too noisy to say"),
    ],
)
def test_judge_reads_estimate_and_interval(
    interval: tuple[float, float, float], verdict: str
) -> None:
    """A verdict needs both: an interval that leaves 1 out, and an estimate beyond the threshold."""
    assert judge(Interval(*interval), threshold=0.05, better="lower") == verdict


def test_judge_turns_for_what_is_better_when_higher() -> None:
    """A throughput of 0.9 is a regression where a latency of 0.9 is an improvement."""
    ratio = Interval(0.9, 0.88, 0.92)
    assert judge(ratio, threshold=0.05, better="higher") == "regressed"
    assert judge(ratio, threshold=0.05, better="lower") == "improved"


def test_one_verdict_stands_for_all() -> None:
    """A regression outweighs doubt, doubt an improvement, and that no difference."""
    assert worst_verdict(["improved", "too noisy to say", "regressed"]) == "regressed"
    assert worst_verdict(["improved", "too noisy to say"]) == "too noisy to say"
    assert worst_verdict(["no difference shown", "improved"]) == "improved"


def test_median_has_an_interval_around_it() -> None:
    """The interval of a median holds it, and narrows with more values."""
    generator = np.random.default_rng(4)
    few = bootstrap_median(list(generator.normal(10, 1, 8)))
    many = bootstrap_median(list(generator.normal(10, 1, 800)))
    assert few.low <= few.value <= few.high
    assert many.high - many.low < few.high - few.low

"""The gate says what the figures of both sides say, as often as it takes, and not for ever."""

from functools import partial
from itertools import count
from pathlib import Path

import pytest

from headrace.hardware import detect_hardware
from headrace_bench.gate import (
    MEASURES,
    GateEffort,
    GateReport,
    exact_comparison,
    run_gate,
)
from headrace_bench.process import Contestant, WorkerError

SUPPORT = Path(__file__).parents[1] / "support"
EFFORT = GateEffort(min_pairs=4, max_pairs=6, blocks=4, loaded_blocks=4, warm_s=0.01, callers=4)


def side(name: str, latency_s: float, noise: float = 0.02) -> Contestant:
    """A server whose figures are known but for some noise."""
    arguments = {"latency_s": latency_s, "noise": noise}
    return Contestant(name, "bench_workloads:synthetic", arguments, paths=(SUPPORT,))


gate = partial(
    run_gate, exact=(), threshold=0.05, effort=EFFORT, hardware=detect_hardware(), names=("a", "b")
)


def verdicts(report: GateReport) -> dict[str, str]:
    """The verdict on each metric."""
    return {comparison.metric: comparison.verdict for comparison in report.comparisons}


def test_a_slower_head_has_regressed() -> None:
    """Half as slow again is a regression of latency, throughput and CPU, and of nothing else."""
    report = gate(side("base", 0.001), side("head", 0.0015))
    assert (report.verdict, report.exit_status) == ("regressed", 1)
    assert verdicts(report) == {
        "latency": "regressed",
        "throughput": "regressed",
        "cpu_per_request": "regressed",
        "memory": "no difference shown",
        "cold_start": "no difference shown",
    }
    latency = report.comparisons[0]
    assert latency.low < latency.ratio < latency.high
    assert latency.pairs == EFFORT.min_pairs


def test_a_quicker_head_has_improved() -> None:
    """The same the other way round ends with 0."""
    report = gate(side("base", 0.0015), side("head", 0.001))
    assert (report.verdict, report.exit_status) == ("improved", 0)


def test_the_same_shows_no_difference() -> None:
    """A thing against itself ends with 0, at the first look."""
    report = gate(side("base", 0.001), side("head", 0.001))
    assert (report.verdict, report.exit_status) == ("no difference shown", 0)
    assert (report.base, report.head) == ("a", "b")


def test_noise_is_no_verdict() -> None:
    """Where the figures scatter too much the gate tries on, and then ends with 4."""
    report = gate(side("base", 0.001, noise=0.9), side("head", 0.001, noise=0.9))
    assert (report.verdict, report.exit_status) == ("too noisy to say", 4)
    assert report.comparisons[0].pairs == EFFORT.max_pairs


def test_the_time_is_bounded() -> None:
    """No pair is begun after the limit, whatever is still undecided."""
    ticks = count(0, 1000)
    base, head = side("base", 0.001, noise=0.9), side("head", 0.001, noise=0.9)
    report = gate(base, head, clock=lambda: next(ticks))
    assert report.comparisons[0].pairs == 1
    assert report.exit_status == 4


def test_chosen_metrics_decide_alone() -> None:
    """A regression of latency is none where only memory was asked for."""
    report = gate(side("base", 0.001), side("head", 0.002), measures=MEASURES[3:4])
    assert verdicts(report) == {"memory": "no difference shown"}
    assert report.exit_status == 0


def test_exact_metrics_join_the_verdict() -> None:
    """Size has no noise: a tenth more is a regression by itself."""
    size = exact_comparison("size", "MB", 10.0, 11.0, 0.05)
    report = gate(side("base", 0.001), side("head", 0.001), exact=[size])
    assert report.verdict == "regressed"
    assert report.comparisons[-1] == size


def test_a_side_that_does_not_start_is_an_error() -> None:
    """No verdict comes out of a head that crashes."""
    broken = Contestant("head", "bench_workloads:broken", {}, paths=(SUPPORT,))
    with pytest.raises(WorkerError, match="head ended with status 1: this peer is not well"):
        gate(side("base", 0.001), broken)


def test_reports_survive_their_file() -> None:
    """A report comes out of its JSON as it went in."""
    report = gate(side("base", 0.001), side("head", 0.001))
    assert GateReport.model_validate_json(report.model_dump_json()) == report

"""Contestants work in processes of their own, in alternation; a fault is a line, and no figure."""

from pathlib import Path

import pytest

from headrace.hardware import detect_hardware
from headrace.processes import marked_processes
from headrace_bench.contest import Contest, Effort, run_contest
from headrace_bench.measure import Block, machine_cpu_seconds, process_cpu_seconds, quantile
from headrace_bench.process import MARK, Contestant, Worker, WorkerError
from headrace_bench.result import CaseResult

SUPPORT = Path(__file__).parents[1] / "support"
EFFORT = Effort(rounds=4, block_s=0.05, warm_s=0.02, allow_load=True)


def contestant(name: str, factory: str, **arguments: float) -> Contestant:
    """One of tests/support/bench_workloads.py."""
    return Contestant(name, f"bench_workloads:{factory}", arguments, paths=(SUPPORT,))


def results_of(*contestants: Contestant, effort: Effort = EFFORT) -> dict[str, CaseResult]:
    """The results of a contest, by contestant."""
    contest = Contest("suite", "case", contestants, parameters={"threads": 1})
    return {each.contestant: each for each in run_contest(contest, effort, detect_hardware())}


def test_figures_and_ratios_come_from_blocks() -> None:
    """Each contestant has its figures; all but the reference have their ratio to it."""
    found = results_of(
        contestant("headrace", "sleeper", seconds=0.002),
        contestant("peer", "sleeper", seconds=0.008),
    )
    own, peer = found["headrace"], found["peer"]
    assert own.status == peer.status == "ok"
    latency = own.metric("latency_p50")
    assert latency is not None
    assert latency.value >= 2.0
    assert latency.low is not None
    assert latency.low <= latency.value
    load = own.metric("load")
    assert load is not None
    assert (load.value, load.unit) == (0.5, "s")
    assert own.metric("memory") is not None
    assert own.ratios == ()
    ratio = next(each for each in peer.ratios if each.metric == "latency_p50")
    assert ratio.other == "headrace"
    assert ratio.value > 1.5
    assert CaseResult.model_validate_json(peer.to_line()) == peer


def test_faults_of_one_leave_the_others_alone() -> None:
    """Whoever does not start, crashes or fails says so in its result; the rest is measured."""
    found = results_of(
        contestant("headrace", "sleeper", seconds=0.001),
        contestant("broken", "broken"),
        contestant("crashing", "crashing", after=30),
        contestant("failing", "failing"),
        contestant("absent", "nowhere"),
        Contestant("missing", "bench_workloads:sleeper", {}, missing="it is not installed"),
    )
    assert found["headrace"].status == "ok"
    reasons = {name: found[name].reason for name in found}
    assert reasons["broken"] == "broken ended with status 1: this peer is not well"
    assert reasons["crashing"].startswith("crashing ended with status 7")
    assert reasons["failing"] == "failing: 1 operations failed: HTTP 503: too busy"
    assert "nowhere" in reasons["absent"]
    for name in ("broken", "crashing", "failing", "absent"):
        assert (found[name].status, found[name].metrics) == ("failed", ())
    assert (found["missing"].status, reasons["missing"]) == ("missing", "it is not installed")


def test_a_machine_in_use_gives_no_figures() -> None:
    """Where others keep the machine busy a result says so and has none; or says so beside them."""
    busy = contestant("headrace", "crowded")
    refused = results_of(busy, effort=Effort(rounds=2, block_s=0.01, warm_s=0.01))["headrace"]
    assert (refused.status, refused.metrics) == ("disturbed", ())
    assert "others kept 7.90 of" in refused.reason
    allowed = results_of(busy)["headrace"]
    assert allowed.status == "ok"
    assert allowed.metrics
    assert "others kept" in allowed.reason


def test_what_a_contestant_prints_is_no_answer() -> None:
    """Standard output of a contestant does not get between the lines of the protocol."""
    with Worker(contestant("chatty", "chatty"), "test-chatty") as worker:
        assert worker.block(0.02).latencies


def test_a_worker_leaves_no_process() -> None:
    """What a contestant started and forgot ends with it."""
    with Worker(contestant("littering", "littering"), "test-littering") as worker:
        assert worker.block(0.01).latencies
        assert len(marked_processes("test-littering", MARK)) >= 2
    assert marked_processes("test-littering", MARK) == []


def test_a_killed_worker_is_an_error() -> None:
    """A contestant that is killed is told apart from one that ended."""
    with Worker(contestant("victim", "crashing", after=0), "test-victim") as worker:
        with pytest.raises(WorkerError, match="victim ended with status 7"):
            worker.block(1.0)
        with pytest.raises(WorkerError):
            worker.block(1.0)


def test_blocks_survive_their_line() -> None:
    """A block comes out of its JSON line as it went in."""
    block = Block(0.5, (0.1, 0.2), 8, 0.3, 0.4, 0.6, errors=1, first_error='a "quote"')
    assert Block.from_json(block.to_json()) == block


@pytest.mark.parametrize(("q", "expected"), [(0.5, 5), (0.99, 10), (0.1, 1), (1.0, 10), (0.0, 1)])
def test_quantiles_are_values_that_occurred(q: float, expected: float) -> None:
    """The nearest rank: the smallest value with at least that share at or below it."""
    assert quantile([10, 9, 8, 7, 6, 5, 4, 3, 2, 1], q) == expected


def test_processor_time_is_that_of_the_process() -> None:
    """The clock of a process moves while it works; one that has ended adds nothing."""
    with Worker(contestant("busy", "sleeper", seconds=0.0), "test-busy") as worker:
        pids = marked_processes("test-busy", MARK)
        before, machine = process_cpu_seconds(pids), machine_cpu_seconds()
        block = worker.block(0.3)
        spent = process_cpu_seconds(pids) - before
        assert block.cpu_seconds <= spent
        assert machine_cpu_seconds() > machine
    assert process_cpu_seconds(pids) == 0

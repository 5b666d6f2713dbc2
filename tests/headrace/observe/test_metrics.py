"""Metrics: of one process, and added up over several."""

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from headrace.observe.metrics import (
    BUCKETS,
    CONTENT_TYPE,
    MULTIPROCESS,
    STAGES,
    Metrics,
    expose,
    expose_directory,
)

REPLICA = """
import sys
from prometheus_client import CollectorRegistry
from headrace.observe.metrics import Metrics
metrics = Metrics(CollectorRegistry())
for seconds in map(float, sys.argv[2:]):
    metrics.observe_request("linear", "1", "ok", seconds)
    metrics.observe_stages("linear", "1", {"session": seconds})
    metrics.count_rows("linear", "1", 3)
metrics.observe_load("linear", "1", "fp32", float(sys.argv[1]))
"""


def _samples(content: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(content.decode())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def _labels(**labels: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted({"model": "linear", "version": "1", **labels}.items()))


def test_buckets_hold_quick_models() -> None:
    """The buckets begin at 50 µs, end at 10 s, and rise by 1, 2, 5."""
    assert BUCKETS[0] == 50e-6
    assert BUCKETS[-1] == 10.0
    assert list(BUCKETS) == sorted(set(BUCKETS))
    steps = [after / before for before, after in pairwise(BUCKETS)]
    assert all(1.9 < step < 2.6 for step in steps)


@pytest.mark.parametrize(
    ("seconds", "bucket"), [(4e-5, "5e-05"), (6e-5, "0.0001"), (3.0, "5.0"), (11.0, "+Inf")]
)
def test_request_falls_into_its_bucket(seconds: float, bucket: str) -> None:
    """A request is counted from the first bucket that holds its time."""
    registry = CollectorRegistry()
    Metrics(registry).observe_request("linear", "1", "ok", seconds)
    samples = _samples(expose(registry))
    found = {
        dict(labels)["le"]: value
        for (name, labels), value in samples.items()
        if name == "headrace_request_seconds_bucket"
    }
    assert len(found) == len(BUCKETS) + 1
    assert next(edge for edge, value in found.items() if value) == bucket
    assert samples["headrace_request_seconds_sum", _labels(outcome="ok")] == seconds


def test_each_outcome_and_stage_is_counted_alone() -> None:
    """Requests are told apart by outcome, and their time by stage."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.observe_request("linear", "1", "ok", 0.001)
    metrics.observe_request("linear", "1", "request.shape", 0.002)
    metrics.observe_stages("linear", "1", dict.fromkeys(STAGES, 0.5))
    metrics.count_rows("linear", "1", 4)
    metrics.count_rows("linear", "1", 5)
    samples = _samples(expose(registry))
    for outcome in ("ok", "request.shape"):
        assert samples["headrace_request_seconds_count", _labels(outcome=outcome)] == 1
    for stage in STAGES:
        assert samples["headrace_stage_seconds_sum", _labels(stage=stage)] == 0.5
    assert samples["headrace_rows_total", _labels()] == 9


def test_two_servers_in_one_process_do_not_mix() -> None:
    """Each registry holds the metrics of its own server."""
    registries = [CollectorRegistry(), CollectorRegistry()]
    first, _ = (Metrics(registry) for registry in registries)
    first.count_rows("linear", "1", 1)
    assert ("headrace_rows_total", _labels()) in _samples(expose(registries[0]))
    assert ("headrace_rows_total", _labels()) not in _samples(expose(registries[1]))


def test_labels_cannot_break_the_format() -> None:
    """Whatever stands in a label, the text stays what Prometheus reads."""
    registry = CollectorRegistry()
    odd = 'a"b\\c\nd{}é'
    Metrics(registry).count_rows(odd, "1", 1)
    assert _samples(expose(registry))["headrace_rows_total", (("model", odd), ("version", "1"))]
    assert "version=0.0.4" in CONTENT_TYPE


def test_replicas_add_up(tmp_path: Path) -> None:
    """What two processes wrote is exposed as its sum, after both have ended; the last load wins."""
    for load, seconds in (("1.5", ["0.25", "0.5"]), ("2.5", ["0.125"])):
        subprocess.run(
            [sys.executable, "-c", REPLICA, load, *seconds],
            env={**os.environ, MULTIPROCESS: str(tmp_path)},
            check=True,
            timeout=60,
        )
    samples = _samples(expose_directory(tmp_path))
    assert samples["headrace_request_seconds_count", _labels(outcome="ok")] == 3
    assert samples["headrace_request_seconds_sum", _labels(outcome="ok")] == 0.875
    assert samples["headrace_stage_seconds_bucket", _labels(stage="session", le="0.2")] == 1
    assert samples["headrace_stage_seconds_bucket", _labels(stage="session", le="0.5")] == 3
    assert samples["headrace_rows_total", _labels()] == 9
    assert samples["headrace_model_load_seconds", _labels(variant="fp32")] == 2.5


def test_directory_without_replicas_exposes_nothing(tmp_path: Path) -> None:
    """Before the first replica has written there is nothing, and no error."""
    assert expose_directory(tmp_path) == b""

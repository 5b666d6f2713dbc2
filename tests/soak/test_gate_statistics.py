"""How often the gate is wrong: fifty gates of a thing against itself, fifty against a slower one.

Each gate is a quick one, through the sources: the slower head is a copy of the runtime whose
`Model.answer` takes so much longer that a client waits 10 % longer. The outcome is written to
`docs/soak/`, dated and with the machine's fingerprint.
"""

import json
import os
import shutil
import statistics
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from bundles import linear_bundle, onnx_bytes
from onnx import TensorProto, helper

from headrace.bundle.golden import GoldenCase, encode_cases
from headrace.engine.session import OrtSession
from headrace.hardware import detect_hardware
from headrace.tensors import TensorSpec
from headrace_bench.gate import QUICK, GateReport
from headrace_bench.gating import GateRequest, gate_subjects

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "soak"
GATES = int(os.environ.get("HEADRACE_GATES", "50"))
SLOWER = """

def _slower(self, inputs, _answer=Model.answer):
    begin = time.perf_counter()
    found = _answer(self, inputs)
    end = begin + (time.perf_counter() - begin) * 1.115
    while time.perf_counter() < end:
        pass
    return found

Model.answer = _slower
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small convolutional network: some milliseconds a request."""
    generator = np.random.default_rng(0)
    shapes = {"first": (32, 3, 3, 3), "second": (64, 32, 3, 3), "third": (32, 64, 3, 3)}
    weights = {
        name: (generator.normal(size=shape) / 20).astype(np.float32)
        for name, shape in shapes.items()
    }
    model = onnx_bytes(
        [
            helper.make_node("Conv", ["x", "first"], ["a"], pads=[1, 1, 1, 1]),
            helper.make_node("Conv", ["a", "second"], ["b"], pads=[1, 1, 1, 1]),
            helper.make_node("Conv", ["b", "third"], ["c"], pads=[1, 1, 1, 1]),
            helper.make_node("ReduceMean", ["c"], ["y"], axes=None, keepdims=1),
        ],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 64, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        weights,
    )
    x = generator.normal(size=(1, 3, 64, 64)).astype(np.float32)
    y = OrtSession(model).run({"x": x})["y"]
    case = GoldenCase(raw={}, inputs={"x": x}, outputs={"y": y})
    return linear_bundle(
        tmp_path_factory.mktemp("bundle"),
        model=model,
        golden=encode_cases([case]),
        inputs=(TensorSpec(name="x", datatype="FP32", shape=("batch", 3, 64, 64)),),
        outputs=(TensorSpec(name="y", datatype="FP32", shape=y.shape),),
    )


@pytest.fixture
def slower(tmp_path: Path) -> Path:
    """The sources of a runtime that answers 10 % slower."""
    runtime = tmp_path / "slower" / "runtime"
    shutil.copytree(ROOT / "runtime", runtime)
    with (runtime / "headrace" / "engine" / "model.py").open("a") as file:
        file.write(SLOWER)
    return runtime.parent


def gates(head: Path, bundle: Path) -> list[GateReport]:
    """Quick gates of this source tree against another one."""
    request = GateRequest(
        base=str(ROOT),
        head=str(head),
        bundle=bundle,
        recipe=None,
        threshold=0.05,
        points=0.5,
        metrics=(),
        threads=1,
        # Undecided gates would go on, and find more; how often they are wrong shows here.
        effort=replace(QUICK, max_pairs=QUICK.min_pairs),
    )
    return [gate_subjects(request, lambda _: None) for _ in range(GATES)]


def test_a_thing_against_itself_is_seldom_called_worse(bundle: Path) -> None:
    """At most two of fifty gates of a thing against itself say that it regressed."""
    reports = gates(ROOT, bundle)
    write_down("gate-same", reports)
    assert sum(report.verdict == "regressed" for report in reports) <= 2 * GATES / 50


def test_ten_per_cent_are_found(bundle: Path, slower: Path) -> None:
    """At least 45 of fifty gates find that the head takes 10 % longer."""
    reports = gates(slower, bundle)
    write_down("gate-slower", reports)
    assert sum(report.verdict == "regressed" for report in reports) >= 45 * GATES / 50


def write_down(case: str, reports: list[GateReport]) -> None:
    """One dated result; the newest of a machine replaces the one before."""
    hardware = detect_hardware()
    RESULTS.mkdir(exist_ok=True)
    latencies = [report.comparisons[0].ratio for report in reports]
    result = {
        "case": case,
        "date": datetime.now(UTC).date().isoformat(),
        "fingerprint": hardware.fingerprint,
        "gates": len(reports),
        "threshold": 0.05,
        "verdicts": dict(Counter(report.verdict for report in reports)),
        "regressed_metrics": dict(
            Counter(
                comparison.metric
                for report in reports
                for comparison in report.comparisons
                if comparison.verdict == "regressed"
            )
        ),
        "latency_ratio_median": round(statistics.median(latencies), 4),
        "latency_ratio_min": round(min(latencies), 4),
        "latency_ratio_max": round(max(latencies), 4),
        "seconds_median": statistics.median(report.seconds for report in reports),
        "other_cores_max": max(report.other_cores or 0.0 for report in reports),
    }
    path = RESULTS / f"{case}-{hardware.fingerprint}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")

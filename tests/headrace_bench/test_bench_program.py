"""`headrace bench` as it is typed: what it prints, what it leaves, how it ends."""

import json
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from bundles import WEIGHT, linear_bundle, linear_model
from services import GOOD, HEADRACE, environment, run, wait_until

from headrace.bundle.golden import GoldenCase, encode_cases
from headrace_bench.gate import GateReport
from headrace_bench.process import MARK
from headrace_bench.result import CaseResult, read_results

QUICK = ("bench", "run", "kernels", "--quick", "--no-peers", "--allow-load")


def test_a_run_leaves_lines_and_reports(tmp_path: Path) -> None:
    """Each case is a JSON line, on standard output and in a file that stands beside the reports."""
    out = tmp_path / "run"
    done = run(tmp_path, *QUICK, "--out", str(out), "--json")
    assert done.returncode == 0, done.stderr
    printed = [CaseResult.model_validate_json(line) for line in done.stdout.splitlines()]
    assert tuple(printed) == read_results(out)
    assert [result.contestant for result in printed] == ["headrace", "copy"]
    assert {path.name for path in out.iterdir()} == {
        *("results.jsonl", "summary.md", "junit.xml", "report.html")
    }


def test_an_interrupted_run_keeps_what_it_has(tmp_path: Path) -> None:
    """Ctrl-C in a run ends it with 130, no process of it, and the lines that were measured."""
    out = tmp_path / "run"
    command: list[str | Path] = [HEADRACE, "bench", "run", "kernels", "--no-peers", "--allow-load"]
    command += ["--out", str(out)]
    process = subprocess.Popen(
        command,
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert wait_until((out / "results.jsonl").exists, 60)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130
    assert all(result.status == "ok" for result in read_results(out))
    left = [path for path in Path("/proc").glob("[0-9]*/environ") if _is_marked(path, out)]
    assert left == []


def _is_marked(path: Path, out: Path) -> bool:
    try:
        words = path.read_bytes().split(b"\0")
    except OSError:
        return False
    home = f"HEADRACE_HOME={out.parent}".encode()
    return home in words and any(word.startswith(f"{MARK}=".encode()) for word in words)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("run", "nothing"), "there is no suite 'nothing'"),
        (("run", "kernels", "--case", "nothing"), "has no case like 'nothing'"),
        (("run", "kernels", "--peer", "nobody"), "there is no peer 'nobody'"),
        (("gate", "--base", str(GOOD), "--head", str(GOOD), "--metric", "beauty"), "no metric"),
        (("gate", "--base", str(GOOD), "--head", str(GOOD), "--metric", "accuracy"), "is left"),
        (("gate", "--base", str(GOOD), "--head", "HEAD"), "only be compared with a bundle"),
        (("compare", "/nowhere", "/nowhere"), "holds no run"),
        (("peers", "install", "nobody"), "there is no peer 'nobody'"),
    ],
)
def test_what_cannot_be_asked_is_said(
    tmp_path: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    """Wrong usage ends with 2 and one sentence."""
    done = run(tmp_path, "bench", *arguments)
    assert done.returncode == 2, done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_peers_are_listed(tmp_path: Path) -> None:
    """Every peer is shown with the state of its environment."""
    done = run(tmp_path, "bench", "peers", "list", "--json")
    peers = {peer["name"]: peer["state"] for peer in json.loads(done.stdout)["peers"]}
    assert peers["openvino"] == "not installed"
    assert peers["floors"] == "headrace's own"


def test_a_gate_without_timing_is_exact(tmp_path: Path) -> None:
    """Size and answers alone need no server: equal bundles pass, other answers are a regression."""
    x = np.ones((1, 3), np.float32)
    case = GoldenCase(raw={}, inputs={"x": x}, outputs={"y": -(x @ WEIGHT)})
    other = linear_bundle(tmp_path, model=linear_model(-WEIGHT), golden=encode_cases([case]))
    metrics = ("--metric", "size", "--metric", "golden_agreement")
    for head, status, verdict in ((GOOD, 0, "no difference shown"), (other, 1, "regressed")):
        out = tmp_path / verdict
        asked = ("--base", str(GOOD), "--head", str(head), *metrics, "--out", str(out), "--json")
        done = run(tmp_path, "bench", "gate", *asked)
        assert done.returncode == status, done.stderr
        report = GateReport.model_validate_json(done.stdout)
        assert report.verdict == verdict
        assert GateReport.model_validate_json((out / "gate.json").read_text()) == report
        assert (out / "summary.md").read_text().startswith(f"**headrace bench gate: {verdict}**")


def test_a_gate_measures_two_real_servers(tmp_path: Path) -> None:
    """Both sides are served and asked; whatever the noise, memory and cold start are compared."""
    asked = ("--base", str(GOOD), "--head", str(GOOD), "--quick", "--minutes", "0.1")
    done = run(tmp_path, "bench", "gate", *asked, "--json", timeout_s=120)
    assert done.returncode in {0, 1, 4}, done.stderr
    found = {each.metric: each for each in GateReport.model_validate_json(done.stdout).comparisons}
    assert found["cold_start"].base > 0
    assert found["memory"].head > 10
    assert found["latency"].pairs >= 1


def test_a_head_that_does_not_serve_ends_the_gate(tmp_path: Path) -> None:
    """A bundle that fails its golden replay is no verdict but an error, with status 1."""
    bad = GOOD.with_name("golden-mismatch.bundle")
    done = run(tmp_path, "bench", "gate", "--base", str(GOOD), "--head", str(bad), "--quick")
    assert done.returncode == 1
    assert "golden case 0" in done.stderr

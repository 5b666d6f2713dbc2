"""A real Prometheus scrapes a real service, and its query language finds the numbers."""

import json
import math
import shutil
import subprocess
import urllib.parse
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http
from services import GOOD, Service, fetch, free_port, serving, wait_until

REQUESTS = 25


def tool(name: str) -> str:
    """The path of an installed program; its absence is a failure."""
    path = shutil.which(name)
    assert path, f"{name} is not installed; `make test-services` installs it"
    return path


@pytest.fixture(scope="module", params=["--edge", ""], ids=["edge", "ray"])
def service(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """A service that has answered some requests and refused one."""
    flags = [flag for flag in (request.param,) if flag]
    with serving(tmp_path_factory.mktemp("home"), str(GOOD), *flags) as running:
        with tritonclient.http.InferenceServerClient(running.url.removeprefix("http://")) as client:
            tensor = tritonclient.http.InferInput("x", [2, 3], "FP32")
            tensor.set_data_from_numpy(np.ones((2, 3), np.float32))
            for _ in range(REQUESTS):
                client.infer("linear", [tensor])
            with pytest.raises(tritonclient.http.InferenceServerException):
                client.infer(
                    "linear", [tensor], outputs=[tritonclient.http.InferRequestedOutput("z")]
                )
        yield running


@pytest.fixture
def prometheus(service: Service, tmp_path: Path) -> Iterator[str]:
    """A Prometheus that scrapes the service every second; gives its address."""
    address = f"127.0.0.1:{free_port()}"
    target = service.url.removeprefix("http://")
    config = tmp_path / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 1s}\n"
        f"scrape_configs: [{{job_name: headrace, static_configs: [{{targets: ['{target}']}}]}}]\n"
    )
    process = subprocess.Popen(
        [
            tool("prometheus"),
            f"--config.file={config}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address={address}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert wait_until(lambda: fetch(f"http://{address}/-/ready")[0] == 200, 30)
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(30)


def query(address: str, expression: str) -> float | None:
    """The value of an instant query; None where it finds nothing."""
    found = fetch(f"{address}/api/v1/query?query={urllib.parse.quote(expression)}")[1]
    result = json.loads(found)["data"]["result"]
    return float(result[0]["value"][1]) if result else None


def has_value(address: str, expression: str) -> bool:
    """Whether an instant query finds a number."""
    found = query(address, expression)
    return found is not None and not math.isnan(found)


def test_prometheus_counts_requests_by_outcome(prometheus: str) -> None:
    """What was answered and what was refused can be asked of Prometheus, by model and outcome."""
    answered = 'headrace_request_seconds_count{model="linear",outcome="ok"}'
    refused = 'headrace_request_seconds_count{model="linear",outcome="request.outputs"}'
    assert wait_until(lambda: query(prometheus, f"sum({answered})") == REQUESTS, 15)
    assert query(prometheus, f"sum({refused})") == 1
    assert query(prometheus, 'headrace_rows_total{model="linear"}') == 2 * REQUESTS


def test_prometheus_knows_the_latency_of_each_stage(prometheus: str) -> None:
    """A quantile of every stage can be computed from the histograms."""
    for stage in ("decode", "preprocess", "queue", "session", "postprocess", "encode"):
        expression = (
            "histogram_quantile(0.5, sum by (le)"
            f' (headrace_stage_seconds_bucket{{model="linear",stage="{stage}"}}))'
        )
        assert wait_until(partial(has_value, prometheus, expression), 15)
        median = query(prometheus, expression)
        assert median is not None
        assert 0 < median < 1


def test_promtool_finds_nothing_wrong(service: Service) -> None:
    """Names, types and help of the metrics follow Prometheus' own rules."""
    status, text = fetch(f"{service.url}/metrics")
    assert status == 200
    checked = subprocess.run(
        [tool("promtool"), "check", "metrics"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr

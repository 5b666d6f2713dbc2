"""A service on a real Ray Serve: it answers as the edge does, and ends without a trace."""

import json
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt
import psutil
import pytest
import tritonclient.grpc
import tritonclient.http
from services import GOOD, Service, fetch, is_listening, run, serving, wait_until
from tritonclient.utils import InferenceServerException

from headrace.processes import marked_processes, send

pytestmark = pytest.mark.ray
Rows = npt.NDArray[np.float32]
WEIGHT = np.arange(12, dtype=np.float32).reshape(3, 4) / 8


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for the tests that only ask it."""
    with serving(tmp_path_factory.mktemp("home"), str(GOOD), "--max-replicas", "2") as running:
        yield running


def rows(number: int) -> Rows:
    """Some rows, different for each number."""
    return np.random.default_rng(number).standard_normal((number % 3 + 1, 3)).astype(np.float32)


def ask_http(service: Service, x: Rows) -> Rows:
    """The model's answer over HTTP."""
    address = service.url.removeprefix("http://")
    with tritonclient.http.InferenceServerClient(address) as client:
        tensor = tritonclient.http.InferInput("x", list(x.shape), "FP32")
        tensor.set_data_from_numpy(x)
        answer: Rows = client.infer("linear", [tensor]).as_numpy("y")
        return answer


def ask_grpc(service: Service, x: Rows) -> Rows:
    """The model's answer over gRPC."""
    with tritonclient.grpc.InferenceServerClient(service.grpc) as client:
        tensor = tritonclient.grpc.InferInput("x", list(x.shape), "FP32")
        tensor.set_data_from_numpy(x)
        answer: Rows = client.infer("linear", [tensor]).as_numpy("y")
        return answer


@pytest.mark.parametrize("ask", [ask_http, ask_grpc])
def test_a_replica_answers_with_the_rows_asked_for(
    service: Service, ask: Callable[[Service, Rows], Rows]
) -> None:
    """Many callers at once each get the answer to their own rows, over both transports."""
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: ask(service, rows(number)), range(64)))
    for number, answer in enumerate(answers):
        np.testing.assert_allclose(answer, rows(number) @ WEIGHT, rtol=1e-5, atol=1e-5)


def test_the_front_answers_for_the_server(service: Service) -> None:
    """Health, metadata and metrics of the server come from the front, whatever its replicas do."""
    assert fetch(f"{service.url}/v2/health/live") == (200, '{"live":true}')
    assert fetch(f"{service.url}/v2/health/ready") == (200, '{"ready":true}')
    assert json.loads(fetch(f"{service.url}/v2")[1])["name"] == "headrace"
    with tritonclient.grpc.InferenceServerClient(service.grpc) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("linear")
        assert client.get_model_metadata("linear").inputs[0].name == "x"


def test_errors_keep_their_form_on_every_path(service: Service) -> None:
    """The front, a replica and the gRPC hop refuse with the sentence and code of the data plane."""
    for path in ("/v2/models/none", "/v2/models/none/infer", "/v2/models/linear/versions/7"):
        status, body = fetch(f"{service.url}{path}")
        assert status == 404
        assert set(json.loads(body)) == {"error", "code"}
    with tritonclient.grpc.InferenceServerClient(service.grpc) as client:
        wrong = tritonclient.grpc.InferInput("z", [1, 3], "FP32")
        wrong.set_data_from_numpy(np.zeros((1, 3), np.float32))
        with pytest.raises(InferenceServerException, match="unknown input 'z'") as refused:
            client.infer("linear", [wrong])
        assert refused.value.status() == "StatusCode.INVALID_ARGUMENT"
        with pytest.raises(InferenceServerException, match="no model 'none'") as missing:
            client.infer("none", [wrong])
        assert missing.value.status() == "StatusCode.NOT_FOUND"


def test_metrics_add_up_over_replicas(service: Service) -> None:
    """The front's metrics count each request once, whichever replica answered it."""

    def answered() -> float:
        lines = fetch(f"{service.url}/metrics")[1].splitlines()
        wanted = 'headrace_request_seconds_count{model="linear",outcome="ok",version="1"}'
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(wanted))

    before = answered()
    for number in range(10):
        ask_http(service, rows(number))
        ask_grpc(service, rows(number))
    assert answered() - before == 20


def test_status_tells_of_the_replicas(service: Service) -> None:
    """`headrace status` shows each service of this user with its models and replicas."""
    status = run(service.home, "status", "--json")
    assert status.returncode == 0
    (found,) = json.loads(status.stdout)["services"]
    assert (found["state"], found["mode"]) == ("ready", "ray")
    assert "running" in found["replicas"]


def test_a_service_scales_between_its_bounds(service: Service) -> None:
    """With many requests in hand a model gets a second replica, and never a third."""

    def replicas() -> int:
        body = json.loads(fetch(f"{service.url}/status")[1])
        return int(body["models"][0]["replicas"].get("RUNNING", 0))

    seen: list[int] = []

    def grown() -> bool:
        seen.append(replicas())
        return seen[-1] > 1

    head = "POST /v2/models/linear/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"
    with ExitStack() as held:
        for _ in range(12):  # requests whose body does not end stay in hand
            address = ("127.0.0.1", service.announced["http_port"])
            client = held.enter_context(socket.create_connection(address))
            client.sendall(f"{head}{{".encode())
        assert wait_until(grown, 60)
        grown()
    assert max(seen) == 2


def test_replicas_carry_the_mark_of_their_service(service: Service) -> None:
    """A sweep finds the replicas by the mark, though Ray gives their processes new titles."""
    marked = [psutil.Process(pid).cmdline() for pid in marked_processes(service.announced["id"])]
    titles = [cmdline[0] for cmdline in marked if cmdline]
    assert any(title.startswith("ray::ServeReplica:model-linear") for title in titles), titles


def supervisors(service: Service) -> list[int]:
    """The processes that watch a service."""
    wanted = ("headrace.cluster.supervisor", service.announced["id"])
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if all(part in (process.info["cmdline"] or ()) for part in wanted)
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_everything(tmp_path: Path, number: signal.Signals) -> None:
    """SIGTERM and Ctrl-C end the service with status 0; no process, port or file is left."""
    with serving(tmp_path, str(GOOD)) as service:
        assert service.end(number) == 0
        assert service.leftovers() == []


def test_stop_ends_everything(tmp_path: Path) -> None:
    """`headrace stop` returns when the service is gone."""
    with serving(tmp_path, str(GOOD)) as service:
        stopped = run(tmp_path, "stop", "--json")
        assert json.loads(stopped.stdout)["stopped"] == [service.announced["id"]]
        assert service.process.wait(5) == 0
        assert service.leftovers() == []


def test_the_supervisor_clears_up_after_a_killed_driver(tmp_path: Path) -> None:
    """Ten seconds after `kill -9` of the driver nothing is left, and its ports are free."""
    with serving(tmp_path, str(GOOD)) as service:
        assert service.end(signal.SIGKILL) == -signal.SIGKILL
        assert wait_until(lambda: not service.leftovers(), 10), service.leftovers()


def test_the_next_start_reclaims_what_is_left(tmp_path: Path) -> None:
    """Where the supervisor died too, the next command that looks clears what the service left."""
    with serving(tmp_path, str(GOOD)) as service:
        send(supervisors(service), signal.SIGKILL)
        assert service.end(signal.SIGKILL) == -signal.SIGKILL
        assert marked_processes(service.announced["id"])
        assert is_listening(service.announced["http_port"])
        reclaimed = run(tmp_path, "stop", "--json")
        assert json.loads(reclaimed.stdout)["reclaimed"] == [service.announced["id"]]
        assert service.leftovers() == []


def test_a_model_that_fails_its_golden_cases_does_not_come_up(tmp_path: Path) -> None:
    """The service says which model failed and why, exits with 1, and leaves nothing."""
    bad = GOOD.with_name("golden-mismatch.bundle")
    failed = run(tmp_path, "serve", str(bad), "--json", timeout_s=120)
    assert failed.returncode == 1
    assert "golden case 0" in json.loads(failed.stdout)["error"]["message"]
    assert list((tmp_path / "services").iterdir()) == []


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [(5_000_000, "this server takes 256"), (9_000_000, "larger than|takes .* bytes")],
)
@pytest.mark.parametrize("transport", [tritonclient.http, tritonclient.grpc])
def test_large_requests_reach_the_replica_or_are_refused(
    service: Service, transport: ModuleType, rows: int, sentence: str
) -> None:
    """60 MB arrive (and hold too many rows); 108 MB are more than a body may have."""
    http = transport is tritonclient.http
    address = service.url.removeprefix("http://") if http else service.grpc
    tensor = transport.InferInput("x", [rows, 3], "FP32")
    tensor.set_data_from_numpy(np.zeros((rows, 3), np.float32))
    with transport.InferenceServerClient(address) as client:
        with pytest.raises(InferenceServerException, match=sentence) as refused:
            client.infer("linear", [tensor])
        expected = {"413", "StatusCode.RESOURCE_EXHAUSTED"}
        assert refused.value.status() in expected

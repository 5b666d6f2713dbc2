"""The life of `headrace serve --edge`: how it starts, refuses to start, and ends."""

import json
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
from edge_bundles import write_linear, write_slow
from services import (
    GOOD,
    HEADRACE,
    Service,
    environment,
    fetch,
    free_port,
    is_listening,
    run,
    serving,
    wait_until,
)
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

INFER = "/v2/models/linear/infer"
ROW = json.dumps(
    {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 0, 0]}]}
)
ENDS = (signal.SIGTERM, signal.SIGINT)


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose load and whose answers take a while."""
    return write_slow(tmp_path_factory.mktemp("bundles"))


def records(home: Path) -> list[Path]:
    """What is left of the state of services."""
    return list((home / "services").glob("*"))


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """The code of the error that a program ended with; its sentence stands on stderr."""
    error = json.loads(done.stdout)["error"]
    assert error["message"] in done.stderr
    assert "Traceback" not in done.stderr
    return str(error["code"])


@pytest.mark.parametrize("flag", ["--port", "--grpc-port"])
def test_port_in_use(tmp_path: Path, flag: str) -> None:
    """A port that somebody has is a sentence and exit status 3, and leaves no record."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = {"--port": str(free_port()), "--grpc-port": str(free_port())}
        ports[flag] = str(taken.getsockname()[1])
        arguments = [part for pair in ports.items() for part in pair]
        done = run(tmp_path, "serve", "--edge", str(GOOD), *arguments, "--json")
    assert (done.returncode, refusal(done)) == (3, "port.in-use")
    assert records(tmp_path) == []


def test_one_port_for_both_edges(tmp_path: Path) -> None:
    """HTTP and gRPC cannot have one port: a sentence and exit status 2."""
    port = str(free_port())
    ports = ("--port", port, "--grpc-port", port)
    done = run(tmp_path, "serve", "--edge", str(GOOD), *ports, "--json")
    assert (done.returncode, refusal(done)) == (2, "serve.ports")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])  # noqa: S104 - refused
def test_exposure_needs_a_flag(tmp_path: Path, host: str) -> None:
    """Listening beyond this machine without --insecure ends with 2 before anything listens."""
    port = free_port()
    arguments = ("--host", host, "--port", str(port), "--json")
    done = run(tmp_path, "serve", "--edge", str(GOOD), *arguments)
    assert (done.returncode, refusal(done)) == (2, "serve.exposed")
    assert not tmp_path.joinpath("services").exists()
    assert not is_listening(port)


def test_insecure_listens_everywhere(tmp_path: Path) -> None:
    """With --insecure the server listens on every address, and its record says where it is."""
    with serving(tmp_path, "--edge", str(GOOD), "--host", "0.0.0.0", "--insecure") as service:  # noqa: S104 - the flag under test
        assert service.url.startswith("http://127.0.0.1:")
        assert fetch(f"{service.url}/v2/health/ready")[0] == 200
        assert service.end() == 0


def test_two_bundles_of_one_name(tmp_path: Path) -> None:
    """Two bundles of one name cannot be told apart by clients: exit status 2."""
    bundles = [str(write_linear(tmp_path / v, "linear", v)) for v in ("1", "2")]
    done = run(tmp_path, "serve", "--edge", *bundles, "--json")
    assert (done.returncode, refusal(done)) == (2, "serve.names")


def test_without_grpc(tmp_path: Path) -> None:
    """--grpc-port 0 serves HTTP alone."""
    with serving(tmp_path, "--edge", str(GOOD), "--grpc-port", "0") as service:
        assert service.announced["grpc_port"] is None
        assert httpx.post(service.url + INFER, content=ROW).status_code == 200
        assert service.end() == 0
        assert service.leftovers() == []


def test_announcement_is_all_of_standard_output(tmp_path: Path) -> None:
    """Standard output holds the announcement, and nothing of what clients cause later."""
    with serving(tmp_path, "--edge", str(GOOD)) as service:
        assert service.announced["mode"] == "edge"
        assert service.announced["models"] == ["linear 1"]
        assert service.announced["pid"] == service.process.pid
        with socket.create_connection(("127.0.0.1", service.announced["http_port"])) as sock:
            sock.sendall(b"nonsense\r\n\r\n")
            assert sock.recv(100).startswith(b"HTTP/1.1 400")
        service.process.send_signal(signal.SIGTERM)
        assert service.process.stdout is not None
        assert service.process.stdout.read() == ""
        assert service.process.wait(30) == 0


@pytest.mark.parametrize("number", ENDS)
def test_signal_during_loading(tmp_path: Path, slow: Path, number: signal.Signals) -> None:
    """A signal while models load ends the program with 0, with nothing listening and no record."""
    port = free_port()
    process = subprocess.Popen(
        [HEADRACE, "serve", "--edge", str(slow), "--port", str(port), "--grpc-port", "0", "--json"],
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    maps = Path(f"/proc/{process.pid}/maps")
    try:
        assert wait_until(lambda: "onnxruntime_pybind11" in maps.read_text(), 30)
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, out) == (0, "")
    assert "Traceback" not in err
    assert records(tmp_path) == []
    assert not is_listening(port)


@pytest.mark.parametrize("number", ENDS)
def test_signal_with_requests_in_hand(tmp_path: Path, slow: Path, number: signal.Signals) -> None:
    """Requests in hand are answered after the signal, over HTTP and gRPC, and new ones refused."""
    with (
        serving(tmp_path, "--edge", str(slow), str(GOOD)) as service,
        ThreadPoolExecutor(1) as pool,
    ):
        half = _half_a_request(service)
        with grpc.insecure_channel(service.grpc) as channel:
            calls = _slow_calls(channel)
            calls[0].result(timeout=30)  # the others arrived with it, and wait
            ending = pool.submit(service.end, number)
            assert wait_until(lambda: not is_listening(service.announced["http_port"]), 10)
            half.sendall(ROW[10:].encode())
            with half, half.makefile("rb") as stream:
                answer = stream.read()
            for call in calls:
                output = call.result(timeout=30).raw_output_contents[0]
                assert np.array_equal(np.frombuffer(output, np.float32), [1, 2, 3])
            assert ending.result(30) == 0
        assert answer.startswith(b"HTTP/1.1 200")
        assert b'"outputs"' in answer
        assert service.leftovers() == []
        assert records(tmp_path) == []


def _half_a_request(service: Service) -> socket.socket:
    half = socket.create_connection(("127.0.0.1", service.announced["http_port"]), timeout=30)
    head = f"POST {INFER} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(ROW)}\r\n\r\n"
    half.sendall((head + ROW[:10]).encode())
    assert fetch(f"{service.url}/v2/health/live")[0] == 200  # and so it has read ours too
    return half


def _slow_calls(channel: grpc.Channel) -> list[grpc.Future]:
    message = messages.ModelInferRequest(
        model_name="slow",
        inputs=[{"name": "x", "datatype": "FP32", "shape": [1, 3]}],
        raw_input_contents=[np.array([1, 2, 3], np.float32).tobytes()],
    )
    stub = GRPCInferenceServiceStub(channel)
    return [stub.ModelInfer.future(message, wait_for_ready=True) for _ in range(4)]


def test_idle_connections_do_not_delay_the_end(tmp_path: Path) -> None:
    """A client that keeps its connection open without a request is not waited for."""
    with serving(tmp_path, "--edge", str(GOOD)) as service, httpx.Client() as client:
        assert client.get(f"{service.url}/v2").status_code == 200
        silent = socket.create_connection(("127.0.0.1", service.announced["http_port"]))
        with silent, grpc.insecure_channel(service.grpc) as channel:
            grpc.channel_ready_future(channel).result(timeout=10)
            assert service.end(timeout_s=8) == 0  # less than the grace for requests in hand


def test_body_that_never_ends_is_cut_off(tmp_path: Path) -> None:
    """A request whose body does not come is given up after the grace, and the end is clean."""
    with serving(tmp_path, "--edge", str(GOOD)) as service:
        with _half_a_request(service):
            assert service.end(timeout_s=30) == 0
        assert service.leftovers() == []


def test_start_after_a_crash(tmp_path: Path) -> None:
    """After kill -9 the same ports serve again, and what the crash left is reclaimed."""
    with serving(tmp_path, "--edge", str(GOOD)) as crashed:
        crashed.process.kill()
        crashed.process.wait(30)
        assert len(records(tmp_path)) == 1
        assert run(tmp_path, "status", "--json").returncode == 1
        ports = [str(crashed.announced[key]) for key in ("http_port", "grpc_port")]
        again = ("--port", ports[0], "--grpc-port", ports[1])
        with serving(tmp_path, "--edge", str(GOOD), *again) as service:
            assert httpx.post(service.url + INFER, content=ROW).status_code == 200
            assert [path.name for path in records(tmp_path)] == [service.announced["id"]]
            assert service.end() == 0
    assert records(tmp_path) == []


def test_stop_clears_a_crash(tmp_path: Path) -> None:
    """`headrace stop` reclaims what a crash left, and says so."""
    with serving(tmp_path, "--edge", str(GOOD)) as crashed:
        crashed.process.kill()
        crashed.process.wait(30)
        done = run(tmp_path, "stop", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout) == {"stopped": [], "reclaimed": [crashed.announced["id"]]}
    assert records(tmp_path) == []


def test_status_and_stop(tmp_path: Path) -> None:
    """`status` shows a running edge, `stop` ends it, and then there is none: exit status 1."""
    with serving(tmp_path, "--edge", str(GOOD)) as service:
        (shown,) = json.loads(run(tmp_path, "status", "--json").stdout)["services"]
        assert shown["state"] == "ready"
        assert {key: shown[key] for key in ("id", "pid", "url", "mode")} == {
            key: service.announced[key] for key in ("id", "pid", "url", "mode")
        }
        done = run(tmp_path, "stop", "--json")
        assert json.loads(done.stdout)["stopped"] == [service.announced["id"]]
        assert service.process.wait(10) == 0
        assert service.leftovers() == []
    for command in ("status", "stop"):
        assert run(tmp_path, command, "--json").returncode == 1


def test_broken_bundle_is_never_served(tmp_path: Path) -> None:
    """A bundle that fails its golden replay ends the program with 1, and nothing listens."""
    port = free_port()
    broken = GOOD.with_name("golden-mismatch.bundle")
    arguments = (str(GOOD), str(broken), "--port", str(port), "--json")
    done = run(tmp_path, "serve", "--edge", "--grpc-port", "0", *arguments)
    # Both bundles have one name, which is found out first.
    assert (done.returncode, refusal(done)) == (2, "serve.names")
    done = run(tmp_path, "serve", "--edge", "--grpc-port", "0", *arguments[1:])
    assert (done.returncode, refusal(done)) == (1, "bundle.golden-mismatch")
    assert not is_listening(port)
    assert records(tmp_path) == []


def test_port_taken_while_loading(tmp_path: Path, slow: Path) -> None:
    """A port that somebody takes while the models load is a sentence and exit status 3."""
    port = free_port()
    process = subprocess.Popen(
        [HEADRACE, "serve", "--edge", str(slow), "--port", str(port), "--grpc-port", "0", "--json"],
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    maps = Path(f"/proc/{process.pid}/maps")
    try:
        assert wait_until(lambda: "onnxruntime_pybind11" in maps.read_text(), 30)
        time.sleep(0.1)  # the ports were looked at before
        with socket.create_server(("127.0.0.1", port)):
            out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    done = subprocess.CompletedProcess(process.args, process.returncode, out, err)
    assert (done.returncode, refusal(done)) == (3, "port.in-use")
    assert records(tmp_path) == []

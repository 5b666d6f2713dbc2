"""Servers under load: the real `headrace serve --edge`, and small ones that misbehave."""

import os
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from bundles import image_bundle
from services import GOOD, free_port, wait_until

from headrace.bundle.open import Bundle, open_bundle
from headrace.errors import CheckError, MissingError, UsageError
from headrace.processes import marked_processes, start_time
from headrace_bench.load import server as server_module
from headrace_bench.load.closed import HttpClient
from headrace_bench.load.requests import (
    Answer,
    AnswerCheck,
    Kind,
    check_answer,
    golden_exchange,
    http_request,
    load_check,
    oip_http,
    write_request,
)
from headrace_bench.load.served import open_served, open_starts
from headrace_bench.load.server import Server, headrace_command, home_environment, spent
from headrace_bench.process import MARK, Contestant, Worker, WorkerError

PROGRAM = (sys.executable, "-P", "-m", "headrace.cli")
Arguments = dict[str, Any]
ODD = """
import asyncio, itertools, sys
mode, port = sys.argv[1], int(sys.argv[2])
numbers = itertools.count()

async def answer(reader, writer):
    try:
        while True:
            timeout = 0.2 if mode == "impatient" else None
            head = await asyncio.wait_for(reader.readuntil(b"\\r\\n\\r\\n"), timeout)
            length = int(head.lower().partition(b"content-length:")[2].split()[0])
            body = await reader.readexactly(length)
            number = next(numbers)
            if number and mode == "dropping":
                return
            if number and mode == "dying":
                sys.stderr.write("out of luck\\n")
                sys.stderr.flush()
                __import__("os")._exit(5)
            if number and mode == "failing":
                writer.write(b"HTTP/1.1 503 No\\r\\nContent-Length: 7\\r\\n\\r\\nno more")
            elif number < 3 and mode == "late":
                writer.write(b"HTTP/1.1 404 No\\r\\nContent-Length: 0\\r\\n\\r\\n")
            elif mode == "chunked":
                parts = b"".join(b"1\\r\\n%c\\r\\n" % byte for byte in body)
                start = b"HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n"
                writer.write(start + parts[:5])
                await asyncio.sleep(0.001)
                writer.write(parts[5:] + b"0\\r\\n\\r\\n")
            elif mode == "closing":
                start = b"HTTP/1.1 200 OK\\r\\nConnection: close\\r\\n"
                writer.write(start + b"Content-Length: %d\\r\\n\\r\\n" % len(body) + body)
                return
            else:
                start = b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n"
                writer.write(start % len(body) + body)
    except (TimeoutError, asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()

async def main():
    server = await asyncio.start_server(answer, "127.0.0.1", port)
    await server.serve_forever()

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """A linear model of three inputs and four outputs."""
    return open_bundle(GOOD)


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The mark of a contestant; nothing of it may be left."""
    value = f"test-{os.getpid()}-{free_port()}"
    monkeypatch.setenv(MARK, value)
    yield value
    assert marked_processes(value, MARK) == []


def edge(
    bundle: Bundle,
    folder: Path,
    *,
    road: Literal["http", "grpc"] = "http",
    binary: bool = True,
    image: bool = False,
) -> Arguments:
    """The arguments of `headrace serve --edge` on a free port."""
    return {
        "command": headrace_command(PROGRAM, bundle, layout="edge", road=road),
        "environment": home_environment(folder / "home"),
        **write_request(bundle, folder / "request", road=road, binary=binary, image=image),
    }


def odd(mode: str, folder: Path) -> Arguments:
    """The arguments of a small server with a mind of its own."""
    request, program = folder / "request", folder / "odd.py"
    request.write_bytes(http_request("/", b"hello", {}))
    program.write_text(ODD)
    return {
        "command": [sys.executable, str(program), mode, "{port}"],
        "road": "http",
        "request": str(request),
        "expected": AnswerCheck(kind="echo").save(folder / "check.json"),
    }


@pytest.mark.parametrize("choices", [{}, {"binary": False}, {"road": "grpc"}])
@pytest.mark.usefixtures("mark")
def test_headrace_is_loaded_on_each_road(
    bundle: Bundle, tmp_path: Path, choices: dict[str, Any]
) -> None:
    """A server answers one caller and four, and its tree's processor time and memory are told."""
    served = open_served(**edge(bundle, tmp_path, **choices))
    try:
        for load in (1, 4, 1):
            block = served.block(0.1, load)
            assert block.errors == 0, block.first_error
            assert len(block.latencies) >= load
            assert block.seconds >= 0.1
            assert 0 < min(block.latencies) <= max(block.latencies) <= block.seconds
            assert 0 < block.cpu_seconds < block.own_cpu_seconds
        facts = served.facts()
        assert facts["start_s"] > 0
        assert facts["memory_mb"] > 10
    finally:
        served.close()


@pytest.mark.usefixtures("mark")
def test_images_are_answered_with_what_the_bundle_makes_of_them(tmp_path: Path) -> None:
    """A bundle that preprocesses and ranks is asked with an encoded image, and its scores agree."""
    bundle = open_bundle(image_bundle(tmp_path))
    served = open_served(**edge(bundle, tmp_path, image=True))
    try:
        assert served.block(0.05, 2).errors == 0
    finally:
        served.close()


def test_a_bundle_without_images_is_not_asked_with_one(bundle: Bundle) -> None:
    """Raw images are asked for where a bundle has none."""
    with pytest.raises(UsageError, match="takes no images"):
        golden_exchange(bundle, image=True)


@pytest.mark.usefixtures("mark")
def test_every_start_is_measured(bundle: Bundle, tmp_path: Path) -> None:
    """A block of a server that is started again holds whole starts, and nothing runs after it."""
    starts = open_starts(**edge(bundle, tmp_path))
    block = starts.block(0.0, 1)
    assert len(block.latencies) == 1
    assert block.seconds == block.latencies[0] > 0
    assert block.cpu_seconds > 0
    assert starts.facts()["memory_mb"] > 10
    starts.close()


def test_a_worker_leaves_nothing(bundle: Bundle, tmp_path: Path) -> None:
    """A contestant's server is marked as the contestant's, and ends with it; no path leaks in."""
    asked = edge(bundle, tmp_path)
    mark = f"test-{os.getpid()}-{free_port()}"
    contestant = Contestant("headrace", "headrace_bench.load.served:open_served", asked)
    with Worker(contestant, mark) as worker:
        assert worker.block(0.05, 2).errors == 0
        commands = {pid: environment(pid) for pid in marked_processes(mark, MARK)}
        servers = [text for text in commands.values() if server_module.SERVER_MARK in text]
        assert len(commands) == 2
        assert len(servers) == 1
        assert "PYTHONPATH" not in servers[0]
    assert marked_processes(mark, MARK) == []


def test_a_killed_worker_leaves_nothing(bundle: Bundle, tmp_path: Path) -> None:
    """Where a contestant's process is killed, its server is ended all the same."""
    mark = f"test-{os.getpid()}-{free_port()}"
    asked = edge(bundle, tmp_path)
    contestant = Contestant("headrace", "headrace_bench.load.served:open_served", asked)
    with Worker(contestant, mark) as worker:
        marked = marked_processes(mark, MARK)
        (victim,) = [p for p in marked if server_module.SERVER_MARK not in environment(p)]
        os.kill(victim, signal.SIGKILL)
        with pytest.raises(WorkerError, match="signal 9"):
            worker.block(0.05, 1)
    assert marked_processes(mark, MARK) == []


@pytest.mark.usefixtures("mark")
def test_a_port_in_use_is_told_before_the_start(bundle: Bundle, tmp_path: Path) -> None:
    """A port on which somebody listens is an error, and nothing is started."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(MissingError, match=f"{port}: Address already in use"):
            open_served(**edge(bundle, tmp_path), port=port)


@pytest.mark.usefixtures("mark")
def test_a_server_that_ends_is_quoted(bundle: Bundle, tmp_path: Path) -> None:
    """A server that dies at its start is an error with its status and its own words."""
    asked = edge(bundle, tmp_path)
    tampered = open_bundle(GOOD).path.with_name("tampered.bundle")
    asked["command"] = [
        str(tampered) if word == str(bundle.path) else word for word in asked["command"]
    ]
    with pytest.raises(CheckError, match=r"ended with status 1: error: .* was changed after"):
        open_served(**asked)


def test_a_program_that_is_not_there_is_named() -> None:
    """A command that cannot be started is an error."""
    with pytest.raises(CheckError, match="cannot start /nowhere/server"):
        Server(["/nowhere/server"], {})


@pytest.mark.usefixtures("mark")
def test_a_silent_server_is_given_up() -> None:
    """A server that does not come up in time is an error that says what was tried."""
    with (
        Server([sys.executable, "-c", "import time; time.sleep(60)"], {}) as server,
        pytest.raises(CheckError, match=r"did not answer in 0 s \(nobody there\) and said nothing"),
    ):
        server.wait(lambda: "nobody there", 0.05)


@pytest.mark.usefixtures("mark")
def test_a_wrong_answer_is_no_figure(bundle: Bundle, tmp_path: Path) -> None:
    """A server whose first answer differs from the golden case is an error."""
    asked = edge(bundle, tmp_path)
    other = np.load(tmp_path / "request.npy") + 0.1
    np.save(tmp_path / "request.npy", other)
    with pytest.raises(CheckError, match=r"the answer is wrong: 'y' is off by 0\.1"):
        open_served(**asked)


@pytest.mark.usefixtures("mark")
def test_a_refusal_is_told_at_once(bundle: Bundle, tmp_path: Path) -> None:
    """A request that the server refuses is an error with what it said, and not a long wait."""
    asked = edge(bundle, tmp_path)
    wrong = {"z": np.zeros((1, 3), np.float32)}
    (tmp_path / "request.request").write_bytes(oip_http("linear", wrong, binary=True))
    with pytest.raises(CheckError, match=r"refuses the request: status 400: .*unknown input 'z'"):
        open_served(**asked)


@pytest.mark.usefixtures("mark")
@pytest.mark.parametrize("mode", ["plain", "chunked", "closing", "late"])
def test_every_way_to_answer_is_understood(tmp_path: Path, mode: str) -> None:
    """Lengths, chunks, connections that end with an answer, and a late start are no errors."""
    served = open_served(**odd(mode, tmp_path))
    try:
        block = served.block(0.1, 3)
        assert block.errors == 0, block.first_error
        assert len(block.latencies) > 3
    finally:
        served.close()


@pytest.mark.usefixtures("mark")
def test_idle_connections_may_be_closed(tmp_path: Path) -> None:
    """A server that closes what was idle between two blocks costs no error."""
    served = open_served(**odd("impatient", tmp_path))
    try:
        assert served.block(0.05, 2).errors == 0
        assert not wait_until(lambda: False, 0.4)
        assert served.block(0.05, 2).errors == 0
    finally:
        served.close()


@pytest.mark.usefixtures("mark")
@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("failing", "status 503: no more"),
        ("dropping", "the connection was lost"),
        ("dying", "the server ended with status 5: out of luck"),
    ],
)
def test_failures_are_counted(tmp_path: Path, mode: str, said: str) -> None:
    """Answers that are none are counted as errors, and the first is quoted."""
    served = open_served(**odd(mode, tmp_path))
    try:
        block = served.block(0.05, 2)
        assert block.latencies == ()
        assert block.errors >= 2
        assert said in block.first_error
    finally:
        served.close()


def test_a_request_that_takes_too_long_fails() -> None:
    """An answer that does not come within the limit is an error."""
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        client = HttpClient(mute.getsockname()[1], http_request("/", b"", {}), limit_s=0.1)
        client.prepare(2)
        stretch = client.work(0.01, 2)
        client.close()
    assert (stretch.errors, stretch.latencies) == (2, ())
    assert stretch.first_error == "no answer in 0 s"


@pytest.mark.usefixtures("mark")
def test_all_processes_of_a_server_count_and_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child in a session of its own, deaf to SIGTERM, is found, counted, and ended."""
    monkeypatch.setattr(server_module, "_SWEEP_S", 0.2)
    ready = tmp_path / "ready"
    child = (
        "import signal, pathlib, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "pathlib.Path(sys.argv[1]).touch()\nwhile True: pass"
    )
    parent = (
        "import subprocess, sys, time;"
        f"subprocess.Popen([sys.executable, '-c', {child!r}, sys.argv[1]], start_new_session=True);"
        "time.sleep(60)"
    )
    with Server([sys.executable, "-c", parent, str(ready)], {}) as server:
        assert wait_until(ready.exists, 20)
        pids = server.pids()
        assert len(pids) == 2
        before = server.cpu_seconds()
        assert wait_until(lambda: spent(before, server.cpu_seconds()) > 0.02, 20)
    assert [pid for pid in pids if start_time(pid) is not None] == []


def test_a_command_is_told_its_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ports and the directory of a server are put into its command, its paths are its own."""
    monkeypatch.setenv("PYTHONPATH", "/leaked")
    out = tmp_path / "out"
    script = (
        "import os, sys, pathlib;"
        "words = [*sys.argv[2:], os.getcwd(), os.environ.get('PYTHONPATH', 'none')];"
        "pathlib.Path(sys.argv[1]).write_text(' '.join(words))"
    )
    command = [sys.executable, "-c", script, str(out)]
    with Server([*command, "{port}", "--b={other_port}", "{scratch}/x"], {}) as server:
        assert wait_until(lambda: out.exists() and out.read_text() != "", 20)
        port, other, place, folder, paths = out.read_text().split()
        assert int(port) == server.port != int(other.removeprefix("--b="))
        assert (place, paths) == (f"{folder}/x", "none")
    assert not Path(folder).exists()
    out.unlink()
    with Server(command, {"PYTHONPATH": "/given"}):
        assert wait_until(lambda: out.exists() and out.read_text().endswith("/given"), 20)


def test_arguments_are_checked() -> None:
    """What no server can be made of is named."""
    with pytest.raises(UsageError, match="made of road"):
        open_served(command=["x"], request="y", road="carrier pigeon")


KINDS: Mapping[Kind, bytes] = {
    "oip-json": b'{"outputs":[{"name":"y","datatype":"FP32","shape":[1,2],"data":[1,2]}]}',
    "json-outputs": b'{"y":[[1.0,2.0]]}',
    "raw": np.array([1, 2], "<f4").tobytes(),
    "echo": b"ping",
}


@pytest.mark.parametrize("kind", KINDS)
def test_checks_accept_what_is_right_alone(tmp_path: Path, kind: Kind) -> None:
    """A saved check takes the right answer, and names what is wrong with others."""
    np.save(tmp_path / "y.npy", np.array([[1, 2]], np.float32))
    saved = AnswerCheck(kind=kind, output="y", expected=str(tmp_path / "y.npy"))
    check = load_check(Path(saved.save(tmp_path / "check.json")))
    request, headers = http_request("/", b"ping", {}), {"content-length": "1"}
    check_answer(check, request, Answer(200, headers, KINDS[kind]))
    other = KINDS[kind].replace(b"2", b"3") if kind.startswith(("oip", "json")) else b"12345678"
    with pytest.raises(CheckError, match="the answer is wrong"):
        check_answer(check, request, Answer(200, headers, other))
    with pytest.raises(CheckError, match="the answer is wrong"):
        check_answer(check, request, Answer(200, headers, b"{}"))


def environment(pid: int) -> str:
    """The environment in which a process was started."""
    return Path(f"/proc/{pid}/environ").read_bytes().decode()

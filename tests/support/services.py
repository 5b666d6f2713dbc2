"""Starts the real program as a user would, and finds out what it left behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.processes import marked_processes
from headrace.server.service import scratch_directory

GOOD = Path(__file__).parents[1] / "assets" / "bundles" / "good.bundle"
HEADRACE = Path(sys.executable).with_name("headrace")


@dataclass(frozen=True)
class Service:
    """A running `headrace serve`.

    Attributes:
        announced: Its JSON announcement.
        home: Its HEADRACE_HOME.
    """

    process: subprocess.Popen[str]
    announced: dict[str, Any]
    home: Path

    @property
    def url(self) -> str:
        """Where HTTP is answered."""
        return str(self.announced["url"])

    @property
    def grpc(self) -> str:
        """Where gRPC is answered."""
        return f"127.0.0.1:{self.announced['grpc_port']}"

    def end(self, number: signal.Signals = signal.SIGTERM, timeout_s: float = 60) -> int:
        """Sends a signal and waits for the exit status."""
        self.process.send_signal(number)
        return self.process.wait(timeout_s)

    def leftovers(self) -> list[str]:
        """Processes, ports, records and files of this service that are still there."""
        service = self.announced["id"]
        left = [f"process {pid}" for pid in marked_processes(service)]
        ports = (self.announced["http_port"], self.announced["grpc_port"])
        left += [f"port {port}" for port in ports if port and is_listening(port)]
        places = (self.home / "services" / service, scratch_directory(service))
        return left + [str(place) for place in places if place.exists()]


def environment(home: Path) -> dict[str, str]:
    """The environment of a program under test: state in a place of its own."""
    return {**os.environ, "HEADRACE_HOME": str(home)}


def run(home: Path, *arguments: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    """Runs the program to its end."""
    return subprocess.run(
        [HEADRACE, *arguments],
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


@contextmanager
def serving(home: Path, *arguments: str, timeout_s: float = 90) -> Iterator[Service]:
    """A service on free ports, until the context ends; a test may end it before."""
    ports = ("--port", str(free_port()), "--grpc-port", str(free_port()))
    errors = home / "serve.stderr"
    home.mkdir(parents=True, exist_ok=True)
    with errors.open("w") as stderr:
        process = subprocess.Popen(
            [HEADRACE, "serve", *ports, *arguments, "--json"],
            env=environment(home),
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    try:
        announced = _read_announcement(process, time.monotonic() + timeout_s)
        assert announced, f"the service did not start: {errors.read_text()}"
        yield Service(process, announced, home)
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(60)
        if process.stdout:
            process.stdout.close()


def fetch(url: str) -> tuple[int, str]:
    """The status and body of a GET; status 0 where nothing answers."""
    try:
        with urllib.request.urlopen(url, timeout=10) as response:  # noqa: S310 - a service of ours
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""


def wait_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Whether a condition came true in time."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_listening(port: int) -> bool:
    """Whether anything accepts connections on a port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _read_announcement(process: subprocess.Popen[str], deadline: float) -> dict[str, Any]:
    """The one JSON document that `serve --json` prints; empty if the program ends without it."""
    assert process.stdout is not None
    lines = ""
    while time.monotonic() < deadline:
        line = process.stdout.readline()
        if not line:
            return {}
        lines += line
        if line.rstrip() == "}":
            announced: dict[str, Any] = json.loads(lines)
            return announced
    return {}

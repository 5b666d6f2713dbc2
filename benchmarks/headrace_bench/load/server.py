"""A server under measurement: started, waited for, weighed, and ended for certain."""

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Literal, Self
from uuid import uuid4

from headrace.bundle.open import Bundle
from headrace.errors import CheckError
from headrace.processes import marked_processes, sweep
from headrace.server.service import check_port
from headrace_bench.measure import memory_mb, process_cpu_seconds

HOST = "127.0.0.1"
SERVER_MARK = "HEADRACE_BENCH_SERVER"
"""Stands in the environment of one server's processes. The mark of the contestant they belong to
(`headrace_bench.process.MARK`) they inherit beside it, so that whoever ends the contestant ends
them, even if the process that started them was killed."""
_WORKER_ALONE = ("PYTHONPATH", "PYTHONUNBUFFERED")
_POLL_S = 0.005
_STOP_S = 50.0
_SWEEP_S = 5.0
_SHOWN_LINES = 3
_PLACES = ("{port}", "{other_port}", "{scratch}")


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def headrace_command(
    program: Sequence[str],
    bundle: Bundle,
    *,
    layout: Literal["edge", "ray"],
    road: Literal["http", "grpc"],
    threads: int = 1,
) -> list[str]:
    """`headrace serve` on the port of a road, for `Server`.

    Args:
        program: What starts headrace: its program, or an interpreter with `-P -m headrace.cli`.
        layout: One process, or Ray Serve.
        road: `http` leaves gRPC off.
        threads: Of the one session.
    """
    http, grpc = ("{port}", "0") if road == "http" else ("{other_port}", "{port}")
    return [
        *(*program, "serve", str(bundle.path), "--json", "--threads", str(threads)),
        *("--port", http, "--grpc-port", grpc),
        *(("--edge",) if layout == "edge" else ()),
    ]


class Server:
    """A running server. A context manager that leaves no process behind.

    Args:
        command: Absolute paths; `{port}` in it is replaced by the port, `{other_port}` by another
            free one, `{scratch}` by the directory it runs in, which goes when it ends.
        environment: Added to this process's own, which gives no PYTHONPATH.
        port: Where it will answer, on the loopback interface; 0 chooses a free one.

    Raises:
        MissingError: The port is in use before the start (`port.in-use`).
        CheckError: There is no such program (`bench.no-server`).
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], port: int = 0
    ) -> None:
        self.port = port or free_port()
        check_port(HOST, self.port)
        self._mark = f"server-{uuid4().hex[:12]}"
        self._scratch = tempfile.TemporaryDirectory(prefix="headrace-server-")
        self._out: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with it
        self._err: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with it
        places = dict(
            zip(_PLACES, map(str, (self.port, free_port(), self._scratch.name)), strict=True)
        )
        kept = {name: text for name, text in os.environ.items() if name not in _WORKER_ALONE}
        self.begin = time.perf_counter()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - what the suites start
                [_filled(word, places) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=self._out,
                stderr=self._err,
                cwd=self._scratch.name,
                process_group=0,
                env={
                    **kept,
                    **environment,
                    SERVER_MARK: self._mark,
                    "SPT_NOENV": "1",  # or Ray's processes overwrite the mark
                },
            )
        except OSError as error:
            self._discard()
            raise CheckError("bench.no-server", f"cannot start {command[0]}: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def wait(self, ask: Callable[[], str], limit_s: float) -> float:
        """Asks again and again until it answers.

        Args:
            ask: Says why it does not answer yet, or nothing if it does; what it raises ends the
                waiting.
            limit_s: Since the start.

        Returns:
            Seconds from the start of the program to the end of that answer.

        Raises:
            CheckError: The server ended (`bench.server-ended`), or did not answer in time
                (`bench.server-slow`).
        """
        while True:
            why = ask()
            seconds = time.perf_counter() - self.begin
            self.check_running()  # or it is not this server that answered
            if not why:
                return seconds
            if seconds > limit_s:
                raise CheckError(
                    "bench.server-slow",
                    f"the server did not answer in {limit_s:.0f} s ({why}){self._said()}",
                )
            time.sleep(_POLL_S)

    def check_running(self) -> None:
        """Checks that the server still runs.

        Raises:
            CheckError: It has ended (`bench.server-ended`); its last words are in the message.
        """
        status = self._process.poll()
        if status is not None:
            how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
            raise CheckError("bench.server-ended", f"the server {how}{self._said()}")

    def pids(self) -> list[int]:
        """Every process of the server, whoever forked it."""
        return marked_processes(self._mark, SERVER_MARK)

    def cpu_seconds(self) -> dict[int, float]:
        """By process, the processor time since it started."""
        return {pid: process_cpu_seconds([pid]) for pid in self.pids()}

    def memory_mb(self) -> float:
        """The memory of all its processes in megabytes, shared pages counted once."""
        return memory_mb(self.pids())

    def close(self) -> None:
        """Ends it: asks, waits, then insists with whatever is left."""
        try:
            if self._process.poll() is None:
                self._process.send_signal(signal.SIGTERM)
                self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        finally:
            sweep(self._mark, grace_s=_SWEEP_S, variable=SERVER_MARK)
            self._discard()

    def _said(self) -> str:
        for file in (self._err, self._out):
            file.seek(0)
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
            shown = [line for line in lines if line][-_SHOWN_LINES:]
            if shown:
                return f": {' | '.join(shown)}"
        return " and said nothing"

    def _discard(self) -> None:
        self._out.close()
        self._err.close()
        self._scratch.cleanup()


def spent(before: Mapping[int, float], after: Mapping[int, float]) -> float:
    """Processor seconds between two looks; those of a process that ended between are lost."""
    return sum(seconds - before.get(pid, 0.0) for pid, seconds in after.items())


def home_environment(home: Path) -> dict[str, str]:
    """A place of its own for headrace's state."""
    return {"HEADRACE_HOME": str(home)}


def _filled(word: str, places: Mapping[str, str]) -> str:
    for place, text in places.items():
        word = word.replace(place, text)
    return word

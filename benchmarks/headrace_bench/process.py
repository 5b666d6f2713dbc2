"""Starts a contestant in a process of its own, and asks it for blocks."""

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from headrace.errors import CheckError
from headrace.processes import marked_processes, sweep
from headrace_bench.measure import Block

MARK = "HEADRACE_BENCH"
"""Stands in the environment of a contestant and of all that it starts, whoever forks it."""
_START_S = 180.0
_SLACK_S = 60.0
_CLOSE_S = 60.0
_SHOWN_LINES = 6


@dataclass(frozen=True)
class Contestant:
    """Who is measured, and how to start it.

    Attributes:
        factory: `package.module:function`, which makes the `Workload` in the process.
        arguments: Of the factory; JSON.
        python: The interpreter, and with it the environment.
        paths: Put before everything else on its import path.
        missing: Why it cannot be started here; empty if it can.
        versions: Of the packages that decide its speed.
    """

    name: str
    factory: str
    arguments: Mapping[str, Any]
    python: Path = field(default_factory=lambda: Path(sys.executable))
    paths: tuple[Path, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    missing: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)


def package_alone(directory: Path) -> Path:
    """A folder for an import path, in which this package stands and nothing else.

    Where headrace is installed, the packages of its environment stand beside it, and would go
    before those of the peer's own.
    """
    directory.mkdir(exist_ok=True)
    link = directory / __package__
    if not link.is_symlink():
        link.symlink_to(Path(__file__).parent, target_is_directory=True)
    return directory


class WorkerError(CheckError):
    """A contestant's process crashed, or did not answer in time."""


class Worker:
    """A running contestant. A context manager that leaves no process behind.

    Args:
        contestant: Who.
        mark: Names this start, unlike any other on the machine.

    Raises:
        WorkerError: It did not come up.
    """

    def __init__(self, contestant: Contestant, mark: str) -> None:
        self._name = contestant.name
        self._mark = mark
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with it
        self._place = tempfile.TemporaryDirectory(prefix="headrace-worker-")
        paths = [*map(str, contestant.paths), str(package_alone(Path(self._place.name)))]
        self._process = subprocess.Popen(  # noqa: S603 - the suites' own interpreters
            [contestant.python, "-m", "headrace_bench.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={
                **os.environ,
                **contestant.environment,
                MARK: mark,
                "PYTHONPATH": os.pathsep.join(paths),
                "PYTHONUNBUFFERED": "1",
                "SPT_NOENV": "1",  # or Ray's processes overwrite the mark
            },
        )
        try:
            question = {"factory": contestant.factory, "arguments": dict(contestant.arguments)}
            self._ask(question, _START_S)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def block(self, seconds: float, load: int = 1) -> Block:
        """One block of about `seconds`, by `load` callers.

        Raises:
            WorkerError: It crashed or hung.
        """
        return Block.from_json(self._ask({"seconds": seconds, "load": load}, seconds + _SLACK_S))

    def facts(self) -> dict[str, float]:
        """What it measured once.

        Raises:
            WorkerError: It crashed or hung.
        """
        found: dict[str, float] = json.loads(self._ask({"facts": True}, _SLACK_S))
        return found

    def release(self) -> None:
        """Tells it to end, and does not wait: several end faster side by side."""
        if self._process.stdin:
            with suppress(BrokenPipeError):
                self._process.stdin.close()

    def close(self) -> None:
        """Ends it, and whatever it started."""
        self.release()
        try:
            self._process.wait(_CLOSE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()
        if marked_processes(self._mark, MARK):
            sweep(self._mark, grace_s=5.0, variable=MARK)
        self._log.close()
        self._place.cleanup()

    def _ask(self, question: dict[str, Any], timeout_s: float) -> str:
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise AssertionError  # both were asked for
        try:
            stdin.write(json.dumps(question).encode() + b"\n")
            stdin.flush()
        except BrokenPipeError:
            raise self._fault() from None
        deadline = time.monotonic() + timeout_s
        line = bytearray()
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                self._process.kill()
                raise WorkerError("bench.hung", f"{self._name} gave no answer in {timeout_s:.0f} s")
            chunk = os.read(stdout.fileno(), 1 << 20)
            if not chunk:
                raise self._fault()
            line += chunk
        return line.decode()

    def _fault(self) -> WorkerError:
        status = self._process.wait(_SLACK_S)
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        said = lines[-1] if lines else "it said nothing"
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        return WorkerError(
            "bench.crashed", f"{self._name} {how}: {said}", "\n".join(lines[-_SHOWN_LINES:-1])
        )

"""Processes of a service are found by their mark, and ended for certain."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from headrace.processes import (
    MARK,
    is_running,
    marked_processes,
    send,
    start_time,
    sweep,
    wait_for_end,
)
from headrace.server.service import new_service_id

SLEEP = "print(flush=True); import time; time.sleep(100)"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEP
ODD_NAME = r"import ctypes; ctypes.CDLL(None).prctl(15, b'\xff) Z (\n\xfe', 0, 0, 0); " + SLEEP
PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
"""
"""A parent that ends once its child runs, and leaves it to init."""
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def service() -> Iterator[str]:
    """The id of a service, whose processes are all ended afterwards."""
    service = new_service_id()
    yield service
    send(marked_processes(service), signal.SIGKILL)


@pytest.fixture
def start(service: str) -> Iterator[Start]:
    """Starts a marked Python process, and waits for its first line."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, mark: str = service) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", *arguments],
            env={**os.environ, MARK: mark},
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@contextmanager
def _reaped(process: subprocess.Popen[str]) -> Iterator[None]:
    """Takes up a child as soon as it ends, as init does for everybody else's."""
    waiting = threading.Thread(target=process.wait)
    waiting.start()
    yield
    waiting.join()


def _started(pid: int) -> int:
    started = start_time(pid)
    assert started is not None
    return started


def test_running_process_is_known_by_its_start(start: Start) -> None:
    """A process runs as long as its id has its start time, and a zombie does not run."""
    process = start(SLEEP)
    _line(process)
    started = _started(process.pid)
    assert started >= _started(os.getpid())
    assert is_running(process.pid, started)
    process.kill()
    assert wait_for_end(process.pid, started, 10)
    assert start_time(process.pid) is None  # a zombie: nobody has waited for it yet
    assert not is_running(process.pid, started)
    process.wait()
    assert start_time(process.pid) is None


def test_another_process_of_the_same_id_is_not_it(start: Start) -> None:
    """A process that took over an id is told from the one that had it before."""
    process = start(SLEEP)
    _line(process)
    earlier = _started(process.pid) - 1
    assert not is_running(process.pid, earlier)
    assert wait_for_end(process.pid, earlier, 60)
    assert process.poll() is None


def test_process_may_call_itself_what_it_likes(start: Start, service: str) -> None:
    """A name with parentheses, line ends and bytes that are no text confuses nobody."""
    process = start(ODD_NAME)
    _line(process)
    comm = Path(f"/proc/{process.pid}/comm").read_bytes()
    assert b"\xff) Z (" in comm
    assert is_running(process.pid, _started(process.pid))
    assert marked_processes(service) == [process.pid]


def test_no_process_has_no_start() -> None:
    """An id that nobody has was never started."""
    free = int(Path("/proc/sys/kernel/pid_max").read_text()) + 1
    assert start_time(free) is None
    assert wait_for_end(free, 1, 60)


def test_marked_processes_are_those_of_the_service(start: Start, service: str) -> None:
    """A process is of the service whose whole id is in its environment, and of no other."""
    mine, other, longer = start(SLEEP), start(SLEEP, mark="other"), start(SLEEP, mark=service + "0")
    for process in (mine, other, longer):
        _line(process)
    assert marked_processes(service) == [mine.pid]
    mine.kill()
    mine.wait()
    assert marked_processes(service) == []


def test_own_process_is_never_among_them(start: Start, service: str) -> None:
    """A marked process that sweeps its own service spares itself."""
    program = (
        "import sys; from headrace.processes import marked_processes, sweep\n"
        "print(marked_processes(sys.argv[1]), sweep(sys.argv[1], grace_s=0), flush=True)"
    )
    process = start(program, service)
    assert _line(process) == "[] True"
    assert process.wait(30) == 0


def test_sweep_asks_before_it_insists(start: Start, service: str) -> None:
    """With time to end, a process is ended by the signal that it may catch."""
    program = (
        "import signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
        "print(flush=True)\n"
        "while True: signal.pause()"
    )
    process = start(program)
    _line(process)
    with _reaped(process):
        assert sweep(service, grace_s=30)
    assert process.returncode == 7


def test_sweep_without_grace_insists_at_once(start: Start, service: str) -> None:
    """Without time to end, a process is ended by the signal that it cannot catch."""
    process = start(SLEEP)
    _line(process)
    with _reaped(process):
        assert sweep(service, grace_s=0)
    assert process.returncode == -signal.SIGKILL


def test_sweep_ends_what_does_not_listen(start: Start, service: str) -> None:
    """A process that ignores being asked is ended all the same."""
    process = start(DEAF)
    _line(process)
    with _reaped(process):
        assert sweep(service, grace_s=0.2)
    assert process.returncode == -signal.SIGKILL
    assert marked_processes(service) == []


def test_sweep_ends_orphans(start: Start, service: str) -> None:
    """A grandchild whose parent is gone is found by its mark and ended, deaf or not."""
    parent = start(PARENT, DEAF)
    orphan = int(_line(parent))
    parent.wait(10)
    started = _started(orphan)
    assert marked_processes(service) == [orphan]
    assert sweep(service, grace_s=0.2)
    assert not is_running(orphan, started)
    assert wait_for_end(orphan, started, 10)


def test_wait_for_end_of_somebody_elses_child(start: Start) -> None:
    """The end of a process that is no child of ours can be waited for."""
    parent = start(PARENT, SLEEP)
    orphan = int(_line(parent))
    parent.wait(10)
    started = _started(orphan)
    assert not wait_for_end(orphan, started, 0.05)
    send([orphan], signal.SIGKILL)
    assert wait_for_end(orphan, started, 10)
    assert not is_running(orphan, started)


def test_signals_to_nobody_are_no_error() -> None:
    """A process that has ended meanwhile, or belongs to somebody else, is passed over."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    send([ended.pid], signal.SIGKILL)
    assert start_time(ended.pid) is None


def test_first_signal_ends_and_the_second_is_ignored() -> None:
    """SIGTERM runs every `finally`, and another one does not cut it short."""
    program = (
        "import os, signal\n"
        "from headrace.processes import end_on_signals\n"
        "end_on_signals()\n"
        "try:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('not ended')\n"
        "finally:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print('cleaned up')"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=30
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "cleaned up\n", "")

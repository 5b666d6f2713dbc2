"""Processes of a service: found by a mark in their environment, ended for certain.

A process id alone names nothing for long, so one is always held together with its start time.
"""

import os
import select
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

MARK = "HEADRACE_SERVICE"
"""The environment variable that a service's processes inherit; its value is the service id."""
_PROC = Path("/proc")
_START_TIME = 19  # field 22 of /proc/PID/stat, counted from behind the command's parenthesis


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None if there is none, or a zombie."""
    try:
        stat = (_PROC / str(pid) / "stat").read_bytes()  # the command may be in any encoding
    except OSError:
        return None
    fields = stat.rpartition(b")")[2].split()
    return None if fields[0] in {b"Z", b"X"} else int(fields[_START_TIME])


def is_running(pid: int, started: int) -> bool:
    """Whether the process that had this id and this start time still runs."""
    return start_time(pid) == started


def marked_processes(service: str, variable: str = MARK) -> list[int]:
    """The running processes that were started with a service's mark, this one not among them.

    Args:
        service: What the mark says.
        variable: The environment variable that is the mark.
    """
    wanted = f"{variable}={service}".encode()
    found = []
    for entry in _PROC.iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            environment = (entry / "environ").read_bytes()
        except OSError:
            continue  # it ended meanwhile, or belongs to somebody else
        if wanted in environment.split(b"\0") and start_time(int(entry.name)) is not None:
            found.append(int(entry.name))
    return found


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Sends a signal to each process that still exists and takes signals from this user."""
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def sweep(service: str, *, grace_s: float, variable: str = MARK) -> bool:
    """Ends every marked process of a service: asks first, then insists.

    Args:
        service: What their mark says.
        grace_s: How long they have to end by themselves after SIGTERM; 0 insists at once.
        variable: The environment variable that is the mark.

    Returns:
        True if none is left.
    """
    deadline = time.monotonic() + grace_s
    if grace_s > 0:
        send(marked_processes(service, variable), signal.SIGTERM)
        while marked_processes(service, variable) and time.monotonic() < deadline:
            time.sleep(0.1)
    for _ in range(50):  # a process may fork between the look and the signal
        left = marked_processes(service, variable)
        if not left:
            return True
        send(left, signal.SIGKILL)
        time.sleep(0.1)
    return False


INTERRUPTED = 130
"""The exit status of a program that a signal kept from finishing its work."""


def end_on_signals(status: int = 0) -> None:
    """From now on SIGTERM and SIGINT raise SystemExit, so that every `finally` is run.

    The first of them has both ignored from then on: the end has begun, and those who do it bound
    its time. May be called again, after a library has put handlers of its own in place.

    Args:
        status: Of the exit; 0 where to be ended is how the work is meant to end.
    """

    def end(_: int, __: FrameType | None) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        raise SystemExit(status)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)


@contextmanager
def ending_cleanly() -> Iterator[None]:
    """Within, an error after `end_on_signals` began the end is that end, and no fault.

    Modules in C that are being imported turn the SystemExit of a signal into an ImportError.
    """
    try:
        yield
    except Exception:
        if signal.getsignal(signal.SIGTERM) is signal.SIG_IGN:
            raise SystemExit(0) from None
        raise


def wait_for_end(pid: int, started: int, timeout_s: float | None = None) -> bool:
    """Waits until a process (any process, not only a child) has ended.

    Returns:
        False if it still ran when the time was up.
    """
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        if not is_running(pid, started):
            return True
        ready, _, _ = select.select([descriptor], [], [], timeout_s)
        return bool(ready)
    finally:
        os.close(descriptor)

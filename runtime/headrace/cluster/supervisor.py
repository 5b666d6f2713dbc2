"""Watches the process that drives a Ray service, and clears up when it dies without doing so.

Ray ends most of its own processes with their driver, but not HAProxy, which would keep the port.
The supervisor is a session of its own, so that what kills the driver's group leaves it alone, and
it imports nothing heavy. Run as `python -m headrace.cluster.supervisor HOME ID PID STARTED`.
"""

import os
import subprocess
import sys
from pathlib import Path

from headrace.processes import MARK, wait_for_end
from headrace.server.service import clear, service_directory


def start_supervisor(home: Path, service: str, pid: int, started: int) -> None:
    """Starts a supervisor for a driver; it ends by itself, soon after the driver."""
    environment = {name: value for name, value in os.environ.items() if name != MARK}
    command = [sys.executable, "-m", "headrace.cluster.supervisor"]
    subprocess.Popen(  # noqa: S603 - our own module, with arguments of our own
        [*command, str(home), service, str(pid), str(started)],
        env=environment,
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def supervise(home: Path, service: str, pid: int, started: int) -> bool:
    """Waits for the driver's end; ends what it left if it did not end cleanly.

    Returns:
        True if there was something to clear.
    """
    wait_for_end(pid, started)
    if not service_directory(home, service).exists():
        return False  # a clean end removes the record last
    return clear(home, service)


if __name__ == "__main__":
    supervise(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))

"""Blocks: what is measured in one go. Standard library only, for the environments of peers too."""

import json
import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

_PROC = Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK")
_IDLE = (3, 4)  # idle and iowait, in the fields of /proc/stat's first line
_GUEST = 8  # guest times are counted in user time already


@dataclass(frozen=True)
class Block:
    """What one contestant did in one short stretch of time.

    Attributes:
        seconds: How long the stretch was.
        latencies: Of each operation (or request) that succeeded, in seconds.
        rows: Of one operation.
        cpu_seconds: What the subject spent: of a server its whole process tree, without the client.
        own_cpu_seconds: What everything of this benchmark spent, client and server.
        machine_cpu_seconds: What the whole machine was busy, time stolen by its host included.
        errors: Operations that failed.
        first_error: What the first of them said.
    """

    seconds: float
    latencies: tuple[float, ...]
    rows: int
    cpu_seconds: float
    own_cpu_seconds: float
    machine_cpu_seconds: float
    errors: int = 0
    first_error: str = ""

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(line: str) -> "Block":
        """The block of one line."""
        fields = json.loads(line)
        fields["latencies"] = tuple(fields["latencies"])
        return Block(**fields)


class Workload(Protocol):
    """A contestant in its own process."""

    def block(self, seconds: float, load: int) -> Block:
        """Works for about `seconds` with `load` callers at once."""
        ...

    def facts(self) -> dict[str, float]:
        """What is measured once, in megabytes (`*_mb`) and seconds (`*_s`)."""
        ...

    def close(self) -> None:
        """Ends what it started."""
        ...


class Repeated:
    """An operation in this process, repeated; the workload of all that is no server.

    Args:
        operation: Called again and again by one caller.
        rows: That it processes each time.
        facts: Measured while it was made.
    """

    def __init__(
        self, operation: Callable[[], object], *, rows: int = 1, facts: dict[str, float]
    ) -> None:
        self._operation = operation
        self._rows = rows
        self._facts = facts

    def block(self, seconds: float, load: int) -> Block:
        """Works for about `seconds`; one caller is all there is."""
        if load != 1:
            raise ValueError("an operation in one process has one caller")
        operation = self._operation
        operation()  # what another contestant pushed out of the caches comes back
        latencies = []
        machine = machine_cpu_seconds()
        cpu = time.process_time()
        begin = last = time.perf_counter()
        while last - begin < seconds:
            operation()
            now = time.perf_counter()
            latencies.append(now - last)
            last = now
        spent = time.process_time() - cpu
        return Block(
            seconds=last - begin,
            latencies=tuple(latencies),
            rows=self._rows,
            cpu_seconds=spent,
            own_cpu_seconds=spent,
            machine_cpu_seconds=machine_cpu_seconds() - machine,
        )

    def facts(self) -> dict[str, float]:
        """What was measured while it was made, and the memory it has now."""
        return {**self._facts, "memory_mb": memory_mb([os.getpid()])}

    def close(self) -> None:
        """Nothing was started."""


def process_cpu_seconds(pids: Iterable[int]) -> float:
    """The processor time of processes since they started, all threads, those that ended too.

    Their CPU-time clocks are asked, whose ids are made as clock_getcpuclockid(3) makes them.
    Those of processes that have ended meanwhile are left out.
    """
    total = 0.0
    for pid in pids:
        try:
            total += time.clock_gettime((~pid << 3) | 2)
        except OSError:
            continue
    return total


def machine_cpu_seconds() -> float:
    """How long the machine's processors were busy since it started, stolen time included."""
    line = (_PROC / "stat").read_text().partition("\n")[0]
    ticks = [int(field) for field in line.split()[1:]]
    return (sum(ticks[:_GUEST]) - sum(ticks[field] for field in _IDLE)) / _TICKS


def memory_mb(pids: Iterable[int]) -> float:
    """The memory of processes in megabytes, each shared page counted in equal parts (PSS)."""
    total = 0
    for pid in pids:
        try:
            lines = (_PROC / str(pid) / "smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total * 1024 / 1e6


def quantile(values: Sequence[float], q: float) -> float:
    """The value below which the share `q` of the values lies: the nearest-rank definition."""
    ordered = sorted(values)
    rank = math.ceil(round(q * len(ordered), 6))  # rounded, since 0.99 * 100 is a little over 99
    return ordered[max(1, rank) - 1]

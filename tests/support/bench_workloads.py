"""Workloads for tests of the benchmark's frame; standard library only, as those of peers."""

import os
import random
import subprocess
import sys
import time

from headrace_bench.measure import Block, Repeated


def sleeper(*, seconds: float) -> Repeated:
    """Sleeps again and again."""
    return Repeated(lambda: time.sleep(seconds), facts={"load_s": 0.5})


def chatty() -> Repeated:
    """Prints to standard output, where the answers go, unless somebody takes care."""

    def operation() -> None:
        sys.stdout.write("noise\n")
        time.sleep(0.001)

    return Repeated(operation, facts={})


def broken() -> Repeated:
    """Does not come up."""
    raise SystemExit("this peer is not well")


def crashing(*, after: int) -> Repeated:
    """Dies in the middle of a block."""
    left = [after]

    def operation() -> None:
        left[0] -= 1
        if left[0] < 0:
            os._exit(7)
        time.sleep(0.001)

    return Repeated(operation, facts={})


class _Failing:
    def block(self, seconds: float, load: int) -> Block:
        """Fails each operation."""
        return Block(seconds, (), 1, 0.0, 0.0, 0.0, errors=load, first_error="HTTP 503: too busy")

    def facts(self) -> dict[str, float]:
        """Nothing."""
        return {}

    def close(self) -> None:
        """Nothing."""


def failing() -> _Failing:
    """Answers every operation with an error."""
    return _Failing()


def littering() -> Repeated:
    """Leaves a process behind that nobody waits for."""
    sleep = [sys.executable, "-c", "import time; time.sleep(300)"]
    subprocess.Popen(sleep, start_new_session=True)
    return Repeated(lambda: time.sleep(0.001), facts={})


class _Crowded:
    def block(self, seconds: float, load: int) -> Block:
        """Says that others kept eight cores busy."""
        assert load
        time.sleep(seconds)
        return Block(seconds, (0.001,), 1, 0.001, 0.001, 8 * seconds)

    def facts(self) -> dict[str, float]:
        """Nothing."""
        return {}

    def close(self) -> None:
        """Nothing."""


def crowded() -> _Crowded:
    """Measures on a machine that others use."""
    return _Crowded()


class _Synthetic:
    """Takes no time: its figures are drawn around what they are to be."""

    def __init__(self, latency_s: float, noise: float) -> None:
        self._latency_s = latency_s
        self._noise = noise
        self._random = random.Random(os.getpid())  # noqa: S311 - noise, and no secret

    def block(self, seconds: float, load: int) -> Block:
        """As many operations as fit into the time."""
        latency = self._latency_s * (1 + self._random.uniform(-self._noise, self._noise))
        count = max(1, int(seconds / latency))
        cpu = count * latency
        return Block(count * latency / load, (latency,) * count, 1, cpu, cpu, cpu)

    def facts(self) -> dict[str, float]:
        """As a server has them."""
        return {"memory_mb": 100.0, "start_s": 0.5}

    def close(self) -> None:
        """Nothing."""


def synthetic(*, latency_s: float, noise: float = 0.0) -> _Synthetic:
    """A server whose figures are known beforehand."""
    return _Synthetic(latency_s, noise)

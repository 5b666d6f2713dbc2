"""From the start of a process to its first prepared image: the native library, and Numba's JIT.

Run as a program, it is such a process:

    python -m headrace_bench.load.first_tensor native|jit IMAGE.npy EXPECTED.npy LIBRARY
"""

import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from headrace.preprocess.image.native import NativeImages
from headrace_bench.measure import Block, machine_cpu_seconds
from headrace_bench.own_kernel import SPEC

TOLERANCE = 1e-4


def open_first_tensor(*, way: str, image: str, expected: str, library: str) -> "FirstTensors":
    """The workload; `way` is what the program takes."""
    command = (sys.executable, "-m", __name__, way, image, expected, library)
    return FirstTensors(command)


class FirstTensors:
    """A process that is started again and again, each time until it has made its first tensor.

    Raises:
        SystemExit: It failed, or made another tensor.
    """

    def __init__(self, command: tuple[str, ...]) -> None:
        self._command = command
        self._start()

    def block(self, seconds: float, load: int) -> Block:
        """At least one start, and more of them as long as `seconds` are not over."""
        if load != 1:
            raise ValueError("a process is started by one caller")
        latencies: list[float] = []
        before, machine = _cpu_seconds(), machine_cpu_seconds()
        begin = time.perf_counter()
        while not latencies or time.perf_counter() - begin < seconds:
            started = time.perf_counter()
            self._start()
            latencies.append(time.perf_counter() - started)
        spent = _cpu_seconds() - before
        return Block(
            seconds=sum(latencies),
            latencies=tuple(latencies),
            rows=1,
            cpu_seconds=spent,
            own_cpu_seconds=spent,
            machine_cpu_seconds=machine_cpu_seconds() - machine,
        )

    def facts(self) -> dict[str, float]:
        """Nothing that is measured once."""
        return {}

    def close(self) -> None:
        """Nothing is left running between blocks."""

    def _start(self) -> None:
        done = subprocess.run(  # noqa: S603 - this file
            self._command, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(done.stderr.strip().rpartition("\n")[2])


def _cpu_seconds() -> float:
    """Of this process and of its children that have ended."""
    found = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in found)


def _opened(way: str, library: bytes) -> NativeImages:
    if way == "native":
        return NativeImages(library, SPEC)
    from headrace_bench.load.jit import JitImages  # noqa: PLC0415 - Numba, on its own way alone

    return JitImages(library, SPEC)


def main() -> None:
    """Makes one tensor, and ends with a sentence if it is not what was expected."""
    way, image, expected, library = sys.argv[1:]
    made = np.empty(SPEC.shape, np.float32)
    images = _opened(way, Path(library).read_bytes())
    images.prepare_image(np.load(image, allow_pickle=False), made)
    apart = float(np.abs(made - np.load(expected, allow_pickle=False)).max())
    if not apart <= TOLERANCE:
        raise SystemExit(f"the tensor is off by {apart:.3g}")


if __name__ == "__main__":
    main()

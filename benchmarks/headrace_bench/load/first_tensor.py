"""From the start of a process to its first prepared image: the native library, and Numba's JIT.

Run as a program, it is such a process:

    python -m headrace_bench.load.first_tensor native|jit IMAGE.npy EXPECTED.npy [LIBRARY]
"""

import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace_bench.measure import Block, machine_cpu_seconds

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
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


def _native(image: Pixels, library: Path) -> Floats:
    from headrace.preprocess.native import NativeImages  # noqa: PLC0415 - its import is measured
    from headrace_bench.own_kernel import SPEC  # noqa: PLC0415

    out = np.empty(SPEC.shape, np.float32)
    NativeImages(library.read_bytes(), SPEC).prepare_image(image, out)
    return out


def _jit(image: Pixels) -> Floats:
    from numba import njit  # noqa: PLC0415 - its import is measured

    from headrace.preprocess.geometry import spans  # noqa: PLC0415
    from headrace.preprocess.native import line_length, longest_window  # noqa: PLC0415
    from headrace_bench.own_kernel import SPEC  # noqa: PLC0415
    from headrace_compiler.kernels.image import image_kernel  # noqa: PLC0415

    height, width, _ = image.shape
    down, across = spans(SPEC, height, width)
    rows, taps = longest_window(SPEC, height, down), longest_window(SPEC, width, across)
    columns = SPEC.size[1]
    out = np.empty(int(np.prod(SPEC.shape)), np.float32)
    kernel: Any = njit(error_model="numpy", nogil=True)(image_kernel(SPEC, njit(inline="always")))
    kernel(
        image.reshape(-1),
        *(height, width, 3 * width, 0, SPEC.size[0]),
        *(down.full, down.first, down.begin, down.count),
        *(across.full, across.first, across.begin, across.count),
        np.empty(line_length(width, taps, columns), np.float32),
        np.empty(rows, np.float32),
        np.empty(columns * taps, np.float32),
        np.empty(columns, np.int32),
        taps,
        out,
    )
    return out.reshape(SPEC.shape)


def main() -> None:
    """Makes one tensor, and ends with a sentence if it is not what was expected."""
    way, image, expected, library = sys.argv[1:]
    pixels = np.load(image, allow_pickle=False)
    made = _native(pixels, Path(library)) if way == "native" else _jit(pixels)
    apart = float(np.abs(made - np.load(expected, allow_pickle=False)).max())
    if not apart <= TOLERANCE:
        raise SystemExit(f"the tensor is off by {apart:.3g}")


if __name__ == "__main__":
    main()

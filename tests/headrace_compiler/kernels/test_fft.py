"""What the audio kernel computes with: Fourier transforms and logarithms, by themselves."""

import os
import subprocess
import sys
from pathlib import Path

from headrace_compiler.kernels.lower import UNOPTIMISED

PARTS = """
import math
import sys
import tempfile
from pathlib import Path

import numpy as np

from headrace.hardware import detect_hardware
from headrace.native import TARGETS, Function, NativeFunction
from headrace.preprocess.audio.tables import fft_radices, twiddle_factors
from headrace_compiler.kernels.audio import _log
from headrace_compiler.kernels.fft import fft_of
from headrace_compiler.kernels.lower import intermediate, link, object_file
from headrace_compiler.kernels.sources import Source

rng = np.random.default_rng(0)


def fft_kernel(inline):
    fft = fft_of((5, 4, 3, 2), inline)

    def kernel(work, n, radices, stages, twiddles, found):
        found[0] = fft(work, n, radices, stages, twiddles)
        return 0

    return kernel


def log_kernel(inline):
    log = _log(inline)

    def kernel(values, count):
        for i in range(count):
            values[i] = log(values[i])
        return 0

    return kernel


def check_fft(call):
    for n in range(2, 1300):
        radices = fft_radices(n)
        if math.prod(radices) == n:
            check_size(call, n, radices)
    for n in (2187, 3125, 4096, 6561, 7500, 8000, 8100, 8192):
        check_size(call, n, fft_radices(n))


def check_size(call, n, radices):
    work, found = np.full(32 * n, np.nan), np.zeros(1, np.int64)
    given = rng.standard_normal((n, 2, 8))
    work[: 16 * n] = given.ravel()
    stages, twiddles = np.array(radices), twiddle_factors(radices)
    call(work.ctypes.data, n, stages.ctypes.data, len(stages), twiddles.ctypes.data,
         found.ctypes.data)
    made = work[found[0] :][: 16 * n].reshape(n, 2, 8)
    wanted = np.fft.fft(given[:, 0] + 1j * given[:, 1], axis=0)
    error = np.abs(made[:, 0] + 1j * made[:, 1] - wanted).max()
    assert error < 1e-14 * np.abs(wanted).max(), (n, error)


def check_log(call):
    near = 1 + np.concatenate([np.linspace(-1e-3, 1e-3, 99999), rng.uniform(-0.3, 0.5, 99999)])
    far = 10.0 ** rng.uniform(-300, 300, 99999)
    values = np.concatenate([near, far, 2.0 ** np.arange(-99, 99)])
    wanted, made = np.log(values), values.copy()
    call(made.ctypes.data, len(made))
    assert np.abs(made - wanted).max() < 1e-12
    assert (np.abs(made - wanted) <= 1e-12 * np.abs(wanted)).all()


functions = (
    (Function("fft", ("float64*", "int64", "int64*", "int64", "float64*", "int64*")), fft_kernel,
     check_fft),
    (Function("log", ("float64*", "int64")), log_kernel, check_log),
)
for function, make, check in functions:
    code = intermediate(Source(function, make))
    for target in TARGETS:
        if target.fits(detect_hardware()):
            with tempfile.TemporaryDirectory() as folder:
                link([object_file(*code, function.symbol, target)], target, Path(folder))
                library = (Path(folder) / f"{target.name}.so").read_bytes()
            check(NativeFunction(library, function))
print("equal")
"""


def test_transforms_and_logarithms_are_exact(tmp_path: Path) -> None:
    """Every size up to 1300 and large ones, against NumPy's; logarithms to 1e-12 of themselves."""
    done = subprocess.run(
        [sys.executable, "-c", PARTS],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, **UNOPTIMISED},
    )
    assert done.stdout == "equal\n", done.stderr

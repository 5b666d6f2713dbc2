"""The image kernel for NVIDIA's GPUs, as PTX, from the same Numba sources as the processors' one.

A GPU has threads enough to give each pixel of the result one of its own, and none that could keep
a line for others. So there are two entry points: `headrace_weights` computes the window of each row
and column once, into scratch, and `headrace_prepare_image` sums, for each pixel, what lies under
its row's and its column's window. Windows, colour, normalisation, layout and the rounding to bytes
are the functions of `headrace_compiler.kernels.image`; rounding to FP16 is the GPU's own.

Run as a program, in a process of its own, since Numba reads its configuration when it is imported:

    python -m headrace_compiler.kernels.cuda FOLDER < spec.json
"""

# ruff: noqa: ANN001, ANN202, PLR0913, PLR0917 - loops over pointers, of one signature
# mypy: disallow_untyped_defs=False

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np

from headrace.errors import CheckError, MissingError
from headrace.preprocess.image.spec import Cast, ImagePreprocessing
from headrace_compiler.kernels.image import COUNTS, fill_of, put_of, window_of
from headrace_compiler.kernels.lower import numba_type
from headrace_compiler.kernels.sums import SUMMED, Inline, Kernel

LEVELS: Mapping[str, tuple[int, int]] = {"sm_75": (7, 5)}
"""The compute capabilities that PTX is made for, by the name of the architecture.

A driver compiles PTX for the GPU it finds, if that is of the PTX's level or newer. The lowest level
that CUDA 13 knows, Turing's, is enough: what higher ones add these kernels have no use for, and up
to sm_90 their PTX is the same but for the level's name.
"""
NEWEST = "sm_120"
"""The architecture for which PTX is assembled, too, to prove that newer GPUs take it."""
TOOLS = ("numba-cuda", "nvidia-nvvm", "nvidia-cuda-nvrtc", "nvidia-cuda-nvcc")
"""The distributions that make and assemble PTX."""
_ELEMENTS = {"FP32": "float32*", "FP16": "float16*", "UINT8": "uint8*"}


@dataclass(frozen=True)
class Entry:
    """An entry point of a module.

    Attributes:
        symbol: Its name.
        arguments: `int64`, or what a pointer into the GPU's memory points to.
        make: The function in Python, of what compiles a function into the ones that call it, and
            of the function that gives a thread its place in the grid.
    """

    symbol: str
    arguments: tuple[str, ...]
    make: Callable[[Inline, Kernel], Kernel]


def entries(spec: ImagePreprocessing) -> tuple[Entry, ...]:
    """The entry points of a spec's module."""
    windows = ("int64", "int64", "int64", "int64*", "float32*")
    out = _ELEMENTS[spec.cast.datatype]
    return (
        Entry(
            "headrace_weights",
            ("int64", "int64", *windows),
            partial(_weights_entry, spec),
        ),
        Entry(
            "headrace_prepare_image",
            ("uint8*", "int64", *windows, *windows, out),
            partial(_prepare_entry, spec),
        ),
    )


def _weights_entry(spec: ImagePreprocessing, inline: Inline, place: Kernel) -> Kernel:
    """One thread a position of one axis of the result, of those that are not filled.

    Its arguments: `size`, the image's along this axis; `full`, `first` and `count` of
    `headrace.preprocess.image.geometry.Span`; `taps`, the longest window, which
    `headrace.preprocess.image.native.longest_window` tells; `windows`, int64, one a position, which
    becomes `first source * COUNTS + length`; and `weights`, float32, `taps` a position.
    """
    window = window_of(spec, inline)

    def weights_entry(size, full, first, count, taps, windows, weights):
        at = place()
        if at < count:
            windows[at] = window(size, full, first + at, weights, at * taps)

    return weights_entry


def _prepare_entry(spec: ImagePreprocessing, inline: Inline, place: Kernel) -> Kernel:
    """One thread a pixel of the result.

    Its arguments: `source`, uint8 rows of RGB, and `stride`, their length in bytes; for rows and
    then for columns `begin` and `count` of their `Span`, and `taps`, `windows` and `weights` as
    `headrace_weights` had and left them; and `out`, the result.
    """
    size_h, size_w = spec.size
    area = _area_of(inline)
    stored = spec if spec.cast.datatype == "UINT8" else spec.model_copy(update={"cast": Cast()})
    put, fill = put_of(stored, inline), fill_of(stored, inline)
    zero, white = np.float32(0), np.float32(255)

    @inline
    def clamp(value):
        return min(max(value, zero), white)

    def prepare_entry(
        source, stride,
        begin_h, count_h, taps_h, windows_h, weights_h,
        begin_w, count_w, taps_w, windows_w, weights_w,
        out,
    ):  # fmt: skip
        at = place()
        if at < size_h * size_w:
            y, x = at // size_w, at % size_w
            row, column = y - begin_h, x - begin_w
            if 0 <= row < count_h and 0 <= column < count_w:
                rows, columns = windows_h[row], windows_w[column]
                red, green, blue = area(
                    source, rows // COUNTS * stride + 3 * (columns // COUNTS), stride,
                    weights_h, row * taps_h, rows % COUNTS,
                    weights_w, column * taps_w, columns % COUNTS,
                )  # fmt: skip
                put(out, y, x, clamp(red), clamp(green), clamp(blue))
            else:
                fill(out, y, x, x + 1)

    return prepare_entry


def _area_of(inline: Inline) -> Kernel:
    """Red, green and blue under `tall` weights from `down` on, times `wide` from `across` on."""
    along = _along_of(inline)
    zero = np.float32(0)

    @inline
    def area(source, base, stride, weights_h, down, tall, weights_w, across, wide):
        red, green, blue = zero, zero, zero
        for block in range(0, tall, SUMMED):
            r, g, b = zero, zero, zero
            for k in range(block, min(block + SUMMED, tall)):
                weight = weights_h[down + k]
                line = along(source, base + k * stride, weights_w, across, wide)
                r += line[0] * weight
                g += line[1] * weight
                b += line[2] * weight
            red, green, blue = red + r, green + g, blue + b
        return red, green, blue

    return area


def _along_of(inline: Inline) -> Kernel:
    """Red, green and blue of one row of the image from `base` on, under `wide` weights."""
    zero = np.float32(0)

    @inline
    def along(source, base, weights, across, wide):
        red, green, blue = zero, zero, zero
        for block in range(0, wide, SUMMED):
            r, g, b = zero, zero, zero
            for k in range(block, min(block + SUMMED, wide)):
                weight, at = weights[across + k], base + 3 * k
                r += np.float32(source[at]) * weight
                g += np.float32(source[at + 1]) * weight
                b += np.float32(source[at + 2]) * weight
            red, green, blue = red + r, green + g, blue + b
        return red, green, blue

    return along


def compile_ptx(spec: ImagePreprocessing) -> Mapping[str, bytes]:
    """The module of a spec as PTX for each level, by the level's name; assembled as a proof.

    Equal specs give equal bytes on every machine with the same versions of the tools. The PTX is
    of the version that NVVM writes, which a driver of the same version of CUDA or newer takes.

    Raises:
        MissingError: The extra `cuda-kernels` is not installed (`extra.cuda-kernels`).
        CheckError: It cannot be compiled, or the assembler refuses it.
    """
    ptxas = find_ptxas()
    with tempfile.TemporaryDirectory(prefix="headrace-ptx-") as folder:
        done = subprocess.run(  # noqa: S603 - this program, in a process of its own
            [sys.executable, "-P", "-m", "headrace_compiler.kernels.cuda", folder],
            input=spec.model_dump_json(),
            capture_output=True,
            text=True,
            check=False,
            env={
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("NUMBA_", "CUDA_"))
            },
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise CheckError("kernel.ptx", f"the kernels cannot be compiled to PTX: {last}")
        made = {level: (Path(folder) / f"{level}.ptx").read_bytes() for level in LEVELS}
    for level, module in made.items():
        for architecture in (level, NEWEST):
            assemble(module, architecture, ptxas)
    return made


def find_ptxas() -> Path:
    """The assembler that pip installed: another on this machine may be older than the PTX.

    Raises:
        MissingError: It is not installed, or what makes PTX is not (`extra.cuda-kernels`).
    """
    try:
        files = [file for name in TOOLS for file in distribution(name).files or ()]
    except PackageNotFoundError as error:
        raise _missing(str(error.name)) from error
    found = next((Path(str(file.locate())) for file in files if file.name == "ptxas"), None)
    if found is None:
        raise _missing("ptxas")
    return found


def _missing(what: str) -> MissingError:
    return MissingError(
        "extra.cuda-kernels",
        f"kernels for CUDA need {what}, which is not installed",
        "pip install 'headrace[cuda-kernels]'",
    )


def assemble(module: bytes, architecture: str, ptxas: Path) -> bytes:
    """The machine code of a module: proof that it is well formed and calls nothing from outside.

    Raises:
        CheckError: The assembler refuses it (`kernel.ptx`).
    """
    with tempfile.TemporaryDirectory(prefix="headrace-ptxas-") as folder:
        ptx, cubin = Path(folder) / "module.ptx", Path(folder) / "module.cubin"
        ptx.write_bytes(module)
        done = subprocess.run(  # noqa: S603 - the assembler that pip installed
            [ptxas, "--gpu-name", architecture, "--output-file", cubin.name, ptx.name],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            said = " ".join((done.stderr + done.stdout).split())[-300:]
            raise CheckError("kernel.ptx", f"ptxas refuses the PTX for {architecture}: {said}")
        return cubin.read_bytes()


def entry_ptx(entry: Entry, capability: tuple[int, int]) -> str:
    """The PTX of one entry point, under its own name."""
    cuda: Any = import_module("numba.cuda")  # in a process of its own
    types: Any = import_module("numba.types")
    inline = cuda.jit(device=True, inline="always")

    @inline
    def place():
        return cuda.grid(1)

    signature = types.void(*map(numba_type, entry.arguments))
    kernel = entry.make(inline, place)
    ptx, _ = cuda.compile(kernel, signature, device=False, abi="numba", cc=capability, opt=True)
    return _renamed(ptx, entry.symbol)


def _renamed(ptx: str, symbol: str) -> str:
    """PTX without comments and Numba's environment, whose one entry point is called `symbol`.

    Numba's own names hold numbers that count what was compiled before.
    """
    bare = re.sub(r"^(\s*//.*|\.common .*NumbaEnv.*)\n", "", f"{ptx}\n", flags=re.MULTILINE)
    (name,) = re.findall(r"^\.visible \.entry (\w+)\($", bare, flags=re.MULTILINE)
    return re.sub(r"\n\n+", "\n\n", bare.replace(name, symbol)).strip() + "\n"


def joined(modules: Sequence[str]) -> str:
    """One module of several, which differ in nothing but their entry points."""
    header = r"\.version .*\n\.target .*\n\.address_size .*\n"
    bodies = [re.sub(f"^{header}", "", module) for module in modules]
    (found,) = {*re.findall(f"^{header}", "\n".join(modules), flags=re.MULTILINE)}
    return f"{found}{''.join(bodies)}"


def main() -> None:
    """Reads a spec from standard input; writes a module a level into the folder."""
    spec = ImagePreprocessing.model_validate_json(sys.stdin.read())
    for level, capability in LEVELS.items():
        made = joined([entry_ptx(entry, capability) for entry in entries(spec)])
        (Path(sys.argv[1]) / f"{level}.ptx").write_text(made)


if __name__ == "__main__":
    main()

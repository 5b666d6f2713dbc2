"""The image kernel for GPUs: what it computes, in Numba's simulator, and that its PTX is sound.

Run as a program, where Numba simulates CUDA, this file prepares the images that its tests ask for.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import image_specs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_specs import SPECS, Pixels, error, picture
from ptx import launch

from headrace.errors import CheckError, MissingError
from headrace.preprocess.image.geometry import Span, spans
from headrace.preprocess.image.native import longest_window
from headrace.preprocess.image.reference import prepare_image
from headrace.preprocess.image.spec import ImagePreprocessing, Stretch
from headrace.tensors import NUMPY_DTYPES, Array
from headrace_compiler.kernels.cuda import (
    LEVELS,
    NEWEST,
    Entry,
    assemble,
    compile_ptx,
    entries,
    find_ptxas,
)

cuda: Any = import_module("numba.cuda")  # the simulator wants it under a global name
BLOCK = 32
"""Threads of a block in the simulator; most results end within one."""
Launch = Callable[..., None]
"""Starts an entry point: takes how many threads it needs at least, and its arguments."""


@dataclass(frozen=True)
class Memory:
    """What a pointer points to: no index may lie outside, negative ones included."""

    values: Array

    def __getitem__(self, at: int) -> np.generic:
        assert 0 <= at < len(self.values)
        value: np.generic = self.values[at]
        return value

    def __setitem__(self, at: int, value: np.generic) -> None:
        assert 0 <= at < len(self.values)
        self.values[at] = value


def prepared(spec: ImagePreprocessing, image: Pixels, weigh: Launch, make: Launch) -> Array:
    """What two entry points make of one image, into memory that held something else."""

    def weights(size: int, span: Span) -> tuple[int, int, int, Memory, Memory]:
        taps = longest_window(spec, size, span)
        windows = Memory(np.full(span.count, -1, np.int64))
        made = Memory(np.full(span.count * taps, np.nan, np.float32))
        weigh(span.count, size, span.full, span.first, span.count, taps, windows, made)
        return span.begin, span.count, taps, windows, made

    height, width, _ = image.shape
    down, across = spans(spec, height, width)
    dtype = NUMPY_DTYPES[spec.cast.datatype]
    held = b"\x7f" * int(np.prod(spec.shape)) * dtype.itemsize
    out = Memory(np.frombuffer(bytearray(held), dtype))
    rows, columns = weights(height, down), weights(width, across)
    source = Memory(image.reshape(-1))
    make(int(np.prod(spec.size)), source, 3 * width, *rows, *columns, out)
    return out.values.reshape(spec.shape)


def simulated(entry: Entry) -> Launch:
    """Starts an entry point, where Numba simulates CUDA."""
    inline = cuda.jit(device=True)
    kernel = cuda.jit(entry.make(inline, inline(lambda: cuda.grid(1))))

    def start(threads: int, *arguments: int | Memory) -> None:
        kernel[-(-threads // BLOCK), BLOCK](*arguments)

    return start


def main() -> None:
    """Answers each case, a line of JSON, with the bytes of the result, a line of hexadecimals."""
    for line in sys.stdin:
        spec, height, width, seed = json.loads(line)
        chosen = ImagePreprocessing.model_validate_json(spec)
        launches = map(simulated, entries(chosen))
        made = prepared(chosen, picture(height, width, seed), *launches)
        sys.stdout.write(made.tobytes().hex() + "\n")
        sys.stdout.flush()


class Simulator:
    """This file as a program, in which Numba simulates CUDA."""

    def __init__(self) -> None:
        support = str(Path(image_specs.__file__).parent)
        self._child = subprocess.Popen(
            [sys.executable, "-W", "error", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "PYTHONPATH": support},
        )

    def prepare(self, spec: ImagePreprocessing, height: int, width: int, seed: int = 0) -> Array:
        """The prepared picture of a size."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        case = [spec.model_dump_json(), height, width, seed]
        self._child.stdin.write(json.dumps(case) + "\n")
        self._child.stdin.flush()
        answer = self._child.stdout.readline()
        if not re.fullmatch(r"[0-9a-f]+\n", answer):
            pytest.fail(answer + self._child.stdout.read())
        dtype = NUMPY_DTYPES[spec.cast.datatype]
        return np.frombuffer(bytes.fromhex(answer), dtype).reshape(spec.shape)

    def end(self) -> None:
        """Waits for the program to end."""
        self._child.communicate(timeout=60)


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    """One for all tests of this file."""
    started = Simulator()
    yield started
    started.end()


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(sorted(SPECS)), st.integers(1, 40), st.integers(1, 40), st.integers(0, 9))
def test_the_entry_points_compute_what_the_reference_does(
    simulator: Simulator, name: str, height: int, width: int, seed: int
) -> None:
    """To 1e-6, in any size and shape of image, inside their memory; each value is written."""
    found = simulator.prepare(SPECS[name], height, width, seed)
    assert error(found, name, picture(height, width, seed)) <= 1e-6


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 90), (23, 17)])
def test_every_choice_of_the_vocabulary_is_computed(
    simulator: Simulator, name: str, height: int, width: int
) -> None:
    """One pixel, one row, and more."""
    found = simulator.prepare(SPECS[name], height, width)
    assert error(found, name, picture(height, width)) <= 1e-6


@pytest.mark.parametrize(("height", "width"), [(60_000, 1), (1, 60_000)])
def test_long_windows_lose_no_digits(simulator: Simulator, height: int, width: int) -> None:
    """Sums are taken in blocks, down the rows as along the columns."""
    spec = image_specs.spec(Stretch(height=1, width=2), normalize=image_specs.UNIT)
    found = simulator.prepare(spec, height, width).astype(np.float64)
    wanted = prepare_image(picture(height, width), spec).astype(np.float64)
    assert np.abs(found - wanted).max() <= 1e-6


@pytest.fixture(scope="module")
def modules() -> Mapping[str, bytes]:
    """The PTX of specs that have every filter and datatype among them."""
    chosen = ("bicubic", "plain-bilinear", "letterbox-hwc", "half", "bytes-luma")
    return {name: compile_ptx(SPECS[name])["sm_75"] for name in chosen}


def test_a_module_shows_two_entry_points_and_calls_nothing(modules: Mapping[str, bytes]) -> None:
    """With the arguments that they are declared with, exact divisions, and no name of Numba's."""
    for name, module in modules.items():
        declared = {entry.symbol: len(entry.arguments) for entry in entries(SPECS[name])}
        text = module.decode("ascii")
        shown = re.findall(r"\.visible \.entry (\w+)\(([^)]*)\)", text)
        assert {symbol: given.count(".param .u64") for symbol, given in shown} == declared
        assert text.startswith(".version ")
        assert text.count(".version") == text.count(".target sm_75\n") == 1
        for unwanted in (".extern", ".func", ".common", "call", "_ZN", "approx", ".ftz", "//"):
            assert unwanted not in text
        assert len(module) < 100_000


def interpreted(module: bytes, entry: Entry) -> Launch:
    """Starts an entry point of a module, which is interpreted."""

    def start(threads: int, *arguments: int | Memory) -> None:
        given = (each.values if isinstance(each, Memory) else each for each in arguments)
        launch(module.decode("ascii"), entry.symbol, threads, BLOCK, *given)

    return start


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (1, 90), (23, 17)])
def test_the_ptx_itself_computes_what_the_reference_does(
    modules: Mapping[str, bytes], height: int, width: int
) -> None:
    """To 1e-6, and every address is aligned and inside its memory."""
    image = picture(height, width)
    for name, module in modules.items():
        launches = (interpreted(module, entry) for entry in entries(SPECS[name]))
        assert error(prepared(SPECS[name], image, *launches), name, image) <= 1e-6


def test_the_assembler_takes_a_module_for_old_and_new_gpus(modules: Mapping[str, bytes]) -> None:
    """Machine code comes out for Turing, Ampere, Ada, Hopper and Blackwell."""
    ptxas = find_ptxas()
    for architecture in (*LEVELS, "sm_80", "sm_89", "sm_90", "sm_100", NEWEST):
        assert assemble(modules["half"], architecture, ptxas).startswith(b"\x7fELF")


def test_equal_specs_give_equal_ptx(
    modules: Mapping[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever Numba is told by the environment of the compiler."""
    monkeypatch.setenv("NUMBA_ENABLE_CUDASIM", "1")
    monkeypatch.setenv("NUMBA_CUDA_DEBUGINFO", "1")
    monkeypatch.setenv("NUMBA_OPT", "0")
    assert compile_ptx(SPECS["half"]) == {"sm_75": modules["half"]}


CALL = ("\tret;\n", "\tcall absent;\n\tret;\n")


@pytest.mark.parametrize(
    "changes",
    [
        [("ld.param.u64", "ld.param.u65")],
        [(".version ", ".version 9")],
        [(".target sm_75", ".target sm_90")],
        [CALL],
        [CALL, (".address_size 64\n", ".address_size 64\n.extern .func absent;\n")],
    ],
)
def test_broken_ptx_is_refused(
    modules: Mapping[str, bytes], changes: Sequence[tuple[str, str]]
) -> None:
    """No instruction, too new a version, too new a GPU, and functions that are nowhere."""
    broken = modules["half"].decode("ascii")
    for was, becomes in changes:
        assert was in broken
        broken = broken.replace(was, becomes)
    with pytest.raises(CheckError, match="ptxas refuses the PTX for sm_75") as caught:
        assemble(broken.encode("ascii"), "sm_75", find_ptxas())
    assert caught.value.code == "kernel.ptx"


def test_what_cannot_be_compiled_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that compiles may fail; nothing is shipped then."""
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(CheckError) as caught:
        compile_ptx(SPECS["bilinear"])
    assert caught.value.code == "kernel.ptx"


def test_missing_tools_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where numba-cuda or ptxas is not installed, the extra to install is said."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(MissingError, match="numba-cuda") as caught:
        compile_ptx(SPECS["bilinear"])
    assert caught.value.code == "extra.cuda-kernels"
    assert "headrace[cuda-kernels]" in caught.value.hint


if __name__ == "__main__":
    main()

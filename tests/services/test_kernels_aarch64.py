"""The kernels' machine code for aarch64, run on another processor than it was made for."""

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from headrace.preprocess.geometry import spans
from headrace.preprocess.native import line_length, longest_window
from headrace.preprocess.reference import prepare_image
from headrace.preprocess.spec import (
    Cast,
    CenterCrop,
    Colour,
    ImagePreprocessing,
    Layout,
    Letterbox,
    Normalize,
    Resize,
    Stretch,
)
from headrace.tensors import NUMPY_DTYPES, Array
from headrace_compiler.kernels.lower import UNOPTIMISED

HARNESS = """
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
typedef int64_t i;
int32_t headrace_prepare(i *, void **, const uint8_t *, i, i, i, i, i, i, i, i, i, i, i, i, i,
                         float *, float *, float *, int32_t *, i, void *);
int main(void) {
  /* height, width, top, bottom, rows' span, columns' span, longest windows, columns, bytes, line */
  i n[17];
  if (fread(n, 8, 17, stdin) != 17) return 2;
  size_t size = (size_t)(n[0] * n[1] * 3);
  uint8_t *image = malloc(size);
  if (fread(image, 1, size, stdin) != size) return 2;
  float *line = malloc(n[16] * 4);
  float *down = malloc(n[12] * 4), *across = malloc(n[14] * n[13] * 4);
  int32_t *starts = malloc(n[14] * 4);
  void *out = malloc(n[15]);
  i returned = -1;
  void *raised = 0;
  int32_t status = headrace_prepare(&returned, &raised, image, n[0], n[1], n[1] * 3, n[2], n[3],
                                    n[4], n[5], n[6], n[7], n[8], n[9], n[10], n[11],
                                    line, down, across, starts, n[13], out);
  if (status || returned) return 3;
  return fwrite(out, 1, n[15], stdout) == (size_t)n[15] ? 0 : 4;
}
"""
IMAGENET = Normalize(mean=(123.7, 116.3, 103.5), std=(58.4, 57.1, 57.4))
SPECS = {
    "bilinear": ImagePreprocessing(
        input="image",
        output="pixels",
        resize=Resize(shorter=64),
        crop=CenterCrop(height=56, width=56),
        normalize=IMAGENET,
    ),
    "bicubic": ImagePreprocessing(
        input="image",
        output="pixels",
        resize=Stretch(height=33, width=29, filter="bicubic"),
        normalize=IMAGENET,
        layout=Layout(order="HWC"),
    ),
    "letterbox-half": ImagePreprocessing(
        input="image",
        output="pixels",
        colour=Colour(channels="BGR"),
        resize=Letterbox(height=48, width=40),
        normalize=IMAGENET,
        cast=Cast(datatype="FP16"),
    ),
}


@pytest.fixture(scope="module")
def libc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the linker keeps the C library that it builds for the programs."""
    return tmp_path_factory.mktemp("zig")


def build(spec: ImagePreprocessing, folder: Path, libc: Path) -> Path:
    """A program for aarch64 that holds the kernel."""
    subprocess.run(
        [sys.executable, "-m", "headrace_compiler.kernels.lower", str(folder)],
        input=spec.model_dump_json(),
        text=True,
        check=True,
        env={**os.environ, **UNOPTIMISED},
    )
    (folder / "harness.c").write_text(HARNESS)
    program = folder / "harness"
    subprocess.run(
        [
            *(sys.executable, "-m", "ziglang", "cc", "-target", "aarch64-linux-musl", "-static"),
            *("-O1", "-o", str(program), "harness.c", "aarch64.o"),
        ],
        cwd=folder,
        check=True,
        env={
            **os.environ,
            "ZIG_GLOBAL_CACHE_DIR": str(libc),
            "ZIG_LOCAL_CACHE_DIR": str(libc),
        },
    )
    return program


def run(program: Path, image: npt.NDArray[np.uint8], spec: ImagePreprocessing) -> Array:
    """What the program makes of an image, under qemu."""
    height, width, _ = image.shape
    down, across = spans(spec, height, width)
    windows = longest_window(spec, height, down), longest_window(spec, width, across)
    dtype = NUMPY_DTYPES[spec.cast.datatype]
    size = int(np.prod(spec.shape)) * dtype.itemsize
    placed = (*dataclasses.astuple(down), *dataclasses.astuple(across))
    columns = spec.size[1]
    line = line_length(width, windows[1], columns)
    header = (height, width, 0, spec.size[0], *placed, *windows, columns, size, line)
    emulator = shutil.which("qemu-aarch64")
    assert emulator, "tests/services/install.sh installs it"
    done = subprocess.run(
        [emulator, str(program)],
        input=np.array(header, "<i8").tobytes() + image.tobytes(),
        capture_output=True,
        check=True,
    )
    return np.frombuffer(done.stdout, dtype).reshape(spec.shape)


@pytest.mark.parametrize("name", SPECS)
def test_the_kernel_for_aarch64_computes_what_the_reference_does(
    tmp_path: Path, libc: Path, name: str
) -> None:
    """To 1e-6 of the scale of pixels, in several sizes; emulated, and thus not timed."""
    spec = SPECS[name]
    program = build(spec, tmp_path, libc)
    scale = np.array(IMAGENET.std).reshape((3, 1, 1) if spec.layout.order == "CHW" else (3,)) / 255
    for number, (height, width) in enumerate([(1, 1), (97, 131), (720, 1280), (5, 300), (64, 64)]):
        image = np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)
        found, wanted = run(program, image, spec), prepare_image(image, spec)
        apart = np.abs(found.astype(np.float64) - wanted.astype(np.float64))
        if found.dtype == np.float16:  # one unit where a value lay in the middle between two
            apart = np.maximum(apart - np.abs(np.spacing(np.asarray(wanted, np.float16))), 0)
        assert (apart * scale).max() <= 1e-6, (height, width)

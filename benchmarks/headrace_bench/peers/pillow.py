"""Pillow for the resize and the crop, NumPy for the rest."""

# ruff: noqa: PLC0415 - a peer's file is also read where its packages are not installed

from io import BytesIO
from typing import TYPE_CHECKING

from headrace_bench.peers import CROP, geometry, kernel_workload, normalizer

if TYPE_CHECKING:
    from headrace_bench.measure import Workload
    from headrace_bench.peers import Floats, Pixels

NAME = "pillow"
SUITES = ("kernels",)
REQUIREMENTS = ("numpy==2.4.6", "pillow==13.0.0")
TOLERANCE = 1.25
"""It rounds to a byte after each of its two passes: half a unit, and half a unit once more."""


def open_kernel(*, image: str, expected: str, threads: int, batch: int) -> "Workload":
    """Resizes one image on one thread; the images of a batch on several."""
    import numpy as np
    from PIL import Image

    normalize = normalizer()

    def prepare(pixels: "Pixels", out: "Floats") -> None:
        height, width, top, left = geometry(pixels)
        resized = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
        normalize(np.asarray(resized.crop((left, top, left + CROP, top + CROP))), out)

    def decode(file: bytes) -> "Pixels":
        return np.asarray(Image.open(BytesIO(file)))

    return kernel_workload(
        prepare,
        decode,
        image=image,
        expected=expected,
        threads=threads,
        batch=batch,
        tolerance=TOLERANCE,
    )

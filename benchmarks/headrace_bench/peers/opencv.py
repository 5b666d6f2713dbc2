"""OpenCV for the resize, NumPy for the rest."""

from importlib import import_module
from typing import TYPE_CHECKING

from headrace_bench.peers import CROP, geometry, kernel_workload, normalizer

if TYPE_CHECKING:
    from headrace_bench.measure import Workload
    from headrace_bench.peers import Floats, Pixels

NAME = "opencv"
SUITES = ("kernels",)
REQUIREMENTS = ("numpy==2.4.6", "opencv-python-headless==5.0.0.93")
TOLERANCE = 1.5
"""It rounds once, and of its filters INTER_AREA alone antialiases: a box, where the spec has a
triangle."""


def decode(file: bytes) -> "Pixels":
    """A JPEG's pixels, red, green, blue."""
    cv2, numpy = import_module("cv2"), import_module("numpy")
    encoded = numpy.frombuffer(file, numpy.uint8)
    pixels: Pixels = cv2.cvtColor(cv2.imdecode(encoded, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    return pixels


def open_kernel(*, image: str, expected: str, threads: int, batch: int) -> "Workload":
    """Its own threads resize one image; the images of a batch are shared out instead."""
    cv2 = import_module("cv2")
    cv2.setNumThreads(threads if batch == 1 else 1)
    normalize = normalizer()

    def prepare(pixels: "Pixels", out: "Floats") -> None:
        height, width, top, left = geometry(pixels)
        resized = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
        normalize(resized[top : top + CROP, left : left + CROP], out)

    return kernel_workload(
        prepare,
        decode,
        image=image,
        expected=expected,
        threads=threads,
        batch=batch,
        tolerance=TOLERANCE,
    )

"""albumentations, as its users write such a pipeline: a Compose, which stands on OpenCV."""

from importlib import import_module
from typing import TYPE_CHECKING

from headrace_bench.peers import CROP, MEAN, SHORTER, STD, kernel_workload
from headrace_bench.peers.opencv import decode

if TYPE_CHECKING:
    from headrace_bench.measure import Workload
    from headrace_bench.peers import Floats, Pixels

NAME = "albumentations"
SUITES = ("kernels",)
REQUIREMENTS = ("albumentations==2.0.8", "numpy==2.4.6", "opencv-python-headless==5.0.0.93")
ENVIRONMENT = {"NO_ALBUMENTATIONS_UPDATE": "1"}  # or it asks PyPI for news when it is imported
TOLERANCE = 1.5
"""As OpenCV's, whose INTER_AREA it uses."""


def open_kernel(*, image: str, expected: str, threads: int, batch: int) -> "Workload":
    """OpenCV's threads resize one image; the images of a batch are shared out instead."""
    cv2, pipelines = import_module("cv2"), import_module("albumentations")
    cv2.setNumThreads(threads if batch == 1 else 1)
    pipeline = pipelines.Compose(
        [
            pipelines.SmallestMaxSize(SHORTER, interpolation=cv2.INTER_AREA),
            pipelines.CenterCrop(CROP, CROP),
            pipelines.Normalize(MEAN, STD),
        ]
    )

    def prepare(pixels: "Pixels", out: "Floats") -> None:
        out[...] = pipeline(image=pixels)["image"].transpose(2, 0, 1)

    return kernel_workload(
        prepare,
        decode,
        image=image,
        expected=expected,
        threads=threads,
        batch=batch,
        tolerance=TOLERANCE,
    )

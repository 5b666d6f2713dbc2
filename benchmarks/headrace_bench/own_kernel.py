"""headrace's preprocessing as a contestant: the native library, as the runtime maps it."""

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from headrace.preprocess.image.geometry import Span, spans
from headrace.preprocess.image.native import NativeImages
from headrace.preprocess.image.reference import decode_row
from headrace.preprocess.image.spec import CenterCrop, ImagePreprocessing, Normalize, Resize
from headrace_bench.measure import Repeated, Workload
from headrace_bench.peers import CROP, MEAN, SHORTER, STD, kernel_workload

SPEC = ImagePreprocessing(
    input="image",
    output="pixels",
    resize=Resize(shorter=SHORTER),
    crop=CenterCrop(height=CROP, width=CROP),
    normalize=Normalize(
        mean=(255 * MEAN[0], 255 * MEAN[1], 255 * MEAN[2]),
        std=(255 * STD[0], 255 * STD[1], 255 * STD[2]),
    ),
)
"""What the suite `kernels` has everybody do."""
TOLERANCE = 0.01
"""float32 sums may be taken in another order."""


def open_kernel(*, image: str, expected: str, threads: int, batch: int, library: str) -> Workload:
    """The native library, as the runtime maps it; a large image is shared out to the threads."""
    native = NativeImages(Path(library).read_bytes(), SPEC, threads=threads if batch == 1 else 1)
    return kernel_workload(
        native.prepare_image,
        lambda file: decode_row(SPEC, [file], 0),
        image=image,
        expected=expected,
        threads=threads,
        batch=batch,
        tolerance=TOLERANCE,
    )


def open_copy(*, image: str, expected: str, threads: int, batch: int) -> Workload:
    """A copy of the bytes that have to be read: no preparation can be quicker."""
    del expected
    pixels = np.load(image, allow_pickle=False)
    height, width, _ = pixels.shape
    down, across = spans(SPEC, height, width)
    rows, columns = _reached(height, down), _reached(width, across)
    images = [pixels.copy() for _ in range(batch)]
    out = np.empty_like(pixels[rows, columns], shape=(batch, *pixels[rows, columns].shape))

    def copy(row: int) -> None:
        np.copyto(out[row], images[row][rows, columns])

    pool = ThreadPoolExecutor(threads)

    def operation() -> None:
        if threads == 1 or batch == 1:
            for row in range(batch):
                copy(row)
        else:
            list(pool.map(copy, range(batch)))

    return Repeated(operation, rows=batch, facts={})


def _reached(size: int, span: Span) -> slice:
    """The positions of an axis that lie under the kept ones."""
    scale = size / span.full
    return slice(int(span.first * scale), math.ceil((span.first + span.count) * scale))

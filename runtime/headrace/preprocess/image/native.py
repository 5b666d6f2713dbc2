"""Prepares images with the native library that a bundle carries: nothing is compiled here."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from headrace.native import Argument, Function, NativeFunction
from headrace.preprocess.image.decode import Pixels
from headrace.preprocess.image.geometry import Span, spans
from headrace.preprocess.image.reference import Floats, check_image, decode_row, empty_batch
from headrace.preprocess.image.spec import ImagePreprocessing
from headrace.tensors import NUMPY_DTYPES, Array, room_for

_ELEMENTS: dict[str, Argument] = {"FP32": "float32*", "FP16": "uint16*", "UINT8": "uint8*"}
ROWS = 4
"""Of the result, which the kernel makes at a time: they share the weights of the columns."""
_SHARED = 3 << 20
"""Bytes of an image from which on it is shared out: below, waking a thread takes as long."""


def image_function(spec: ImagePreprocessing) -> Function:
    """The function of a spec; `headrace_compiler.kernels.image` tells its arguments."""
    scratch: tuple[Argument, ...] = ("float32*", "float32*", "float32*", "int32*", "int64")
    out = _ELEMENTS[spec.cast.datatype]
    return Function("headrace_prepare_image", ("uint8*", *("int64",) * 13, *scratch, out))


class NativeImages:
    """Decodes and prepares batches of encoded images.

    Args:
        library: The bytes of the shared library; the caller has checked their digest.
        spec: What the library was compiled from.
        threads: That work on one batch.

    Raises:
        BundleError: The bytes are no library with the function.
    """

    def __init__(self, library: bytes, spec: ImagePreprocessing, *, threads: int = 1) -> None:
        self._function = NativeFunction(library, image_function(spec))
        self._spec = spec
        self._scratch = threading.local()
        self._pool = ThreadPoolExecutor(threads, "headrace-prepare") if threads > 1 else None
        self._threads = threads
        self._whole = range(spec.size[0])

    def prepare(self, contents: Sequence[bytes], out: Array | None = None) -> Array:
        """As the reference's `prepare`; images are shared out to the threads."""
        made = empty_batch(self._spec, len(contents), out)

        def fill(row: int) -> None:
            self._make(_dense(decode_row(self._spec, contents, row)), made[row], self._whole)

        if len(contents) == 1:
            self.prepare_image(decode_row(self._spec, contents, 0), made[0])
        elif self._pool is None:
            for row in range(len(contents)):
                fill(row)
        else:
            list(self._pool.map(fill, range(len(contents))))
        return made

    def prepare_image(self, image: Pixels, out: Array) -> None:
        """Resizes, crops or pads, normalizes and lays out one decoded image.

        A large one is shared out to the threads, by rows of the result.

        Args:
            image: uint8, shape (height, width, 3); copied if its rows are not dense.
            out: Of the spec's datatype, shape `spec.shape`, C-contiguous.

        Raises:
            UsageError: An array is another than that, or the image has no pixels.
        """
        check_image(image)
        room_for(self._spec.shape, NUMPY_DTYPES[self._spec.cast.datatype], out)
        image = _dense(image)
        if self._pool is None or image.size < _SHARED:
            self._make(image, out, self._whole)
        else:
            first = spans(self._spec, *image.shape[:2])[0].begin
            parts = _shared_out(first, self._spec.size[0], self._threads)
            list(self._pool.map(partial(self._make, image, out), parts))

    def _make(self, image: Pixels, out: Array, made: range) -> None:
        """Makes some rows of the result. Everything was checked, but for sizes, which are here."""
        height, width, _ = image.shape
        down, across = spans(self._spec, height, width)
        rows = longest_window(self._spec, height, down)
        taps = longest_window(self._spec, width, across)
        columns = self._spec.size[1]
        line = line_length(width, taps, columns)
        floats, integers = self._room(line + rows + columns * taps, columns)
        self._function(
            image.ctypes.data,
            *(height, width, 3 * width),
            *(made.start, made.stop),
            *(down.full, down.first, down.begin, down.count),
            *(across.full, across.first, across.begin, across.count),
            floats.ctypes.data,
            floats[line:].ctypes.data,
            floats[line + rows :].ctypes.data,
            integers.ctypes.data,
            taps,
            out.ctypes.data,
        )

    def _room(self, floats: int, columns: int) -> tuple[Floats, npt.NDArray[np.int32]]:
        """Scratch of this thread, at least so large."""
        held: tuple[Floats, npt.NDArray[np.int32]] | None = getattr(self._scratch, "held", None)
        if held is None or len(held[0]) < floats:
            held = np.empty(floats, np.float32), np.empty(columns, np.int32)
            self._scratch.held = held
        return held


def _dense(image: Pixels) -> Pixels:
    return image if image.flags.c_contiguous else np.ascontiguousarray(image)


def _shared_out(first: int, rows: int, threads: int) -> list[range]:
    """The rows of a result for each thread.

    Parts begin where the kernel, which begins at `first`, takes the next rows together; so the
    number of threads changes no bit of the result.
    """
    evenly = (part * rows // threads for part in range(1, threads))
    cuts = [0, *(max(0, at - (at - first) % ROWS) for at in evenly), rows]
    return [range(start, stop) for start, stop in pairwise(cuts)]


def longest_window(spec: ImagePreprocessing, size: int, span: Span) -> int:
    """How many weights one position can need along an axis of `size` positions."""
    radius = 2 if spec.resize.filter == "bicubic" else 1
    stretch = max(1.0, size / span.full) if spec.resize.antialias else 1.0
    return int(2 * radius * stretch) + 3  # one for each end that rounding moves


def line_length(width: int, taps: int, columns: int) -> int:
    """How many float32 the kernel keeps.

    They are a line of the image for each row, with what windows reach beyond it, room for one line
    more, and four numbers a column of each row.
    """
    return ROWS * (3 * width + 3 * taps + 4 + 4 * columns) + 3 * width

"""What a preprocessing spec means, in NumPy: the reference that every faster form is held to.

It is plain rather than quick, and yet modest: only the rows and columns that the crop keeps are
computed, and the image is turned into float32 a few rows at a time. Sums are taken in the order of
the image's rows and columns, without BLAS, so that equal input gives equal bits.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt

from headrace.errors import InvalidRequestError, TooLargeError, UsageError
from headrace.preprocess.image.decode import Pixels, decode_image
from headrace.preprocess.image.geometry import Span, enough_pixels, spans
from headrace.preprocess.image.spec import ImagePreprocessing, Letterbox
from headrace.tensors import NUMPY_DTYPES, Array, room_for

Floats = npt.NDArray[np.float32]
_Doubles = npt.NDArray[np.float64]
LUMA = (0.299, 0.587, 0.114)
"""Of red, green and blue, after ITU-R BT.601."""
_BLOCK = 1 << 16
"""Elements of an intermediate block: 256 KiB of float32 stay in a core's own cache."""


@dataclass(frozen=True)
class _Axis:
    """How the kept positions of one resized axis are made from positions of the image.

    Attributes:
        sources: int64, shape (kept, taps): positions in the image.
        weights: float32, shape (kept, taps): each row sums to one; zero where a window is shorter
            than the longest.
    """

    sources: npt.NDArray[np.int64]
    weights: Floats


def prepare(spec: ImagePreprocessing, contents: Sequence[bytes], out: Array | None = None) -> Array:
    """Decodes and prepares a batch of encoded images.

    Args:
        spec: The pipeline.
        contents: One encoded image a row.
        out: Where to write, if not into a new array: shape (len(contents), *spec.shape), of the
            spec's datatype, C-contiguous.

    Returns:
        Shape (len(contents), *spec.shape), of the spec's datatype; `out`, if it was given.

    Raises:
        InvalidRequestError: One of them is no image that can be decoded.
        TooLargeError: One of them has more pixels than the spec allows.
        UsageError: `out` has another shape or dtype.
    """
    out = empty_batch(spec, len(contents), out)
    for row in range(len(contents)):
        out[row] = prepare_image(decode_row(spec, contents, row), spec)
    return out


def empty_batch(spec: ImagePreprocessing, rows: int, out: Array | None = None) -> Array:
    """Room for a prepared batch: `out`, if it is that.

    Raises:
        UsageError: `out` has another shape or dtype, or is not C-contiguous, or read-only.
    """
    return room_for((rows, *spec.shape), NUMPY_DTYPES[spec.cast.datatype], out)


def decode_row(spec: ImagePreprocessing, contents: Sequence[bytes], row: int) -> Pixels:
    """Decodes one image of a batch; an error says which it is, where there are several.

    Raises:
        InvalidRequestError: It is no image that can be decoded.
        TooLargeError: It has more pixels than the spec allows.
    """
    try:
        return decode_image(
            contents[row],
            spec.decode.max_pixels,
            upright=spec.decode.upright,
            enough=partial(enough_pixels, spec) if spec.decode.reduced else None,
        )
    except (InvalidRequestError, TooLargeError) as error:
        if len(contents) == 1:
            raise
        message = f"image {row} of '{spec.input}', counted from 0: {error.message}"
        raise type(error)(error.code, message, error.hint) from error


def check_image(image: Pixels) -> None:
    """Checks that pixels are what a decoder gives.

    Raises:
        UsageError: They have another dtype or shape, or there are none.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise UsageError(
            "preprocess.image",
            f"an image is uint8[height, width, 3], and this is {image.dtype}{list(image.shape)}",
        )


def prepare_image(image: Pixels, spec: ImagePreprocessing) -> Array:
    """Resizes, crops or pads, normalizes and lays out one decoded image.

    Args:
        image: uint8, shape (height, width, 3); any strides.
        spec: The pipeline.

    Returns:
        Shape `spec.shape`, of the spec's datatype, C-contiguous.

    Raises:
        UsageError: The image has another dtype or shape, or no pixels.
    """
    check_image(image)
    across, along = spans(spec, *image.shape[:2])
    weigher = _Weigher(spec.resize.filter, antialias=spec.resize.antialias)
    rows, columns = weigher.axis(image.shape[0], across), weigher.axis(image.shape[1], along)
    made = np.clip(_resample(image, rows, columns), np.float32(0), np.float32(255))
    pixels = _channels(made, spec)
    if isinstance(spec.resize, Letterbox):
        pixels = _filled(pixels, spec.resize, across, along)
    if spec.normalize is not None:
        pixels -= np.asarray(spec.normalize.mean, np.float32)
        pixels /= np.asarray(spec.normalize.std, np.float32)
    if spec.layout.order == "CHW":
        pixels = pixels.transpose(2, 0, 1)
    return _cast(np.ascontiguousarray(pixels), spec.cast.datatype)


def _channels(pixels: Floats, spec: ImagePreprocessing) -> Floats:
    if spec.colour.channels == "BGR":
        return np.ascontiguousarray(pixels[..., ::-1])
    if spec.colour.channels == "L":
        red, green, blue = (pixels[..., place, np.newaxis] for place in range(3))
        weights = [np.float32(weight) for weight in LUMA]
        luma: Floats = red * weights[0] + green * weights[1] + blue * weights[2]
        return luma
    return pixels


def _filled(pixels: Floats, box: Letterbox, rows: Span, columns: Span) -> Floats:
    framed = np.full((box.height, box.width, pixels.shape[2]), box.fill, np.float32)
    down = slice(rows.begin, rows.begin + rows.count)
    framed[down, columns.begin : columns.begin + columns.count] = pixels
    return framed


def _cast(pixels: Floats, datatype: Literal["FP32", "FP16", "UINT8"]) -> Array:
    if datatype == "UINT8":
        pixels = np.clip(np.floor(pixels + np.float32(0.5)), np.float32(0), np.float32(255))
    with np.errstate(over="ignore"):  # what FP16 cannot hold becomes infinity
        made: Array = pixels.astype(NUMPY_DTYPES[datatype], copy=False)
    return made


@dataclass(frozen=True)
class _Weigher:
    """A filter, as it is stretched or not."""

    name: Literal["nearest", "bilinear", "bicubic"]
    antialias: bool

    def axis(self, size: int, span: Span) -> _Axis:
        """The weights of the kept positions of an axis of `size` positions.

        Source: `precompute_coeffs` in Pillow's src/libImaging/Resample.c, which this follows to
        the rounding of the window's ends; without antialiasing, positions outside the image count
        as the nearest inside, as in OpenCV.
        """
        positions = span.first + np.arange(span.count)
        if self.name == "nearest":  # in whole numbers, since centres often fall between two pixels
            nearest = ((2 * positions + 1) * size // (2 * span.full))[:, np.newaxis]
            return _Axis(nearest, np.ones(nearest.shape, np.float32))
        scale = size / span.full
        centres = (positions + 0.5) * scale
        radius, kernel = _FILTERS[self.name]
        stretch = max(scale, 1.0) if self.antialias else 1.0
        starts = np.floor(centres - radius * stretch + 0.5).astype(np.int64)
        stops = np.floor(centres + radius * stretch + 0.5).astype(np.int64)
        if self.antialias:
            starts, stops = np.maximum(starts, 0), np.minimum(stops, size)
        sources = starts[:, np.newaxis] + np.arange((stops - starts).max())
        weights = kernel((sources - centres[:, np.newaxis] + 0.5) / stretch)
        weights[sources >= stops[:, np.newaxis]] = 0.0
        weights /= weights.sum(axis=1, keepdims=True)
        return _Axis(np.clip(sources, 0, size - 1), weights.astype(np.float32))


def _bilinear(distance: _Doubles) -> _Doubles:
    weights: _Doubles = np.maximum(1.0 - np.abs(distance), 0.0)
    return weights


def _bicubic(distance: _Doubles) -> _Doubles:
    """The cubic convolution kernel with a = -0.5, after R. Keys, 1981."""
    x = np.abs(distance)
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


_FILTERS: dict[str, tuple[float, Callable[[_Doubles], _Doubles]]] = {
    "bilinear": (1.0, _bilinear),
    "bicubic": (2.0, _bicubic),
}
"""The radius and the kernel of each filter, at a scale of one."""


def _resample(image: Pixels, rows: _Axis, columns: _Axis) -> Floats:
    """Float32, shape (kept rows, kept columns, 3): the width first, then the height."""
    first, last = int(rows.sources.min()), int(rows.sources.max())
    needed = image[first : last + 1]
    narrow = np.empty((len(needed), len(columns.weights), 3), np.float32)
    for block in _blocks(len(needed), narrow[:1].size):
        _accumulate(needed[block], columns, narrow[block], axis=1)
    pixels = np.empty((len(rows.weights), *narrow.shape[1:]), np.float32)
    for block in _blocks(len(pixels), pixels[:1].size):
        part = _Axis(rows.sources[block] - first, rows.weights[block])
        _accumulate(narrow, part, pixels[block], axis=0)
    return pixels


def _accumulate(image: Pixels | Floats, along: _Axis, out: Floats, axis: Literal[0, 1]) -> None:
    """Writes the weighted sum of each window into `out`, one tap at a time, summed in float64."""
    total = np.zeros(out.shape)
    for tap in range(along.weights.shape[1]):
        weights = along.weights[:, tap, np.newaxis]
        if axis == 0:
            weights = weights[..., np.newaxis]
        source: npt.NDArray[np.uint8 | np.float32] = np.take(image, along.sources[:, tap], axis)
        total += source * weights
    out[...] = total


def _blocks(count: int, size: int) -> list[slice]:
    """Slices that cover `count` things of `size` elements in blocks of about `_BLOCK` elements."""
    step = max(1, _BLOCK // size)
    return [slice(start, start + step) for start in range(0, count, step)]

"""What a preprocessing spec means, in NumPy: the reference that every faster form is held to.

It is plain rather than quick, and yet modest: only the rows and columns that the crop keeps are
computed, and the image is turned into float32 a few rows at a time. Sums are taken in the order of
the image's rows and columns, without BLAS, so that equal input gives equal bits.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from headrace.errors import InvalidRequestError, TooLargeError, UsageError
from headrace.preprocess.decode import Pixels, decode_image
from headrace.preprocess.spec import ImagePreprocessing

Floats = npt.NDArray[np.float32]
_Doubles = npt.NDArray[np.float64]
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


def prepare(
    spec: ImagePreprocessing, contents: Sequence[bytes], out: Floats | None = None
) -> Floats:
    """Decodes and prepares a batch of encoded images.

    Args:
        spec: The pipeline.
        contents: One encoded image a row.
        out: Where to write, if not into a new array: float32, shape (len(contents), *spec.shape).

    Returns:
        float32, shape (len(contents), *spec.shape); `out`, if it was given.

    Raises:
        InvalidRequestError: One of them is no image that can be decoded.
        TooLargeError: One of them has more pixels than the spec allows.
        UsageError: `out` has another shape or dtype.
    """
    shape = (len(contents), *spec.shape)
    if out is None:
        out = np.empty(shape, np.float32)
    elif out.shape != shape or out.dtype != np.float32:
        raise UsageError(
            "preprocess.out",
            f"the result is float32{list(shape)}, and is to go into {out.dtype}{list(out.shape)}",
        )
    for row in range(len(contents)):
        out[row] = prepare_image(_decode(spec, contents, row), spec)
    return out


def prepare_image(image: Pixels, spec: ImagePreprocessing) -> Floats:
    """Resizes, crops, normalizes and lays out one decoded image.

    Args:
        image: uint8, shape (height, width, 3); any strides.
        spec: The pipeline.

    Returns:
        float32, shape `spec.shape`, C-contiguous.

    Raises:
        UsageError: The image has another dtype or shape, or no pixels.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise UsageError(
            "preprocess.image",
            f"an image is uint8[height, width, 3], and this is {image.dtype}{list(image.shape)}",
        )
    height, width, _ = image.shape
    full_height, full_width = resized_size(height, width, spec.resize.shorter)
    rows = _axis(height, full_height, spec.crop.height, spec.resize.filter)
    columns = _axis(width, full_width, spec.crop.width, spec.resize.filter)
    pixels = _resample(image, rows, columns)
    np.clip(pixels, 0.0, 255.0, out=pixels)
    pixels -= np.asarray(spec.normalize.mean, np.float32)
    pixels /= np.asarray(spec.normalize.std, np.float32)
    if spec.layout.order == "CHW":
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))
    return pixels


def resized_size(height: int, width: int, shorter: int) -> tuple[int, int]:
    """The height and width after a resize whose shorter side becomes `shorter`.

    The longer side is `long * shorter / short`, rounded, halves up.
    """
    short, long = sorted((height, width))
    longer = (2 * long * shorter + short) // (2 * short)
    return (shorter, longer) if height <= width else (longer, shorter)


def _decode(spec: ImagePreprocessing, contents: Sequence[bytes], row: int) -> Pixels:
    try:
        return decode_image(contents[row], spec.decode.max_pixels)
    except (InvalidRequestError, TooLargeError) as error:
        if len(contents) == 1:
            raise
        message = f"image {row} of '{spec.input}', counted from 0: {error.message}"
        raise type(error)(error.code, message, error.hint) from error


def _axis(size: int, resized: int, kept: int, name: Literal["bilinear", "bicubic"]) -> _Axis:
    """The weights of the middle `kept` positions of an axis resized from `size` to `resized`.

    Source: `precompute_coeffs` in Pillow's src/libImaging/Resample.c, which this follows to the
    rounding of the window's ends.
    """
    radius, kernel = _FILTERS[name]
    scale = size / resized
    stretch = max(scale, 1.0)
    positions = (resized - kept) // 2 + np.arange(kept)
    centres = (positions + 0.5) * scale
    starts = np.maximum(np.floor(centres - radius * stretch + 0.5), 0).astype(np.int64)
    stops = np.minimum(np.floor(centres + radius * stretch + 0.5), size).astype(np.int64)
    sources = starts[:, np.newaxis] + np.arange((stops - starts).max())
    weights = kernel((sources - centres[:, np.newaxis] + 0.5) / stretch)
    weights[sources >= stops[:, np.newaxis]] = 0.0
    weights /= weights.sum(axis=1, keepdims=True)
    return _Axis(np.minimum(sources, size - 1), weights.astype(np.float32))


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
    """Writes the weighted sum of each window into `out`, one tap at a time."""
    out.fill(0.0)
    for tap in range(along.weights.shape[1]):
        weights = along.weights[:, tap, np.newaxis]
        if axis == 0:
            weights = weights[..., np.newaxis]
        source: npt.NDArray[np.uint8 | np.float32] = np.take(image, along.sources[:, tap], axis)
        out += source * weights


def _blocks(count: int, size: int) -> list[slice]:
    """Slices that cover `count` things of `size` elements in blocks of about `_BLOCK` elements."""
    step = max(1, _BLOCK // size)
    return [slice(start, start + step) for start in range(0, count, step)]

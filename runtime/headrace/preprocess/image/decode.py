"""Encoded images to pixels; whatever else the bytes are is refused with a sentence.

The bytes come from strangers. Each format is known by its first bytes, the number of pixels is
read from the header and checked before anything is allocated for them, and the only errors that
leave this module are those of `headrace.errors`.
"""

import re
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from io import BytesIO
from typing import Literal

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.Image import DecompressionBombError, Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    PHOTOMETRIC_INTERPRETATION,
    TILELENGTH,
    TILEWIDTH,
    TiffImageFile,
)
from PIL.WebPImagePlugin import WebPImageFile

from headrace.errors import InvalidRequestError, TooLargeError

Pixels = npt.NDArray[np.uint8]
Format = Literal["JPEG", "PNG", "WebP", "GIF", "BMP", "TIFF"]

_SIGNATURES: tuple[tuple[bytes, Format], ...] = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
)
_MAX_SCANS = 100
"""Encoders write about ten. Each further one costs a pass over the whole image for some 50 bytes
of file. libtiff's limit for JPEG inside TIFF is the same."""
MAX_SIDE = 65_535
"""Of an image: as long as a JPEG can be. Working memory grows with the width."""
_USUAL_TILE = 2**20
"""Tiles of this many pixels are common even where the image is smaller."""
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]", re.DOTALL)
"""A JPEG marker, save those that stand inside entropy-coded data or have no length."""
_REFUSALS = (
    OSError,  # most of what is broken or truncated
    SyntaxError,  # a header that the format does not allow
    ValueError,  # impossible sizes and counts, text that does not decode, an illegal conversion
    EOFError,  # a frame that ends early
    TypeError,  # a tag whose value is of another type than its meaning asks for
    LookupError,  # data that ends inside a table, an unknown mode
    ArithmeticError,  # an offset that fits no C integer, a ratio with a zero
    struct.error,  # a chunk shorter than its fields
    MemoryError,  # a codec that will not allocate what the header asks for
)
"""What Pillow raises on hostile bytes: it documents few, and raises what its parsers meet."""
_ORIENTATION = 0x0112  # Exif 2.3, 4.6.4: how the stored rows and columns are to be shown
_TURNED: dict[int, Callable[[Pixels], Pixels]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: pixels.transpose(1, 0, 2)[:, ::-1],
    7: lambda pixels: pixels[::-1, ::-1].transpose(1, 0, 2),
    8: lambda pixels: pixels.transpose(1, 0, 2)[::-1],
}
_LYING = frozenset({5, 6, 7, 8})
"""The orientations whose height is stored as the width."""
_FILTERS = threading.Lock()
"""The process has one list of warning filters; two threads that save and restore it must not
interleave."""


class _FirstFrame(GifImageFile):
    """A GIF whose first frame alone is read, so that nothing is ever disposed of.

    Pillow would otherwise allocate the area to dispose of while it opens the file, which is before
    its size can be checked.
    """

    @property
    def disposal_method(self) -> int:
        return 0

    @disposal_method.setter
    def disposal_method(self, value: int) -> None:
        pass


_READERS: dict[Format, Callable[[BytesIO], ImageFile]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "WebP": WebPImageFile,
    "GIF": _FirstFrame,
    "BMP": BmpImageFile,
    "TIFF": TiffImageFile,
}


def decode_image(
    content: bytes,
    max_pixels: int,
    *,
    upright: bool = False,
    enough: Callable[[int, int], tuple[int, int]] | None = None,
) -> Pixels:
    """Decodes a JPEG, PNG, WebP, GIF, BMP or TIFF image.

    Grey and palette images become RGB, an alpha channel is dropped (not blended), 16-bit samples
    keep their high byte, and of an animation or a multi-page file the first frame is taken.
    Embedded colour profiles are ignored; a TIFF's own orientation tag, which says in what order
    its rows are stored, is always followed.

    Args:
        content: The encoded image.
        max_pixels: The largest width x height that is decoded.
        upright: Turn and mirror the image as its EXIF orientation says.
        enough: Gives, for an image's height and width, those that suffice: a JPEG may then be
            decoded at a fraction of its size that keeps as many.

    Returns:
        uint8, shape (height, width, 3), red, green, blue; possibly read-only, and C-contiguous
        unless it was turned.

    Raises:
        InvalidRequestError: `request.image`: the bytes are no image of these formats, or a broken
            or truncated one, or one whose samples have no agreed range (32-bit).
        TooLargeError: `request.image-pixels`: the header declares more pixels than `max_pixels`, or
            a side of more than `MAX_SIDE`.
    """
    found = _recognise(content)
    if found != "JPEG":
        return _decode_with_pillow(content, found, max_pixels, upright=upright)
    turn = _jpeg_orientation(content) if upright else 1
    return _turned(_decode_jpeg(content, max_pixels, _stored(enough, turn)), turn)


def _stored(
    enough: Callable[[int, int], tuple[int, int]] | None, turn: int
) -> Callable[[int, int], tuple[int, int]] | None:
    """The same of an image's rows and columns as they are stored."""
    if enough is None or turn not in _LYING:
        return enough

    def lying(height: int, width: int) -> tuple[int, int]:
        tall, wide = enough(width, height)
        return wide, tall

    return lying


def _jpeg_orientation(content: bytes) -> int:
    """Of a JPEG, whose blocks are read and not its pixels."""
    try:
        with _without_warnings():
            return _orientation(JpegImageFile(BytesIO(content)))
    except (DecompressionBombError, *_REFUSALS):
        return 1  # what is broken is for the decoder to say


def _orientation(image: ImageFile) -> int:
    """What an image's EXIF block says; one, as it is stored, where there is none that is whole."""
    if isinstance(image, TiffImageFile):
        return 1  # it was followed already
    try:
        told = image.getexif().get(_ORIENTATION, 1)
    except _REFUSALS:
        return 1
    return told if isinstance(told, int) else 1


def _turned(pixels: Pixels, turn: int) -> Pixels:
    return _TURNED[turn](pixels) if turn in _TURNED else pixels


def _recognise(content: bytes) -> Format:
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "WebP"
    for signature, found in _SIGNATURES:
        if content.startswith(signature):
            return found
    shown = f"{len(content)} bytes" if content else "an empty value"
    raise InvalidRequestError(
        "request.image",
        f"{shown} came where an image was expected, and its format is not known",
        "send the bytes of a JPEG, PNG, WebP, GIF, BMP or TIFF file",
    )


def _decode_jpeg(
    content: bytes, max_pixels: int, enough: Callable[[int, int], tuple[int, int]] | None
) -> Pixels:
    """The fast road for what it takes; four-colour and slightly damaged files go to Pillow.

    Both stand on libjpeg-turbo. simplejpeg refuses what libjpeg only warns about, for instance a
    few stray bytes before the end; Pillow refuses only what is cut off or cannot be decoded.
    """
    _check_scans(content)
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
        check_pixels(int(width), int(height), max_pixels)
        if colours not in {"CMYK", "YCCK"}:
            least = _reduction(int(height), int(width), enough)
            pixels: Pixels = simplejpeg.decode_jpeg(content, "RGB", **least)
            return pixels
    except ValueError:
        pass
    return _decode_with_pillow(content, "JPEG", max_pixels)


def _reduction(
    height: int, width: int, enough: Callable[[int, int], tuple[int, int]] | None
) -> dict[str, int]:
    """What to ask of the decoder; nothing, unless half an image suffices.

    Between a half and the whole, libjpeg is no quicker.
    """
    if enough is None:
        return {}
    tall, wide = enough(height, width)
    if height < 2 * tall or width < 2 * wide:
        return {}
    return {"min_height": tall, "min_width": wide, "min_factor": 2}


def _check_scans(content: bytes) -> None:
    """Refuses a JPEG with so many scans that decoding it would take minutes."""
    if _count_pairs(content, b"\xff\xda") <= _MAX_SCANS:
        return
    # Thumbnails, and whatever cameras append to a picture, hold these bytes too: count exactly.
    scans, position = 0, 2
    while marker := _MARKER.search(content, position):
        kind = content[marker.start() + 1]
        if kind == 0xD9:
            return
        scans += kind == 0xDA
        if scans > _MAX_SCANS:
            raise InvalidRequestError(
                "request.image", f"the JPEG image has more than {_MAX_SCANS} scans"
            )
        position = marker.end() + int.from_bytes(content[marker.end() : marker.end() + 2])


def _count_pairs(content: bytes, pair: bytes) -> int:
    """How often two different bytes stand side by side; four times as quick as `bytes.count`."""
    wanted = int.from_bytes(pair, "little")
    return sum(
        int(np.count_nonzero(np.frombuffer(content, "<u2", (len(content) - at) // 2, at) == wanted))
        for at in (0, 1)
    )


def _decode_with_pillow(
    content: bytes, found: Format, max_pixels: int, *, upright: bool = False
) -> Pixels:
    """Decodes with the one reader of this format.

    The reader's class is called directly: `Image.open` would first apply a limit of its own, which
    is global, and warn.
    """
    if found == "WebP":
        _check_canvas(content, max_pixels)
    # These alone never warn, so that they need not wait for each other.
    silent = found in {"WebP", "BMP"} or (found == "PNG" and b"acTL" not in content)
    try:
        with nullcontext() if silent else _without_warnings():
            image = _READERS[found](BytesIO(content))
            check_pixels(*image.size, max_pixels)
            if isinstance(image, TiffImageFile):
                _check_tiff(image, max_pixels)
            image.load()
            return _turned(_to_rgb(image), _orientation(image) if upright else 1)
    except DecompressionBombError as error:
        raise TooLargeError(
            "request.image-pixels",
            f"the {found} image cannot be decoded here: {error}"
            f" This model takes at most {max_pixels} pixels.",
            "send a smaller image",
        ) from error
    except _REFUSALS as error:
        raise _broken(found, str(error)) from error


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Silences what Pillow says about odd tags, which strangers could make it say endlessly."""
    with _FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _check_canvas(content: bytes, max_pixels: int) -> None:
    """Reads a WebP's size itself, because Pillow's reader allocates the canvas as it opens."""
    kind, header = content[12:16], content[20:30]
    if len(header) < 10:
        raise _broken("WebP", "it ends inside its header")
    if kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack("<2H", header[6:10]))
    elif kind == b"VP8L":
        bits = int.from_bytes(header[1:5], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8X":
        width = int.from_bytes(header[4:7], "little") + 1
        height = int.from_bytes(header[7:10], "little") + 1
    else:
        raise _broken("WebP", f"it starts with an unknown chunk {kind!r}")
    check_pixels(width, height, max_pixels)


def _check_tiff(image: TiffImageFile, max_pixels: int) -> None:
    # A tile is decoded whole, and may be declared larger than the image that it covers.
    width, height = image.tag_v2.get(TILEWIDTH, 0), image.tag_v2.get(TILELENGTH, 0)
    check_pixels(width, height, max(max_pixels, _USUAL_TILE), "a tile of the image")
    if image.mode.startswith("I;16") and image.tag_v2.get(BITSPERSAMPLE) != (16,):
        raise ValueError("its samples have neither 8 nor 16 bits")
    if image.mode.startswith("I;16") and image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) != 1:
        raise ValueError("its 16-bit samples run from white to black")


def check_pixels(width: int, height: int, max_pixels: int, what: str = "the image") -> None:
    """Checks the size of an image.

    Raises:
        TooLargeError: `request.image-pixels`: it has too many, or too many on a side.
    """
    if width * height > max_pixels:
        raise TooLargeError(
            "request.image-pixels",
            f"{what} has {width} x {height} = {width * height} pixels,"
            f" and this model takes at most {max_pixels}",
            "send a smaller image",
        )
    if max(width, height) > MAX_SIDE:
        raise TooLargeError(
            "request.image-pixels",
            f"{what} has {width} x {height} pixels, and no side may have more than {MAX_SIDE}",
            "send an image of a usual shape",
        )


def _to_rgb(image: Image) -> Pixels:
    if image.mode.startswith("I;16"):
        # Pillow would clip these to 255 rather than scale them.
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, np.newaxis], 3, axis=2)
    if image.mode in {"I", "F"}:
        raise ValueError("its samples are 32-bit numbers, whose range is not known")
    # Otherwise Pillow looks for the transparent colour in the result, and warns if it has several.
    image.info.pop("transparency", None)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _broken(found: Format, reason: str) -> InvalidRequestError:
    return InvalidRequestError(
        "request.image",
        f"the {found} image is broken, truncated or of an unusual kind: {reason}",
        "send a whole image that common viewers open",
    )

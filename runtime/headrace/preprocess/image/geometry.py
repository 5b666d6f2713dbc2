"""Where each pixel of a prepared image comes from: sizes after the resize, crop and padding.

Whole numbers alone, so that the reference and the native kernels cannot differ in them.
"""

from dataclasses import dataclass

from headrace.preprocess.image.spec import ImagePreprocessing, Letterbox, Resize


@dataclass(frozen=True)
class Span:
    """How one axis of the result is made.

    Attributes:
        full: The size of the whole image along this axis after the resize.
        first: The first of the resized positions that is kept.
        begin: Where in the result that one stands.
        count: How many are kept. What is left of the result is filled.
    """

    full: int
    first: int
    begin: int
    count: int


def spans(spec: ImagePreprocessing, height: int, width: int) -> tuple[Span, Span]:
    """How the rows and the columns of the result are made from an image of a size."""
    rows, columns = spec.size
    if isinstance(spec.resize, Resize):
        tall, wide = resized_size(height, width, spec.resize.shorter)
        return _cropped(tall, rows), _cropped(wide, columns)
    if isinstance(spec.resize, Letterbox):
        tall, wide = fitted_size(height, width, rows, columns)
        return _padded(tall, rows), _padded(wide, columns)
    return _padded(rows, rows), _padded(columns, columns)


def enough_pixels(spec: ImagePreprocessing, height: int, width: int) -> tuple[int, int]:
    """The height and width at which an image may be decoded: twice what the resize makes of it.

    Then its antialiasing does most of the work, and the decoder's cruder one little.
    """
    rows, columns = spans(spec, height, width)
    return 2 * rows.full, 2 * columns.full


def resized_size(height: int, width: int, shorter: int) -> tuple[int, int]:
    """The height and width after a resize whose shorter side becomes `shorter`.

    The longer side is `long * shorter / short`, rounded, halves up.
    """
    short, long = sorted((height, width))
    longer = _rounded(long * shorter, short)
    return (shorter, longer) if height <= width else (longer, shorter)


def fitted_size(height: int, width: int, rows: int, columns: int) -> tuple[int, int]:
    """The height and width of the largest image of this aspect ratio in `rows` x `columns`.

    The other side is rounded, halves up, to at least one.
    """
    if rows * width <= columns * height:
        return rows, max(1, _rounded(width * rows, height))
    return max(1, _rounded(height * columns, width)), columns


def _rounded(numerator: int, denominator: int) -> int:
    return (2 * numerator + denominator) // (2 * denominator)


def _cropped(full: int, kept: int) -> Span:
    return Span(full=full, first=(full - kept) // 2, begin=0, count=kept)


def _padded(full: int, size: int) -> Span:
    return Span(full=full, first=0, begin=(size - full) // 2, count=full)

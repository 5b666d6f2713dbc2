"""The image spec as standard ONNX operators, for engines that want one graph.

What `headrace.preprocess.image.reference` computes after the decoder. The operator Resize would be
shorter, and is not used: OpenVINO ignores its `antialias`, and ONNX Runtime takes its scales as
float32, by which pixels of large images are off by some hundredths. Here the positions of each
window are found in whole numbers, and windows are summed by products of matrices, one axis after
the other.

OpenVINO computes whole numbers of 64 bits in 32. None here needs more, as long as neither side of
an image is over 65,535; that is why positions are counted from the middle.
"""

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from headrace.preprocess.image.reference import LUMA
from headrace.preprocess.image.spec import (
    ImagePreprocessing,
    Layout,
    Letterbox,
    Normalize,
    Resize,
    Stretch,
)
from headrace.tensors import BATCH, TensorSpec
from headrace_compiler.kernels.onnx_terms import Term, Writer, divided, rounded

OPSET = 18
"""The first in which each operator takes what it is given here."""
_FLOAT = ir.DataType.FLOAT
_DATATYPES = {"FP32": _FLOAT, "FP16": ir.DataType.FLOAT16, "UINT8": ir.DataType.UINT8}
_RADIUS = {"bilinear": 1, "bicubic": 2}
_BLOCK = 64
"""Terms of one sum at most: longer windows are summed block by block, and lose no digits."""


@dataclass(frozen=True)
class _Span:
    """How one axis of the result is made; see `headrace.preprocess.image.geometry.Span`.

    Attributes:
        size: Of the image.
        full: Of the whole image after the resize.
        count: How many are kept, those in the middle.
        uneven: 1 if one more is cut off at the end than at the beginning, and 0 otherwise.
        begin: How many positions of the result are filled before those, and
        end: how many after them.
    """

    size: Term
    full: Term
    count: Term
    uneven: Term
    begin: Term
    end: Term


@dataclass(frozen=True)
class _Windows:
    """See `_Axis` of the reference: sources and weights, shape (kept, blocks, taps)."""

    sources: Term
    weights: Term


def image_input(spec: ImagePreprocessing) -> TensorSpec:
    """What a graph takes that prepares its images itself: decoded ones, of one size in a batch."""
    return TensorSpec(name=spec.input, datatype="UINT8", shape=(BATCH, "height", "width", 3))


def prepare_images(writer: Writer, image: ir.Value, spec: ImagePreprocessing) -> ir.Value:
    """Writes down how images are prepared.

    Args:
        writer: Takes nodes and constants.
        image: UINT8, shape (batch, height, width, 3), with no side of 0.

    Returns:
        Shape (batch, *spec.shape), of the spec's datatype.
    """
    source = Term(writer, image)
    rows, columns = _spans(source, spec)
    pixels = _channels(_resampled(source, rows, columns, spec).op("Clip", 0.0, 255.0), spec)
    if isinstance(spec.resize, Letterbox):
        pixels = _filled(pixels, spec.resize, rows, columns)
    if spec.layout.order == "CHW":
        pixels = pixels.op("Transpose", perm=[0, 3, 1, 2])
    if spec.normalize is not None:
        pixels = _normalized(pixels, spec.normalize, spec.layout)
    if spec.cast.datatype == "UINT8":
        pixels = (pixels + 0.5).op("Floor").op("Clip", 0.0, 255.0)
    datatype = _DATATYPES[spec.cast.datatype]
    made = pixels.cast(datatype).op("Reshape", (0, *spec.shape)).value
    made.dtype, made.shape = datatype, ir.Shape((BATCH, *spec.shape))
    return made


def _spans(image: Term, spec: ImagePreprocessing) -> tuple[_Span, _Span]:
    """How the rows and the columns of the result are made."""
    shape, term = image.op("Shape"), image.writer.term
    # A side of 0 fails where pixels are taken, and must not be divided by before.
    height, width = (shape.op("Gather", place, axis=0).op("Max", 1) for place in (1, 2))
    rows, columns = (term(size) for size in spec.size)
    resize = spec.resize
    if isinstance(resize, Stretch):
        return _padded(height, rows, rows), _padded(width, columns, columns)
    if isinstance(resize, Letterbox):
        tall, wide = _fitted_size(height, width, rows, columns)
        return _padded(height, tall, rows), _padded(width, wide, columns)
    tall, wide = _resized_size(height, width, resize)
    return _cropped(height, tall, rows), _cropped(width, wide, columns)


def _resized_size(height: Term, width: Term, resize: Resize) -> tuple[Term, Term]:
    short, long = height.op("Min", width), height.op("Max", width)
    longer, lying = rounded(long * resize.shorter, short), height < width
    return lying.op("Where", resize.shorter, longer), lying.op("Where", longer, resize.shorter)


def _fitted_size(height: Term, width: Term, rows: Term, columns: Term) -> tuple[Term, Term]:
    wider = columns * height < rows * width
    tall = rounded(height * columns, width).op("Max", 1)
    wide = rounded(width * rows, height).op("Max", 1)
    return wider.op("Where", tall, rows), wider.op("Where", columns, wide)


def _cropped(size: Term, full: Term, kept: Term) -> _Span:
    term = size.writer.term
    _, uneven = divided(full - kept, term(2))
    return _Span(size, full, kept, uneven, begin=term(0), end=term(0))


def _padded(size: Term, full: Term, room: Term) -> _Span:
    begin = (room - full) / 2
    end = room - full - begin
    return _Span(size, full, full, size.writer.term(0), begin, end)


def _positions(span: _Span) -> tuple[Term, Term]:
    """The pixels under the centres of the kept positions, and where in those the centres lie.

    A centre is `size / 2 + turn * size / (2 * full)`, where turns count half positions from the
    middle.

    Returns:
        Both of shape (kept,): int64, and float32 from 0 to 1.
    """
    turns = span.size.writer.op("Range", 0, span.count, 1) * 2 + 1 - span.count - span.uneven
    middle, whole = span.size / 2, span.full * 2
    odd = span.size - middle * 2
    pixels, parts = divided(turns * span.size + odd * span.full, whole)
    return pixels + middle, parts.cast(_FLOAT) / whole.cast(_FLOAT)


def _windows(span: _Span, spec: ImagePreprocessing) -> _Windows:
    """The windows of the kept positions; those that are shorter end in weights of zero."""
    pixels, parts = _positions(span)
    radius, stretch = span.size.writer.term(_RADIUS[spec.resize.filter]), span.size.writer.term(1.0)
    reach = radius
    if spec.resize.antialias:
        stretch = (span.size.cast(_FLOAT) / span.full.cast(_FLOAT)).op("Max", 1.0)
        reach = ((radius * span.size + span.full - 1) / span.full).op("Max", radius)
    taps = _taps(reach)
    sources = pixels.unsqueeze(1, 2) + taps
    distances = (taps.cast(_FLOAT) + 0.5 - parts.unsqueeze(1, 2)).op("Abs") / stretch
    weights = _bicubic(distances) if spec.resize.filter == "bicubic" else _bilinear(distances)
    if spec.resize.antialias:
        weights *= (sources >= 0).op("And", sources < span.size).cast(_FLOAT)
    # The mean of the blocks' sums becomes 1, since the mean of their weighted sums is the result.
    weights /= weights.op("ReduceSum", (2,)).op("ReduceMean", (1,))
    return _Windows(sources.op("Max", 0).op("Min", span.size - 1), weights)


def _taps(reach: Term) -> Term:
    """From `-reach` to `reach` or some more, in as few equal blocks as `_BLOCK` allows.

    Returns:
        int64, shape (blocks, taps).
    """
    blocks = (reach * 2 + _BLOCK) / _BLOCK
    taps = (reach * 2 + blocks) / blocks
    every = reach.writer.op("Range", reach * -1, blocks * taps - reach, 1)
    return every.op("Reshape", blocks.unsqueeze(0).op("Concat", (-1,), axis=0))


def _bilinear(distance: Term) -> Term:
    return (distance * -1.0 + 1.0).op("Max", 0.0)


def _bicubic(distance: Term) -> Term:
    """As the reference's, whose outer part is 0 at a distance of 2."""
    near = (distance * 1.5 - 2.5) * distance * distance + 1.0
    x = distance.op("Min", 2.0)
    far = ((x * -0.5 + 2.5) * x - 4.0) * x + 2.0
    return (distance < 1.0).op("Where", near, far)


def _resampled(image: Term, rows: _Span, columns: _Span, spec: ImagePreprocessing) -> Term:
    """Float32, shape (batch, kept rows, kept columns, 3)."""
    if spec.resize.filter == "nearest":
        return _picked(image, rows, columns)
    along = _windows(columns, spec)
    if spec.crop is not None:  # columns that no window reaches are left out of the sums of rows
        first, last = (along.sources.op(end, keepdims=0) for end in ("ReduceMin", "ReduceMax"))
        image = image.op("Slice", first.unsqueeze(0), (last + 1).unsqueeze(0), (2,))
        along = replace(along, sources=along.sources - first)
    before, after = _in_two_steps(rows)
    low = _summed(image, _windows(before, spec))
    narrow = _turned(_summed(_turned(low), along))
    return _summed(narrow, _windows(after, spec))


def _picked(image: Term, rows: _Span, columns: _Span) -> Term:
    """The pixels under the centres alone."""
    (down, _), (across, _) = _positions(rows), _positions(columns)
    places = down.unsqueeze(1) * columns.size + across
    return image.op("Reshape", (0, -1, 3)).op("Gather", places, axis=1).cast(_FLOAT)


def _in_two_steps(rows: _Span) -> tuple[_Span, _Span]:
    """How rows are made before the columns are, and after: one of both changes nothing.

    More rows are made after, when they are narrow. Otherwise a line of pixels, as long as a request
    may be, would be held as often as the result has rows.
    """
    grows, none = rows.size < rows.count, rows.size.writer.term(0)
    between = grows.op("Where", rows.size, rows.count)
    before = replace(
        rows,
        full=grows.op("Where", rows.size, rows.full),
        count=between,
        uneven=grows.op("Where", none, rows.uneven),
    )
    after = replace(
        rows,
        size=between,
        full=grows.op("Where", rows.full, rows.count),
        uneven=grows.op("Where", rows.uneven, none),
    )
    return before, after


def _summed(image: Term, windows: _Windows) -> Term:
    """Sums along windows of rows: (batch, rows, columns, 3) to (batch, kept, columns, 3)."""
    taken = image.op("Reshape", (0, 0, -1)).op("Gather", windows.sources, axis=1).cast(_FLOAT)
    sums = windows.weights.unsqueeze(2).op("MatMul", taken).op("ReduceMean", (2,), keepdims=0)
    return sums.op("Reshape", (0, 0, -1, 3))


def _turned(image: Term) -> Term:
    """With its columns as rows."""
    return image.op("Transpose", perm=[0, 2, 1, 3])


def _channels(pixels: Term, spec: ImagePreprocessing) -> Term:
    if spec.colour.channels == "BGR":
        return pixels.op("Gather", (2, 1, 0), axis=3)
    if spec.colour.channels == "L":
        return pixels.op("MatMul", np.array(LUMA, np.float32).reshape(3, 1))
    return pixels


def _filled(pixels: Term, box: Letterbox, rows: _Span, columns: _Span) -> Term:
    begin = (rows.begin.unsqueeze(0), columns.begin.unsqueeze(0))
    end = (rows.end.unsqueeze(0), columns.end.unsqueeze(0))
    pads = pixels.writer.op("Concat", (0,), *begin, (0,), (0,), *end, (0,), axis=0)
    return pixels.op("Pad", pads, float(box.fill))


def _normalized(pixels: Term, wanted: Normalize, layout: Layout) -> Term:
    shape = (-1, 1, 1) if layout.order == "CHW" else (-1,)
    mean, std = (np.array(each, np.float32).reshape(shape) for each in (wanted.mean, wanted.std))
    return (pixels - mean) / std

"""The fused image kernel: resize, crop or pad, colour, normalise, lay out and cast, in one pass.

For each row of the result, the few source rows under its window are summed into one line, only as
wide as the result reaches; then four such lines are summed along their columns, normalised and
written. So nothing larger than a few lines is kept. Weights and sums are those of
`headrace.preprocess.image.reference`.

What stands here is Numba source: functions of pointers and numbers, in which the constants of the
spec are folded. The caller has checked every size; see `headrace.preprocess.image.native`.
"""

# ruff: noqa: ANN001, ANN202, PLR0913, PLR0917 - loops over pointers, of one signature
# mypy: disallow_untyped_defs=False

import numpy as np

from headrace.preprocess.image.native import ROWS
from headrace.preprocess.image.reference import LUMA
from headrace.preprocess.image.spec import ImagePreprocessing, Letterbox
from headrace_compiler.kernels.sums import Inline, Kernel, sum_columns_of, sum_rows_of

COUNTS = 1 << 31
"""A window's first source and its length travel as one number: `first * COUNTS + length`."""


def image_kernel(spec: ImagePreprocessing, inline: Inline) -> Kernel:
    """The kernel of one spec.

    Its arguments, in the order of `headrace.preprocess.image.native`: `source`, uint8 rows of RGB;
    `height`, `width` and `stride`, the image's, the last in bytes; `top` and `bottom`, the rows of
    the result to make; for rows and then for columns the four numbers of
    `headrace.preprocess.image.geometry.Span`; `line`, float32, as long as
    `headrace.preprocess.image.native.line_length` says; `down`, float32, room for a row's
    window; `across`, float32, room for `taps` a column; `starts`, int32, one a column; `taps`, a
    column's longest window; and `out`, the result.
    """
    weigh_columns, write_rows = _weigh_columns(spec, inline), _write_rows(spec, inline)
    window, fill = window_of(spec, inline), fill_of(spec, inline)
    sum_rows, sum_columns = sum_rows_of(inline), sum_columns_of(inline)
    size_w, framed = spec.size[1], isinstance(spec.resize, Letterbox)
    zero = np.float32(0)

    def kernel(
        source, height, width, stride, top, bottom,
        full_h, first_h, begin_h, count_h,
        full_w, first_w, begin_w, count_w,
        line, down, across, starts, taps, out,
    ):  # fmt: skip
        low, high, most = weigh_columns(width, full_w, first_w, count_w, across, starts, taps)
        length, reach = 3 * (high - low), 3 * taps + 4
        row = 3 * width + reach
        spare, sums = ROWS * row, ROWS * row + 3 * width
        for r in range(ROWS):  # windows reach beyond what is summed: there must be no NaN there
            for i in range(reach):
                line[r * row + length + i] = zero
        if framed:
            for y in range(top, min(begin_h, bottom)):
                fill(out, y, 0, size_w)
            for y in range(max(begin_h + count_h, top), bottom):
                fill(out, y, 0, size_w)
        end = min(begin_h + count_h, bottom)
        for y in range(max(begin_h, top), end, ROWS):
            rows = min(ROWS, end - y)
            for r in range(rows):
                found = window(height, full_h, first_h + y + r - begin_h, down, 0)
                base, count = found // COUNTS * stride + 3 * low, found % COUNTS
                sum_rows(source, base, stride, length, down, count, line, r * row, spare)
            sum_columns(line, row, sums, low, across, taps, most, starts, count_w)
            write_rows(out, y, rows, begin_w, count_w, line, sums)
        return 0

    return kernel


def _weigh_columns(spec: ImagePreprocessing, inline: Inline) -> Kernel:
    """Writes the columns' windows.

    Returns the first source column that is read, the one after the last, and the longest window.
    """
    window, zero = window_of(spec, inline), np.float32(0)

    @inline
    def weigh_columns(width, full, begin, columns, across, starts, taps):
        low, high, most = width, 0, 0
        for x in range(columns):
            found = window(width, full, begin + x, across, x * taps)
            first, count = found // COUNTS, found % COUNTS
            for k in range(count, taps):  # each window is summed as if it were the longest
                across[x * taps + k] = zero
            starts[x] = first
            low, high, most = min(low, first), max(high, first + count), max(most, count)
        return low, high, most

    return weigh_columns


def _write_rows(spec: ImagePreprocessing, inline: Inline) -> Kernel:
    """Writes the rows whose sums stand at `sums`, with what lies beside the image."""
    put, fill = put_of(spec, inline), fill_of(spec, inline)
    size_w, framed = spec.size[1], isinstance(spec.resize, Letterbox)
    zero, white = np.float32(0), np.float32(255)

    @inline
    def clamp(value):
        return min(max(value, zero), white)

    @inline
    def write_rows(out, first, rows, begin, columns, line, sums):
        for r in range(rows):
            if framed:
                fill(out, first + r, 0, begin)
                fill(out, first + r, begin + columns, size_w)
            for x in range(columns):
                at = sums + 4 * (ROWS * x + r)
                red, green, blue = clamp(line[at]), clamp(line[at + 1]), clamp(line[at + 2])
                put(out, first + r, begin + x, red, green, blue)

    return write_rows


def put_of(spec: ImagePreprocessing, inline: Inline) -> Kernel:
    """Writes one pixel: colour, normalisation, layout and cast."""
    luma, mirrored = spec.colour.channels == "L", spec.colour.channels == "BGR"
    (mean0, mean1, mean2), (std0, std1, std2) = _affine(spec)
    scaled = spec.normalize is not None
    share0, share1, share2 = (np.float32(share) for share in LUMA)
    size_h, size_w = spec.size
    planes, channels = spec.layout.order == "CHW", spec.channels
    step = size_h * size_w if planes else 1
    store = _store(spec, inline)

    @inline
    def put(out, y, x, red, green, blue):
        first = blue if mirrored else red
        third = red if mirrored else blue
        if luma:
            first = red * share0 + green * share1 + blue * share2
        to = y * size_w + x
        at = to if planes else channels * to
        store(out, at, (first - mean0) / std0 if scaled else first)
        if not luma:
            store(out, at + step, (green - mean1) / std1 if scaled else green)
            store(out, at + 2 * step, (third - mean2) / std2 if scaled else third)

    return put


def fill_of(spec: ImagePreprocessing, inline: Inline) -> Kernel:
    """Writes the pixels of a row from `begin` to before `end` that lie beside the image."""
    value = np.float32(spec.resize.fill if isinstance(spec.resize, Letterbox) else 0)
    put = put_of(spec, inline)

    @inline
    def fill(out, y, begin, end):
        for x in range(begin, end):
            put(out, y, x, value, value, value)

    return fill


def _affine(spec: ImagePreprocessing) -> tuple[tuple[np.float32, ...], tuple[np.float32, ...]]:
    """The means and deviations of three channels, of which fewer may be used."""
    given = spec.normalize
    mean = (0.0,) * 3 if given is None else (given.mean * 3)[:3]
    std = (1.0,) * 3 if given is None else (given.std * 3)[:3]
    return tuple(np.float32(value) for value in mean), tuple(np.float32(value) for value in std)


def window_of(spec: ImagePreprocessing, inline: Inline) -> Kernel:
    """Writes a position's weights at `at`; returns its first source and how many there are."""
    if spec.resize.filter == "nearest":

        @inline
        def nearest(size, full, position, weights, at):
            weights[at] = np.float32(1)
            return (2 * position + 1) * size // (2 * full) * COUNTS + 1

        return nearest
    bicubic = spec.resize.filter == "bicubic"
    weigh = _bicubic(inline) if bicubic else _bilinear(inline)
    make = _antialiased if spec.resize.antialias else _plain
    return make(weigh, 2.0 if bicubic else 1.0, inline)


def _antialiased(weigh: Kernel, radius: float, inline: Inline) -> Kernel:
    """Windows that grow with the reduction, and end with the image."""
    floor = _floor(inline)

    @inline
    def window(size, full, position, weights, at):
        scale = size / full
        centre = (position + 0.5) * scale
        stretch = max(scale, 1.0)
        first = max(floor(centre - radius * stretch + 0.5), 0)
        last = min(floor(centre + radius * stretch + 0.5), size)
        total = 0.0
        for source in range(first, last):
            total += weigh((source - centre + 0.5) / stretch)
        for source in range(first, last):
            weight = weigh((source - centre + 0.5) / stretch) / total
            weights[at + source - first] = np.float32(weight)
        return first * COUNTS + last - first

    return window


def _plain(weigh: Kernel, radius: float, inline: Inline) -> Kernel:
    """Windows of one size, in which what lies outside counts as the nearest inside."""
    floor = _floor(inline)

    @inline
    def window(size, full, position, weights, at):
        centre = (position + 0.5) * (size / full)
        start, stop = floor(centre - radius + 0.5), floor(centre + radius + 0.5)
        first, last = min(max(start, 0), size - 1), max(min(stop, size), 1)
        total = 0.0
        for source in range(start, stop):
            total += weigh(source - centre + 0.5)
        for place in range(last - first):
            weights[at + place] = np.float32(0)
        for source in range(start, stop):
            inside = min(max(source, first), last - 1)
            weights[at + inside - first] += np.float32(weigh(source - centre + 0.5) / total)
        return first * COUNTS + last - first

    return window


def _bilinear(inline: Inline) -> Kernel:
    @inline
    def weigh(distance):
        return max(1.0 - abs(distance), 0.0)

    return weigh


def _bicubic(inline: Inline) -> Kernel:
    @inline
    def weigh(distance):
        x = abs(distance)
        if x < 1.0:
            return (1.5 * x - 2.5) * x * x + 1.0
        if x < 2.0:
            return ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
        return 0.0

    return weigh


def _store(spec: ImagePreprocessing, inline: Inline) -> Kernel:
    """Writes one float32 as the spec's datatype."""
    zero, top, half = np.float32(0), np.float32(255), np.float32(0.5)
    floor = _floor(inline)

    if spec.cast.datatype == "UINT8":

        @inline
        def store(out, at, value):
            out[at] = np.uint8(floor(min(max(value, zero), top) + half))

    elif spec.cast.datatype == "FP16":

        @inline
        def store(out, at, value):
            out[at] = to_half(value)

        to_half = _to_half(inline)

    else:

        @inline
        def store(out, at, value):
            out[at] = value

    return store


def _floor(inline: Inline) -> Kernel:
    """As `math.floor`, which is a call into libm where a processor has no instruction for it."""

    @inline
    def floor(value):
        whole = int(value)
        return whole - 1 if whole > value else whole

    return floor


def _to_half(inline: Inline) -> Kernel:
    """The bits of a float32 as IEEE 754's binary16, to the nearest, halves to even.

    By whole numbers, since not every target has an instruction for it.
    """

    @inline
    def to_half(value):
        bits = np.int64(np.float32(value).view(np.uint32))
        sign, rest = (bits >> 16) & 0x8000, bits & 0x7FFFFFFF
        if rest >= 0x47800000:  # 65536 and more, infinity, NaN
            return np.uint16(sign | (0x7E00 if rest > 0x7F800000 else 0x7C00))
        if rest < 0x38800000:  # below 2**-14: no leading one
            shift = np.int64(126) - (rest >> 23)
            if shift > 24:
                return np.uint16(sign)
            whole = (rest & 0x7FFFFF) | 0x800000
            kept, lost = whole >> shift, whole & ((np.int64(1) << shift) - 1)
            middle = np.int64(1) << (shift - 1)
        else:
            moved = rest - 0x38000000
            kept, lost, middle = moved >> 13, moved & 0x1FFF, np.int64(0x1000)
        if lost > middle or (lost == middle and kept & 1):
            kept += 1  # carries into the exponent, and into infinity, as it should
        return np.uint16(sign | kept)

    return to_half

"""Weighted sums of an image's rows and of a line's columns: where the image kernel spends its time.

Numba source, as in `headrace_compiler.kernels.image`.
"""

# ruff: noqa: ANN001, ANN202, PLR0913, PLR0917 - loops over pointers, of one signature
# mypy: disallow_untyped_defs=False

from collections.abc import Callable
from typing import Any

import numpy as np

from headrace.preprocess.image.native import ROWS

Kernel = Callable[..., Any]
Inline = Callable[[Kernel], Kernel]
"""Compiles a function that a kernel calls."""
SUMMED = 64
"""How many are summed at a time: long sums lose digits, sums of sums do not."""


def sum_rows_of(inline: Inline) -> Kernel:
    """Sums `count` rows of the image, weighted, into `line` from `start` on, with room at `spare`.

    As many rows a pass as there are, up to eight: the line is read and written less often.
    """
    add1, add2, add3, add4 = _add1(inline), _add2(inline), _add3(inline), _add4(inline)
    add8 = _add8(inline)

    @inline
    def sum_rows(source, base, stride, length, weights, count, line, start, spare):
        for block in range(0, count, SUMMED):
            end, to = min(block + SUMMED, count), spare if block else start
            tap = block
            while tap < end:
                a, left, fresh = base + tap * stride, end - tap, tap == block
                if left >= 8:
                    add8(source, a, stride, weights, tap, line, to, length, fresh)
                    tap += 8
                elif left >= 4:
                    add4(source, a, stride, weights, tap, line, to, length, fresh)
                    tap += 4
                elif left == 3:
                    add3(source, a, stride, weights, tap, line, to, length, fresh)
                    tap += 3
                elif left == 2:
                    add2(source, a, stride, weights, tap, line, to, length, fresh)
                    tap += 2
                else:
                    add1(source, a, weights, tap, line, to, length, fresh)
                    tap += 1
            if block:
                for i in range(length):
                    line[start + i] += line[to + i]

    return sum_rows


def _add1(inline: Inline) -> Kernel:
    @inline
    def add1(source, a, weights, tap, line, to, length, fresh):
        w0 = weights[tap]
        if fresh:
            for i in range(length):
                line[to + i] = np.float32(source[a + i]) * w0
        else:
            for i in range(length):
                line[to + i] += np.float32(source[a + i]) * w0

    return add1


def _add2(inline: Inline) -> Kernel:
    @inline
    def two(source, a, b, wa, wb):
        return np.float32(source[a]) * wa + np.float32(source[b]) * wb

    @inline
    def add2(source, a, stride, weights, tap, line, to, length, fresh):
        b, w0, w1 = a + stride, weights[tap], weights[tap + 1]
        if fresh:
            for i in range(length):
                line[to + i] = two(source, a + i, b + i, w0, w1)
        else:
            for i in range(length):
                line[to + i] += two(source, a + i, b + i, w0, w1)

    return add2


def _add3(inline: Inline) -> Kernel:
    @inline
    def three(source, a, b, c, wa, wb, wc):
        sum2 = np.float32(source[a]) * wa + np.float32(source[b]) * wb
        return sum2 + np.float32(source[c]) * wc

    @inline
    def add3(source, a, stride, weights, tap, line, to, length, fresh):
        b, c = a + stride, a + 2 * stride
        w0, w1, w2 = weights[tap], weights[tap + 1], weights[tap + 2]
        if fresh:
            for i in range(length):
                line[to + i] = three(source, a + i, b + i, c + i, w0, w1, w2)
        else:
            for i in range(length):
                line[to + i] += three(source, a + i, b + i, c + i, w0, w1, w2)

    return add3


def _four(inline: Inline) -> Kernel:
    @inline
    def four(source, a, stride, w0, w1, w2, w3):
        b, c, d = a + stride, a + 2 * stride, a + 3 * stride
        sum2 = np.float32(source[a]) * w0 + np.float32(source[b]) * w1
        sum4 = np.float32(source[c]) * w2 + np.float32(source[d]) * w3
        return sum2 + sum4

    return four


def _add4(inline: Inline) -> Kernel:
    four = _four(inline)

    @inline
    def add4(source, a, stride, weights, tap, line, to, length, fresh):
        w0, w1, w2, w3 = weights[tap], weights[tap + 1], weights[tap + 2], weights[tap + 3]
        if fresh:
            for i in range(length):
                line[to + i] = four(source, a + i, stride, w0, w1, w2, w3)
        else:
            for i in range(length):
                line[to + i] += four(source, a + i, stride, w0, w1, w2, w3)

    return add4


def _add8(inline: Inline) -> Kernel:
    four = _four(inline)

    @inline
    def add8(source, a, stride, weights, tap, line, to, length, fresh):
        e = a + 4 * stride
        w0, w1, w2, w3 = weights[tap], weights[tap + 1], weights[tap + 2], weights[tap + 3]
        w4, w5, w6, w7 = weights[tap + 4], weights[tap + 5], weights[tap + 6], weights[tap + 7]
        if fresh:
            for i in range(length):
                sum4 = four(source, a + i, stride, w0, w1, w2, w3)
                line[to + i] = sum4 + four(source, e + i, stride, w4, w5, w6, w7)
        else:
            for i in range(length):
                sum4 = four(source, a + i, stride, w0, w1, w2, w3)
                line[to + i] += sum4 + four(source, e + i, stride, w4, w5, w6, w7)

    return add8


def sum_columns_of(inline: Inline) -> Kernel:
    """Red, green and blue under each window of four lines, and one number more, to `sums`.

    The four numbers of a line are one vector: the fourth is the next pixel's red, and is never
    looked at. Those of one column lie side by side, line after line.
    """
    zero, one = np.float32(0), np.float32(1)
    none = (zero, zero, zero, zero)

    @inline
    def add(pixel, line, at, weight):
        red, green, blue, more = pixel
        return (
            red + line[at] * weight,
            green + line[at + 1] * weight,
            blue + line[at + 2] * weight,
            more + line[at + 3] * weight,
        )

    @inline
    def add_window(line, row, place, weights, at, begin, end):
        first, second, third, fourth = none, none, none, none
        for k in range(begin, end):
            weight, to = weights[at + k], place + 3 * k
            first = add(first, line, to, weight)
            second = add(second, line, to + row, weight)
            third = add(third, line, to + 2 * row, weight)
            fourth = add(fourth, line, to + 3 * row, weight)
        return first, second, third, fourth

    @inline
    def put(line, to, pixel):
        line[to], line[to + 1], line[to + 2], line[to + 3] = pixel

    @inline
    def sum_columns(line, row, sums, low, weights, taps, most, starts, columns):
        for x in range(columns):
            place, at, to = 3 * (starts[x] - low), x * taps, sums + 4 * ROWS * x
            found = add_window(line, row, place, weights, at, 0, min(SUMMED, most))
            put(line, to, found[0])
            put(line, to + 4, found[1])
            put(line, to + 8, found[2])
            put(line, to + 12, found[3])
            for block in range(SUMMED, most, SUMMED):
                end = min(block + SUMMED, most)
                found = add_window(line, row, place, weights, at, block, end)
                put(line, to, add(found[0], line, to, one))
                put(line, to + 4, add(found[1], line, to + 4, one))
                put(line, to + 8, add(found[2], line, to + 8, one))
                put(line, to + 12, add(found[3], line, to + 12, one))

    return sum_columns

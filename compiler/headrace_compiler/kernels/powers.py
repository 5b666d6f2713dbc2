"""Exponentials, sigmoids and sums in float64, of operations that every target has as vectors.

Numba source, as in `headrace_compiler.kernels.image`.
"""

# ruff: noqa: ANN001, ANN202 - loops over pointers, of one signature
# mypy: disallow_untyped_defs=False

import math

import numpy as np

from headrace.postprocess.native import LANES
from headrace_compiler.kernels.sums import Inline, Kernel


def sigmoid_of(inline: Inline) -> Kernel:
    """The sigmoid of a float32, in float32."""
    power = power_of(inline)

    @inline
    def sigmoid(logit):
        return np.float32(1.0 / (1.0 + power(-np.float64(logit))))

    return sigmoid


def power_of(inline: Inline) -> Kernel:
    """The exponential function in float64, to 1e-11 of its value; beyond +-700 that of +-700.

    e**x = 2**n * e**r, where n is x / ln 2 rounded and r the rest, at most half of ln 2; e**r is
    its Taylor polynomial. Adding 1.5 * 2**52 rounds to a whole number, and leaves n in the last
    bits, from where it is shifted to the exponent's place: every processor sums and shifts
    vectors, and not every one converts them.
    """
    ln2, shift = math.log(2), 1.5 * 2.0**52
    scale = 1 / ln2
    c2, c3, c4, c5, c6, c7, c8, c9 = (1 / math.factorial(n) for n in range(2, 10))

    @inline
    def power(x):
        x = min(max(x, -700.0), 700.0)
        moved = x * scale + shift
        n = moved - shift
        r = x - n * ln2
        tail = c5 + r * (c6 + r * (c7 + r * (c8 + r * c9)))
        value = 1.0 + r * (1.0 + r * (c2 + r * (c3 + r * (c4 + r * tail))))
        two = np.int64((np.float64(moved).view(np.int64) + 1023) << 52).view(np.float64)
        return value * two

    return power


def root_of(inline: Inline) -> Kernel:
    """The square root of a float64 that is neither negative nor subnormal.

    By Newton's method for its inverse, from the halved exponent on (C. Lomont, 2003): four steps
    from an error of 4 % to less than 1e-15. `math.sqrt` would be a call into libm.
    """

    @inline
    def root(x):
        half = np.int64(np.float64(x).view(np.int64) >> 1)
        inverse = np.int64(0x5FE6EB50C7B537A9 - half).view(np.float64)
        for _ in range(4):
            inverse *= 1.5 - 0.5 * x * inverse * inverse
        return x * inverse

    return root


def total_of(term: Kernel, inline: Inline) -> Kernel:
    """Sums `term(number, given)` of `count` float32 numbers in float64.

    In `LANES` sums beside each other, which processors add as vectors; `lanes` is room for them.
    """

    @inline
    def total(numbers, at, count, given, lanes):
        for lane in range(LANES):
            lanes[lane] = 0.0
        whole = count - count % LANES
        for block in range(at, at + whole, LANES):
            for lane in range(LANES):
                lanes[lane] += term(np.float64(numbers[block + lane]), given)
        summed = 0.0
        for i in range(at + whole, at + count):
            summed += term(np.float64(numbers[i]), given)
        for lane in range(LANES):
            summed += lanes[lane]
        return summed

    return total

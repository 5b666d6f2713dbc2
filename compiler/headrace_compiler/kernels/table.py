"""The fused table kernel: all columns of a row to its features, in one pass over the batch.

It is one function for every table: what to do with each column stands in the tables that
`headrace.preprocess.table.native.Tables` describes, so that thousands of categories take no time to
compile. It computes what `headrace.preprocess.table.reference` does; the hash is compiled from its
very lines.

What stands here is Numba source: functions of pointers and numbers. The caller has checked every
size; see `headrace.preprocess.table.native`.
"""

# ruff: noqa: ANN001, ANN202, PLR0913, PLR0917 - loops over pointers, of one signature
# mypy: disallow_untyped_defs=False

import numpy as np

from headrace.preprocess.table.native import FAULT, HASH, NUMBER, STEP
from headrace.preprocess.table.reference import murmur3
from headrace.preprocess.table.spec import LARGEST
from headrace_compiler.kernels.sums import Inline, Kernel


def table_kernel(inline: Inline) -> Kernel:
    """The kernel of every table.

    Its arguments, in the order of `headrace.preprocess.table.native`: `rows` and `columns` of the
    batch, and `features` of a row; what `Tables` and then what `Packed` holds; `out`, float32,
    shape (rows, features), zeros; and `fault`, int64: the row and the column at which it ended
    early, left alone where it did not.
    """
    standardise, encode, hash_text = _standardise(inline), _encode(inline), _hash_text(inline)

    def kernel(
        rows, columns, features,
        steps, scales, known, bounds, places, numbers, texts, starts, out, fault,
    ):  # fmt: skip
        for row in range(rows):
            for column in range(columns):
                step = column * STEP
                kind, source = steps[step], steps[step + 1] * rows + row
                to = row * features + steps[step + 2]
                if kind == NUMBER:
                    good = standardise(numbers[source], scales, 3 * steps[step + 1], out, to)
                elif kind == HASH:
                    good = hash_text(texts, starts, source, steps, step, out, to)
                else:
                    good = encode(
                        texts, starts, source, known, bounds, places, steps, step, out, to
                    )
                if not good:
                    fault[0], fault[1] = row, column
                    return 0
        return 0

    return kernel


def _standardise(inline: Inline) -> Kernel:
    """Writes a number's feature; tells whether it is finite."""

    @inline
    def standardise(value, scales, at, out, to):
        given = scales[at] if np.isnan(value) else value
        feature = (given - scales[at + 1]) / scales[at + 2]
        if abs(feature) <= LARGEST:  # NaN is not
            out[to] = np.float32(feature)
            return True
        return False

    return standardise


def _encode(inline: Inline) -> Kernel:
    """Writes a category's 1; tells whether it is known, or need not be."""
    find = _find(inline)
    one = np.float32(1)

    @inline
    def encode(texts, starts, source, known, bounds, places, steps, step, out, to):
        first, last = steps[step + 3], steps[step + 4]
        begin, end = starts[source], starts[source + 1]
        found = find(texts, begin, end, known, bounds, first, last)
        place = steps[step + 5] if found < 0 else places[found]
        if place >= 0:
            out[to + place] = one
        return place != FAULT

    return encode


def _hash_text(inline: Inline) -> Kernel:
    """Writes a text's 1 or -1, as scikit-learn's `_hashing_fast.transform` does."""
    hash_bytes = inline(murmur3)
    one = np.float32(1)

    @inline
    def hash_text(texts, starts, source, steps, step, out, to):
        begin = starts[source]
        hashed = hash_bytes(texts, begin, starts[source + 1] - begin)
        negative = hashed >= 1 << 31
        bucket = ((1 << 32) - hashed if negative else hashed) % steps[step + 3]
        out[to + bucket] = -one if negative and steps[step + 4] else one
        return True

    return hash_text


def _find(inline: Inline) -> Kernel:
    """Where a text stands among sorted ones, or -1; by halving."""
    compare = _compare(inline)

    @inline
    def find(texts, begin, end, known, bounds, first, last):
        low, high = first, last
        while low < high:
            middle = (low + high) >> 1
            order = compare(texts, begin, end, known, bounds[middle], bounds[middle + 1])
            if order == 0:
                return middle
            if order > 0:
                low = middle + 1
            else:
                high = middle
        return -1

    return find


def _compare(inline: Inline) -> Kernel:
    """Negative where the first comes before the second, as Python sorts bytes; 0 where equal."""

    @inline
    def compare(one, begin, end, two, start, stop):
        for i in range(min(end - begin, stop - start)):
            if one[begin + i] != two[start + i]:
                return np.int64(one[begin + i]) - np.int64(two[start + i])
        return (end - begin) - (stop - start)

    return compare

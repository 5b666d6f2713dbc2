"""The best of many numbers, without sorting them all.

A number and its place travel as one int64, its key: the larger the number, and among equal ones
the earlier its place, the larger the key. No two are equal, so whatever orders keys orders them in
one way.

Numba source, as in `headrace_compiler.kernels.image`.
"""

# ruff: noqa: ANN001, ANN202 - loops over pointers, of one signature
# mypy: disallow_untyped_defs=False

import numpy as np

from headrace_compiler.kernels.sums import Inline, Kernel

_BLOCK = 64  # what is skipped at once where nothing reaches the least that is kept
_PLACES = 0xFFFFFFFF


def best_of(most: int, least: float, inline: Inline) -> Kernel:
    """Keeps the keys of the `most` largest of `count` float32 numbers that are `least` or more.

    They go to `heap`, int64, with room for `most` from `to` on; there are less than 2**32 numbers.
    Returns how many are kept, or -1 where a number is NaN or infinity; minus infinity is a number
    like others. Once there are `most` they form a heap (J. Williams, 1964) whose root is the least
    that is kept, and which most numbers do not reach.
    """
    reach, key = _reach(inline), _key(inline)
    build, sift, place_of = build_of(inline), sift_of(inline), place_of_key(inline)
    start, infinity = np.float32(least), np.float32(np.inf)

    @inline
    def best(numbers, at, count, heap, to):
        found, bar = 0, start
        for block in range(0, count, _BLOCK):
            end = min(block + _BLOCK, count)
            if reach(numbers, at + block, at + end, bar):
                for place in range(block, end):
                    number = numbers[at + place]
                    if not number < infinity:
                        return -1
                    if found < most:
                        heap[to + found] = key(number, place)
                        found += 1 if number >= bar else 0
                        if found == most:
                            build(heap, to, most)
                            bar = numbers[at + place_of(heap[to])]
                    elif number > bar:
                        sift(heap, to, 0, most, key(number, place))
                        bar = numbers[at + place_of(heap[to])]
        return found

    return best


def sort_of(inline: Inline) -> Kernel:
    """Orders the keys of a heap, the largest first."""
    sift = sift_of(inline)

    @inline
    def sort(heap, to, size):
        for last in range(size - 1, 0, -1):
            key = heap[to + last]
            heap[to + last] = heap[to]
            sift(heap, to, 0, last, key)

    return sort


def build_of(inline: Inline) -> Kernel:
    """Makes a heap of `size` keys."""
    sift = sift_of(inline)

    @inline
    def build(heap, to, size):
        for root in range(size // 2 - 1, -1, -1):
            sift(heap, to, root, size, heap[to + root])

    return build


def sift_of(inline: Inline) -> Kernel:
    """Puts a key at `root` of a heap of `size`, or below, so that no child is less."""

    @inline
    def sift(heap, to, root, size, key):
        hole, child = root, 2 * root + 1
        while child < size:
            if child + 1 < size:
                child += 1 if heap[to + child + 1] < heap[to + child] else 0
            if key < heap[to + child]:
                break
            heap[to + hole] = heap[to + child]
            hole, child = child, 2 * child + 1
        heap[to + hole] = key

    return sift


def place_of_key(inline: Inline) -> Kernel:
    """Where the number of a key stands."""

    @inline
    def place_of(key):
        return _PLACES - (key & _PLACES)

    return place_of


def _key(inline: Inline) -> Kernel:
    """Of a float32 and its place; -0.0 becomes 0.0."""
    zero = np.float32(0)

    @inline
    def key(number, place):
        bits = np.int64(np.float32(number + zero).view(np.int32))
        order = bits ^ ((bits >> 63) & 0x7FFFFFFF)  # below zero, larger bits are smaller numbers
        return (order << 32) + (_PLACES - place)

    return key


def peak_of(inline: Inline) -> Kernel:
    """The largest of `count` float32 numbers; infinity where one is NaN."""
    reach, infinity = _reach(inline), np.float32(np.inf)

    @inline
    def peak(numbers, at, count):
        top = -infinity
        for block in range(at, at + count, _BLOCK):
            end = min(block + _BLOCK, at + count)
            if reach(numbers, block, end, top):
                for place in range(block, end):
                    number = numbers[place]
                    if not number < infinity:
                        return infinity
                    top = max(top, number)
        return top

    return peak


def _reach(inline: Inline) -> Kernel:
    """How many of some numbers are `bar` or more, or NaN."""

    @inline
    def reach(numbers, begin, end, bar):
        hits = 0
        for i in range(begin, end):
            hits += 0 if numbers[i] < bar else 1
        return hits

    return reach

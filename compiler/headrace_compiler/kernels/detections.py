"""The kernel of detections: boxes that reach a threshold, and of those that overlap the best.

What stands here is Numba source, as in `headrace_compiler.kernels.image`; the caller has checked
every size; see `headrace.postprocess.native`.
"""

# ruff: noqa: ANN001, ANN202, PLR0913, PLR0917 - loops over pointers, of one signature
# mypy: disallow_untyped_defs=False

import numpy as np

from headrace.postprocess.spec import Detections
from headrace_compiler.kernels.best import best_of, build_of, place_of_key, sift_of
from headrace_compiler.kernels.powers import sigmoid_of
from headrace_compiler.kernels.sums import Inline, Kernel


def detections_kernel(spec: Detections, inline: Inline) -> Kernel:
    """The kernel of `Detections`.

    Its arguments: `boxes`, float32, `rows` of `n` times 4; `scores`, float32, `rows` of `n` times
    `classes`; `heap`, int64, room for `candidates`; then the answer, with room for `most` a row:
    `found`, float32, four each, `sure`, float32, `of`, int64; `counts`, int64, one a row; and
    `fault`, int64: twice the first row with NaN or infinity, and one more if it is among its
    scores, or -1.
    """
    most, sigmoid = spec.most, spec.activation == "sigmoid"
    best = best_of(spec.candidates, spec.least, inline)
    build, sift = build_of(inline), sift_of(inline)
    odd, suppressed = _odd(spec, inline), _suppressed(spec, inline)
    low, high, place_of = _low(spec, inline), _high(spec, inline), place_of_key(inline)
    probability = sigmoid_of(inline)
    zero = np.float32(0)

    def kernel(boxes, scores, rows, n, classes, heap, found, sure, of, counts, fault):
        fault[0] = -1
        for row in range(rows):
            if odd(boxes, 4 * row * n, n):
                fault[0] = 2 * row
                return 0
            first, to, count = row * n * classes, row * most, 0
            left = best(scores, first, n * classes, heap, 0)
            if left < 0:
                fault[0] = 2 * row + 1
                return 0
            for i in range(left):
                heap[i] = ~heap[i]  # now the root is the best: not all of them may be needed
            build(heap, 0, left)
            while left and count < most:
                place = place_of(~heap[0])
                left -= 1
                sift(heap, 0, 0, left, heap[left])
                box, label = 4 * (row * n + place // classes), place % classes
                x1, y1 = low(boxes, box), low(boxes, box + 1)
                x2, y2 = high(boxes, box), high(boxes, box + 1)
                if not suppressed(found, of, to, count, x1, y1, x2, y2, label):
                    at = to + count
                    found[4 * at], found[4 * at + 1] = x1, y1
                    found[4 * at + 2], found[4 * at + 3] = x2, y2
                    value = scores[first + place]
                    sure[at], of[at] = probability(value) if sigmoid else value, label
                    count += 1
            counts[row] = count
            for at in range(to + count, to + most):
                sure[at], of[at] = zero, -1
                for corner in range(4 * at, 4 * at + 4):
                    found[corner] = zero
        return 0

    return kernel


def _suppressed(spec: Detections, inline: Inline) -> Kernel:
    """Whether one of the `count` boxes that a row has kept overlaps with one more of its class.

    The arithmetic is that of `headrace.postprocess.reference._overlap`.
    """
    threshold, more = spec.iou_threshold, 1.0 + spec.iou_threshold
    area = _area(inline)

    @inline
    def suppressed(found, of, to, count, x1, y1, x2, y2, label):
        own = area(x2 - x1, y2 - y1)
        for kept in range(to, to + count):
            if of[kept] == label:
                u1, v1 = found[4 * kept], found[4 * kept + 1]
                u2, v2 = found[4 * kept + 2], found[4 * kept + 3]
                shared = area(min(x2, u2) - max(x1, u1), min(y2, v2) - max(y1, v1))
                if shared * more > threshold * (own + area(u2 - u1, v2 - v1)):
                    return True
        return False

    return suppressed


def _area(inline: Inline) -> Kernel:
    zero = np.float32(0)

    @inline
    def area(width, height):
        return np.float64(max(width, zero)) * np.float64(max(height, zero))

    return area


def _low(spec: Detections, inline: Inline) -> Kernel:
    """The first corner of a box along one axis."""
    half = np.float32(0.5)
    if spec.format == "xyxy":

        @inline
        def low(boxes, at):
            return boxes[at]

    else:

        @inline
        def low(boxes, at):
            return boxes[at] - boxes[at + 2] * half

    return low


def _high(spec: Detections, inline: Inline) -> Kernel:
    """The second corner of a box along one axis."""
    half = np.float32(0.5)
    if spec.format == "xyxy":

        @inline
        def high(boxes, at):
            return boxes[at + 2]

    else:

        @inline
        def high(boxes, at):
            return boxes[at] + boxes[at + 2] * half

    return high


def _odd(spec: Detections, inline: Inline) -> Kernel:
    """How many corners of `n` boxes are NaN or infinity."""
    low, high = _low(spec, inline), _high(spec, inline)
    infinity = np.float32(np.inf)

    @inline
    def odd(boxes, at, n):
        count = 0
        for box in range(at, at + 4 * n, 4):
            for axis in range(box, box + 2):
                count += 0 if abs(low(boxes, axis)) < infinity else 1
                count += 0 if abs(high(boxes, axis)) < infinity else 1
        return count

    return odd

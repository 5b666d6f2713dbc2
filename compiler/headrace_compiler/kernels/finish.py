"""The kernels of postprocessing, and those that work by rows: softmax, top-k, sigmoid, l2.

As `headrace.postprocess.reference`, they compute in float64 and round once. What stands here is
Numba source, as in `headrace_compiler.kernels.image`; the caller has checked every size; see
`headrace.postprocess.native`.
"""

# ruff: noqa: ANN001, ANN202 - loops over pointers, of one signature
# mypy: disallow_untyped_defs=False

import math

import numpy as np

from headrace.postprocess.spec import (
    Detections,
    L2Normalize,
    Postprocessing,
    SigmoidThreshold,
    Softmax,
    TopK,
)
from headrace_compiler.kernels.best import best_of, peak_of, place_of_key, sort_of
from headrace_compiler.kernels.detections import detections_kernel
from headrace_compiler.kernels.powers import power_of, root_of, sigmoid_of, total_of
from headrace_compiler.kernels.sums import Inline, Kernel


def finish_kernel(spec: Postprocessing, inline: Inline) -> Kernel:
    """The kernel of one spec."""
    match spec:
        case Softmax():
            return _softmax_kernel(inline)
        case TopK():
            return _top_kernel(spec, inline)
        case SigmoidThreshold():
            return _sigmoid_kernel(spec, inline)
        case L2Normalize():
            return _unit_kernel(inline)
        case Detections():
            return detections_kernel(spec, inline)


def _softmax_kernel(inline: Inline) -> Kernel:
    """The kernel of `Softmax`.

    Its arguments: `logits`, float32, `rows` of `classes`; `lanes`, float64, room for
    `headrace.postprocess.native.LANES`; `out`, float32, as `logits`; `fault`, int64, where the
    first row with NaN or infinity is told, or -1.
    """
    power, peak = power_of(inline), peak_of(inline)
    total = total_of(_power_below(inline), inline)

    def kernel(logits, rows, classes, lanes, out, fault):
        fault[0] = -1
        for row in range(rows):
            at = row * classes
            top = np.float64(peak(logits, at, classes))
            if not abs(top) < np.inf:
                fault[0] = row
                return 0
            share = 1.0 / total(logits, at, classes, top, lanes)
            for i in range(at, at + classes):
                out[i] = np.float32(power(np.float64(logits[i]) - top) * share)
        return 0

    return kernel


def _top_kernel(spec: TopK, inline: Inline) -> Kernel:
    """The kernel of `TopK`.

    Its arguments: `logits`, `rows`, `classes` and `lanes` as in `_softmax_kernel`; `scores`,
    float32, and `indices`, int64, room for `k` a row; `fault`.
    """
    k = spec.k
    best, sort, place_of = best_of(k, -math.inf, inline), sort_of(inline), place_of_key(inline)
    power, total = power_of(inline), total_of(_power_below(inline), inline)

    def kernel(logits, rows, classes, lanes, scores, indices, fault):
        fault[0] = -1
        for row in range(rows):
            at, to = row * classes, row * k
            found, top = best(logits, at, classes, indices, to), -np.inf
            if found == k:
                sort(indices, to, k)
                top = np.float64(logits[at + place_of(indices[to])])
            if top == -np.inf:
                fault[0] = row
                return 0
            share = 1.0 / total(logits, at, classes, top, lanes)
            for i in range(to, to + k):
                indices[i] = place_of(indices[i])
                logit = np.float64(logits[at + indices[i]])
                scores[i] = np.float32(power(logit - top) * share)
        return 0

    return kernel


def _sigmoid_kernel(spec: SigmoidThreshold, inline: Inline) -> Kernel:
    """The kernel of `SigmoidThreshold`.

    Its arguments: `logits`, `rows` and `classes` as in `_softmax_kernel`; `scores`, float32, and
    `chosen`, uint8, as `logits`; `fault`.
    """
    least, infinity = np.float32(spec.least), np.float32(np.inf)
    sigmoid = sigmoid_of(inline)

    def kernel(logits, rows, classes, scores, chosen, fault):
        fault[0] = -1
        for row in range(rows):
            at, odd = row * classes, 0
            for i in range(at, at + classes):
                odd += 0 if logits[i] < infinity else 1
            if odd:
                fault[0] = row
                return 0
            for i in range(at, at + classes):
                scores[i] = sigmoid(logits[i])
                chosen[i] = np.uint8(1 if logits[i] >= least else 0)
        return 0

    return kernel


def _unit_kernel(inline: Inline) -> Kernel:
    """The kernel of `L2Normalize`.

    Its arguments: `vectors`, float32, `rows` of `size`; `lanes`, `out` and `fault` as in
    `_softmax_kernel`.
    """
    total, root = total_of(_square(inline), inline), root_of(inline)
    floor = L2Normalize.FLOOR

    def kernel(vectors, rows, size, lanes, out, fault):
        fault[0] = -1
        for row in range(rows):
            at = row * size
            squares = total(vectors, at, size, 0.0, lanes)  # float64 cannot overflow here
            if not squares < np.inf:
                fault[0] = row
                return 0
            share = 1.0 / max(root(squares), floor)
            for i in range(at, at + size):
                out[i] = np.float32(np.float64(vectors[i]) * share)
        return 0

    return kernel


def _power_below(inline: Inline) -> Kernel:
    power = power_of(inline)

    @inline
    def power_below(number, top):
        return power(number - top)

    return power_below


def _square(inline: Inline) -> Kernel:
    @inline
    def square(number, _):
        return number * number

    return square

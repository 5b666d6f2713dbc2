"""What a postprocessing spec means, in NumPy: the reference that native code is held to.

What is not a comparison is computed in float64 and rounded to float32 once, so that there is one
right answer. Comparisons are of the model's own float32 values.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from headrace.postprocess.outputs import (
    Floats,
    Integers,
    look_up,
    not_finite,
    read_detections,
    read_matrix,
)
from headrace.postprocess.spec import (
    Detections,
    L2Normalize,
    Postprocessing,
    SigmoidThreshold,
    Softmax,
    TopK,
)
from headrace.tensors import Array

_Doubles = npt.NDArray[np.float64]
_Truths = npt.NDArray[np.bool_]


def postprocess(spec: Postprocessing, outputs: Mapping[str, Array]) -> dict[str, Array]:
    """Turns a model's outputs into the answer.

    Args:
        spec: What the bundle declares; it says what is answered.
        outputs: The model's outputs by name; only those of `spec.reads` are read.

    Returns:
        The tensors of `spec.answers`; BYTES as object arrays of bytes.

    Raises:
        InternalError: `model.nan`: a row holds NaN or infinity, or of a softmax nothing but minus
            infinity; a class at minus infinity has a score of zero. `model.output`: an output is
            missing, or is not what the spec was checked against.
    """
    match spec:
        case Softmax():
            return {spec.result: _softmax(spec.output, read_matrix(spec, outputs))}
        case TopK():
            return _best(spec, read_matrix(spec, outputs))
        case SigmoidThreshold():
            return _choose(spec, read_matrix(spec, outputs))
        case L2Normalize():
            return {spec.result: _unit(spec.output, read_matrix(spec, outputs))}
        case Detections():
            return _detect(spec, *read_detections(spec, outputs))


def _softmax(name: str, logits: Floats) -> Floats:
    peaks = logits.max(axis=1, keepdims=True)
    _refuse(name, ~np.isfinite(peaks[:, 0]))
    # The largest becomes zero, so that nothing overflows upwards; downwards means zero.
    with np.errstate(under="ignore"):
        powers = np.exp(logits.astype(np.float64) - peaks)
        probabilities: Floats = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    return probabilities


def _best(spec: TopK, logits: Floats) -> dict[str, Array]:
    probabilities = _softmax(spec.output, logits)
    indices = np.argsort(-logits, axis=1, kind="stable")[:, : spec.k].astype(np.int64)
    scores = np.take_along_axis(probabilities, indices, axis=1)
    answer: dict[str, Array] = {"scores": scores, "indices": indices}
    if spec.labels:
        answer["labels"] = look_up(spec.labels, indices)
    return answer


def _choose(spec: SigmoidThreshold, logits: Floats) -> dict[str, Array]:
    _refuse(spec.output, ~(logits.max(axis=1) < np.inf))  # the largest may be NaN
    return {"scores": _sigmoid(logits), "chosen": logits >= np.float32(spec.least)}


def _sigmoid(logits: Floats) -> Floats:
    with np.errstate(over="ignore", under="ignore"):
        probabilities = 1.0 / (1.0 + np.exp(-logits.astype(np.float64)))
        rounded: Floats = probabilities.astype(np.float32)
    return rounded


def _unit(name: str, vectors: Floats) -> Floats:
    wide = vectors.astype(np.float64)
    squares = (wide * wide).sum(axis=1, keepdims=True)  # float64 cannot overflow here
    _refuse(name, ~np.isfinite(squares[:, 0]))
    unit: Floats = (wide / np.maximum(np.sqrt(squares), L2Normalize.FLOOR)).astype(np.float32)
    return unit


def _detect(spec: Detections, boxes: Floats, scores: Floats) -> dict[str, Array]:
    corners = boxes if spec.format == "xyxy" else _corners(boxes)
    # Of several faults the first row's is told, and of a row that of its boxes.
    odd_boxes = ~(np.abs(corners).max(axis=(1, 2), initial=0) < np.inf)  # the largest may be NaN
    odd_scores = ~(scores.max(axis=(1, 2), initial=-np.inf) < np.inf)
    _refuse(spec.scores, odd_scores & ~np.logical_or.accumulate(odd_boxes))
    _refuse(spec.boxes, odd_boxes)
    shape = (len(boxes), spec.most)
    found, values = np.zeros((*shape, 4), np.float32), np.zeros(shape, np.float32)
    classes, count = np.full(shape, -1, np.int64), np.zeros(len(boxes), np.int64)
    for row in range(len(boxes)):
        box, of = _kept(spec, corners[row], scores[row])
        kept = slice(len(box))
        chosen = scores[row][box, of]
        found[row, kept], classes[row, kept], count[row] = corners[row][box], of, len(box)
        values[row, kept] = _sigmoid(chosen) if spec.activation == "sigmoid" else chosen
    answer: dict[str, Array] = {"boxes": found, "scores": values, "classes": classes}
    answer["count"] = count
    if spec.labels:
        answer["labels"] = look_up(spec.labels, classes)
    return answer


def _corners(boxes: Floats) -> Floats:
    """From centre and size; in float32."""
    centre, half = boxes[..., :2], boxes[..., 2:] * np.float32(0.5)
    with np.errstate(over="ignore"):
        return np.concatenate([centre - half, centre + half], axis=-1)


def _kept(spec: Detections, corners: Floats, scores: Floats) -> tuple[Integers, Integers]:
    """The box and the class of each detection of a row, best first."""
    flat = scores.reshape(-1)
    enough = np.flatnonzero(flat >= np.float32(spec.least))
    best = enough[np.argsort(-flat[enough], kind="stable")][: spec.candidates]
    box, of = np.divmod(best, scores.shape[1])
    kept: list[int] = []
    alive = np.ones(len(best), np.bool_)
    for place in range(len(best)):
        if len(kept) == spec.most:
            break
        if alive[place]:
            kept.append(place)
            rivals = place + 1 + np.flatnonzero(of[place + 1 :] == of[place])
            shared = _overlap(corners[box[place]], corners[box[rivals]], spec.iou_threshold)
            alive[rivals[shared]] = False
    return box[kept], of[kept]


def _overlap(one: Floats, others: Floats, threshold: float) -> _Truths:
    """Whether a box's intersection over union with each of the others exceeds a threshold.

    Asked without a division: of areas a and b and their intersection i, i / (a + b - i) > t is
    i (1 + t) > t (a + b). Sides are float32, hence areas exact in float64, and whether a processor
    fuses a product with a sum changes nothing.
    """
    low, high = np.maximum(one[:2], others[:, :2]), np.minimum(one[2:], others[:, 2:])
    with np.errstate(over="ignore", invalid="ignore"):
        both = _area(one[2:] - one[:2]) + _area(others[:, 2:] - others[:, :2])
        overlaps: _Truths = _area(high - low) * (1.0 + threshold) > threshold * both
    return overlaps


def _area(sides: Floats) -> _Doubles:
    """Of boxes of some widths and heights, float32, shape (..., 2)."""
    lengths = np.maximum(sides, np.float32(0)).astype(np.float64)
    area: _Doubles = lengths[..., 0] * lengths[..., 1]
    return area


def _refuse(name: str, broken: _Truths) -> None:
    """Raises an error for the first row that is broken.

    Raises:
        InternalError: `model.nan`: there is one.
    """
    if broken.any():
        raise not_finite(name, int(broken.argmax()))

"""What postprocessing reads of a model's outputs, checked and dense in memory.

For the reference and native code alike, as are the errors and the labels here.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from headrace.errors import InternalError
from headrace.postprocess.spec import Detections, L2Normalize, SigmoidThreshold, Softmax, TopK
from headrace.tensors import Array

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


def read_matrix(
    spec: Softmax | TopK | SigmoidThreshold | L2Normalize, outputs: Mapping[str, Array]
) -> Floats:
    """The output that a spec reads: float32, (batch, size), where the size is not zero.

    Raises:
        InternalError: `model.output`: it is missing, or is not what the spec was checked against.
    """
    matrix = _read(outputs, spec.output, f"batch, {spec.axis}", 2)
    if isinstance(spec, TopK):
        _check_classes(spec, spec.output, matrix)
    return matrix


def read_detections(spec: Detections, outputs: Mapping[str, Array]) -> tuple[Floats, Floats]:
    """The boxes, float32, (batch, n, 4), and the scores, (batch, n, classes).

    Raises:
        InternalError: `model.output`: one is missing, or is not what the spec was checked against.
    """
    boxes = _read(outputs, spec.boxes, "batch, n, 4", 3)
    scores = _read(outputs, spec.scores, "batch, n, classes", 3)
    if boxes.shape[2] != 4 or scores.shape[:2] != boxes.shape[:2]:
        raise InternalError(
            "model.output",
            f"the model's outputs '{spec.boxes}' and '{spec.scores}' should be [batch, n, 4] and"
            f" [batch, n, classes], and are {list(boxes.shape)} and {list(scores.shape)}",
        )
    _check_classes(spec, spec.scores, scores)
    return boxes, scores


def not_finite(name: str, row: int) -> InternalError:
    """What is raised for a row that nothing can be said of."""
    return InternalError(
        "model.nan",
        f"the model's output '{name}' holds NaN or infinity in row {row}",
        "the model cannot compute this input; check its range, and the model's precision",
    )


def look_up(labels: tuple[str, ...], indices: Integers) -> Array:
    """The label of each index as UTF-8 bytes, in an object array of the same shape; of -1 none."""
    answer = np.empty(indices.shape, np.object_)
    for place, index in np.ndenumerate(indices):
        answer[place] = labels[index].encode() if index >= 0 else b""
    return answer


def _read(outputs: Mapping[str, Array], name: str, axes: str, rank: int) -> Floats:
    array = outputs.get(name)
    if array is None or array.ndim != rank or array.dtype != np.float32 or array.shape[-1] == 0:
        shown = "nothing" if array is None else f"{array.dtype}{list(array.shape)}"
        raise InternalError(
            "model.output",
            f"the model's output '{name}' should be float32[{axes}], and is {shown}",
        )
    return np.require(array, np.float32, ["C_CONTIGUOUS", "ALIGNED"])


def _check_classes(spec: TopK | Detections, name: str, array: Floats) -> None:
    try:
        spec.check_classes(array.shape[-1])
    except ValueError as error:
        message = f"the model's output '{name}' does not fit: {error}"
        raise InternalError("model.output", message) from error

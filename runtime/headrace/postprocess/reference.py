"""What a postprocessing spec means, in NumPy."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from headrace.errors import InternalError
from headrace.postprocess.spec import Softmax, TopK
from headrace.tensors import Array

Floats = npt.NDArray[np.float32]


def postprocess(spec: Softmax | TopK, outputs: Mapping[str, Array]) -> dict[str, Array]:
    """Turns a model's outputs into the answer.

    Args:
        spec: What the bundle declares.
        outputs: The model's outputs by name; only `spec.output` is read: FP32, (batch, classes).

    Returns:
        For `Softmax`: `spec.result`, float32 (batch, classes), rows summing to one. For `TopK`:
        `scores`, float32, `indices`, int64, and with labels `labels`, object array of UTF-8 bytes,
        each (batch, k), best first; equal scores keep the order of their indices.

    Raises:
        InternalError: `model.nan`: a row holds NaN or infinity, or nothing but minus infinity;
            a class at minus infinity has a probability of zero. `model.output`: the output is
            missing, or is not what the spec was checked against.
    """
    logits = _logits(spec, outputs)
    probabilities = _softmax(spec.output, logits)
    if isinstance(spec, Softmax):
        return {spec.result: probabilities}
    indices = np.argsort(-probabilities, axis=1, kind="stable")[:, : spec.k].astype(np.int64)
    answer: dict[str, Array] = {
        "scores": np.take_along_axis(probabilities, indices, axis=1),
        "indices": indices,
    }
    if spec.labels:
        answer["labels"] = _labels(spec.labels, indices)
    return answer


def _logits(spec: Softmax | TopK, outputs: Mapping[str, Array]) -> Floats:
    array = outputs.get(spec.output)
    if array is None or array.ndim != 2 or array.dtype != np.float32 or array.shape[1] == 0:
        shown = "nothing" if array is None else f"{array.dtype}{list(array.shape)}"
        raise InternalError(
            "model.output",
            f"the model's output '{spec.output}' should be float32[batch, classes], and is {shown}",
        )
    classes = array.shape[1]
    if isinstance(spec, TopK) and (spec.k > classes or len(spec.labels) not in {0, classes}):
        raise InternalError(
            "model.output",
            f"the model's output '{spec.output}' has {classes} classes, which does not fit"
            f" k = {spec.k} and {len(spec.labels)} labels",
        )
    logits: Floats = array.astype(np.float32, copy=False)
    return logits


def _softmax(name: str, logits: Floats) -> Floats:
    peaks = logits.max(axis=1, keepdims=True)
    broken = ~np.isfinite(peaks[:, 0])
    if broken.any():
        raise InternalError(
            "model.nan",
            f"the model's output '{name}' holds NaN or infinity in row {int(broken.argmax())}",
            "the model cannot compute this input; check its range, and the model's precision",
        )
    # The largest becomes zero, so that nothing overflows upwards; downwards means zero.
    with np.errstate(over="ignore", under="ignore"):
        powers = np.exp(logits - peaks)
        probabilities: Floats = powers / powers.sum(axis=1, keepdims=True)
    return probabilities


def _labels(labels: tuple[str, ...], indices: npt.NDArray[np.int64]) -> Array:
    answer = np.empty(indices.shape, np.object_)
    for place, index in np.ndenumerate(indices):
        answer[place] = labels[index].encode()
    return answer

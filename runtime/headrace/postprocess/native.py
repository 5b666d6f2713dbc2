"""Finishes answers with the native library that a bundle carries: nothing is compiled here."""

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from headrace.native import Argument, Function, NativeFunction
from headrace.postprocess.outputs import look_up, not_finite, read_detections, read_matrix
from headrace.postprocess.spec import (
    Detections,
    L2Normalize,
    Postprocessing,
    SigmoidThreshold,
    Softmax,
    TopK,
)
from headrace.tensors import Array

LANES = 16
"""Sums beside each other that kernels keep."""
_Item = TypeVar("_Item", bound=np.generic)
_MATRIX: tuple[Argument, ...] = ("float32*", "int64", "int64")
_ARGUMENTS: dict[str, tuple[Argument, ...]] = {
    "softmax": (*_MATRIX, "float64*", "float32*", "int64*"),
    "topk": (*_MATRIX, "float64*", "float32*", "int64*", "int64*"),
    "sigmoid": (*_MATRIX, "float32*", "uint8*", "int64*"),
    "l2": (*_MATRIX, "float64*", "float32*", "int64*"),
    "detections": (
        *("float32*", "float32*", "int64", "int64", "int64", "int64*"),
        *("float32*", "float32*", "int64*", "int64*", "int64*"),
    ),
}


def postprocess_function(spec: Postprocessing) -> Function:
    """The function of a spec; `headrace_compiler.kernels` tells its arguments."""
    return Function("headrace_postprocess", _ARGUMENTS[spec.kind])


class NativePostprocess:
    """Turns a model's outputs into the answer.

    Args:
        library: The bytes of the shared library; the caller has checked their digest.
        spec: What the library was compiled from.

    Raises:
        BundleError: The bytes are no library with the function.
    """

    def __init__(self, library: bytes, spec: Postprocessing) -> None:
        self._function = NativeFunction(library, postprocess_function(spec))
        self._spec = spec

    def __call__(self, outputs: Mapping[str, Array]) -> dict[str, Array]:
        """As the reference's `postprocess`."""
        match self._spec:
            case Softmax() | L2Normalize() as spec:
                return self._scale(spec, outputs)
            case TopK() as spec:
                return self._best(spec, outputs)
            case SigmoidThreshold() as spec:
                return self._choose(spec, outputs)
            case Detections() as spec:
                return self._detect(spec, outputs)

    def _scale(self, spec: Softmax | L2Normalize, outputs: Mapping[str, Array]) -> dict[str, Array]:
        matrix = read_matrix(spec, outputs)
        made, lanes = _room(matrix.shape, np.float32), _room((LANES,), np.float64)
        self._call(matrix, *matrix.shape, lanes, made)
        return {spec.result: made}

    def _best(self, spec: TopK, outputs: Mapping[str, Array]) -> dict[str, Array]:
        logits = read_matrix(spec, outputs)
        shape, lanes = (len(logits), spec.k), _room((LANES,), np.float64)
        scores, indices = _room(shape, np.float32), _room(shape, np.int64)
        self._call(logits, *logits.shape, lanes, scores, indices)
        answer: dict[str, Array] = {"scores": scores, "indices": indices}
        if spec.labels:
            answer["labels"] = look_up(spec.labels, indices)
        return answer

    def _choose(self, spec: SigmoidThreshold, outputs: Mapping[str, Array]) -> dict[str, Array]:
        logits = read_matrix(spec, outputs)
        scores, chosen = _room(logits.shape, np.float32), _room(logits.shape, np.bool_)
        self._call(logits, *logits.shape, scores, chosen)
        return {"scores": scores, "chosen": chosen}

    def _detect(self, spec: Detections, outputs: Mapping[str, Array]) -> dict[str, Array]:
        boxes, scores = read_detections(spec, outputs)
        shape, heap = (len(boxes), spec.most), _room((spec.candidates,), np.int64)
        found, sure = _room((*shape, 4), np.float32), _room(shape, np.float32)
        classes, count = _room(shape, np.int64), _room((len(boxes),), np.int64)
        self._call(boxes, scores, *scores.shape, heap, found, sure, classes, count)
        answer: dict[str, Array] = {"boxes": found, "scores": sure, "classes": classes}
        answer["count"] = count
        if spec.labels:
            answer["labels"] = look_up(spec.labels, classes)
        return answer

    def _call(self, *arguments: Array | int) -> None:
        """Calls the kernel, which tells of the first fault: its row and output as one number.

        Args:
            arguments: Dense arrays, and their sizes.

        Raises:
            InternalError: `model.nan`: there is one.
        """
        fault, reads = _room((1,), np.int64), self._spec.reads
        numbers = (each if isinstance(each, int) else each.ctypes.data for each in arguments)
        self._function(*numbers, fault.ctypes.data)
        if fault[0] >= 0:
            row, place = divmod(int(fault[0]), len(reads))
            raise not_finite(reads[place], row)


def _room(shape: tuple[int, ...], dtype: type[_Item]) -> npt.NDArray[_Item]:
    """Memory for the kernel to write into."""
    return np.empty(shape, dtype)

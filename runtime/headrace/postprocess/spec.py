"""What postprocessing a bundle declares. Without any, the model's outputs are the answer.

The spec is data. Each kind has `reads`, the names of the model's outputs that it reads, and
`answers`, the tensors that clients get of them. The reference
(`headrace.postprocess.reference`) says what it means, slowly.
"""

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from headrace.tensors import Axis, Datatype, Frozen, TensorSpec

Threshold = Annotated[float, Field(gt=0, lt=1)]


def _text(labels: tuple[str, ...]) -> tuple[str, ...]:
    for label in labels:
        if any("\ud800" <= letter <= "\udfff" for letter in label):
            raise ValueError(f"label {label!r} holds half a character, which UTF-8 cannot say")
    return labels


Labels = Annotated[tuple[str, ...], AfterValidator(_text)]
"""One a class, or none."""


class _OfMatrix(Frozen):
    """What reads one output: FP32, shape (batch, size).

    Attributes:
        output: Its name.
        axis: What its last axis holds.
    """

    axis: ClassVar[str] = "classes"
    output: str

    @property
    def reads(self) -> tuple[str, ...]:
        """The outputs of the model that are read."""
        return (self.output,)

    def _source(self, outputs: Sequence[TensorSpec]) -> tuple[Axis, int]:
        """The axes of what is read."""
        source = _find(outputs, self.output)
        size = source.shape[-1] if len(source.shape) == 2 else ""
        if source.datatype != "FP32" or isinstance(size, str):
            raise ValueError(f"postprocessing reads an FP32 output of shape (batch, {self.axis})")
        return source.shape[0], size


class Softmax(_OfMatrix):
    """The softmax of one output over its last axis, under a name of its own.

    Attributes:
        output: The model output that is read: FP32, shape (batch, classes).
        result: The name of the answer's tensor: FP32, the same shape.
    """

    kind: Literal["softmax"] = "softmax"
    result: str = "probabilities"

    def answers(self, outputs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
        """The tensors that clients get.

        Raises:
            ValueError: The model's outputs do not fit; the message says how.
        """
        return (_answer(self.result, "FP32", *self._source(outputs)),)


class TopK(_OfMatrix):
    """The `k` likeliest classes of a row of logits, best first.

    The answer holds `scores` (FP32, softmax probabilities), `indices` (INT64) and, where labels
    are given, `labels` (BYTES, UTF-8), each of shape (batch, k). Classes are ordered by their
    logits, since different ones may round to one probability; equal logits keep the order of
    their indices, and 0.0 equals -0.0.

    Attributes:
        output: The model output that is read: FP32, shape (batch, classes).
    """

    kind: Literal["topk"] = "topk"
    k: Annotated[int, Field(ge=1, le=10_000)] = 5
    labels: Labels = ()

    def answers(self, outputs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
        """The tensors that clients get.

        Raises:
            ValueError: The model's outputs do not fit; the message says how.
        """
        batch, classes = self._source(outputs)
        self.check_classes(classes)
        named: list[tuple[str, Datatype]] = [("scores", "FP32"), ("indices", "INT64")]
        if self.labels:
            named.append(("labels", "BYTES"))
        return tuple(_answer(name, datatype, batch, self.k) for name, datatype in named)

    def check_classes(self, classes: int) -> None:
        """Checks how many classes a model has.

        Raises:
            ValueError: `k` or the labels do not fit.
        """
        if self.k > classes:
            raise ValueError(f"k = {self.k}, and there are {classes} classes")
        _check_labels(self.labels, classes)


class SigmoidThreshold(_OfMatrix):
    """The sigmoid of each logit, and whether it reaches a threshold: for labels beside each other.

    The answer holds `scores` (FP32) and `chosen` (BOOL), each of shape (batch, classes). What is
    chosen is decided by the logits, since different ones may round to one score.

    Attributes:
        output: The model output that is read: FP32, shape (batch, classes).
        threshold: The least score that is chosen.
    """

    kind: Literal["sigmoid"] = "sigmoid"
    threshold: Threshold = 0.5

    @property
    def least(self) -> float:
        """The least logit that is chosen."""
        return _logit(self.threshold)

    def answers(self, outputs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
        """The tensors that clients get.

        Raises:
            ValueError: The model's outputs do not fit; the message says how.
        """
        axes = self._source(outputs)
        return _answer("scores", "FP32", *axes), _answer("chosen", "BOOL", *axes)


class L2Normalize(_OfMatrix):
    """Each row over its Euclidean norm, under a name of its own: for embeddings.

    Norms below `FLOOR` count as that, as in `torch.nn.functional.normalize`, so that a row of
    zeros stays one.

    Attributes:
        output: The model output that is read: FP32, shape (batch, features).
        result: The name of the answer's tensor: FP32, the same shape.
    """

    FLOOR: ClassVar[float] = 1e-12
    axis: ClassVar[str] = "features"
    kind: Literal["l2"] = "l2"
    result: str = "embedding"

    def answers(self, outputs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
        """The tensors that clients get.

        Raises:
            ValueError: The model's outputs do not fit; the message says how.
        """
        return (_answer(self.result, "FP32", *self._source(outputs)),)


class Detections(Frozen):
    """The best boxes of a row, without those that mostly cover a better one of their class.

    Greedy non-maximum suppression, class by class (P. Felzenszwalb et al., 2010): of all pairs of
    a box and a class whose score reaches the threshold, the `candidates` best are gone through,
    best first, and one is kept unless its box overlaps with one that was kept for its class; the
    first `most` that are kept are answered. Scores are compared as the model gives them, before
    the activation; equal ones keep the order of their boxes, then of their classes.

    Boxes overlap if their intersection over union (P. Jaccard, 1912; M. Everingham et al., 2010)
    exceeds the threshold. Coordinates are continuous: a side is the difference of its corners,
    without the "+ 1" of whole pixels. A box with a side of zero or less has an area of zero and
    overlaps with none.

    The answer holds `boxes` (FP32, (batch, most, 4), the corners x1, y1, x2, y2), `scores` (FP32)
    and `classes` (INT64), each (batch, most), best first, `count` (INT64, (batch,)), and, where
    labels are given, `labels` (BYTES, UTF-8, (batch, most)). Beyond the count, boxes and scores
    are zero, classes -1 and labels empty.

    Attributes:
        boxes: The model output with the boxes: FP32, shape (batch, n, 4).
        scores: The model output with their scores: FP32, shape (batch, n, classes).
        format: Of `boxes`: two corners (x1, y1, x2, y2), or centre and size (x, y, width, height).
        activation: What makes probabilities of `scores`.
        score_threshold: The least score, after the activation, of a detection.
        iou_threshold: How much of their union two boxes of one class may share.
        most: Detections of a row.
        candidates: Pairs of a row that are gone through.
    """

    kind: Literal["detections"] = "detections"
    boxes: str
    scores: str
    format: Literal["xyxy", "cxcywh"] = "xyxy"
    activation: Literal["none", "sigmoid"] = "none"
    score_threshold: Threshold = 0.25
    iou_threshold: Annotated[float, Field(ge=0, le=1)] = 0.5
    most: Annotated[int, Field(ge=1, le=4096)] = 100
    candidates: Annotated[int, Field(ge=1, le=32768)] = 4096
    labels: Labels = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.boxes == self.scores:
            raise ValueError("boxes and scores are two outputs")
        if self.most > self.candidates:
            raise ValueError(f"no {self.most} detections come of {self.candidates} candidates")
        return self

    @property
    def reads(self) -> tuple[str, ...]:
        """The outputs of the model that are read."""
        return self.boxes, self.scores

    @property
    def least(self) -> float:
        """The least score, before the activation, of a detection."""
        sigmoid = self.activation == "sigmoid"
        return _logit(self.score_threshold) if sigmoid else self.score_threshold

    def answers(self, outputs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
        """The tensors that clients get.

        Raises:
            ValueError: The model's outputs do not fit; the message says how.
        """
        boxes, scores = _find(outputs, self.boxes), _find(outputs, self.scores)
        if boxes.datatype != "FP32" or len(boxes.shape) != 3 or boxes.shape[2] != 4:
            raise ValueError("postprocessing reads FP32 boxes of shape (batch, n, 4)")
        classes = scores.shape[-1] if scores.shape[:-1] == boxes.shape[:2] else ""
        if scores.datatype != "FP32" or isinstance(classes, str):
            raise ValueError(
                "postprocessing reads FP32 scores of shape (batch, n, classes), for the boxes' n"
            )
        self.check_classes(classes)
        rows = (boxes.shape[0], self.most)
        made = [
            _answer("boxes", "FP32", *rows, 4),
            _answer("scores", "FP32", *rows),
            _answer("classes", "INT64", *rows),
            _answer("count", "INT64", boxes.shape[0]),
        ]
        if self.labels:
            made.append(_answer("labels", "BYTES", *rows))
        return tuple(made)

    def check_classes(self, classes: int) -> None:
        """Checks how many classes a model has.

        Raises:
            ValueError: The labels do not fit.
        """
        _check_labels(self.labels, classes)


Postprocessing = Annotated[
    Softmax | TopK | SigmoidThreshold | L2Normalize | Detections, Field(discriminator="kind")
]


def _find(outputs: Sequence[TensorSpec], name: str) -> TensorSpec:
    found = next((spec for spec in outputs if spec.name == name), None)
    if found is None:
        raise ValueError(f"postprocessing reads '{name}', which is no output")
    return found


def _answer(name: str, datatype: Datatype, *shape: Axis) -> TensorSpec:
    try:
        return TensorSpec(name=name, datatype=datatype, shape=shape)
    except ValidationError as error:
        raise ValueError(f"{name!r} is no name for a tensor") from error


def _check_labels(labels: tuple[str, ...], classes: int) -> None:
    if len(labels) not in {0, classes}:
        raise ValueError(f"{len(labels)} labels for {classes} classes")


def _logit(probability: float) -> float:
    """What the sigmoid takes to a probability."""
    return math.log(probability / (1 - probability))

"""What a postprocessing spec says of itself: what it reads, what it answers, what it refuses."""

import json
import re

import pytest
from pydantic import TypeAdapter, ValidationError

from headrace.postprocess.spec import (
    Detections,
    L2Normalize,
    Postprocessing,
    SigmoidThreshold,
    Softmax,
    TopK,
)
from headrace.tensors import Datatype, TensorSpec

LABELS = ("a", "b", "c")
SPECS: tuple[Postprocessing, ...] = (
    Softmax(output="y"),
    TopK(output="y", k=2),
    SigmoidThreshold(output="y"),
    L2Normalize(output="y"),
    Detections(boxes="y", scores="s"),
)


def tensor(name: str, *shape: int | str, datatype: Datatype = "FP32") -> TensorSpec:
    """A declared tensor."""
    return TensorSpec(name=name, datatype=datatype, shape=shape)


LOGITS = tensor("y", "batch", 3)
BOXES, SCORES = tensor("y", "batch", "anchors", 4), tensor("s", "batch", "anchors", 3)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.kind)
def test_a_spec_comes_back_from_json(spec: Postprocessing) -> None:
    """Its kind says which one it is."""
    adapter: TypeAdapter[Postprocessing] = TypeAdapter(Postprocessing)
    assert adapter.validate_json(adapter.dump_json(spec)) == spec
    assert json.loads(adapter.dump_json(spec))["kind"] == spec.kind


@pytest.mark.parametrize(
    ("spec", "answers"),
    [
        (Softmax(output="y", result="p"), (tensor("p", "batch", 3),)),
        (
            TopK(output="y", k=2, labels=LABELS),
            (
                tensor("scores", "batch", 2),
                tensor("indices", "batch", 2, datatype="INT64"),
                tensor("labels", "batch", 2, datatype="BYTES"),
            ),
        ),
        (
            SigmoidThreshold(output="y"),
            (tensor("scores", "batch", 3), tensor("chosen", "batch", 3, datatype="BOOL")),
        ),
        (L2Normalize(output="y"), (tensor("embedding", "batch", 3),)),
    ],
)
def test_answers_follow_from_the_output(
    spec: Postprocessing, answers: tuple[TensorSpec, ...]
) -> None:
    """Names, datatypes and shapes, in order."""
    assert spec.reads == ("y",)
    assert spec.answers((tensor("x", 1), LOGITS)) == answers


def test_answers_of_detections_follow_from_both_outputs() -> None:
    """Boxes, scores, classes and their count; labels where they are given."""
    spec = Detections(boxes="y", scores="s", most=7, labels=LABELS)
    assert spec.reads == ("y", "s")
    answers = spec.answers((SCORES, BOXES))
    assert answers == (
        tensor("boxes", "batch", 7, 4),
        tensor("scores", "batch", 7),
        tensor("classes", "batch", 7, datatype="INT64"),
        tensor("count", "batch", datatype="INT64"),
        tensor("labels", "batch", 7, datatype="BYTES"),
    )
    assert Detections(boxes="y", scores="s", most=7).answers((BOXES, SCORES)) == answers[:-1]


@pytest.mark.parametrize(
    ("spec", "outputs", "words"),
    [
        (Softmax(output="z"), (LOGITS,), "reads 'z', which is no output"),
        (Softmax(output="y", result="a b"), (LOGITS,), "'a b' is no name"),
        (L2Normalize(output="y", result=""), (LOGITS,), "'' is no name"),
        (Softmax(output="y"), (tensor("y", "batch", 3, datatype="FP16"),), "(batch, classes)"),
        (L2Normalize(output="y"), (tensor("y", "batch", "n"),), "(batch, features)"),
        (SigmoidThreshold(output="y"), (tensor("y", "batch", 3, 1),), "(batch, classes)"),
        (TopK(output="y", k=4), (LOGITS,), "k = 4, and there are 3 classes"),
        (TopK(output="y", k=1, labels=("a",)), (LOGITS,), "1 labels for 3 classes"),
        (SPECS[4], (BOXES,), "reads 's', which is no output"),
        (SPECS[4], (SCORES,), "reads 'y', which is no output"),
        (SPECS[4], (tensor("y", "batch", 9, 5), SCORES), "boxes of shape (batch, n, 4)"),
        (SPECS[4], (tensor("y", "batch", 4), SCORES), "boxes of shape (batch, n, 4)"),
        (SPECS[4], (BOXES, tensor("s", "batch", 9, 3)), "for the boxes' n"),
        (SPECS[4], (BOXES, tensor("s", "batch", "anchors", "c")), "scores of shape"),
        (SPECS[4], (BOXES, tensor("s", "batch", "anchors")), "scores of shape"),
        (
            Detections(boxes="y", scores="s", labels=("a",)),
            (BOXES, SCORES),
            "1 labels for 3 classes",
        ),
    ],
)
def test_outputs_that_do_not_fit_are_told(
    spec: Postprocessing, outputs: tuple[TensorSpec, ...], words: str
) -> None:
    """A name, datatype, shape or number of classes other than the spec needs."""
    with pytest.raises(ValueError, match=re.escape(words)):
        spec.answers(outputs)


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "sigmoid", "output": "y", "threshold": 0.0},
        {"kind": "sigmoid", "output": "y", "threshold": 1.0},
        {"kind": "sigmoid", "output": "y", "threshold": float("nan")},
        {"kind": "topk", "output": "y", "k": 0},
        {"kind": "topk", "output": "y", "labels": ["fine", "\ud800"]},
        {"kind": "detections", "boxes": "y", "scores": "y"},
        {"kind": "detections", "boxes": "y", "scores": "s", "most": 9, "candidates": 8},
        {"kind": "detections", "boxes": "y", "scores": "s", "candidates": 10**9},
        {"kind": "detections", "boxes": "y", "scores": "s", "iou_threshold": 1.5},
        {"kind": "detections", "boxes": "y", "scores": "s", "labels": ["\ud800"]},
        {"kind": "l2", "output": "y", "axis": "rows"},
        {"kind": "argmax", "output": "y"},
    ],
)
def test_a_spec_that_means_nothing_is_refused(wrong: dict[str, object]) -> None:
    """Thresholds, sizes and labels beyond what they mean, unknown kinds and keys."""
    adapter: TypeAdapter[Postprocessing] = TypeAdapter(Postprocessing)
    with pytest.raises(ValidationError):
        adapter.validate_python(wrong, strict=False)

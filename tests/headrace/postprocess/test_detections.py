"""The NumPy reference of detections: non-maximum suppression as everybody defines it."""

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from headrace.errors import InternalError
from headrace.postprocess.reference import postprocess
from headrace.postprocess.spec import Detections
from headrace.tensors import Array

Floats = npt.NDArray[np.float32]
Box = tuple[float, ...]
SPEC = Detections(boxes="b", scores="s")


def run(spec: Detections, boxes: Array, scores: Array) -> dict[str, Array]:
    """The answer to a batch."""
    return postprocess(spec, {spec.boxes: boxes, spec.scores: scores, "other": np.zeros(2)})


def one_row(spec: Detections, boxes: list[Box], scores: list[list[float]]) -> dict[str, Array]:
    """The answer to one row, without the batch axis."""
    answer = run(spec, np.array([boxes], np.float32), np.array([scores], np.float32))
    return {name: array[0] for name, array in answer.items()}


def iou(one: Box, other: Box) -> float:
    """Intersection over union, by the book."""

    def area(x1: float, y1: float, x2: float, y2: float) -> float:
        return max(x2 - x1, 0.0) * max(y2 - y1, 0.0)

    low = [max(a, b) for a, b in zip(one[:2], other[:2], strict=True)]
    high = [min(a, b) for a, b in zip(one[2:], other[2:], strict=True)]
    shared = area(*low, *high)
    union = area(*one) + area(*other) - shared
    return shared / union if union else 0.0


def naive(
    spec: Detections, boxes: list[Box], scores: list[list[float]]
) -> list[tuple[float, int, int]]:
    """Score, box and class of each detection: each class by itself, then the best of all."""
    pairs = [
        (score, box, label)
        for box, row in enumerate(scores)
        for label, score in enumerate(row)
        if score >= spec.score_threshold
    ]
    pairs.sort(key=lambda pair: (-pair[0], *pair[1:]))
    kept = []
    for label in range(len(scores[0]) if scores else 0):
        mine: list[tuple[float, int, int]] = []
        for pair in pairs[: spec.candidates]:
            overlaps = (iou(boxes[pair[1]], boxes[other[1]]) > spec.iou_threshold for other in mine)
            if pair[2] == label and not any(overlaps):
                mine.append(pair)
        kept += mine
    return sorted(kept, key=lambda pair: (-pair[0], *pair[1:]))[: spec.most]


whole = st.integers(-2, 4).map(float)
rows = st.integers(1, 3).flatmap(
    lambda classes: st.lists(
        st.tuples(
            st.tuples(whole, whole, whole, whole),
            st.lists(st.integers(0, 8).map(lambda n: n / 8), min_size=classes, max_size=classes),
        ),
        max_size=12,
    )
)


@given(
    rows,
    st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]),
    st.integers(1, 6),
    st.integers(6, 40),
    st.sampled_from([1e-6, 0.25, 0.875]),
)
def test_detections_are_those_of_the_plain_definition(
    drawn: list[tuple[Box, list[float]]], overlap: float, most: int, candidates: int, least: float
) -> None:
    """Ties, boxes without a size, equal boxes, and thresholds that are met exactly."""
    spec = Detections(
        boxes="b",
        scores="s",
        score_threshold=least,
        iou_threshold=overlap,
        most=most,
        candidates=candidates,
    )
    boxes, scores = [box for box, _ in drawn], [row for _, row in drawn]
    wanted = naive(spec, boxes, scores)
    answer = run(
        spec,
        np.array([boxes], np.float32).reshape(1, -1, 4),
        np.array([scores], np.float32).reshape(1, len(boxes), -1 if boxes else 2),
    )
    count = len(wanted)
    assert answer["count"].tolist() == [count]
    assert answer["scores"][0].tolist() == [p[0] for p in wanted] + [0.0] * (most - count)
    assert answer["classes"][0].tolist() == [p[2] for p in wanted] + [-1] * (most - count)
    assert answer["boxes"][0, :count].tolist() == [[*boxes[p[1]]] for p in wanted]
    assert not answer["boxes"][0, count:].any()
    assert {name: array.dtype.name for name, array in answer.items()} == {
        "boxes": "float32",
        "scores": "float32",
        "classes": "int64",
        "count": "int64",
    }


def ort_kept(boxes: Floats, scores: Floats, spec: Detections) -> set[tuple[int, int]]:
    """Box and class of what ONNX's operator keeps of one row."""
    names = ("boxes", "scores", "most", "iou", "least")
    kinds = (TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.INT64, TensorProto.FLOAT)
    graph = helper.make_graph(
        [
            helper.make_node(
                "NonMaxSuppression",
                names,
                ["kept"],
                center_point_box=int(spec.format == "cxcywh"),
            )
        ],
        "nms",
        [
            helper.make_tensor_value_info(name, kind, None)
            for name, kind in zip(names, (*kinds, TensorProto.FLOAT), strict=True)
        ],
        [helper.make_tensor_value_info("kept", TensorProto.INT64, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (kept,) = session.run(
        None,
        {
            "boxes": boxes[np.newaxis],
            "scores": np.ascontiguousarray(scores.T)[np.newaxis],
            "most": np.array([len(boxes)]),
            "iou": np.array([spec.iou_threshold], np.float32),
            "least": np.array([spec.score_threshold], np.float32),
        },
    )
    return {(int(box), int(label)) for _, label, box in np.asarray(kept)}


@pytest.mark.parametrize("form", ["xyxy", "cxcywh"])
@pytest.mark.parametrize("seed", range(5))
def test_onnxs_operator_keeps_the_same(form: str, seed: int) -> None:
    """NonMaxSuppression of ONNX Runtime, on boxes of both forms, class by class."""
    spec = Detections.model_validate(
        {"boxes": "b", "scores": "s", "format": form, "most": 4096, "iou_threshold": 0.4}
    )
    random = np.random.default_rng(seed)
    middles, sizes = random.uniform(0, 100, (300, 2)), random.uniform(5, 60, (300, 2))
    parts = (middles, sizes) if form == "cxcywh" else (middles - sizes / 2, middles + sizes / 2)
    boxes = np.concatenate(parts, axis=1).astype(np.float32)
    scores = random.uniform(0, 1, (300, 3)).astype(np.float32)
    answer = run(spec, boxes[np.newaxis], scores[np.newaxis])
    kept = ort_kept(boxes, scores, spec)
    count = int(answer["count"][0])
    assert 20 < count == len(kept)
    wanted = sorted((-scores[box, label], label) for box, label in kept)
    assert answer["scores"][0, :count].tolist() == [-score for score, _ in wanted]
    assert answer["classes"][0, :count].tolist() == [label for _, label in wanted]


def test_the_activation_comes_after_the_choice() -> None:
    """Logits are ordered and compared with the threshold's logit; what is kept gets its sigmoid."""
    spec = Detections(
        boxes="b", scores="s", activation="sigmoid", score_threshold=0.5, labels=("cat", "Käse")
    )
    answer = one_row(
        spec,
        [(0, 0, 1, 1), (5, 5, 6, 6), (8, 8, 9, 9)],
        [[40.0, -1e-9], [41.0, -np.inf], [-0.0, -1.0]],
    )
    assert answer["count"] == 3
    assert answer["scores"][:4].tolist() == [1.0, 1.0, 0.5, 0.0]
    assert answer["boxes"][:, 0][:4].tolist() == [5.0, 0.0, 8.0, 0.0]
    assert answer["labels"][:4].tolist() == [b"cat", b"cat", b"cat", b""]


def test_centres_and_sizes_become_corners() -> None:
    """A box of centre (3, 5), width 4 and height 2."""
    spec = SPEC.model_copy(update={"format": "cxcywh"})
    assert one_row(spec, [(3, 5, 4, 2)], [[1.0]])["boxes"][0].tolist() == [1, 4, 5, 6]


def test_boxes_of_other_classes_suppress_nothing() -> None:
    """The same box is two things at once, if the model says so; and never the same thing twice."""
    answer = one_row(SPEC, [(0, 0, 2, 2), (0, 0, 2, 2)], [[0.9, 0.5], [0.8, 0.7]])
    assert answer["count"] == 2
    assert answer["classes"][:2].tolist() == [0, 1]
    assert answer["scores"][:2].tolist() == [np.float32(0.9), np.float32(0.7)]


def test_what_is_suppressed_suppresses_nothing() -> None:
    """Of three boxes in a line the outer two stay."""
    answer = one_row(SPEC, [(0, 0, 6, 1), (1, 0, 7, 1), (2, 0, 8, 1)], [[0.9], [0.8], [0.7]])
    assert answer["boxes"][:2, 0].tolist() == [0, 2]
    assert answer["count"] == 2


def test_candidates_bound_the_work() -> None:
    """What is no candidate is not answered, though fewer than the most are kept."""
    spec = Detections(boxes="b", scores="s", most=2, candidates=2)
    answer = one_row(spec, [(0, 0, 2, 2), (0, 0, 2, 2), (5, 5, 6, 6)], [[0.9], [0.8], [0.7]])
    assert answer["count"] == 1


def test_rows_without_boxes_or_detections_are_empty() -> None:
    """No rows, no boxes, and no score that reaches the threshold."""
    none = run(SPEC, np.zeros((0, 7, 4), np.float32), np.zeros((0, 7, 2), np.float32))
    assert none["boxes"].shape == (0, 100, 4)
    for n in (0, 7):
        answer = run(SPEC, np.zeros((2, n, 4), np.float32), np.zeros((2, n, 2), np.float32))
        assert answer["count"].tolist() == [0, 0]
        assert (answer["classes"] == -1).all()


@pytest.mark.parametrize(
    ("odd_boxes", "odd_scores", "name", "row"),
    [
        ([1], [], "b", 1),
        ([], [2], "s", 2),
        ([1], [1], "b", 1),
        ([2], [1], "s", 1),
        ([0], [1], "b", 0),
    ],
)
@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_the_first_row_that_says_nothing_is_told(
    odd_boxes: list[int], odd_scores: list[int], name: str, row: int, odd: float
) -> None:
    """NaN and infinity, in a box or a score; and of one row in its boxes first."""
    boxes, scores = np.zeros((3, 5, 4), np.float32), np.zeros((3, 5, 2), np.float32)
    boxes[odd_boxes, 3, 1] = -odd
    scores[odd_scores, 2, 1] = odd
    with pytest.raises(
        InternalError, match=f"'{name}' holds NaN or infinity in row {row}"
    ) as caught:
        run(SPEC, boxes, scores)
    assert caught.value.code == "model.nan"


def test_corners_beyond_float32_are_infinite() -> None:
    """A box whose corner overflows is refused like one that is infinite."""
    spec = SPEC.model_copy(update={"format": "cxcywh"})
    with pytest.raises(InternalError, match="'b' holds NaN or infinity in row 0"):
        one_row(spec, [(3e38, 0, 3e38, 0)], [[0.0]])


@pytest.mark.parametrize(
    ("boxes", "scores"),
    [
        (np.zeros((1, 3, 5), np.float32), np.zeros((1, 3, 2), np.float32)),
        (np.zeros((1, 3, 4), np.float64), np.zeros((1, 3, 2), np.float32)),
        (np.zeros((1, 3, 4), np.float32), np.zeros((1, 3), np.float32)),
        (np.zeros((1, 3, 4), np.float32), np.zeros((1, 4, 2), np.float32)),
        (np.zeros((2, 3, 4), np.float32), np.zeros((1, 3, 2), np.float32)),
        (np.zeros((1, 3, 4), np.float32), np.zeros((1, 3, 0), np.float32)),
        (np.zeros((1, 3, 4), np.float32), np.zeros((1, 3, 3), np.float32)),
    ],
)
def test_other_outputs_than_declared_are_an_error(boxes: Array, scores: Array) -> None:
    """A dtype, a shape or a number of classes that the spec does not fit is the model's fault."""
    with pytest.raises(InternalError) as caught:
        run(SPEC.model_copy(update={"labels": ("a", "b")}), boxes, scores)
    assert caught.value.code == "model.output"

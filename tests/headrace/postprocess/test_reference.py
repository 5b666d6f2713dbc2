"""The NumPy reference of postprocessing by rows."""

import numpy as np
import numpy.typing as npt
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pydantic import ValidationError

from headrace.errors import InternalError
from headrace.postprocess.reference import postprocess
from headrace.postprocess.spec import (
    L2Normalize,
    Postprocessing,
    SigmoidThreshold,
    Softmax,
    TopK,
)
from headrace.tensors import Array

LARGEST = float(np.finfo(np.float32).max)
TINY = 3e-45
"""Two steps of the least float32: what is smaller than normal numbers has few digits."""
Floats = npt.NDArray[np.float32]
logits_arrays = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=2, max_side=12),
    elements=st.one_of(
        st.floats(-LARGEST, LARGEST, width=32),
        st.sampled_from([0.0, -0.0, 1.0, LARGEST, -LARGEST]),
    ),
)


def close(found: Array, wanted: npt.NDArray[np.float64], relative: float) -> bool:
    """Whether all numbers agree to a share of their value."""
    return bool(
        (np.abs(found.astype(np.float64) - wanted) <= relative * np.abs(wanted) + TINY).all()
    )


def _run(spec: Postprocessing, logits: Array) -> dict[str, Array]:
    return postprocess(spec, {"logits": logits, "other": np.zeros(3)})


@given(logits_arrays)
def test_softmax_is_the_softmax(logits: Floats) -> None:
    """Every finite row becomes float32 probabilities that SciPy's float64 softmax agrees with."""
    result = _run(Softmax(output="logits", result="p"), logits)
    assert list(result) == ["p"]
    assert result["p"].dtype == np.float32
    wanted = scipy.special.softmax(logits.astype(np.float64), axis=1)
    assert close(result["p"], wanted, 1e-7)


@given(logits_arrays, st.data())
def test_topk_takes_the_best_logits_in_order(logits: Floats, data: st.DataObject) -> None:
    """Logits fall, equal ones keep the order of their indices, and nothing better is left out."""
    classes = logits.shape[1]
    k = data.draw(st.integers(1, classes))
    labels = tuple(f"Käse {number}" for number in range(classes))
    everything = _run(Softmax(output="logits"), logits)["probabilities"]
    result = _run(TopK(output="logits", k=k, labels=labels), logits)
    assert {name: array.dtype for name, array in result.items()} == {
        "scores": np.dtype(np.float32),
        "indices": np.dtype(np.int64),
        "labels": np.dtype(object),
    }
    for row, numbers in enumerate(logits.tolist()):
        best = [index for _, index in sorted((-n, index) for index, n in enumerate(numbers))][:k]
        assert result["indices"][row].tolist() == best
        assert result["scores"][row].tolist() == everything[row, best].tolist()
        assert result["labels"][row].tolist() == [labels[index].encode() for index in best]


def test_classes_of_one_rounded_probability_are_ordered_by_their_logits() -> None:
    """Probabilities underflow, logits do not; and zero has no sign."""
    result = _run(TopK(output="logits", k=5), np.array([[-2e3, -0.0, 0, -1e3, 9e3]], np.float32))
    assert result["scores"].tolist() == [[1.0, 0.0, 0.0, 0.0, 0.0]]
    assert result["indices"].tolist() == [[4, 1, 2, 3, 0]]


def test_topk_without_labels_answers_without_labels() -> None:
    """A spec with no labels gives scores and indices alone."""
    result = _run(TopK(output="logits", k=2), np.array([[1, 3, 3]], np.float32))
    assert list(result) == ["scores", "indices"]
    assert result["indices"].tolist() == [[1, 2]]


@given(logits_arrays, st.sampled_from([0.5, 0.1, 0.9, 1e-6]))
def test_sigmoid_is_the_sigmoid(logits: Floats, threshold: float) -> None:
    """SciPy's in float64 agrees, and so does what reaches the threshold."""
    result = _run(SigmoidThreshold(output="logits", threshold=threshold), logits)
    assert list(result) == ["scores", "chosen"]
    assert [array.dtype.name for array in result.values()] == ["float32", "bool"]
    wanted = scipy.special.expit(logits.astype(np.float64))
    assert close(result["scores"], wanted, 1e-7)
    clear = np.abs(wanted - threshold) > 1e-6 * threshold
    np.testing.assert_array_equal(result["chosen"][clear], (wanted >= threshold)[clear])


def test_the_threshold_itself_is_chosen() -> None:
    """By the logit: what only rounds to the threshold is not."""
    logits = np.array([[0.0, -0.0, -1e-9, 1e-9, -np.inf]], np.float32)
    result = _run(SigmoidThreshold(output="logits"), logits)
    assert result["scores"].tolist() == [[0.5, 0.5, 0.5, 0.5, 0.0]]
    assert result["chosen"].tolist() == [[True, True, False, True, False]]


@given(logits_arrays)
def test_vectors_become_unit_vectors(vectors: Floats) -> None:
    """Rows have a norm of one and their direction; very short ones are scaled by the floor."""
    unit = _run(L2Normalize(output="logits", result="e"), vectors)["e"]
    assert unit.dtype == np.float32
    wide = vectors.astype(np.float64)
    norms = np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)
    assert close(unit, wide / norms, 1e-7)


def test_a_row_of_zeros_stays_one() -> None:
    """There is no direction to keep, and nothing to divide by."""
    unit = _run(L2Normalize(output="logits"), np.array([[0, -0.0], [3, 4]], np.float32))
    np.testing.assert_array_equal(unit["embedding"], np.array([[0, 0], [0.6, 0.8]], np.float32))


@pytest.mark.parametrize(
    "spec",
    [
        Softmax(output="logits"),
        TopK(output="logits", k=2, labels=("a", "b", "c")),
        SigmoidThreshold(output="logits"),
        L2Normalize(output="logits"),
    ],
    ids=lambda spec: spec.kind,
)
def test_an_empty_batch_gives_an_empty_answer(spec: Postprocessing) -> None:
    """No rows in, no rows out, with the shapes that the manifest declares."""
    result = _run(spec, np.empty((0, 3), np.float32))
    assert {array.shape for array in result.values()} == {(0, 2 if spec.kind == "topk" else 3)}


def test_a_masked_class_has_no_probability() -> None:
    """Minus infinity is a legitimate way to rule a class out."""
    logits = np.array([[0.0, -np.inf]], np.float32)
    result = _run(Softmax(output="logits"), logits)
    assert result["probabilities"].tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize(
    ("spec", "row"),
    [
        (spec, row)
        for spec in (
            Softmax(output="logits"),
            TopK(output="logits", k=1),
            SigmoidThreshold(output="logits"),
            L2Normalize(output="logits"),
        )
        for row in ([1.0, np.nan], [np.inf, 1.0], [-np.inf, -np.inf])
        if not (spec.kind == "sigmoid" and row[0] < 0)  # both classes are ruled out
    ],
)
def test_a_row_that_says_nothing_is_an_error(spec: Postprocessing, row: list[float]) -> None:
    """NaN, infinity and all-masked rows are refused by number, never answered."""
    with pytest.raises(InternalError, match="in row 1") as caught:
        _run(spec, np.array([[1.0, 2.0], row], np.float32))
    assert caught.value.code == "model.nan"


@pytest.mark.parametrize(
    "logits",
    [
        np.zeros((2, 3), np.float64),
        np.zeros(3, np.float32),
        np.zeros((2, 0), np.float32),
        np.zeros((1, 4), np.float32),
    ],
)
def test_another_output_than_declared_is_an_error(logits: Array) -> None:
    """A dtype, rank or number of classes that the spec does not fit is the model's fault."""
    with pytest.raises(InternalError) as caught:
        _run(TopK(output="logits", k=3, labels=("a", "b", "c")), logits)
    assert caught.value.code == "model.output"


def test_a_missing_output_is_an_error() -> None:
    """Outputs without the one that is read are refused, and not with a KeyError."""
    with pytest.raises(InternalError, match="is nothing"):
        postprocess(Softmax(output="logits"), {})


def test_labels_must_be_text() -> None:
    """A label that UTF-8 cannot encode is refused with the spec, not with an answer."""
    with pytest.raises(ValidationError, match="half a character"):
        TopK(output="logits", labels=("fine", "\ud800"))

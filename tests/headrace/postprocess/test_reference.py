"""The NumPy reference of postprocessing."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pydantic import ValidationError

from headrace.errors import InternalError
from headrace.postprocess.reference import postprocess
from headrace.postprocess.spec import Softmax, TopK
from headrace.tensors import Array

LARGEST = float(np.finfo(np.float32).max)
Floats = npt.NDArray[np.float32]
logits_arrays = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=2, max_side=12),
    elements=st.one_of(
        st.floats(-LARGEST, LARGEST, width=32),
        st.sampled_from([0.0, -0.0, 1.0, LARGEST, -LARGEST]),
    ),
)


def _run(spec: Softmax | TopK, logits: Array) -> dict[str, Array]:
    return postprocess(spec, {"logits": logits, "other": np.zeros(3)})


@given(logits_arrays)
def test_softmax_is_the_softmax(logits: Floats) -> None:
    """Every finite row becomes float32 probabilities that a float64 softmax agrees with."""
    result = _run(Softmax(output="logits", result="p"), logits)
    wide = logits.astype(np.float64)
    powers = np.exp(wide - wide.max(axis=1, keepdims=True))
    assert list(result) == ["p"]
    assert result["p"].dtype == np.float32
    error = np.abs(result["p"].astype(np.float64) - powers / powers.sum(axis=1, keepdims=True))
    assert error.max() < 1e-6


@given(logits_arrays, st.data())
def test_topk_takes_the_best_scores_in_order(logits: Floats, data: st.DataObject) -> None:
    """Scores fall, equal scores keep the order of their indices, and nothing better is left out."""
    classes = logits.shape[1]
    k = data.draw(st.integers(1, classes))
    labels = tuple(f"Käse {number}" for number in range(classes))
    everything = _run(Softmax(output="logits"), logits)["probabilities"].astype(np.float32)
    result = _run(TopK(output="logits", k=k, labels=labels), logits)
    assert {name: array.dtype for name, array in result.items()} == {
        "scores": np.dtype(np.float32),
        "indices": np.dtype(np.int64),
        "labels": np.dtype(object),
    }
    for row, probabilities in enumerate(everything):
        best = np.lexsort((np.arange(classes), -probabilities))[:k].tolist()
        assert result["indices"][row].tolist() == best
        assert result["scores"][row].tolist() == probabilities[best].tolist()
        assert result["labels"][row].tolist() == [labels[index].encode() for index in best]


def test_topk_without_labels_answers_without_labels() -> None:
    """A spec with no labels gives scores and indices alone."""
    result = _run(TopK(output="logits", k=2), np.array([[1, 3, 3]], np.float32))
    assert list(result) == ["scores", "indices"]
    assert result["indices"].tolist() == [[1, 2]]


def test_an_empty_batch_gives_an_empty_answer() -> None:
    """No rows in, no rows out, with the shapes that the manifest declares."""
    empty = np.empty((0, 3), np.float32)
    result = _run(TopK(output="logits", k=2, labels=("a", "b", "c")), empty)
    assert {array.shape for array in result.values()} == {(0, 2)}
    assert _run(Softmax(output="logits"), empty)["probabilities"].shape == (0, 3)


def test_a_masked_class_has_no_probability() -> None:
    """Minus infinity is a legitimate way to rule a class out."""
    logits = np.array([[0.0, -np.inf]], np.float32)
    result = _run(Softmax(output="logits"), logits)
    assert result["probabilities"].tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("spec", [Softmax(output="logits"), TopK(output="logits", k=1)])
@pytest.mark.parametrize("row", [[1.0, np.nan], [np.inf, 1.0], [-np.inf, -np.inf]])
def test_a_row_without_probabilities_is_an_error(spec: Softmax | TopK, row: list[float]) -> None:
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

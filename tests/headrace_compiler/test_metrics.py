"""How well answers fit their labels, and how sure that is."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import UsageError
from headrace.tensors import Array
from headrace_compiler import Recipe, TensorSpec, TopK
from headrace_compiler.metrics import Metric, Rows, accuracy, metric_of

SCORES = np.array([[0.1, 0.9, 0.0], [0.8, 0.1, 0.1]], np.float32)
FP32 = {"y": np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], np.float32)}


def metric(kind: object, labels: tuple[str, ...] = ()) -> Metric:
    """The metric of a recipe that names it."""
    declared = Recipe.model_validate(
        {
            "name": "tiny",
            "version": "1",
            "model": lambda: None,
            "inputs": (TensorSpec(name="x", datatype="FP32", shape=("batch", 3)),),
            "samples": list,
            "metric": kind,
            "postprocessing": TopK(output="y", k=1, labels=labels) if labels else None,
        }
    )
    return metric_of(declared, ("y",), Path())


def rows(kind: object, label: object, found: Array = SCORES, **more: tuple[str, ...]) -> Rows:
    """What a metric keeps of one sample."""
    return metric(kind, **more).of({"y": found}, label, FP32)


def test_top1_counts_the_rows_whose_largest_score_is_the_label() -> None:
    """By number, by name, and against what fp32 answers where there is no label."""
    assert rows("top1", np.array([1, 1]))[:, 0].tolist() == [1, 0]
    assert rows("top1", None)[:, 0].tolist() == [1, 0]
    names = ("ash", "box", "cat")
    assert rows("top1", "box", SCORES[:1], labels=names)[:, 0].tolist() == [1]
    assert rows("top1", 0, SCORES[1:])[:, 0].tolist() == [1]


def test_f1_is_the_mean_over_classes() -> None:
    """As scikit-learn's macro average: a rare class counts as much as a frequent one."""
    made = metric("f1")
    answers, labels = [0, 0, 0, 1, 1], [0, 0, 1, 1, 1]
    pairs = np.stack([answers, labels], axis=1).astype(np.float64)
    assert made.total(pairs) == pytest.approx((2 * 2 / 5 + 2 * 2 / 5) / 2)
    scores = np.eye(3, dtype=np.float32)[answers]
    assert np.array_equal(rows("f1", np.array(labels), scores), pairs)


def test_cosine_and_mean_error_compare_numbers() -> None:
    """Row by row, over all of a row's numbers, with the label or with fp32's answer."""
    assert rows("cosine", None)[0, 0] == pytest.approx(0.9 / np.linalg.norm(SCORES[0]))
    assert rows("cosine", SCORES)[:, 0] == pytest.approx([1, 1])
    zero = np.zeros((1, 3), np.float32)
    assert rows("cosine", zero, zero)[0, 0] == 1
    assert rows("cosine", SCORES[:1], zero)[0, 0] == 0
    assert rows("mean_error", None)[:, 0] == pytest.approx([0.2 / 3, 1.8 / 3])
    assert not metric("mean_error").higher


def score(outputs: Mapping[str, Array], label: object) -> float:
    """A metric of one's own."""
    reference = label["y"] if isinstance(label, dict) else np.asarray(label)
    return -float(np.abs(outputs["y"] - reference).max())


def fails(_: Mapping[str, Array], __: object) -> float:
    """A metric that raises."""
    raise KeyError("no such output")


def blank(_: Mapping[str, Array], __: object) -> float:
    """A metric that gives no number."""
    return float("nan")


def test_a_function_of_the_recipe_is_a_metric() -> None:
    """It gets all outputs and the label, or fp32's outputs where that is None."""
    assert rows(score, SCORES).tolist() == [[0.0]]
    assert rows(score, None).tolist() == [[pytest.approx(-0.9)]]
    assert metric(score).name == "score"
    assert metric(score).digest != metric(fails).digest


@pytest.mark.parametrize(
    ("kind", "label", "code"),
    [
        (fails, 0, "metric.failed"),
        (blank, 0, "metric.not-finite"),
        ("top1", 0, "metric.labels"),
        ("top1", 0.5, "metric.labels"),
        ("top1", "no such label", "metric.labels"),
        ("cosine", np.zeros(5), "metric.labels"),
    ],
)
def test_what_does_not_fit_is_an_error(kind: object, label: object, code: str) -> None:
    """A metric that raises or gives NaN, and labels of another shape or kind."""
    with pytest.raises(UsageError) as caught:
        rows(kind, label)
    assert caught.value.code == code


def test_a_metric_is_a_plain_function() -> None:
    """What cannot be told from another metric cannot be kept, so it is refused."""

    class Scorer:
        def __call__(self, _: Mapping[str, Array], __: object) -> float:
            return 1.0

    with pytest.raises(UsageError) as caught:
        metric(Scorer())
    assert caught.value.code == "metric.kind"


def test_no_loss_in_n_rows_leaves_three_in_n_open() -> None:
    """Twenty images that all agree prove little; ten thousand prove much."""
    made = metric("top1")
    for count in (20, 10_000):
        right = np.ones((count, 1))
        found = accuracy(made, right, right, seed=0)
        assert (found.loss, found.loss_low, found.value) == (0, 0, 1)
        assert found.loss_high == 3 / count
        assert found.samples == count


@given(st.integers(0, 2**32 - 1))
def test_the_interval_holds_the_loss(seed: int) -> None:
    """Losses are paired: rows that both get wrong widen nothing."""
    generator = np.random.default_rng(seed)
    fp32 = (generator.random((400, 1)) < 0.7).astype(np.float64)
    ours = np.where(generator.random((400, 1)) < 0.05, 0.0, fp32)
    found = accuracy(metric("top1"), ours, fp32, seed=seed)
    assert found.loss_low <= found.loss <= found.loss_high
    assert found.loss == pytest.approx(fp32.mean() - ours.mean())
    assert found.low <= found.value <= found.high
    assert accuracy(metric("top1"), ours, fp32, seed=seed) == found


def test_an_error_loses_upwards() -> None:
    """Of a metric where less is better, more of it is the loss."""
    more, less = np.full((50, 1), 0.3), np.full((50, 1), 0.1)
    assert accuracy(metric("mean_error"), more, less, seed=0).loss == pytest.approx(0.2)
    assert accuracy(metric("mean_error"), less, more, seed=0).loss == pytest.approx(-0.2)


def test_intervals_are_as_wide_as_they_should_be() -> None:
    """Of a share p of n rows, about 3.92 standard errors."""
    generator = np.random.default_rng(1)
    ours = (generator.random((2000, 1)) < 0.8).astype(np.float64)
    found = accuracy(metric("top1"), ours, ours, seed=3)
    assert found.high - found.low == pytest.approx(3.92 * np.sqrt(0.16 / 2000), rel=0.15)

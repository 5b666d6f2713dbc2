"""Calibration and evaluation data."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.errors import CheckError, HeadraceError, UsageError
from headrace.tensors import Array
from headrace_compiler import Recipe, TensorSpec
from headrace_compiler.datasets import (
    MAX_CALIBRATION,
    draw_calibration,
    draw_data,
    draw_evaluation,
)

SPEC = TensorSpec(name="x", datatype="FP32", shape=("batch", 4))


def row(number: int, rows: int = 1) -> dict[str, Array]:
    """A sample that no other number gives."""
    numbers = np.arange(number, number + rows, dtype=np.float32)
    return {"x": np.repeat(numbers[:, None], 4, axis=1)}


def declare(**more: Any) -> Recipe:  # noqa: ANN401 - of Recipe
    """A recipe with data of its own."""
    fields = {
        "name": "tiny",
        "version": "1",
        "model": lambda: None,
        "inputs": (SPEC,),
        "samples": lambda: [row(0)],
    }
    return Recipe.model_validate({**fields, **more})


def labelled(numbers: Iterable[int], label: object = 0) -> Callable[[], Any]:
    """Evaluation data of these rows."""
    return lambda: ((row(number), label) for number in numbers)


def test_samples_come_back_as_they_were_given(tmp_path: Path) -> None:
    """In order, as often as they are asked for, with their labels."""
    labels = [3, 0.5, "cat", None, np.array([1, 2])]
    given = [(row(number), label) for number, label in enumerate(labels)]
    found = draw_evaluation(declare(evaluation=lambda: given), tmp_path, tmp_path)
    assert found is not None
    assert len(found) == 5
    for _ in range(2):
        for sample, (expected, _label) in zip(found, given, strict=True):
            assert np.array_equal(sample["x"], expected["x"])
    assert found.labels[:4] == (3, 0.5, "cat", None)
    assert np.array_equal(np.asarray(found.labels[4]), [1, 2])


def test_without_evaluation_there_is_nothing_to_judge_by(tmp_path: Path) -> None:
    """Then nothing is calibrated either."""
    assert draw_data(declare(), tmp_path, tmp_path) is None


def test_samples_stand_in_for_calibration_data(tmp_path: Path) -> None:
    """They are drawn where the recipe gives none; of endless data, the first few hundred."""
    assert len(draw_calibration(declare(), tmp_path, tmp_path)) == 1
    endless = declare(calibration=lambda: (row(number) for number in iter(int, 1)))
    assert len(draw_calibration(endless, tmp_path, tmp_path)) == MAX_CALIBRATION


def test_the_digest_follows_the_data_and_the_labels(tmp_path: Path) -> None:
    """Equal data give equal digests; another row, order or label gives another."""

    def digest(numbers: Iterable[int], label: object = 0) -> str:
        found = draw_evaluation(declare(evaluation=labelled(numbers, label)), tmp_path, tmp_path)
        assert found is not None
        return found.digest

    assert digest([1, 2]) == digest([1, 2])
    others = [digest([2, 1]), digest([1, 3]), digest([1, 2], 1), digest([1, 2], "0")]
    assert len({digest([1, 2]), *others}) == 5


def test_a_row_in_both_is_an_error(tmp_path: Path) -> None:
    """Also where one gives it in a batch and the other by itself."""
    shared = declare(
        calibration=lambda: [row(8)], evaluation=lambda: [(row(6, rows=3), np.zeros(3, int))]
    )
    with pytest.raises(CheckError) as caught:
        draw_data(shared, tmp_path, tmp_path)
    assert caught.value.code == "data.overlap"
    assert "1 of 3 evaluation rows" in caught.value.message
    apart = declare(calibration=lambda: [row(9)], evaluation=labelled(range(3)))
    assert draw_data(apart, tmp_path, tmp_path) is not None


def raising() -> Iterable[object]:
    """Data that fails half way."""
    yield row(1), 0
    raise LookupError("gone")


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"evaluation": list}, "data.empty"),
        ({"evaluation": raising}, "data.failed"),
        ({"evaluation": lambda: [row(1)]}, "data.kind"),
        ({"evaluation": lambda: [(row(1), object())]}, "data.label"),
        ({"evaluation": lambda: [({"x": np.full((1, 4), np.nan, np.float32)}, 0)]}, "samples.not-"),
        ({"evaluation": lambda: [({"x": np.zeros((1, 5), np.float32)}, 0)]}, "samples.shape"),
        ({"calibration": list, "evaluation": labelled([1])}, "data.empty"),
        (
            {
                "calibration": lambda: [{"x": np.full((1, 4), np.inf, np.float32)}],
                "evaluation": labelled([1]),
            },
            "samples.not-finite",
        ),
    ],
)
def test_data_at_fault_is_an_error(tmp_path: Path, more: dict[str, object], code: str) -> None:
    """Empty, failing, NaN, or not what the recipe declares."""
    with pytest.raises(HeadraceError) as caught:
        draw_data(declare(**more), tmp_path, tmp_path)
    assert isinstance(caught.value, UsageError)
    assert caught.value.code.startswith(code)


def test_one_generator_is_drawn_with_one_seed(tmp_path: Path) -> None:
    """Random data goes on from sample to sample, and is the same at the next build."""

    def random() -> Iterable[tuple[dict[str, Array], int]]:
        for _ in range(3):
            yield {"x": np.random.rand(1, 4).astype(np.float32)}, 0  # noqa: NPY002 - as recipes do

    first, second = (
        draw_evaluation(declare(evaluation=random), tmp_path, tmp_path) for _ in range(2)
    )
    assert first is not None
    assert second is not None
    assert first.digest == second.digest
    assert len(first.marks) == 3

"""The spec of a table: what it takes and makes, and what it refuses to be."""

from typing import Any

import pytest
from pydantic import ValidationError

from headrace.preprocess.table.spec import (
    MAX_COLUMNS,
    MAX_FEATURES,
    Hash,
    Number,
    OneHot,
    TablePreprocessing,
)
from headrace.tensors import TensorSpec

TABLE = TablePreprocessing(
    columns=(
        Number(name="age", impute=40.0, mean=38.5, std=14.0),
        OneHot(name="city", categories=("Bern", "Genève"), unknown="other"),
        OneHot(name="floor", categories=(-1, 0, 2**63 - 1)),
        Hash(name="user", buckets=10),
    ),
    output="features",
)


def test_each_column_is_a_raw_tensor_of_one_axis() -> None:
    """Numbers are FP64, texts BYTES, whole numbers INT64; in the order of the columns."""
    kinds = {"age": "FP64", "city": "BYTES", "floor": "INT64", "user": "BYTES"}
    assert {spec.name: spec.datatype for spec in TABLE.takes} == kinds
    assert [spec.name for spec in TABLE.takes] == [*kinds]
    assert {spec.shape for spec in TABLE.takes} == {("batch",)}


def test_the_model_takes_one_row_of_features() -> None:
    """One for a number, one a category and one more for the others, one a bucket."""
    assert TABLE.makes == (TensorSpec(name="features", datatype="FP32", shape=("batch", 17)),)
    assert TABLE.begins == (0, 1, 4, 7)


def test_a_spec_survives_json() -> None:
    """Texts stay texts, and whole numbers whole numbers."""
    assert TablePreprocessing.model_validate_json(TABLE.model_dump_json()) == TABLE


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"kind": "number", "std": 0.0}, "std must not be zero"),
        ({"kind": "number", "mean": float("nan")}, "finite"),
        ({"kind": "number", "impute": float("inf")}, "finite"),
        ({"kind": "number", "impute": 1e30, "std": 1e-30}, "too large for FP32"),
        ({"kind": "one_hot", "categories": ()}, "at least 1"),
        ({"kind": "one_hot", "categories": ("a", "b", "a")}, "given twice"),
        ({"kind": "one_hot", "categories": ("a", 1)}, "valid"),
        ({"kind": "one_hot", "categories": (True,)}, "valid"),
        ({"kind": "one_hot", "categories": (2**63,)}, "less than"),
        ({"kind": "one_hot", "categories": ("\ud800",)}, "unicode"),
        ({"kind": "one_hot", "categories": ("a" * 1025,)}, "at most 1024"),
        ({"kind": "hash", "buckets": 0}, "greater than"),
        ({"kind": "hash", "buckets": MAX_FEATURES + 1}, "less than"),
        ({"kind": "hash", "buckets": 4, "name": "no spaces"}, "pattern"),
        ({"kind": "ordinal"}, "expected tags"),
    ],
)
def test_columns_that_mean_nothing_are_refused(wrong: dict[str, Any], said: str) -> None:
    """Each with a sentence."""
    with pytest.raises(ValidationError, match=said):
        TablePreprocessing.model_validate({"columns": ({"name": "x", **wrong},), "output": "y"})


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ((), "at least 1"),
        (tuple(Number(name=f"n{n}") for n in range(MAX_COLUMNS + 1)), "at most 256"),
        ((Number(name="x"), Hash(name="x", buckets=2)), "same name"),
        ((Number(name="y"),), "other than the model's own"),
        ((Hash(name="a", buckets=MAX_FEATURES), Number(name="b")), "1048577 features"),
    ],
)
def test_columns_that_do_not_fit_together_are_refused(columns: tuple[Any, ...], said: str) -> None:
    """None, too many, two of a name, the model's own name, more features than are allowed."""
    with pytest.raises(ValidationError, match=said):
        TablePreprocessing(columns=columns, output="y")

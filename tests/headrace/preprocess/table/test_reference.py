"""The reference of tables, held against scikit-learn."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction import FeatureHasher  # type: ignore[import-untyped]
from sklearn.impute import SimpleImputer  # type: ignore[import-untyped]
from sklearn.pipeline import make_pipeline  # type: ignore[import-untyped]
from sklearn.preprocessing import OneHotEncoder, StandardScaler  # type: ignore[import-untyped]
from sklearn.utils import murmurhash3_32  # type: ignore[import-untyped]

from headrace.errors import InvalidRequestError, TooLargeError, UsageError
from headrace.preprocess.table.reference import MAX_TEXT, murmur3, prepare
from headrace.preprocess.table.spec import Column, Hash, Number, OneHot, TablePreprocessing
from headrace.tensors import Array


def table(*columns: Column) -> TablePreprocessing:
    """A pipeline."""
    return TablePreprocessing(columns=columns, output="features")


def objects(texts: Sequence[Any]) -> Array:
    """A BYTES tensor, shape (len(texts),)."""
    made: Array = np.empty(len(texts), np.object_)
    made[:] = texts
    return made


@given(st.binary(max_size=40), st.binary(max_size=9))
def test_the_hash_is_scikit_learns(text: bytes, before: bytes) -> None:
    """MurmurHash3, wherever in a longer text it begins."""
    found = murmur3(before + text + b"behind", len(before), len(text))
    assert found == murmurhash3_32(text, positive=True)


@pytest.mark.parametrize("strategy", ["mean", "median"])
def test_numbers_are_imputed_and_standardised_as_scikit_learn_does(strategy: str) -> None:
    """From what SimpleImputer and StandardScaler have learnt, exactly."""
    random = np.random.default_rng(0)
    values = random.normal(7.0, 300.0, (500, 4)) * 10.0 ** np.arange(-3, 5, 2)
    values[random.random(values.shape) < 0.1] = np.nan
    pipeline = make_pipeline(SimpleImputer(strategy=strategy), StandardScaler())
    wanted = pipeline.fit_transform(values).astype(np.float32)
    imputer, scaler = pipeline[0], pipeline[1]
    columns = [
        Number(name=f"c{n}", impute=float(impute), mean=float(mean), std=float(std))
        for n, (impute, mean, std) in enumerate(
            zip(imputer.statistics_, scaler.mean_, scaler.scale_, strict=True)
        )
    ]
    raw: dict[str, Array] = {f"c{n}": values[:, n] for n in range(4)}
    np.testing.assert_array_equal(prepare(table(*columns), raw), wanted)


@given(st.lists(st.tuples(st.text("abcü", max_size=3), st.integers(-3, 3)), max_size=20))
def test_categories_are_encoded_as_scikit_learn_does(rows: list[tuple[str, int]]) -> None:
    """Unknown ones are zeros."""
    texts, numbers = ("b", "", "ü", "ab"), (2, -3, 0)
    spec = table(OneHot(name="text", categories=texts), OneHot(name="number", categories=numbers))
    raw = {
        "text": objects([text.encode() for text, _ in rows]),
        "number": np.array([number for _, number in rows], np.int64),
    }
    found = prepare(spec, raw)
    assert found.shape == (len(rows), 7)
    if rows:
        pair = np.array([[texts[0], numbers[0]]], np.object_)
        encoder = OneHotEncoder(
            categories=[[*texts], [*numbers]], handle_unknown="ignore", sparse_output=False
        )
        wanted = encoder.fit(pair).transform(np.array(rows, np.object_))
        np.testing.assert_array_equal(found, wanted)


@given(
    st.lists(st.text(max_size=12), min_size=1, max_size=20),
    st.sampled_from([1, 2, 7, 64, 1000, 1 << 20]),
    st.booleans(),
)
def test_texts_are_hashed_as_scikit_learn_does(
    texts: list[str],
    buckets: int,
    signed: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """One string a row, with and without its sign."""
    found = prepare(
        table(Hash(name="text", buckets=buckets, signed=signed)),
        {"text": objects([text.encode() for text in texts])},
    )
    hasher = FeatureHasher(buckets, input_type="string", alternate_sign=signed)
    wanted = hasher.transform([[text] for text in texts]).tocoo()
    rows, features = np.nonzero(found)
    assert [*zip(rows, features, found[rows, features], strict=True)] == sorted(
        zip(wanted.row, wanted.col, wanted.data, strict=True)
    )


def test_the_hash_without_a_positive_counterpart_has_a_bucket() -> None:
    """-2**31, whose absolute value is no signed number of 32 bits; this text has it."""
    text = b"U\x07o\x83"
    assert murmur3(text, 0, len(text)) == 1 << 31
    for buckets in (3, 10, 4096):
        found = prepare(table(Hash(name="text", buckets=buckets)), {"text": objects([text])})
        assert found[0, (1 << 31) % buckets] == -1


def test_an_unknown_category_may_be_a_feature_of_its_own() -> None:
    """The last of its column."""
    spec = table(OneHot(name="x", categories=("b", "a"), unknown="other"), Number(name="n"))
    raw = {"x": objects([b"a", b"c", b""]), "n": np.array([5.0, 6.0, 7.0])}
    assert prepare(spec, raw).tolist() == [[0, 1, 0, 5], [0, 0, 1, 6], [0, 0, 1, 7]]


STRICT = table(
    Number(name="n"),
    OneHot(name="x", categories=("a",), unknown="error"),
    Number(name="m", impute=1.0, std=1e-3),
)


@pytest.mark.parametrize(
    ("changed", "code", "said"),
    [
        ({"n": [0, 1, np.nan]}, "request.number", "row 2 of 'n', counted from 0, is missing"),
        ({"n": [0, -np.inf, 0]}, "request.number", "row 1 of 'n', counted from 0, is infinite"),
        ({"m": [0, np.nan, 1e36]}, "request.number", "row 2 of 'm', counted from 0, is infinite"),
        ({"x": [b"a", b"b", b"a"]}, "request.category", "row 1 of 'x', counted from 0, is none"),
        ({"x": [b"a", b"a", b"b"], "m": [0, np.inf, 0]}, "request.number", "row 1 of 'm'"),
        ({"x": [b"a", b"b", b"a"], "n": [0, np.nan, 0]}, "request.number", "row 1 of 'n'"),
        ({"x": [b"b", b"a", b"a"], "n": [0, np.nan, 0]}, "request.category", "row 0 of 'x'"),
    ],
)
def test_the_first_value_that_means_nothing_is_told(
    changed: Mapping[str, Sequence[Any]], code: str, said: str
) -> None:
    """By row first, and then by column; the value is not repeated."""
    values: dict[str, Sequence[Any]] = {
        "n": [0, 0, 0],
        "x": [b"a", b"a", b"a"],
        "m": [0, 0, 0],
        **changed,
    }
    raw = {
        name: objects(given) if name == "x" else np.array(given, np.float64)
        for name, given in values.items()
    }
    with pytest.raises(InvalidRequestError, match=said) as caught:
        prepare(STRICT, raw)
    assert caught.value.code == code


def test_what_is_too_large_is_refused_before_it_is_made() -> None:
    """One long text, and more rows than the result may have."""
    spec = table(Hash(name="x", buckets=1 << 20))
    longest = objects([b"", b"x" * MAX_TEXT])
    assert np.abs(prepare(spec, {"x": longest})).sum() == 2
    longest[1] += b"x"
    with pytest.raises(TooLargeError, match="row 1 of 'x', counted from 0, has 65537 bytes"):
        prepare(spec, {"x": longest})
    with pytest.raises(TooLargeError, match="takes 64 at a time"):
        prepare(spec, {"x": objects([b""] * 65)})


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("n", None),
        ("n", np.zeros(2, np.float32)),
        ("n", np.zeros(2, ">f8")),
        ("n", np.zeros((2, 1))),
        ("n", np.float64(1.0)),
        ("k", np.zeros(2, np.int32)),
        ("k", np.zeros(3, np.int64)),
        ("x", np.array([b"a", b"b"])),
        ("x", objects(["a", "b"])),
        ("x", objects([b"a", bytearray(b"b")])),
        ("h", objects([b"a", None])),
    ],
)
def test_other_arrays_are_refused(name: str, array: Array | None) -> None:
    """One that is missing, of another dtype or shape, or of objects that are no bytes."""
    spec = table(
        Number(name="n"),
        OneHot(name="k", categories=(1,)),
        OneHot(name="x", categories=("a",)),
        Hash(name="h", buckets=3),
    )
    raw: dict[str, Array] = {
        "n": np.zeros(2),
        "k": np.zeros(2, np.int64),
        "x": objects([b"a", b"b"]),
        "h": objects([b"a", b"b"]),
    }
    assert prepare(spec, raw).shape == (2, 6)
    changed = raw if array is None else {**raw, name: np.asarray(array)}
    if array is None:
        del raw[name]
    with pytest.raises(UsageError, match=f"'{name}'"):
        prepare(spec, changed)

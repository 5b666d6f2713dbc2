"""Codecs: every typed result comes back as it was, and nothing else comes back at all."""

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pydantic import Field

from headrace.tensors import Array, Frozen, TensorSpec
from headrace_compiler.cache_codec import MisfitError, codec

Number = Annotated[int, Field(ge=0)]


class Model(Frozen):
    """A pydantic model, with a value that is checked."""

    share: Annotated[float, Field(ge=0)]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Inner:
    """A dataclass within another."""

    content: bytes
    tensors: Mapping[str, Array]


@dataclass(frozen=True)
class Whole:
    """One of everything that can be kept."""

    nothing: None
    flag: bool
    number: int
    share: float
    text: str
    choice: Literal["a", 1, True]
    maybe: Inner | None
    either: Model | Inner | str
    pair: tuple[int, bytes]
    many: tuple[float, ...]
    model: Model
    derived: int = field(init=False, default=7)


floats = st.floats()
names = st.text(max_size=5)
tensors = arrays.arrays(
    st.sampled_from([np.dtype(name) for name in ("?", "u1", "<i8", ">i4", "<f2", "f4", "c8")]),
    arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
)
inners = st.builds(
    Inner, content=st.binary(max_size=9), tensors=st.dictionaries(names, tensors, max_size=2)
)
models = st.builds(
    Model,
    share=st.floats(min_value=0, allow_nan=False),
    names=st.lists(names, max_size=3).map(tuple),
)
wholes = st.builds(
    Whole,
    nothing=st.none(),
    flag=st.booleans(),
    number=st.integers(),
    share=floats,
    text=st.text(st.characters()),
    choice=st.sampled_from(["a", 1, True]),
    maybe=st.none() | inners,
    either=models | inners | names,
    pair=st.tuples(st.integers(), st.binary(max_size=9)),
    many=st.lists(floats, max_size=3).map(tuple),
    model=models,
)


def _round_trip(value: object, kind: object) -> Any:  # noqa: ANN401 - of the kind
    blobs = io.BytesIO()
    document = codec(kind).encode(value, blobs, "result")
    return codec(kind).decode(json.loads(json.dumps(document, allow_nan=False)), blobs)


def _assert_same(found: object, given: object) -> None:
    """Equal in value and type, where NaN equals itself."""
    assert type(found) is type(given)
    if isinstance(given, np.ndarray):
        assert isinstance(found, np.ndarray)
        assert (found.dtype, found.shape) == (given.dtype, given.shape)
        assert found.tobytes() == given.tobytes()
    elif isinstance(given, Mapping):
        assert isinstance(found, Mapping)
        _assert_same(tuple(found.items()), tuple(given.items()))
    elif isinstance(given, tuple):
        assert isinstance(found, tuple)
        for one, other in zip(found, given, strict=True):
            _assert_same(one, other)
    elif isinstance(given, Whole | Inner | Model):
        _assert_same(dict(vars(found)), dict(vars(given)))
    else:
        assert repr(found) == repr(given)


@given(wholes)
def test_a_result_comes_back_as_it_was(value: Whole) -> None:
    """Whatever a type may hold is the same after it was kept, to the last bit of an array."""
    _assert_same(_round_trip(value, Whole), value)


def test_arrays_can_be_written_and_are_apart() -> None:
    """Arrays come back writable, whatever their order in memory was."""
    given = np.arange(6.0).reshape(2, 3).T
    found = _round_trip(given, Array)
    found[0, 0] = 9
    assert (found[1:] == given[1:]).all()


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (int, 1.0),
        (int, "1"),
        (float, "nan"),
        (str, b""),
        (bytes, "x"),
        (None, 0),
        (bool, 1),
        (Literal[1], True),
        (tuple[int, ...], [1]),
        (tuple[int, int], (1,)),
        (Mapping[str, int], {1: 1}),
        (npt.NDArray[np.float32], np.zeros(2)),
        (Array, [1]),
        (Array, np.array(["a"])),
        (Array, np.array([object()])),
        (Array, np.zeros(1, [("a", "f4")])),
        (Inner, Model(share=1.0, names=())),
        (Inner | None, 1),
    ],
    ids=str,
)
def test_a_value_of_another_type_is_refused(kind: object, value: object) -> None:
    """What is not of its declared type is an error that names the place, and is not kept."""
    with pytest.raises(TypeError, match=r"result\[1\]"):
        codec(tuple[int, kind]).encode((1, value), io.BytesIO(), "result")  # type: ignore[valid-type]


@dataclass
class Thawed:
    """Not frozen."""

    number: int


@dataclass(frozen=True)
class Nested:
    """Holds itself."""

    next: "Nested | None"


@pytest.mark.parametrize(
    "kind",
    [
        *(object, Any, Path, list[int], set[str], tuple, dict, np.ndarray, Thawed, Nested),
        *(Callable[[], int], Mapping[int, int], tuple[Path, ...], Path | None),
    ],
    ids=str,
)
def test_a_type_that_says_too_little_is_refused(kind: object) -> None:
    """Types that can hold anything, or what is not data, have no codec."""
    with pytest.raises(TypeError, match="cannot be kept"):
        codec(kind)


@pytest.mark.parametrize(
    ("kind", "document"),
    [
        (int, "1"),
        (float, "one"),
        (str, 1),
        (None, 0),
        (bytes, [0, 5]),
        (bytes, [-1, 1]),
        (bytes, [0]),
        (bytes, "abc"),
        (Literal["a"], "b"),
        (tuple[int, ...], {}),
        (tuple[int, int], [1]),
        (Mapping[str, int], [1]),
        (int | None, [2, 1]),
        (int | None, 1),
        (int | None, [-1, None]),
        (Array, {"dtype": "<f4", "shape": [1 << 60], "at": 0}),
        (Array, {"dtype": "<f4", "shape": [-1], "at": 0}),
        (Array, {"dtype": "|O", "shape": [1], "at": 0}),
        (Array, {"dtype": "rubbish", "shape": [1], "at": 0}),
        (Array, {"dtype": "<f4", "shape": [1], "at": -1}),
        (npt.NDArray[np.int8], {"dtype": "|u1", "shape": [1], "at": 0}),
        (Inner, {}),
        (TensorSpec, {"name": "x", "datatype": "FP32"}),
        (Model, {"share": -1.0, "names": []}),
    ],
    ids=str,
)
def test_a_document_of_another_form_does_not_fit(kind: object, document: object) -> None:
    """What `encode` does not make is a misfit, before any memory is taken for it."""
    with pytest.raises(MisfitError):
        codec(kind).decode(document, io.BytesIO(b"abcd"))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=3),
)
changes = st.sampled_from(sorted(Whole.__dataclass_fields__)[:-1])


@given(wholes, changes, json_values)
def test_a_changed_document_fits_or_does_not(value: Whole, name: str, other: object) -> None:
    """With any part replaced, a document still gives a value of its type or a misfit."""
    blobs = io.BytesIO()
    document = codec(Whole).encode(value, blobs, "result")
    assert isinstance(document, dict)
    try:
        found = codec(Whole).decode({**document, name: other}, blobs)
    except MisfitError:
        return
    assert isinstance(found, Whole)

"""The native table kernel: what the reference computes, and nothing beyond its memory."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

import numpy as np
import pytest
from guarded import guarded_copy
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.errors import (
    BundleError,
    HeadraceError,
    InvalidRequestError,
    TooLargeError,
    UsageError,
)
from headrace.hardware import detect_hardware
from headrace.native import TARGETS
from headrace.preprocess.table.native import NativeTable, Packed, Tables, make_tables
from headrace.preprocess.table.reference import MAX_TEXT, Features, prepare
from headrace.preprocess.table.spec import Column, Hash, Number, OneHot, TablePreprocessing
from headrace.tensors import Array
from headrace_compiler.kernels.lower import compile_kernels
from headrace_compiler.kernels.sources import Specs

HERE = detect_hardware()
Raw = Mapping[str, Array]
Outcome = Features | tuple[type, str, str]
_Arrays = TypeVar("_Arrays", Tables, Packed)


def table(*columns: Column) -> TablePreprocessing:
    """A pipeline."""
    return TablePreprocessing(columns=columns, output="features")


TEXTS = ("", "a", "aa", "ab", "b", "ü", "a\0", "aardvark", "\uffff")
SPECS = {
    "number": table(Number(name="n")),
    "numbers": table(
        *(Number(name=f"n{n}", impute=3.0 - n, mean=n / 7, std=-0.3 - n) for n in range(19))
    ),
    "texts": table(OneHot(name="x", categories=TEXTS), OneHot(name="y", categories=("a",))),
    "wholes": table(
        OneHot(name="k", categories=(0, -1, 2**63 - 1, -(2**63), 256), unknown="other")
    ),
    "hashes": table(Hash(name="x", buckets=16), Hash(name="y", buckets=23, signed=False)),
    "mixed": table(
        Number(name="n", impute=-0.5, mean=0.1, std=7.0),
        OneHot(name="x", categories=TEXTS, unknown="other"),
        Hash(name="h", buckets=9),
        OneHot(name="k", categories=(3, 1, 2)),
        Number(name="m"),
    ),
    "strict": table(
        OneHot(name="x", categories=("a", "b"), unknown="error"),
        Number(name="n", std=1e-3),
        OneHot(name="k", categories=(1, 0), unknown="error"),
        Number(name="m", impute=0.0),
        Hash(name="h", buckets=2),
    ),
    "many": table(
        OneHot(name="x", categories=tuple(f"city {n}" for n in range(10_000))),
        OneHot(name="k", categories=tuple(range(-5000, 5000))),
    ),
}
"""Each choice of the vocabulary at least once."""


@pytest.fixture(scope="module")
def libraries() -> Mapping[str, bytes]:
    """The libraries of every table, by target."""
    return compile_kernels(Specs(preprocessing=SPECS["mixed"]))


@pytest.fixture(scope="module")
def tables(libraries: Mapping[str, bytes]) -> Mapping[tuple[str, str], NativeTable]:
    """Every library that runs here, by spec and target."""
    return {
        (name, target.name): NativeTable(libraries[target.name], each)
        for name, each in SPECS.items()
        for target in TARGETS
        if target.fits(HERE)
    }


def objects(texts: Sequence[Any]) -> Array:
    """A BYTES tensor, shape (len(texts),)."""
    made: Array = np.empty(len(texts), np.object_)
    made[:] = texts
    return made


NUMBERS = st.one_of(st.floats(-9, 9), st.floats(-1e6, 1e6), st.just(np.nan), st.floats())
KNOWN = st.sampled_from([text.encode() for text in TEXTS])
STRANGE = st.one_of(st.binary(max_size=40), st.just(b"city 1234"), st.just(b"x" * MAX_TEXT))
WHOLES = st.one_of(st.integers(-3, 3), st.integers(-(2**63), 2**63 - 1), st.just(2**63 - 1))


def values_of(column: Column) -> st.SearchStrategy[object]:
    """Known and unknown, ordinary and extreme values of a column."""
    if column.datatype == "BYTES":
        return st.one_of(KNOWN, STRANGE)
    return NUMBERS if column.datatype == "FP64" else WHOLES


def raw_of(spec: TablePreprocessing, values: Mapping[str, Sequence[object]]) -> Raw:
    """Raw tensors of some values."""
    dtypes = {"FP64": np.float64, "INT64": np.int64}
    return {
        column.name: objects(values[column.name])
        if column.datatype == "BYTES"
        else np.array(values[column.name], dtypes[column.datatype])
        for column in spec.columns
    }


@st.composite
def batches(draw: st.DrawFn) -> tuple[str, Raw]:
    """A spec's name and some rows for it."""
    name = draw(st.sampled_from([*SPECS]))
    spec, rows = SPECS[name], draw(st.integers(0, 9))
    return name, raw_of(
        spec,
        {
            column.name: draw(st.lists(values_of(column), min_size=rows, max_size=rows))
            for column in spec.columns
        },
    )


def outcome(run: Callable[[Raw], Features], raw: Raw) -> Outcome:
    """What is made of a batch, or the error that it ends in."""
    try:
        return run(raw)
    except HeadraceError as error:
        return type(error), error.code, error.message


def assert_equal(found: Outcome, wanted: Outcome) -> None:
    """To the bit, whether features or an error."""
    if isinstance(found, tuple) or isinstance(wanted, tuple):
        assert found == wanted
    else:
        np.testing.assert_array_equal(found.view(np.uint32), wanted.view(np.uint32), strict=True)


@settings(max_examples=150, deadline=None)
@given(batches())
def test_the_kernel_does_what_the_reference_does(
    tables: Mapping[tuple[str, str], NativeTable], batch: tuple[str, Raw]
) -> None:
    """To the bit, and to the error's sentence; on every processor level, for any value."""
    name, raw = batch
    wanted = outcome(lambda raw: prepare(SPECS[name], raw), raw)
    for (of, _), kernel in tables.items():
        if of == name:
            assert_equal(outcome(kernel.prepare, raw), wanted)


def test_large_batches_are_prepared_too(tables: Mapping[tuple[str, str], NativeTable]) -> None:
    """Thousands of rows, of which some are missing and some unknown."""
    random, rows = np.random.default_rng(0), 5000
    numbers = random.normal(0.0, 1e3, (20, rows))
    numbers[random.random(numbers.shape) < 0.1] = np.nan
    texts = [random.bytes(n) for n in random.integers(0, 30, rows)]
    raw: dict[str, Array] = {f"n{n}": numbers[n] for n in range(19)}
    raw |= {"n": numbers[19], "m": np.arange(rows) / 3}
    raw |= {"x": objects([text.encode() for text in random.choice(TEXTS[:5], rows)])}
    raw |= {"h": objects(texts), "y": objects(texts[::-1]), "k": random.integers(0, 4, rows)}
    for (name, _), kernel in tables.items():
        if name in {"numbers", "texts", "wholes", "hashes", "mixed"}:
            assert_equal(kernel.prepare(raw), prepare(SPECS[name], raw))


def test_each_of_thousands_of_categories_is_found(
    tables: Mapping[tuple[str, str], NativeTable],
) -> None:
    """Texts and whole numbers, and none that is not among them."""
    places = np.concatenate([np.arange(0, 10_000, 37), [9_998, 9_999]])
    raw: dict[str, Array] = {
        "x": objects([f"city {place}".encode() for place in (*places, 10_000)]),
        "k": np.array([*(places - 5000), 5000]),
    }
    for (name, _), kernel in tables.items():
        if name == "many":
            rows, features = np.nonzero(kernel.prepare(raw))
            np.testing.assert_array_equal(rows, np.arange(len(places)).repeat(2))
            np.testing.assert_array_equal(features[::2], places)
            np.testing.assert_array_equal(features[1::2], places + 10_000)


def test_arrays_of_any_strides_are_prepared(
    tables: Mapping[tuple[str, str], NativeTable],
) -> None:
    """Turned round, cut out of larger ones, repeated without being copied, and read-only."""
    wide = np.random.default_rng(0).integers(0, 4, (7, 3)).astype(np.float64)
    raw: dict[str, Array] = {
        "n": wide[::-1, 1],
        "m": np.broadcast_to(np.float64(2.5), 7),
        "k": wide.astype(np.int64)[:, 2],
        "x": objects([b"a", b"", b"ab"] * 5)[1:15:2],
        "h": objects([b"q"] * 7)[::-1],
    }
    for (name, _), kernel in tables.items():
        if name == "mixed":
            assert_equal(kernel.prepare(raw), prepare(SPECS["mixed"], raw))


def test_what_is_no_table_never_reaches_the_kernel(
    tables: Mapping[tuple[str, str], NativeTable],
) -> None:
    """Sizes and types are checked before a pointer is handed over."""
    good = raw_of(SPECS["mixed"], {"n": [1], "x": [b""], "h": [b""], "k": [1], "m": [1]})
    wrong: list[tuple[str, Array]] = [
        ("n", np.zeros(1, np.float32)),
        ("n", np.zeros((1, 1))),
        ("k", np.zeros(1, ">i8")),
        ("x", objects(["text"])),
        ("x", objects([memoryview(b"1234").cast("i")])),
        ("h", np.array([b"a"])),
        ("m", np.zeros(2)),
    ]
    for (name, _), kernel in tables.items():
        if name == "mixed":
            for key, array in wrong:
                with pytest.raises(UsageError, match=f"'{key}'"):
                    kernel.prepare({**good, key: array})
            with pytest.raises(UsageError, match="'m' is missing"):
                kernel.prepare({key: array for key, array in good.items() if key != "m"})
            with pytest.raises(TooLargeError, match="row 0 of 'h'"):
                kernel.prepare({**good, "h": objects([b"x" * (MAX_TEXT + 1)])})


def test_the_result_is_bounded(libraries: Mapping[str, bytes]) -> None:
    """However many rows a request has."""
    spec = table(Hash(name="x", buckets=1 << 20))
    raw: Raw = {"x": objects([b""] * 65)}
    for target in TARGETS:
        if target.fits(HERE):
            kernel = NativeTable(libraries[target.name], spec)
            assert kernel.prepare({"x": raw["x"][:2]}).sum() == 2
            with pytest.raises(TooLargeError, match="takes 64 at a time"):
                kernel.prepare(raw)


def fence(arrays: _Arrays, *, at_end: bool) -> _Arrays:
    """The same for each of some arrays."""
    copies: dict[str, Any] = {
        field.name: guarded_copy(getattr(arrays, field.name), at_end=at_end)
        for field in fields(arrays)
    }
    return replace(arrays, **copies)


class FencedTable(NativeTable):
    """A table all of whose memory is fenced."""

    def __init__(self, library: bytes, spec: TablePreprocessing, *, at_end: bool) -> None:
        super().__init__(library, spec)
        self._at_end = at_end
        self._tables = fence(make_tables(spec), at_end=at_end)

    def _fill(self, packed: Packed, made: Features) -> tuple[int, int] | None:
        out = guarded_copy(made, at_end=self._at_end)
        fault = super()._fill(fence(packed, at_end=self._at_end), out.view(np.float32))
        made[...] = out
        return fault


@pytest.fixture(scope="module")
def fenced_tables(libraries: Mapping[str, bytes]) -> Mapping[tuple[str, str, bool], FencedTable]:
    """As `tables`, with fences right before or right behind all that they use."""
    return {
        (name, target.name, at_end): FencedTable(libraries[target.name], each, at_end=at_end)
        for name, each in SPECS.items()
        for target in TARGETS
        for at_end in (False, True)
        if target.fits(HERE)
    }


@settings(max_examples=60, deadline=None)
@given(batches())
def test_the_kernel_stays_inside_its_memory(
    fenced_tables: Mapping[tuple[str, str, bool], FencedTable], batch: tuple[str, Raw]
) -> None:
    """What it reads and what it writes, at either end, whatever the values are."""
    name, raw = batch
    wanted = outcome(lambda raw: prepare(SPECS[name], raw), raw)
    for (of, *_), kernel in fenced_tables.items():
        if of == name:
            assert_equal(outcome(kernel.prepare, raw), wanted)


def test_faults_carry_the_references_sentence(
    tables: Mapping[tuple[str, str], NativeTable],
) -> None:
    """Of several in a batch, the first column of the first row is told."""
    values: dict[str, list[object]] = {
        "x": [b"a", b"b", b"c"],
        "n": [1.0, np.nan, 0.0],
        "k": [0, 2, 2],
        "m": [0.0, np.nan, np.inf],
        "h": [b"", b"", b""],
    }
    for (name, _), kernel in tables.items():
        if name == "strict":
            with pytest.raises(InvalidRequestError, match=r"row 1 of 'n'.* is missing"):
                kernel.prepare(raw_of(SPECS["strict"], values))
            with pytest.raises(InvalidRequestError, match=r"row 1 of 'k'.* none of the known"):
                kernel.prepare(raw_of(SPECS["strict"], {**values, "n": [0.0] * 3}))


def test_a_library_is_the_same_for_every_table(libraries: Mapping[str, bytes]) -> None:
    """A few kilobytes that need nothing and show one function; equal in every build."""
    assert compile_kernels(Specs(preprocessing=SPECS["number"])) == libraries
    for library in libraries.values():
        assert library[:4] == b"\x7fELF"
        assert len(library) < 10_000
        assert b"headrace_prepare_table" in library
        assert b"Numba" not in library
        assert b"libc" not in library


def test_what_is_no_library_is_not_mapped() -> None:
    """It is the bundle's fault."""
    with pytest.raises(BundleError) as caught:
        NativeTable(b"no library" * 99, SPECS["mixed"])
    assert caught.value.code == "bundle.kernel"

"""Prepares tables with the native library that a bundle carries: nothing is compiled here."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from headrace.native import Argument, Function, NativeFunction
from headrace.preprocess.table.reference import (
    Features,
    check_table,
    check_texts,
    dtypes_of,
    empty_table,
    value_fault,
)
from headrace.preprocess.table.spec import Hash, Number, OneHot, TablePreprocessing
from headrace.tensors import Array

_TABLES: tuple[Argument, ...] = ("int64*", "float64*", "uint8*", "int64*", "int64*")
_PACKED: tuple[Argument, ...] = ("float64*", "uint8*", "int64*")
TABLE = Function(
    "headrace_prepare_table",
    ("int64", "int64", "int64", *_TABLES, *_PACKED, "float32*", "int64*"),
)
"""The one function of every table; `headrace_compiler.kernels.table` tells its arguments."""
STEP = 6
"""Numbers that tell the function what to do with a column."""
NUMBER, ONE_HOT, HASH = range(3)
NOTHING, FAULT = -1, -2
"""What an unknown category makes, where it is no feature."""
_Bytes = npt.NDArray[np.uint8]
_Integers = npt.NDArray[np.int64]
_Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Tables:
    """A spec, as the function reads it.

    Attributes:
        steps: int64, shape (columns, STEP): its kind; which of the numbers or of the texts it is;
            its first feature; and three more. `ONE_HOT`: its first category in `bounds`, the one
            behind its last, and the feature of the unknown, `NOTHING` or `FAULT`. `HASH`: buckets,
            and whether they are signed.
        scales: float64, shape (numbers, 3): what is imputed, NaN for nothing; mean; std.
        known: uint8: the categories of each column, sorted, one behind the other.
        bounds: int64, shape (categories + 1,): where in `known` each begins and the last ends.
        places: int64, shape (categories,): the feature of each, in its column.
    """

    steps: _Integers
    scales: _Doubles
    known: _Bytes
    bounds: _Integers
    places: _Integers

    @cached_property
    def addresses(self) -> tuple[int, ...]:
        """Of the arrays, in this order."""
        tables = self.steps, self.scales, self.known, self.bounds, self.places
        return tuple(table.ctypes.data for table in tables)


@dataclass(frozen=True)
class Packed:
    """A batch, as the function reads it: whole columns, one behind the other.

    Attributes:
        numbers: float64, shape (numbers * rows,).
        texts: uint8; a whole number is its eight bytes, little-endian.
        starts: int64, shape (texts * rows + 1,): where in `texts` each begins and the last ends.
    """

    numbers: _Doubles
    texts: _Bytes
    starts: _Integers


class NativeTable:
    """Prepares batches of rows, each on the thread that asks: two would gain next to nothing.

    Args:
        library: The bytes of the shared library; the caller has checked their digest.
        spec: What the library was compiled from.

    Raises:
        BundleError: The bytes are no library with the function.
    """

    def __init__(self, library: bytes, spec: TablePreprocessing) -> None:
        self._function = NativeFunction(library, TABLE)
        self._columns, self._features = spec.columns, spec.features
        self._dtypes, self._tables = dtypes_of(spec), make_tables(spec)

    def prepare(self, raw: Mapping[str, Array]) -> Features:
        """As the reference's `prepare`."""
        made = empty_table(check_table(self._dtypes, raw), self._features)
        fault = self._fill(pack_table(self._dtypes, raw), made)
        if fault is not None:
            row, place = fault
            raise value_fault(self._columns[place], raw, row)
        return made

    def _fill(self, packed: Packed, made: Features) -> tuple[int, int] | None:
        """Makes the features; returns the row and the column of the first fault.

        Everything was checked.
        """
        fault = np.array([-1, -1], np.int64)
        self._function(
            *(len(made), len(self._columns), self._features),
            *self._tables.addresses,
            packed.numbers.ctypes.data,
            packed.texts.ctypes.data,
            packed.starts.ctypes.data,
            made.ctypes.data,
            fault.ctypes.data,
        )
        row, place = fault.tolist()
        return None if row < 0 else (row, place)


def make_tables(spec: TablePreprocessing) -> Tables:
    """A spec, as the function reads it."""
    steps: list[tuple[int, ...]] = []
    scales: list[tuple[float, ...]] = []
    known: list[bytes] = []
    places: list[int] = []
    texts = 0
    for column, begin in zip(spec.columns, spec.begins, strict=True):
        match column:
            case Number():
                steps.append((NUMBER, len(scales), begin, 0, 0, 0))
                impute = math.nan if column.impute is None else column.impute
                scales.append((impute, column.mean, column.std))
            case OneHot():
                first, keys = len(known), [_key(category) for category in column.categories]
                places += sorted(range(len(keys)), key=keys.__getitem__)
                known += sorted(keys)
                steps.append((ONE_HOT, texts, begin, first, len(known), _unknown(column)))
                texts += 1
            case Hash():
                steps.append((HASH, texts, begin, column.buckets, int(column.signed), 0))
                texts += 1
    return Tables(
        np.array(steps, np.int64),
        np.array(scales, np.float64),
        np.frombuffer(b"".join(known), np.uint8),
        _bounds(np.array([*map(len, known)], np.int64)),
        np.array(places, np.int64),
    )


def pack_table(dtypes: Mapping[str, np.dtype[np.generic]], raw: Mapping[str, Array]) -> Packed:
    """A batch, as the function reads it. Shapes and dtypes were checked.

    Raises:
        TooLargeError: A text is too long.
        UsageError: Objects are no bytes.
    """
    numbers = [raw[name] for name, dtype in dtypes.items() if dtype.kind == "f"]
    names = [name for name, dtype in dtypes.items() if dtype.kind != "f"]
    texts: list[bytes] = []
    for name in names:
        values = raw[name]
        texts += (values if values.dtype.hasobject else values.view("V8")).tolist()
    starts = _bounds(check_texts(names, texts))
    joined = np.frombuffer(b"".join(texts), np.uint8)
    return Packed(np.concatenate(numbers) if numbers else np.empty(0), joined, starts)


def _key(category: str | int) -> bytes:
    """A category as the bytes that it comes as."""
    if isinstance(category, str):
        return category.encode()
    return category.to_bytes(8, "little", signed=True)


def _unknown(column: OneHot) -> int:
    if column.unknown == "other":
        return len(column.categories)
    return FAULT if column.unknown == "error" else NOTHING


def _bounds(lengths: _Integers) -> _Integers:
    """Where things of these lengths begin, one behind the other, and where the last ends."""
    bounds = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=bounds[1:])
    return bounds

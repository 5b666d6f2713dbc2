"""What a table's spec means, in NumPy and plain Python: what every faster form is held to."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from headrace.errors import InvalidRequestError, TooLargeError, UsageError
from headrace.preprocess.table.spec import LARGEST, Column, Hash, Number, OneHot, TablePreprocessing
from headrace.tensors import NUMPY_DTYPES, Array

Features = npt.NDArray[np.float32]
MAX_TEXT = 1 << 16
"""Bytes of one text."""
MAX_ELEMENTS = 1 << 26
"""Of one prepared batch: 256 MiB."""
_Rows = npt.NDArray[np.bool_]


def prepare(spec: TablePreprocessing, raw: Mapping[str, Array]) -> Features:
    """Makes the features of a batch of rows.

    Args:
        raw: One array a column, by its name, all of shape (batch,): float64, int64, or objects
            that are bytes.

    Returns:
        Shape (batch, spec.features).

    Raises:
        InvalidRequestError: A value cannot be made into features (`request.number`,
            `request.category`). Of several, the first of the first such row is told.
        TooLargeError: A text is longer than `MAX_TEXT` (`request.text-size`), or there are so many
            rows that the result has more than `MAX_ELEMENTS` (`request.rows`).
        UsageError: An array is missing, or another than that.
    """
    made = empty_table(check_table(dtypes_of(spec), raw), spec.features)
    faults = []
    for place, (column, begin) in enumerate(zip(spec.columns, spec.begins, strict=True)):
        bad = _fill(column, raw[column.name], made[:, begin : begin + column.features])
        if bad.any():
            faults.append((int(bad.argmax()), place))
    if faults:
        row, place = min(faults)
        raise value_fault(spec.columns[place], raw, row)
    return made


def dtypes_of(spec: TablePreprocessing) -> dict[str, np.dtype[np.generic]]:
    """The dtype of each column's raw array, by its name."""
    return {column.name: NUMPY_DTYPES[column.datatype] for column in spec.columns}


def check_table(dtypes: Mapping[str, np.dtype[np.generic]], raw: Mapping[str, Array]) -> int:
    """Checks raw arrays; returns how many rows they have.

    Raises:
        UsageError: One is missing, or has another shape or dtype.
    """
    rows = -1
    for name, dtype in dtypes.items():
        values = raw.get(name)
        if values is None:
            raise UsageError("preprocess.table", f"column '{name}' is missing")
        if values.dtype != dtype or values.ndim != 1 or rows not in {-1, len(values)}:
            wanted, found = f"{dtype}[{'batch' if rows < 0 else rows}]", [*values.shape]
            raise UsageError(
                "preprocess.table", f"column '{name}' is {wanted}, and was {values.dtype}{found}"
            )
        rows = len(values)
    return rows


def check_texts(names: Sequence[str], texts: Sequence[bytes]) -> npt.NDArray[np.int64]:
    """Checks the texts of some columns, one behind the other; returns their lengths.

    Raises:
        UsageError: One is no bytes.
        TooLargeError: One is longer than `MAX_TEXT`.
    """
    rows = len(texts) // max(1, len(names))
    if not {*map(type, texts)} <= {bytes}:
        at = next(at for at, text in enumerate(texts) if type(text) is not bytes)
        raise UsageError(
            "preprocess.table", f"row {at % rows} of '{names[at // rows]}' is no bytes"
        )
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    if lengths.max(initial=0) > MAX_TEXT:
        at = int((lengths > MAX_TEXT).argmax())
        raise TooLargeError(
            "request.text-size",
            f"row {at % rows} of '{names[at // rows]}', counted from 0, has {lengths[at]} bytes;"
            f" at most {MAX_TEXT} are taken",
        )
    return lengths


def empty_table(rows: int, features: int) -> Features:
    """Zeros for a prepared batch.

    Raises:
        TooLargeError: There would be more than `MAX_ELEMENTS`.
    """
    most = MAX_ELEMENTS // features
    if rows > most:
        raise TooLargeError(
            "request.rows", f"the request has {rows} rows; this table takes {most} at a time"
        )
    return np.zeros((rows, features), np.float32)


def value_fault(column: Column, raw: Mapping[str, Array], row: int) -> InvalidRequestError:
    """What to tell of a value that no feature can be made of. The value itself may be private."""
    where = f"row {row} of '{column.name}', counted from 0,"
    if not isinstance(column, Number):
        return InvalidRequestError("request.category", f"{where} is none of the known categories")
    if math.isnan(raw[column.name].item(row)):
        return InvalidRequestError("request.number", f"{where} is missing, and nothing is imputed")
    return InvalidRequestError("request.number", f"{where} is infinite, or too large for FP32")


def murmur3(text: Sequence[int], begin: int, length: int) -> int:
    """MurmurHash3 (x86, 32 bits, seed 0) of some bytes of a text, as an unsigned number.

    Whole numbers alone, of at most 64 bits: the native kernel is compiled from these very lines.
    Source: Austin Appleby, `MurmurHash3_x86_32` of MurmurHash3.cpp in SMHasher. What is left of the
    last four bytes is mixed in as a whole word is, but for the turn of the state.
    """
    state = 0
    for at in range(0, length, 4):
        word = 0
        for place in range(min(at + 4, length) - 1, at - 1, -1):
            word = 256 * word + text[begin + place]
        word = word * 0xCC9E2D51 & 0xFFFFFFFF
        word = (word << 15 | word >> 17) & 0xFFFFFFFF
        state ^= word * 0x1B873593 & 0xFFFFFFFF
        if at + 4 <= length:
            state = (state << 13 | state >> 19) & 0xFFFFFFFF
            state = (state * 5 + 0xE6546B64) & 0xFFFFFFFF
    state ^= length
    state = (state ^ state >> 16) * 0x85EBCA6B & 0xFFFFFFFF
    state = (state ^ state >> 13) * 0xC2B2AE35 & 0xFFFFFFFF
    return state ^ state >> 16


def _fill(column: Column, values: Array, made: Features) -> _Rows:
    """Writes the features of a column into zeros; tells the rows where there can be none."""
    match column:
        case Number():
            return _standardise(column, values.astype(np.float64), made)
        case OneHot():
            return _encode(column, values, made)
        case Hash():
            return _hash(column, values, made)


def _standardise(column: Number, values: npt.NDArray[np.float64], made: Features) -> _Rows:
    if column.impute is not None:
        values = np.where(np.isnan(values), column.impute, values)
    with np.errstate(over="ignore"):
        features = (values - column.mean) / column.std
    bad = ~(np.abs(features) <= LARGEST)
    made[:, 0] = np.where(bad, 0.0, features)
    return bad


def _encode(column: OneHot, values: Array, made: Features) -> _Rows:
    given = values.tolist()
    if column.datatype == "BYTES":
        check_texts((column.name,), given)
    categories: Sequence[str | int] = column.categories
    known = {
        category.encode() if isinstance(category, str) else category: place
        for place, category in enumerate(categories)
    }
    unknown = len(known) if column.unknown == "other" else -1
    places = np.array([known.get(value, unknown) for value in given], np.int64)
    (found,) = np.nonzero(places >= 0)
    made[found, places[found]] = 1
    return (places < 0) & (column.unknown == "error")


def _hash(column: Hash, values: Array, made: Features) -> _Rows:
    given = values.tolist()
    check_texts((column.name,), given)
    for row, text in enumerate(given):
        hashed = murmur3(text, 0, len(text))
        negative = hashed >= 1 << 31
        bucket = ((1 << 32) - hashed if negative else hashed) % column.buckets
        made[row, bucket] = -1 if negative and column.signed else 1
    return np.zeros(len(given), np.bool_)

"""The `data` of a tensor in JSON: nested as its shape says, or flat in row-major order."""

from itertools import chain
from typing import cast

import numpy as np

from headrace.errors import InvalidRequestError, UnsupportedError
from headrace.protocol.binary import object_array
from headrace.protocol.checks import check_count, check_text, range_error
from headrace.protocol.messages import Tensor
from headrace.tensors import NUMPY_DTYPES, Array, Datatype

_KINDS: dict[type, str] = {
    bool: "a boolean",
    int: "an integer",
    float: "a number with a fraction or an exponent",
    str: "a string",
    list: "an array",
    dict: "an object",
    type(None): "null",
}
_FLOATS = ("FP32", "FP64")


def decode_data(where: str, datatype: Datatype, shape: tuple[int, ...], data: object) -> Array:
    """An array from parsed JSON; nothing is converted that could lose its meaning.

    BOOL takes booleans, integers take integers (1.0 is none), FP32 and FP64 take numbers, BYTES
    takes strings, which become their UTF-8.

    Raises:
        InvalidRequestError: FP16, which JSON does not carry (`request.fp16-json`); not an array
            (`request.field`); nested otherwise than the shape (`request.nesting`); of another
            number of elements (`request.count`); an element of another kind (`request.element`),
            out of range (`request.range`), or no Unicode text (`request.text`).
    """
    if datatype == "FP16":
        raise InvalidRequestError(
            "request.fp16-json",
            f"{where} is FP16, which JSON does not carry",
            "send the tensor as binary data",
        )
    if not isinstance(data, list):
        raise InvalidRequestError("request.field", f"the data of {where} should be an array")
    nested = len(shape) > 1 and bool(data) and isinstance(data[0], list)
    flat = _unnest(where, shape, data) if nested else data
    check_count(where, shape, len(flat))
    _check_kinds(where, datatype, flat)
    if datatype == "BYTES":
        return object_array(shape, _encode_strings(where, flat))
    # A cast for the type checker only: the kinds above leave numbers.
    return _numbers(where, datatype, cast("list[float]", flat)).reshape(shape)


def encode_data(tensor: Tensor) -> list[object]:
    """The elements of an output for JSON, flat in row-major order.

    Raises:
        UnsupportedError: JSON cannot carry them (`response.not-json`).
    """
    flat = tensor.array.ravel()
    if tensor.datatype == "FP16":
        raise _not_json(tensor, "is FP16")
    if tensor.datatype in _FLOATS and not np.isfinite(flat).all():
        raise _not_json(tensor, "holds NaN or an infinity")
    elements: list[object] = flat.tolist()
    if tensor.datatype != "BYTES":
        return elements
    try:
        return [str(element, "utf-8") for element in flat.tolist()]
    except UnicodeDecodeError as error:
        raise _not_json(tensor, "holds bytes that are not UTF-8") from error


def _unnest(where: str, shape: tuple[int, ...], data: list[object]) -> list[object]:
    level: list[object] = [data]
    for axis, size in enumerate(shape):
        rows = [row for row in level if isinstance(row, list)]
        if len(rows) != len(level) or set(map(len, rows)) - {size}:
            raise InvalidRequestError(
                "request.nesting",
                f"{where} has shape {list(shape)}, and its data is not nested so:"
                f" every array along axis {axis} should hold {size} entries",
            )
        level = list(chain.from_iterable(rows))
    return level


def _check_kinds(where: str, datatype: Datatype, flat: list[object]) -> None:
    wrong = set(map(type, flat)) - _taken(datatype)
    if wrong:
        index = next(index for index, value in enumerate(flat) if type(value) in wrong)
        raise InvalidRequestError(
            "request.element",
            f"{where} takes {datatype}, and element {index} is {_KINDS[type(flat[index])]}",
        )


def _taken(datatype: Datatype) -> set[type]:
    if datatype in _FLOATS:
        return {int, float}
    if datatype == "BOOL":
        return {bool}
    return {str} if datatype == "BYTES" else {int}


def _encode_strings(where: str, flat: list[object]) -> list[bytes]:
    return [
        check_text(f"element {index} of {where}", str(text)).encode()
        for index, text in enumerate(flat)
    ]


def _numbers(where: str, datatype: Datatype, flat: list[float]) -> Array:
    try:
        with np.errstate(over="ignore"):
            array: Array = np.array(flat, NUMPY_DTYPES[datatype])
    except OverflowError as error:
        raise range_error(where, datatype, flat) from error
    # JSON has no infinity, but 1e999 reads as one, and 1e39 becomes one in FP32.
    if datatype in _FLOATS and not np.isfinite(array).all():
        raise range_error(where, datatype, flat)
    return array


def _not_json(tensor: Tensor, reason: str) -> UnsupportedError:
    return UnsupportedError(
        "response.not-json",
        f"output '{tensor.name}' {reason}, which JSON does not carry",
        "ask for it as binary data",
    )

"""Checks that both transports make of a request: names, text, datatypes, shapes, parameters."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np

from headrace.errors import InvalidRequestError, TooLargeError, UnsupportedError
from headrace.protocol.limits import Limits
from headrace.protocol.messages import Parameter
from headrace.tensors import NUMPY_DTYPES, Datatype

_MAX_NAME = 128
_MAX_ID = 1024


class _Named(Protocol):
    @property
    def name(self) -> str: ...


def shown(value: object) -> str:
    """A value from the network, short and printable, for use in a sentence."""
    text = ascii(value) if isinstance(value, str | int | float | None) else type(value).__name__
    return text if len(text) <= 60 else f"{text[:57]}..."


def check_name(where: str, name: object) -> str:
    """A tensor's name: 1 to 128 printable characters.

    Raises:
        InvalidRequestError: It is something else (`request.name`).
    """
    if isinstance(name, str) and 0 < len(name) <= _MAX_NAME and name.isprintable():
        return name
    raise InvalidRequestError(
        "request.name",
        f"{where} needs a name of 1 to {_MAX_NAME} printable characters, and has {shown(name)}",
    )


def check_id(value: object) -> str:
    """A request's id.

    Raises:
        InvalidRequestError: It is no text, or too long (`request.id`, `request.text`).
    """
    if not isinstance(value, str) or len(value) > _MAX_ID:
        raise InvalidRequestError(
            "request.id", f"the id should be text of at most {_MAX_ID} characters"
        )
    return check_text("the id", value)


def check_text(where: str, text: str) -> str:
    """Text that UTF-8 can carry: JSON's escapes can spell half a surrogate pair.

    Raises:
        InvalidRequestError: It cannot (`request.text`).
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequestError(
            "request.text",
            f"{where} holds half a surrogate pair at character {error.start},"
            " which is no Unicode text",
        ) from error
    return text


def check_distinct(kind: str, tensors: Iterable[_Named]) -> None:
    """Checks that no name comes twice; `kind` is "input" or "output".

    Raises:
        InvalidRequestError: One does (`request.duplicate-input`, `request.duplicate-output`).
    """
    seen: set[str] = set()
    for tensor in tensors:
        if tensor.name in seen:
            raise InvalidRequestError(
                f"request.duplicate-{kind}", f"{kind} '{tensor.name}' is given more than once"
            )
        seen.add(tensor.name)


def check_datatype(where: str, datatype: object) -> Datatype:
    """A datatype by its protocol name.

    Raises:
        InvalidRequestError: There is no such datatype (`request.datatype`).
    """
    for known in NUMPY_DTYPES:
        if known == datatype:
            return known
    raise InvalidRequestError(
        "request.datatype",
        f"{where} has datatype {shown(datatype)}, which is not known here",
        f"use one of {', '.join(NUMPY_DTYPES)}",
    )


def check_dimensions(
    where: str, datatype: Datatype, dimensions: Sequence[object], limits: Limits
) -> tuple[int, ...]:
    """A shape whose element count is within the limits; an axis may be 0, and a scalar has none.

    Raises:
        InvalidRequestError: An axis is no whole number, or negative (`request.shape`).
        TooLargeError: Too many axes or elements (`request.rank`, `request.elements`).
    """
    if len(dimensions) > limits.max_rank:
        raise TooLargeError(
            "request.rank",
            f"{where} has {len(dimensions)} axes, and at most {limits.max_rank} are taken",
        )
    shape: list[int] = []
    for size in dimensions:
        # bool is an int to Python, and no size.
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise InvalidRequestError(
                "request.shape",
                f"the shape of {where} should hold whole numbers from 0, and holds {shown(size)}",
            )
        shape.append(size)
    most = limits.max_bytes_elements if datatype == "BYTES" else limits.max_elements
    # An axis of 0 must not hide the others: NumPy refuses those products too.
    if math.prod(size for size in shape if size) > most:
        raise TooLargeError(
            "request.elements",
            f"{where} has more than the {most} {datatype} elements that are taken in one tensor",
        )
    return tuple(shape)


def check_count(where: str, shape: tuple[int, ...], found: int) -> None:
    """Checks that there are as many elements as the shape says.

    Raises:
        InvalidRequestError: There are more or fewer (`request.count`).
    """
    if found != math.prod(shape):
        raise InvalidRequestError(
            "request.count",
            f"{where} has shape {list(shape)}, which takes {math.prod(shape)} elements,"
            f" and got {found}",
        )


def check_entries(kind: str, count: int, limits: Limits) -> None:
    """Checks that there are not too many inputs, outputs or parameters.

    Raises:
        TooLargeError: There are (`request.entries`).
    """
    if count > limits.max_entries:
        raise TooLargeError(
            "request.entries",
            f"the request has {count} {kind}, and at most {limits.max_entries} are taken",
        )


def range_error(where: str, datatype: Datatype, values: Iterable[float]) -> InvalidRequestError:
    """The error (`request.range`) for numbers at least one of which does not fit the datatype."""
    low, high = _bounds(datatype)
    index = next(index for index, value in enumerate(values) if not low <= value <= high)
    return InvalidRequestError(
        "request.range",
        f"{where} takes {datatype} from {low} to {high}, and element {index} lies outside",
    )


def refuse_unsupported(where: str, parameters: Mapping[str, object]) -> None:
    """Refuses what would change the meaning of a tensor and is not done here.

    Raises:
        UnsupportedError: Shared memory or classification is asked for (`request.shared-memory`,
            `request.classification`).
    """
    if "shared_memory_region" in parameters:
        raise UnsupportedError(
            "request.shared-memory",
            f"{where} lies in shared memory, which this server does not read",
            "send the tensor with the request",
        )
    if "classification" in parameters:
        raise UnsupportedError(
            "request.classification",
            f"{where} asks for classification, which this server does not do",
            "declare top-k postprocessing in the recipe",
        )


def check_parameter(key: str, value: object) -> Parameter:
    """The value of one request parameter: a boolean, a 64-bit integer, a finite number or text.

    Raises:
        InvalidRequestError: It is something else (`request.parameter`, `request.text`).
    """
    if isinstance(value, str):
        return check_text(f"parameter {shown(key)}", value)
    if isinstance(value, int) and -(2**63) <= value < 2**64:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise InvalidRequestError(
        "request.parameter",
        f"parameter {shown(key)} should be a boolean, a 64-bit integer, a finite number or text",
    )


def _bounds(datatype: Datatype) -> tuple[float, float]:
    dtype = NUMPY_DTYPES[datatype].name
    if dtype.startswith("float"):
        return float(np.finfo(dtype).min), float(np.finfo(dtype).max)
    return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)

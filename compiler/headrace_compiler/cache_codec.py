"""Typed results as one JSON value and one file of bytes, and back; no pickle.

What is written and what is read follows the declared type alone: nothing in a document says what
to construct. A type that can be kept is made of None, bool, int, float, str, bytes, NumPy arrays
of numbers, `Literal`, unions, tuples, mappings from str, frozen dataclasses and frozen pydantic
models, and does not hold itself.
"""

import dataclasses
import io
import math
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import (
    Annotated,
    Any,
    Literal,
    NoReturn,
    Protocol,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import numpy as np
from pydantic import BaseModel

from headrace.errors import HeadraceError

NUMBERS = "biufc"
"""The kinds of dtypes whose bytes are all that they are."""
_NOT_FINITE = ("nan", "inf", "-inf")
_SCALARS: Mapping[object, tuple[type, ...]] = types.MappingProxyType(
    {
        None: (type(None),),
        type(None): (type(None),),
        bool: (bool,),
        int: (int,),
        float: (float, int),
        str: (str,),
    }
)
"""What a value declared as one of these may be."""


class MisfitError(ValueError):
    """A document is not one that its type's codec makes."""


class Codec(Protocol):
    """Writes and reads the values of one type."""

    def encode(self, value: object, blobs: io.BufferedIOBase, where: str) -> object:
        """The JSON value of a value.

        Args:
            blobs: The file to which its bytes and arrays are added.
            where: What the value is called in errors.

        Raises:
            TypeError: The value is not of the type.
            OSError: The file cannot be written.
        """
        ...

    def decode(self, document: object, blobs: io.BufferedIOBase) -> Any:  # noqa: ANN401 - of the codec's type
        """The value of a JSON value that `encode` made.

        Args:
            blobs: The file of its bytes and arrays.

        Raises:
            MisfitError: The document does not fit the type.
            OSError: The file cannot be read.
        """
        ...


def codec(kind: object, within: tuple[object, ...] = ()) -> Codec:
    """The codec of a type.

    Args:
        within: The records whose fields lead here.

    Raises:
        TypeError: Its values cannot be kept.
    """
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    made: Codec | None = None
    if kind is bytes:
        made = _BytesCodec()
    elif kind in _SCALARS:
        made = _ScalarCodec(kind)
    elif get_origin(kind) is not None:
        made = _generic_codec(get_origin(kind), get_args(kind), within)
    elif isinstance(kind, type) and kind not in within:
        made = _record_codec(kind, within)
    if made is None:
        raise TypeError(f"values of {kind} cannot be kept")
    return made


def record_fields(kind: type) -> tuple[str, ...] | None:
    """The fields that make a value of a frozen dataclass or model; None for any other type."""
    if issubclass(kind, BaseModel) and kind.model_config.get("frozen"):
        return tuple(kind.model_fields)
    parameters = getattr(kind, "__dataclass_params__", None)
    if parameters is not None and parameters.frozen and dataclasses.is_dataclass(kind):
        return tuple(field.name for field in dataclasses.fields(kind) if field.init)
    return None


@dataclass(frozen=True)
class _ScalarCodec:
    kind: object

    def encode(self, value: object, _: io.BufferedIOBase, where: str) -> object:
        if not isinstance(value, _SCALARS[self.kind]):
            _wrong(value, self.kind, where)
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else str(float(value))
        return value

    def decode(self, document: object, _: io.BufferedIOBase) -> object:
        if self.kind is float and document in _NOT_FINITE:
            return float(str(document))
        return document if isinstance(document, _SCALARS[self.kind]) else _misfit(document)


@dataclass(frozen=True)
class _LiteralCodec:
    choices: tuple[object, ...]

    def encode(self, value: object, _: io.BufferedIOBase, where: str) -> object:
        return value if self._has(value) else _wrong(value, Literal[self.choices], where)

    def decode(self, document: object, _: io.BufferedIOBase) -> object:
        return document if self._has(document) else _misfit(document)

    def _has(self, value: object) -> bool:
        """True equals 1, and is another choice."""
        return any(type(value) is type(choice) and value == choice for choice in self.choices)


@dataclass(frozen=True)
class _BytesCodec:
    def encode(self, value: object, blobs: io.BufferedIOBase, where: str) -> object:
        if not isinstance(value, bytes):
            _wrong(value, bytes, where)
        start = blobs.tell()
        blobs.write(value)
        return [start, len(value)]

    def decode(self, document: object, blobs: io.BufferedIOBase) -> bytes:
        match _naturals(document):
            case (start, size):
                pass
            case _:
                _misfit(document)
        _seek(blobs, start, size)
        return blobs.read(size)


@dataclass(frozen=True)
class _ArrayCodec:
    scalar: Any
    """The type of its numbers, or an abstract one above it."""

    def encode(self, value: object, blobs: io.BufferedIOBase, where: str) -> object:
        if not isinstance(value, np.ndarray) or not self._takes(value.dtype):
            _wrong(value, f"an array of {self.scalar}", where)
        if value.dtype.kind not in NUMBERS:
            raise TypeError(f"{where} holds {value.dtype}, which cannot be kept")
        start = blobs.tell()
        blobs.write(value.tobytes())
        return {"dtype": value.dtype.str, "shape": list(value.shape), "at": start}

    def decode(self, document: object, blobs: io.BufferedIOBase) -> object:
        match document:
            case {"dtype": str(name), "shape": shape, "at": int(start)}:
                dtype, axes = _dtype(name), _naturals(shape)
            case _:
                _misfit(document)
        if not self._takes(dtype):
            _misfit(document)
        _seek(blobs, start, math.prod(axes) * dtype.itemsize)
        array = np.empty(axes, dtype)
        blobs.readinto(array.reshape(-1).view(np.uint8).data)
        return array

    def _takes(self, dtype: np.dtype[Any]) -> bool:
        return self.scalar is Any or np.issubdtype(dtype, self.scalar)


@dataclass(frozen=True)
class _UnionCodec:
    cases: tuple[Codec, ...]

    def encode(self, value: object, blobs: io.BufferedIOBase, where: str) -> object:
        start, faults = blobs.tell(), []
        for number, case in enumerate(self.cases):
            try:
                return [number, case.encode(value, blobs, where)]
            except TypeError as error:
                faults.append(str(error))
                blobs.seek(start)
                blobs.truncate()
        raise TypeError("; ".join(faults))

    def decode(self, document: object, blobs: io.BufferedIOBase) -> object:
        match document:
            case [int(number), inner] if 0 <= number < len(self.cases):
                return self.cases[number].decode(inner, blobs)
        return _misfit(document)


@dataclass(frozen=True)
class _SeriesCodec:
    """Tuples of any length, of items of one type."""

    item: Codec

    def encode(self, value: object, blobs: io.BufferedIOBase, where: str) -> object:
        items = value if isinstance(value, tuple) else _wrong(value, tuple, where)
        return [
            self.item.encode(item, blobs, f"{where}[{number}]") for number, item in enumerate(items)
        ]

    def decode(self, document: object, blobs: io.BufferedIOBase) -> object:
        items = document if isinstance(document, list) else _misfit(document)
        return tuple(self.item.decode(item, blobs) for item in items)


@dataclass(frozen=True)
class _TupleCodec:
    """Tuples of one length, each of whose places has a type of its own."""

    places: tuple[Codec, ...]

    def encode(self, value: object, blobs: io.BufferedIOBase, where: str) -> object:
        if not isinstance(value, tuple) or len(value) != len(self.places):
            _wrong(value, f"a tuple of {len(self.places)}", where)
        pairs = enumerate(zip(self.places, value, strict=True))
        return [place.encode(item, blobs, f"{where}[{number}]") for number, (place, item) in pairs]

    def decode(self, document: object, blobs: io.BufferedIOBase) -> object:
        if not isinstance(document, list) or len(document) != len(self.places):
            _misfit(document)
        pairs = zip(self.places, document, strict=True)
        return tuple(place.decode(item, blobs) for place, item in pairs)


@dataclass(frozen=True)
class _MappingCodec:
    item: Codec

    def encode(self, value: object, blobs: io.BufferedIOBase, where: str) -> object:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            _wrong(value, "a mapping from str", where)
        return {
            key: self.item.encode(item, blobs, f"{where}[{key!r}]") for key, item in value.items()
        }

    def decode(self, document: object, blobs: io.BufferedIOBase) -> object:
        items = document if isinstance(document, dict) else _misfit(document)
        return {key: self.item.decode(item, blobs) for key, item in items.items()}


@dataclass(frozen=True)
class _RecordCodec:
    kind: type
    fields: Mapping[str, Codec]

    def encode(self, value: object, blobs: io.BufferedIOBase, where: str) -> object:
        if type(value) is not self.kind:  # a subclass may hold more
            _wrong(value, self.kind, where)
        return {
            name: field.encode(getattr(value, name), blobs, f"{where}.{name}")
            for name, field in self.fields.items()
        }

    def decode(self, document: object, blobs: io.BufferedIOBase) -> object:
        if not isinstance(document, dict) or document.keys() != self.fields.keys():
            _misfit(document)
        values = {name: field.decode(document[name], blobs) for name, field in self.fields.items()}
        try:
            return self.kind(**values)
        except (ValueError, TypeError, HeadraceError) as error:
            raise MisfitError(f"no {self.kind.__name__}: {error}") from error


def _generic_codec(
    origin: object, args: tuple[Any, ...], within: tuple[object, ...]
) -> Codec | None:
    if origin in {Union, types.UnionType}:
        return _UnionCodec(tuple(codec(case, within) for case in args))
    if origin is Literal:
        return _LiteralCodec(args)
    if origin is tuple:
        return _tuple_codec(args, within)
    if origin in {dict, Mapping} and _is_text(args[0]):
        return _MappingCodec(codec(args[1], within))
    if origin is np.ndarray:
        return _ArrayCodec(*(get_args(args[1]) or (np.generic,)))
    return None


def _is_text(kind: object) -> bool:
    """Whether a type's values are texts, any or some."""
    return kind is str or (
        get_origin(kind) is Literal and all(isinstance(choice, str) for choice in get_args(kind))
    )


def _tuple_codec(args: tuple[object, ...], within: tuple[object, ...]) -> Codec:
    if len(args) == 2 and args[1] is ...:
        return _SeriesCodec(codec(args[0], within))
    return _TupleCodec(tuple(codec(place, within) for place in args))


def _record_codec(kind: type, within: tuple[object, ...]) -> Codec | None:
    names = record_fields(kind)
    if names is None:
        return None
    hints = get_type_hints(kind, include_extras=True)
    return _RecordCodec(kind, {name: codec(hints[name], (*within, kind)) for name in names})


def _seek(blobs: io.BufferedIOBase, start: int, size: int) -> None:
    """Goes to where so many bytes are; asked before memory is taken for them."""
    if not 0 <= start <= start + size <= blobs.seek(0, io.SEEK_END):
        raise MisfitError(f"there are no {size} bytes at {start}")
    blobs.seek(start)


def _naturals(document: object) -> tuple[int, ...]:
    if not isinstance(document, list) or not all(type(n) is int and n >= 0 for n in document):
        _misfit(document)
    return tuple(document)


def _dtype(name: str) -> np.dtype[Any]:
    try:
        dtype = np.dtype(name)
    except TypeError as error:
        raise MisfitError(f"there is no dtype {name:.80}") from error
    if dtype.kind not in NUMBERS:
        raise MisfitError(f"{name:.80} is no dtype of numbers")
    return dtype


def _wrong(value: object, kind: object, where: str) -> NoReturn:
    shown = str(value.dtype) if isinstance(value, np.ndarray) else type(value).__name__
    raise TypeError(f"{where} is a {shown}, and declared {getattr(kind, '__name__', kind)}")


def _misfit(document: object) -> NoReturn:
    raise MisfitError(f"{type(document).__name__} does not fit")

"""JSON text from the network to one object, stricter than the standard library alone."""

import json
import re
from collections import Counter

import numpy as np

from headrace.errors import InvalidRequestError, TooLargeError
from headrace.protocol.checks import shown
from headrace.protocol.limits import Limits

_BRACKETS = b"[]{}"
_OTHERS = bytes(byte for byte in range(256) if byte not in _BRACKETS)
# Possessive, so that a string that never ends costs one pass; its closing quote may be missing.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)


def parse_object(content: memoryview, limits: Limits) -> dict[str, object]:
    """One JSON object, in UTF-8.

    Raises:
        InvalidRequestError: Not UTF-8 (`request.encoding`); not JSON (`request.json`); with NaN or
            Infinity (`request.json-constant`); with a key twice in one object
            (`request.json-duplicate`); another kind of value (`request.field`).
        TooLargeError: Longer or deeper than the limits allow (`request.json-size`,
            `request.json-depth`).
    """
    if len(content) > limits.max_json_bytes:
        raise TooLargeError(
            "request.json-size",
            f"the JSON is {len(content)} bytes, and at most {limits.max_json_bytes} are taken",
            "send large tensors as binary data",
        )
    raw = bytes(content)
    check_depth(raw, limits.max_json_depth)
    value = _parse(_decode(raw), limits)
    if not isinstance(value, dict):
        raise InvalidRequestError("request.field", "the request should be a JSON object")
    return value


def check_depth(raw: bytes, most: int) -> None:
    """Checks how deep arrays and objects nest, without parsing them.

    Raises:
        TooLargeError: Deeper than `most` (`request.json-depth`).
    """
    if raw.count(b"[") + raw.count(b"{") <= most:
        return
    brackets = np.frombuffer(_STRING.sub(b"", raw).translate(None, _OTHERS), np.uint8)
    opening = (brackets == ord("[")) | (brackets == ord("{"))
    steps = np.where(opening, np.int8(1), np.int8(-1))
    if np.cumsum(steps, dtype=np.int32).max(initial=0) > most:
        raise _too_deep(most)


def _decode(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequestError(
            "request.encoding", f"the JSON is not UTF-8: byte {error.start} does not decode"
        ) from error


def _parse(text: str, limits: Limits) -> object:
    try:
        value: object = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise InvalidRequestError(
            "request.json",
            f"the JSON is malformed at line {error.lineno}, column {error.colno}: {error.msg}",
        ) from error
    except ValueError as error:
        # The interpreter's own limit on the digits of an integer.
        raise InvalidRequestError(
            "request.json", "the JSON holds an integer of too many digits"
        ) from error
    except RecursionError as error:
        raise _too_deep(limits.max_json_depth) from error
    return value


def _too_deep(most: int) -> TooLargeError:
    return TooLargeError("request.json-depth", f"the JSON nests deeper than {most} levels")


def _refuse_constant(name: str) -> object:
    raise InvalidRequestError(
        "request.json-constant",
        f"the JSON holds {name}, which is no JSON number",
        "send the tensor as binary data",
    )


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    unique = dict(pairs)
    if len(unique) == len(pairs):
        return unique
    twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
    raise InvalidRequestError(
        "request.json-duplicate", f"the JSON gives the key {shown(twice)} twice in one object"
    )


_DECODER = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)

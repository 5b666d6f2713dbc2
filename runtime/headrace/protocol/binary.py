"""Tensors as bytes: little-endian, row-major, without padding; HTTP and gRPC share the layout.

BOOL takes one byte, 0 or 1. A BYTES element is its length as uint32, then its bytes.
Source: Triton Inference Server, extension "binary tensor data"; `raw_input_contents` is the same.
"""

import math
import struct

import numpy as np

from headrace.errors import InvalidRequestError
from headrace.protocol.messages import Tensor
from headrace.tensors import NUMPY_DTYPES, Array, Datatype

_LENGTH = struct.Struct("<I")


def decode_binary(
    where: str, datatype: Datatype, shape: tuple[int, ...], content: bytes | memoryview
) -> Array:
    """An array from its bytes; a read-only view of them, except for BYTES.

    Args:
        where: How a sentence calls the tensor.
        content: Bytes, or a read-only view of bytes.

    Raises:
        InvalidRequestError: Not as long as the shape says (`request.binary-size`), or with an
            element that the datatype does not have (`request.element`).
    """
    if datatype == "BYTES":
        return object_array(shape, decode_bytes(where, math.prod(shape), content))
    native = NUMPY_DTYPES[datatype]
    expected = math.prod(shape) * native.itemsize
    if len(content) != expected:
        raise InvalidRequestError(
            "request.binary-size",
            f"{where} is {datatype} of shape {list(shape)}, which takes {expected} bytes,"
            f" and got {len(content)}",
        )
    flat = np.frombuffer(content, native.newbyteorder("<"))
    # NumPy trusts its booleans: a byte of 2 would be neither true nor false to what follows.
    if datatype == "BOOL" and flat.view(np.uint8).max(initial=0) > 1:
        index = int(np.argmax(flat.view(np.uint8) > 1))
        raise InvalidRequestError(
            "request.element",
            f"{where} takes BOOL as bytes of 0 or 1, and element {index} is another",
        )
    return flat.reshape(shape).astype(native, copy=False)


def decode_bytes(where: str, count: int, content: bytes | memoryview) -> list[bytes]:
    """The elements of a BYTES tensor, in order.

    Raises:
        InvalidRequestError: The lengths do not add up to the content (`request.bytes-length`), or
            to another number of elements (`request.count`).
    """
    elements: list[bytes] = []
    offset, end = 0, len(content)
    while offset < end and len(elements) < count:
        start = offset + _LENGTH.size
        offset = start + _LENGTH.unpack_from(content, offset)[0] if start <= end else end + 1
        if offset > end:
            raise InvalidRequestError(
                "request.bytes-length",
                f"element {len(elements)} of {where} is longer than the bytes that were sent",
                "a BYTES element is its length as a little-endian uint32, then its bytes",
            )
        elements.append(bytes(content[start:offset]))
    if len(elements) != count or offset != end:
        found = f"{len(elements)} elements" + (" and more bytes" if offset != end else "")
        raise InvalidRequestError(
            "request.count", f"{where} takes {count} BYTES elements, and got {found}"
        )
    return elements


def encode_binary(tensor: Tensor) -> memoryview:
    """The bytes of a tensor: a view of its array where that lies ready, format `B`."""
    if tensor.datatype == "BYTES":
        return memoryview(encode_bytes(tensor.array.ravel().tolist()))
    little = tensor.array.dtype.newbyteorder("<")
    ready = np.ascontiguousarray(tensor.array, little)
    return ready.reshape(-1).view(np.uint8).data


def encode_bytes(elements: list[bytes]) -> bytes:
    """The elements of a BYTES tensor, each behind its length."""
    pack = _LENGTH.pack
    return b"".join([part for element in elements for part in (pack(len(element)), element)])


def object_array(shape: tuple[int, ...], elements: list[bytes]) -> Array:
    """A BYTES array of that shape."""
    array = np.empty(len(elements), object)
    array[:] = elements
    return array.reshape(shape)

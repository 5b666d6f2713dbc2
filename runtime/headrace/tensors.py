"""What a tensor is to headrace: a name, a datatype and a shape with named dynamic axes.

Datatypes carry the names of the Open Inference Protocol (its "Tensor Data Types" table), which
the bundle, the wire and the recipe share, so that nothing is translated twice.
"""

from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from headrace.errors import InvalidRequestError, UsageError

Array = npt.NDArray[np.generic]
Datatype = Literal[
    "BOOL",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "FP16",
    "FP32",
    "FP64",
    "BYTES",
]
Axis = Annotated[int, Field(ge=0)] | Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
TensorName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.\-]*$", max_length=128)]
BATCH = "batch"
"""The name of the axis along which requests are batched; always axis 0."""

NUMPY_DTYPES: dict[Datatype, np.dtype[np.generic]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(object),
}
_DATATYPES = {dtype: name for name, dtype in NUMPY_DTYPES.items()}


class Frozen(BaseModel):
    """The base of every message and manifest: immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class TensorSpec(Frozen):
    """A declared tensor.

    Attributes:
        name: As the graph and the wire know it.
        datatype: An Open Inference Protocol name.
        shape: One entry an axis: a size, or the name of a dynamic axis. Equal names mean equal
            sizes within one request.
    """

    name: TensorName
    datatype: Datatype
    shape: tuple[Axis, ...]


def datatype_of(array: Array) -> Datatype:
    """The protocol's name for an array's dtype.

    Raises:
        UsageError: The dtype has no counterpart in the protocol.
    """
    dtype = array.dtype.newbyteorder("=") if array.dtype.byteorder == ">" else array.dtype
    if dtype not in _DATATYPES:
        raise UsageError(
            "tensor.dtype",
            f"dtype {array.dtype} has no counterpart in the Open Inference Protocol",
            f"use one of {', '.join(NUMPY_DTYPES)}",
        )
    return _DATATYPES[dtype]


def room_for(
    shape: tuple[int, ...], dtype: np.dtype[np.generic], out: Array | None = None
) -> Array:
    """Memory for a result: `out`, if it is that, or a new array.

    Raises:
        UsageError: `out` has another shape or dtype, or is not C-contiguous, or read-only.
    """
    if out is None:
        return np.empty(shape, dtype)
    fits = out.shape == shape and out.dtype == dtype
    if not fits or not out.flags.c_contiguous or not out.flags.writeable:
        raise UsageError(
            "preprocess.out",
            f"the result is {dtype}{list(shape)}, dense and writable, and is to go into"
            f" {out.dtype}{list(out.shape)}",
        )
    return out


def check_shape(spec: TensorSpec, array: Array, bound: dict[str, int]) -> None:
    """Checks one array against its spec, and binds its dynamic axes.

    Args:
        bound: Sizes of the dynamic axes seen so far in this request; added to.

    Raises:
        InvalidRequestError: The datatype or the shape does not fit, or a named axis has two sizes.
    """
    found = datatype_of(array)
    if found != spec.datatype:
        raise InvalidRequestError(
            "request.datatype", f"input '{spec.name}' takes {spec.datatype}, and got {found}"
        )
    wanted = [str(axis) for axis in spec.shape]
    if array.ndim != len(spec.shape):
        raise InvalidRequestError(
            "request.shape",
            f"input '{spec.name}' takes shape [{', '.join(wanted)}], and got {list(array.shape)}",
        )
    for axis, size in zip(spec.shape, array.shape, strict=True):
        expected = bound.setdefault(axis, size) if isinstance(axis, str) else axis
        if size != expected:
            raise InvalidRequestError(
                "request.shape",
                f"input '{spec.name}' takes shape [{', '.join(wanted)}]"
                f"{f' with {axis} = {expected}' if isinstance(axis, str) else ''},"
                f" and got {list(array.shape)}",
            )

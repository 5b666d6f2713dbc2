"""One request and one answer, as every layer between the two edges sees them.

Plain dataclasses: they are made for each request, and the codecs have checked what they hold.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from headrace.errors import HeadraceError
from headrace.tensors import Array, Datatype, TensorSpec, datatype_of

Parameter = bool | int | float | str


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """A named array.

    Attributes:
        datatype: An Open Inference Protocol name.
        array: Of the dtype that `headrace.tensors.NUMPY_DTYPES` gives; the elements of BYTES are
            `bytes`. A decoded tensor may be a read-only view of the request's body, at any
            alignment.
    """

    name: str
    datatype: Datatype
    array: Array

    @classmethod
    def of(cls, name: str, array: Array) -> Self:
        """A tensor whose datatype is that of its array.

        Raises:
            UsageError: The dtype has no counterpart in the protocol.
        """
        return cls(name, datatype_of(array), array)


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """One output that the client asked for.

    Attributes:
        binary: Whether as bytes rather than JSON; None where the request's default decides.
    """

    name: str
    binary: bool | None = None


@dataclass(frozen=True, slots=True, eq=False)
class InferRequest:
    """One request for inference.

    Attributes:
        version: Empty where the client leaves the choice to the server.
        id: Empty where the client gave none.
        inputs: At least one; their names differ.
        outputs: Empty where the client wants all of them.
        binary_by_default: Whether outputs go out as bytes where they do not say otherwise. In gRPC
            true of a request whose inputs came raw, which is answered in kind.
        parameters: Of the request, without those that the codec itself acts on.
    """

    model: str
    version: str
    id: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[RequestedOutput, ...] = ()
    binary_by_default: bool = False
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class InferResponse:
    """One answer.

    Attributes:
        version: Of the model that answered.
        id: That of the request; empty where it gave none.
        outputs: Those asked for, in the order asked.
    """

    model: str
    version: str
    id: str
    outputs: tuple[Tensor, ...]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ServerMetadata:
    """What the server says of itself; `extensions` are those that work here."""

    name: str
    version: str
    extensions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """What the server says of one model."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def wire_shape(spec: TensorSpec) -> list[int]:
    """The shape as metadata shows it: -1 for a dynamic axis."""
    return [-1 if isinstance(axis, str) else axis for axis in spec.shape]


def error_sentence(error: HeadraceError) -> str:
    """What a client reads of an error: its sentence, and what to do about it."""
    return f"{error.message}; {error.hint}" if error.hint else error.message

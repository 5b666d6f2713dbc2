"""The protocol over gRPC: messages of package `inference`, raw or typed.

Takes and gives the compiled messages of tritonclient; the service and its status codes are the
edge's. That package must be the only one in the process to register `inference`.
Source: Open Inference Protocol, "inference_grpc.md".
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from headrace.errors import InvalidRequestError, MissingError, UnsupportedError
from headrace.protocol.binary import decode_binary, encode_binary, object_array
from headrace.protocol.checks import (
    check_count,
    check_datatype,
    check_dimensions,
    check_distinct,
    check_entries,
    check_id,
    check_name,
    check_parameter,
    range_error,
    refuse_unsupported,
    shown,
)
from headrace.protocol.limits import Limits
from headrace.protocol.messages import (
    InferRequest,
    InferResponse,
    ModelMetadata,
    Parameter,
    RequestedOutput,
    ServerMetadata,
    Tensor,
    wire_shape,
)
from headrace.tensors import NUMPY_DTYPES, Array, Datatype, TensorSpec

if TYPE_CHECKING:
    from types import ModuleType

    from tritonclient.grpc.service_pb2 import (
        InferParameter,
        InferTensorContents,
        ModelInferRequest,
        ModelInferResponse,
        ModelMetadataResponse,
        ServerMetadataResponse,
    )

_FIELDS: dict[Datatype, str] = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""Where typed contents stand; FP16 has no place there."""


def load_messages() -> "ModuleType":
    """The compiled messages, `tritonclient.grpc.service_pb2`.

    Raises:
        MissingError: The extra `grpc` is not installed (`extra.grpc`).
    """
    try:
        from tritonclient.grpc import service_pb2  # noqa: PLC0415 - an extra, heavy to import
    # tritonclient turns the absence of grpc itself into a RuntimeError.
    except (ImportError, RuntimeError) as error:
        raise MissingError(
            "extra.grpc",
            f"gRPC needs packages that are not installed: {error}",
            "pip install 'headrace[grpc]'",
        ) from error
    module: ModuleType = service_pb2
    return module


def decode_infer(message: "ModelInferRequest", limits: Limits) -> InferRequest:
    """The request in one message.

    Its whole size is the gRPC server's to bound (`Limits.max_body_bytes`).

    Raises:
        InvalidRequestError: The request is malformed; the code says how.
        TooLargeError: A tensor is larger than the limits allow.
        UnsupportedError: It asks for what is not done here.
    """
    check_entries("inputs", len(message.inputs), limits)
    check_entries("raw inputs", len(message.raw_input_contents), limits)
    check_entries("outputs", len(message.outputs), limits)
    check_entries("parameters", len(message.parameters), limits)
    raw = list(message.raw_input_contents)
    inputs = _raw_inputs(message, raw, limits) if raw else _typed_inputs(message, limits)
    if not inputs:
        raise InvalidRequestError("request.field", "the request should have at least one input")
    check_distinct("input", inputs)
    return InferRequest(
        model=message.model_name,
        version=message.model_version,
        id=check_id(message.id),
        inputs=inputs,
        outputs=_outputs(message),
        binary_by_default=bool(raw),
        parameters=decode_parameters(message.parameters),
    )


def encode_infer(response: InferResponse, request: InferRequest) -> "ModelInferResponse":
    """The answer to one request: raw if the request was raw, typed if it was typed.

    Raises:
        MissingError: The extra `grpc` is not installed.
        UnsupportedError: An FP16 output of a typed request (`response.not-typed`).
    """
    messages = load_messages()
    answer: ModelInferResponse = messages.ModelInferResponse(
        model_name=response.model,
        model_version=response.version,
        id=response.id,
        parameters=encode_parameters(response.parameters),
    )
    for tensor in response.outputs:
        output = answer.outputs.add(
            name=tensor.name, datatype=tensor.datatype, shape=tensor.array.shape
        )
        if request.binary_by_default:
            answer.raw_output_contents.append(encode_binary(tensor).tobytes())
        else:
            _fill_contents(output.contents, tensor)
    return answer


def encode_server_metadata(metadata: ServerMetadata) -> "ServerMetadataResponse":
    """The answer to ServerMetadata.

    Raises:
        MissingError: The extra `grpc` is not installed.
    """
    return load_messages().ServerMetadataResponse(
        name=metadata.name, version=metadata.version, extensions=metadata.extensions
    )


def encode_model_metadata(metadata: ModelMetadata) -> "ModelMetadataResponse":
    """The answer to ModelMetadata; a dynamic axis is -1.

    Raises:
        MissingError: The extra `grpc` is not installed.
    """
    return load_messages().ModelMetadataResponse(
        name=metadata.name,
        versions=metadata.versions,
        platform=metadata.platform,
        inputs=_specs(metadata.inputs),
        outputs=_specs(metadata.outputs),
    )


def decode_parameters(parameters: "Mapping[str, InferParameter]") -> dict[str, Parameter]:
    """Request parameters.

    Raises:
        InvalidRequestError: One holds no value, or one that is not taken (`request.parameter`).
    """
    return {
        key: check_parameter(key, _choice(key, parameter)) for key, parameter in parameters.items()
    }


def encode_parameters(parameters: Mapping[str, Parameter]) -> "dict[str, InferParameter]":
    """Parameters as messages; an integer beyond int64 becomes uint64.

    Raises:
        MissingError: The extra `grpc` is not installed.
    """
    build = load_messages().InferParameter
    return {key: build(**{_choose(value): value}) for key, value in parameters.items()}


def _choice(key: str, parameter: "InferParameter") -> object:
    choice = parameter.WhichOneof("parameter_choice")
    if choice is None:
        raise InvalidRequestError("request.parameter", f"parameter {shown(key)} holds no value")
    value: object = getattr(parameter, choice)
    return value


def _choose(value: Parameter) -> str:
    if isinstance(value, bool):
        return "bool_param"
    if isinstance(value, int):
        return "int64_param" if value < 2**63 else "uint64_param"
    return "double_param" if isinstance(value, float) else "string_param"


def _raw_inputs(
    message: "ModelInferRequest", raw: list[bytes], limits: Limits
) -> tuple[Tensor, ...]:
    declared = [_declared(number, tensor, limits) for number, tensor in enumerate(message.inputs)]
    typed = [tensor.name for tensor in message.inputs if tensor.contents.ListFields()]
    if typed:
        raise InvalidRequestError(
            "request.raw-contents",
            f"input '{typed[0]}' has typed contents in a request with raw_input_contents",
            "send all inputs raw, or all of them typed",
        )
    if len(raw) != len(declared):
        raise InvalidRequestError(
            "request.raw-contents",
            f"the request has {len(declared)} inputs, and raw_input_contents holds {len(raw)}",
            "send all inputs raw, or all of them typed",
        )
    return tuple(
        Tensor(name, datatype, decode_binary(f"input '{name}'", datatype, shape, content))
        for (name, datatype, shape), content in zip(declared, raw, strict=True)
    )


def _typed_inputs(message: "ModelInferRequest", limits: Limits) -> tuple[Tensor, ...]:
    inputs: list[Tensor] = []
    for number, tensor in enumerate(message.inputs):
        name, datatype, shape = _declared(number, tensor, limits)
        array = _typed_array(f"input '{name}'", datatype, shape, tensor.contents)
        inputs.append(Tensor(name, datatype, array))
    return tuple(inputs)


def _declared(
    number: int, tensor: "ModelInferRequest.InferInputTensor", limits: Limits
) -> tuple[str, Datatype, tuple[int, ...]]:
    name = check_name(f"input {number}", tensor.name)
    where = f"input '{name}'"
    refuse_unsupported(where, tensor.parameters)
    datatype = check_datatype(where, tensor.datatype)
    return name, datatype, check_dimensions(where, datatype, tensor.shape, limits)


def _typed_array(
    where: str, datatype: Datatype, shape: tuple[int, ...], contents: "InferTensorContents"
) -> Array:
    field = _FIELDS.get(datatype)
    if field is None:
        raise InvalidRequestError(
            "request.fp16-typed",
            f"{where} is {datatype}, which typed contents do not carry",
            "send the tensor in raw_input_contents",
        )
    for found, _ in contents.ListFields():
        if found.name != field:
            raise InvalidRequestError(
                "request.contents",
                f"{where} is {datatype}, which stands in {field}, and it has {found.name}",
            )
    values = getattr(contents, field)
    check_count(where, shape, len(values))
    if datatype == "BYTES":
        return object_array(shape, list(values))
    try:
        flat = np.fromiter(values, NUMPY_DTYPES[datatype], len(values))
    except OverflowError as error:
        raise range_error(where, datatype, values) from error
    return flat.reshape(shape)


def _outputs(message: "ModelInferRequest") -> tuple[RequestedOutput, ...]:
    outputs: list[RequestedOutput] = []
    for number, output in enumerate(message.outputs):
        name = check_name(f"output {number}", output.name)
        refuse_unsupported(f"output '{name}'", output.parameters)
        outputs.append(RequestedOutput(name))
    check_distinct("output", outputs)
    return tuple(outputs)


def _fill_contents(contents: "InferTensorContents", tensor: Tensor) -> None:
    field = _FIELDS.get(tensor.datatype)
    if field is None:
        raise UnsupportedError(
            "response.not-typed",
            f"output '{tensor.name}' is {tensor.datatype}, which typed contents do not carry",
            "send the request with raw_input_contents, and the answer is raw too",
        )
    getattr(contents, field).extend(tensor.array.ravel().tolist())


def _specs(specs: Iterable[TensorSpec]) -> list[object]:
    build = load_messages().ModelMetadataResponse.TensorMetadata
    return [build(name=spec.name, datatype=spec.datatype, shape=wire_shape(spec)) for spec in specs]

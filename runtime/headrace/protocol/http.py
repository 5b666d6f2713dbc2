"""The protocol over HTTP: JSON, and JSON with binary tensors behind it.

Bodies and headers only; paths and status codes are the edge's. Keys that the protocol does not
name are ignored, as its servers do, and null counts as absent.
Source: Open Inference Protocol, "inference_rest.md"; Triton's "extension_binary_data.md".
"""

import json
from collections.abc import Mapping

from headrace.errors import (
    HeadraceError,
    InvalidRequestError,
    TooLargeError,
    UnsupportedError,
)
from headrace.protocol.binary import decode_binary, encode_binary
from headrace.protocol.checks import (
    check_datatype,
    check_dimensions,
    check_distinct,
    check_entries,
    check_id,
    check_name,
    check_parameter,
    check_text,
    refuse_unsupported,
    shown,
)
from headrace.protocol.jsondata import decode_data, encode_data
from headrace.protocol.jsontext import parse_object
from headrace.protocol.limits import Limits
from headrace.protocol.messages import (
    InferRequest,
    InferResponse,
    ModelMetadata,
    Parameter,
    RequestedOutput,
    ServerMetadata,
    Tensor,
    error_sentence,
    wire_shape,
)
from headrace.tensors import TensorSpec

HEADER_LENGTH = "inference-header-content-length"


def parse_header_length(value: str | None) -> int | None:
    """The number in an `Inference-Header-Content-Length` header; None where there is none.

    Raises:
        InvalidRequestError: It is no plain decimal number (`request.header-length`).
    """
    if value is None:
        return None
    if not (value.isascii() and value.isdecimal() and len(value) < 20):
        raise InvalidRequestError(
            "request.header-length",
            f"Inference-Header-Content-Length should be a number of bytes, and is {shown(value)}",
        )
    return int(value)


def decode_infer(
    body: bytes | memoryview,
    *,
    model: str,
    version: str,
    header_length: int | None,
    limits: Limits,
) -> InferRequest:
    """The request in one HTTP body.

    Args:
        body: Decompressed. Binary tensors are views of it, so it must not change any more.
        model: From the path; whether there is such a model is not checked here.
        version: From the path; empty where it names none.
        header_length: Bytes of JSON before the binary tensors; None where all of it is JSON.

    Raises:
        InvalidRequestError: The request is malformed; the code says how.
        TooLargeError: It is larger than the limits allow.
        UnsupportedError: It asks for what is not done here.
    """
    view = memoryview(body).toreadonly()
    header, blobs = _split(view, header_length, limits)
    request = parse_object(header, limits)
    parameters = _object("the request", "parameters", request)
    check_entries("parameters", len(parameters), limits)
    binary = _flag("the request", "binary_data_output", parameters)
    identity = request.get("id")
    return InferRequest(
        model=model,
        version=version,
        id="" if identity is None else check_id(identity),
        inputs=_inputs(request, blobs, limits),
        outputs=_outputs(request, limits),
        binary_by_default=bool(binary),
        parameters=_parameters(parameters),
    )


def encode_infer(
    response: InferResponse, request: InferRequest
) -> tuple[dict[str, str], list[bytes | memoryview]]:
    """The answer to one request: headers, and the body in pieces.

    The pieces are views of the response's arrays, which must not change until they are sent.

    Raises:
        UnsupportedError: An output was asked for as JSON, which cannot carry its elements
            (`response.not-json`).
    """
    wishes = {output.name: output.binary for output in request.outputs}
    outputs: list[dict[str, object]] = []
    blobs: list[bytes | memoryview] = []
    for tensor in response.outputs:
        wish = wishes.get(tensor.name)
        entry: dict[str, object] = {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": list(tensor.array.shape),
        }
        if request.binary_by_default if wish is None else wish:
            blob = encode_binary(tensor)
            blobs.append(blob)
            entry["parameters"] = {"binary_data_size": len(blob)}
        else:
            entry["data"] = encode_data(tensor)
        outputs.append(entry)
    header = _answer_json(response, outputs)
    return _headers(header, blobs), [header, *blobs]


def encode_server_metadata(metadata: ServerMetadata) -> bytes:
    """The JSON of `GET /v2`."""
    return _dump(
        {
            "name": metadata.name,
            "version": metadata.version,
            "extensions": list(metadata.extensions),
        }
    )


def encode_model_metadata(metadata: ModelMetadata) -> bytes:
    """The JSON of `GET /v2/models/NAME`; a dynamic axis is -1."""
    return _dump(
        {
            "name": metadata.name,
            "versions": list(metadata.versions),
            "platform": metadata.platform,
            "inputs": [_spec(spec) for spec in metadata.inputs],
            "outputs": [_spec(spec) for spec in metadata.outputs],
        }
    )


def encode_error(error: HeadraceError) -> bytes:
    """The JSON of an error: a sentence for people under `error`, and its stable `code`."""
    return _dump({"error": error_sentence(error), "code": error.code})


def _split(
    body: memoryview, header_length: int | None, limits: Limits
) -> tuple[memoryview, memoryview]:
    if len(body) > limits.max_body_bytes:
        raise TooLargeError(
            "request.body-size",
            f"the body is {len(body)} bytes, and at most {limits.max_body_bytes} are taken",
        )
    if header_length is None:
        return body, body[len(body) :]
    if not 0 <= header_length <= len(body):
        raise InvalidRequestError(
            "request.header-length",
            f"Inference-Header-Content-Length is {header_length}, and the body {len(body)} bytes",
        )
    if header_length == 0:
        raise UnsupportedError(
            "request.raw-binary",
            "a body that is one bare tensor, without JSON before it, is not taken here",
            "send the JSON of the request before the tensor",
        )
    return body[:header_length], body[header_length:]


def _inputs(request: dict[str, object], blobs: memoryview, limits: Limits) -> tuple[Tensor, ...]:
    inputs: list[Tensor] = []
    offset = 0
    for number, entry in enumerate(_objects("inputs", request, limits)):
        tensor, size = _input(f"input {number}", entry, blobs[offset:], limits)
        inputs.append(tensor)
        offset += size
    if not inputs:
        raise InvalidRequestError("request.field", "the request should have at least one input")
    check_distinct("input", inputs)
    if offset != len(blobs):
        raise InvalidRequestError(
            "request.binary-surplus",
            f"{len(blobs) - offset} bytes follow the last binary input",
            "binary_data_size of the inputs should add up to the bytes behind the JSON",
        )
    return tuple(inputs)


def _input(
    where: str, entry: dict[str, object], rest: memoryview, limits: Limits
) -> tuple[Tensor, int]:
    name = check_name(where, entry.get("name"))
    where = f"input '{name}'"
    datatype = check_datatype(where, entry.get("datatype"))
    dimensions = entry.get("shape")
    if not isinstance(dimensions, list):
        raise InvalidRequestError("request.field", f"{where} needs a shape, an array of numbers")
    shape = check_dimensions(where, datatype, dimensions, limits)
    size = _binary_size(where, entry, len(rest))
    if size is None:
        array = decode_data(where, datatype, shape, entry.get("data"))
    else:
        array = decode_binary(where, datatype, shape, rest[:size])
    return Tensor(name, datatype, array), size or 0


def _binary_size(where: str, entry: dict[str, object], available: int) -> int | None:
    parameters = _object(where, "parameters", entry)
    refuse_unsupported(where, parameters)
    size = parameters.get("binary_data_size")
    if (size is None) == (entry.get("data") is None):
        raise InvalidRequestError(
            "request.data", f"{where} needs either data or binary_data_size, and not both"
        )
    if size is None:
        return None
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise InvalidRequestError(
            "request.binary-size",
            f"binary_data_size of {where} should be a number of bytes, and is {shown(size)}",
        )
    if size > available:
        raise InvalidRequestError(
            "request.binary-shortage",
            f"{where} should take {shown(size)} bytes, and {available} are left in the body",
            "Inference-Header-Content-Length says where the JSON ends and the bytes begin",
        )
    return size


def _outputs(request: dict[str, object], limits: Limits) -> tuple[RequestedOutput, ...]:
    outputs: list[RequestedOutput] = []
    for number, entry in enumerate(_objects("outputs", request, limits)):
        name = check_name(f"output {number}", entry.get("name"))
        where = f"output '{name}'"
        parameters = _object(where, "parameters", entry)
        refuse_unsupported(where, parameters)
        outputs.append(RequestedOutput(name, _flag(where, "binary_data", parameters)))
    check_distinct("output", outputs)
    return tuple(outputs)


def _parameters(parameters: Mapping[str, object]) -> dict[str, Parameter]:
    return {
        check_text("the name of a parameter", key): check_parameter(key, value)
        for key, value in parameters.items()
        if key != "binary_data_output"
    }


def _objects(key: str, request: dict[str, object], limits: Limits) -> list[dict[str, object]]:
    entries = request.get(key)
    entries = [] if entries is None else entries
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InvalidRequestError("request.field", f"'{key}' should be an array of objects")
    check_entries(key, len(entries), limits)
    return entries


def _object(where: str, key: str, entry: dict[str, object]) -> dict[str, object]:
    value = entry.get(key)
    value = {} if value is None else value
    if not isinstance(value, dict):
        raise InvalidRequestError("request.field", f"'{key}' of {where} should be an object")
    return value


def _flag(where: str, key: str, parameters: dict[str, object]) -> bool | None:
    value = parameters.get(key)
    if value is None or isinstance(value, bool):
        return value
    raise InvalidRequestError(
        "request.parameter", f"{key} of {where} should be true or false, and is {shown(value)}"
    )


def _answer_json(response: InferResponse, outputs: list[dict[str, object]]) -> bytes:
    answer: dict[str, object] = {
        "model_name": response.model,
        "model_version": response.version,
    }
    if response.id:
        answer["id"] = response.id
    if response.parameters:
        answer["parameters"] = dict(response.parameters)
    return _dump({**answer, "outputs": outputs})


def _headers(header: bytes, blobs: list[bytes | memoryview]) -> dict[str, str]:
    length = str(len(header) + sum(map(len, blobs)))
    if not blobs:
        return {"content-type": "application/json", "content-length": length}
    return {
        "content-type": "application/octet-stream",
        HEADER_LENGTH: str(len(header)),
        "content-length": length,
    }


def _spec(spec: TensorSpec) -> dict[str, object]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": wire_shape(spec)}


def _dump(content: object) -> bytes:
    return json.dumps(content, separators=(",", ":"), allow_nan=False).encode()

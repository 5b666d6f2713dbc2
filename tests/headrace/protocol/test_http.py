"""What the stock HTTP client sends and reads, and the rest of the HTTP codec."""

import json
from typing import Any

import numpy as np
import pytest
import tritonclient.http

from headrace.errors import InvalidRequestError, UnsupportedError
from headrace.protocol import http
from headrace.protocol.limits import Limits
from headrace.protocol.messages import (
    InferRequest,
    InferResponse,
    ModelMetadata,
    RequestedOutput,
    ServerMetadata,
    Tensor,
)
from headrace.tensors import Array, TensorSpec

CLIENT = tritonclient.http.InferenceServerClient
NUMBERS = np.arange(6, dtype=np.float32).reshape(2, 3)
TEXTS = np.array([b"cat", b"", "größe".encode()], object)
RESPONSE = InferResponse(
    "m", "3", "abc", (Tensor.of("numbers", NUMBERS), Tensor.of("texts", TEXTS))
)


def stock_input(name: str, array: Array, *, binary: bool) -> tritonclient.http.InferInput:
    """An input as the stock client makes it."""
    datatype = "BYTES" if array.dtype == object else "FP32"
    tensor = tritonclient.http.InferInput(name, list(array.shape), datatype)
    return tensor.set_data_from_numpy(array, binary_data=binary)


def decode(body: bytes, length: int | None = None) -> InferRequest:
    """The body as a request to model `m`."""
    return http.decode_infer(body, model="m", version="3", header_length=length, limits=Limits())


def read(request: InferRequest, response: InferResponse = RESPONSE) -> tuple[dict[str, str], Any]:
    """The headers of the answer, and what the stock client makes of its body."""
    headers, pieces = http.encode_infer(response, request)
    length = headers.get("inference-header-content-length")
    body = b"".join(pieces)
    return headers, CLIENT.parse_response_body(
        body, header_length=None if length is None else int(length)
    )


@pytest.mark.parametrize("numbers", [True, False])
@pytest.mark.parametrize("texts", [True, False])
def test_inputs_may_mix_json_and_bytes(numbers: bool, texts: bool) -> None:  # noqa: FBT001 - pytest passes them by name
    """Each input decodes, whichever of them the client sends as JSON and whichever as bytes."""
    body, length = CLIENT.generate_request_body(
        [
            stock_input("numbers", NUMBERS, binary=numbers),
            stock_input("texts", TEXTS, binary=texts),
        ]
    )
    request = decode(body, length)
    assert [tensor.name for tensor in request.inputs] == ["numbers", "texts"]
    assert [tensor.datatype for tensor in request.inputs] == ["FP32", "BYTES"]
    assert request.inputs[0].array.tolist() == NUMBERS.tolist()
    assert request.inputs[1].array.tolist() == TEXTS.tolist()


def test_request_of_the_stock_client_carries_everything_else() -> None:
    """Id, parameters and outputs arrive; what the codec itself acts on is taken out."""
    body, length = CLIENT.generate_request_body(
        [stock_input("numbers", NUMBERS, binary=True)],
        [
            tritonclient.http.InferRequestedOutput("numbers", binary_data=True),
            tritonclient.http.InferRequestedOutput("texts", binary_data=False),
        ],
        request_id="abc",
        sequence_id="s",
        sequence_start=True,
        priority=2,
        timeout=1000,
        parameters={"rate": 0.5, "tag": "x"},
    )
    request = decode(body, length)
    assert (request.model, request.version, request.id) == ("m", "3", "abc")
    assert request.outputs == (RequestedOutput("numbers", True), RequestedOutput("texts", False))  # noqa: FBT003 - positional as the protocol's own pair
    assert request.binary_by_default is False
    assert request.parameters == {
        "sequence_id": "s",
        "sequence_start": True,
        "sequence_end": False,
        "priority": 2,
        "timeout": 1000,
        "rate": 0.5,
        "tag": "x",
    }


def test_json_request_without_outputs_is_answered_as_bytes() -> None:
    """The stock client asks for all outputs as bytes even where its inputs are JSON."""
    body, length = CLIENT.generate_request_body([stock_input("numbers", NUMBERS, binary=False)])
    assert length is None
    request = decode(body)
    assert request.binary_by_default
    assert request.parameters == {}
    headers, result = read(request)
    assert headers["content-type"] == "application/octet-stream"
    assert result.as_numpy("numbers").tolist() == NUMBERS.tolist()
    assert result.as_numpy("texts").tolist() == TEXTS.tolist()
    assert "data" not in result.get_output("numbers")


def test_json_answer_has_no_binary_header() -> None:
    """An answer without binary outputs is plain JSON."""
    headers, pieces = http.encode_infer(RESPONSE, InferRequest("m", "", "", ()))
    assert headers == {
        "content-type": "application/json",
        "content-length": str(len(b"".join(pieces))),
    }
    assert json.loads(b"".join(pieces)) == {
        "model_name": "m",
        "model_version": "3",
        "id": "abc",
        "outputs": [
            {
                "name": "numbers",
                "datatype": "FP32",
                "shape": [2, 3],
                "data": [0.0, 1.0, 2.0, 3.0, 4.0, 5.0],
            },
            {"name": "texts", "datatype": "BYTES", "shape": [3], "data": ["cat", "", "größe"]},
        ],
    }


@pytest.mark.parametrize(
    ("default", "wish", "binary"),
    [
        (False, None, False),
        (True, None, True),
        (True, False, False),
        (False, True, True),
    ],
)
def test_output_overrides_the_default_of_its_request(
    default: bool,  # noqa: FBT001 - pytest passes it by name
    wish: bool | None,  # noqa: FBT001 - pytest passes it by name
    binary: bool,  # noqa: FBT001 - pytest passes it by name
) -> None:
    """binary_data of an output goes before binary_data_output of the request."""
    outputs = (RequestedOutput("numbers", wish), RequestedOutput("texts", binary=True))
    request = InferRequest("m", "", "", (), outputs, binary_by_default=default)
    _, result = read(request)
    assert ("data" in result.get_output("numbers")) is not binary
    assert result.as_numpy("numbers").tolist() == NUMBERS.tolist()
    assert result.as_numpy("texts").tolist() == TEXTS.tolist()


def test_id_and_parameters_are_answered_only_when_there() -> None:
    """An answer without id and parameters has no such keys; with them it has both."""
    bare = InferResponse("m", "1", "", ())
    _, pieces = http.encode_infer(bare, InferRequest("m", "", "", ()))
    assert json.loads(bytes(pieces[0])).keys() == {"model_name", "model_version", "outputs"}
    full = InferResponse("m", "1", "é", (), {"variant": "fp32"})
    _, pieces = http.encode_infer(full, InferRequest("m", "", "", ()))
    assert json.loads(bytes(pieces[0]))["id"] == "é"
    assert json.loads(bytes(pieces[0]))["parameters"] == {"variant": "fp32"}


@pytest.mark.parametrize(
    "array",
    [np.array([np.nan], np.float32), np.array([-np.inf]), np.array([b"\xff"], object)],
)
def test_json_answer_refuses_what_json_does_not_carry(array: Array) -> None:
    """NaN, infinities and bytes that are not UTF-8 are an error as JSON, and fine as bytes."""
    response = InferResponse("m", "1", "", (Tensor.of("y", array),))
    with pytest.raises(UnsupportedError, match="output 'y'") as refused:
        http.encode_infer(response, InferRequest("m", "", "", ()))
    assert refused.value.code == "response.not-json"
    _, result = read(InferRequest("m", "", "", (), binary_by_default=True), response)
    assert result.as_numpy("y").tobytes() == array.tobytes() or array.dtype == object


def test_null_counts_as_absent_and_unknown_keys_are_ignored() -> None:
    """Clients that write null for what they do not set are understood."""
    body = {
        "id": None,
        "parameters": None,
        "outputs": None,
        "surplus": {"x": [1]},
        "inputs": [
            {"name": "x", "shape": [1], "datatype": "INT8", "data": [7], "parameters": None}
        ],
    }
    request = decode(json.dumps(body).encode())
    assert (request.id, request.outputs, request.parameters) == ("", (), {})
    assert request.inputs[0].array.tolist() == [7]


def test_scalars_and_numbers_written_as_integers_are_taken() -> None:
    """A shape of no axes takes one element, and FP32 takes 1 as well as 1.0."""
    body = b'{"inputs":[{"name":"x","shape":[],"datatype":"FP32","data":[1]}]}'
    array = decode(body).inputs[0].array
    assert array.shape == ()
    assert array.dtype == np.dtype(np.float32)
    assert array.item() == 1.0


@pytest.mark.parametrize(("value", "length"), [(None, None), ("0", 0), ("12", 12)])
def test_header_length_is_read(value: str | None, length: int | None) -> None:
    """A plain decimal number is taken; without the header there is none."""
    assert http.parse_header_length(value) == length


@pytest.mark.parametrize("value", ["", "-1", "+1", "1_0", " 1", "0x1", "1.0", "²", "١", "9" * 20])  # noqa: RUF001 - a digit that is no ASCII
def test_header_length_of_another_form_is_refused(value: str) -> None:
    """Nothing but ASCII digits is a length."""
    with pytest.raises(InvalidRequestError) as refused:
        http.parse_header_length(value)
    assert refused.value.code == "request.header-length"


def test_metadata_shows_dynamic_axes_as_minus_one() -> None:
    """Server and model metadata have the protocol's keys."""
    server = ServerMetadata("headrace", "0.1.0", ("binary_tensor_data",))
    assert json.loads(http.encode_server_metadata(server)) == {
        "name": "headrace",
        "version": "0.1.0",
        "extensions": ["binary_tensor_data"],
    }
    spec = TensorSpec(name="x", datatype="FP32", shape=("batch", 3))
    model = ModelMetadata("m", ("1", "2"), "onnx_onnxv1", (spec,), (spec,))
    tensor = {"name": "x", "datatype": "FP32", "shape": [-1, 3]}
    assert json.loads(http.encode_model_metadata(model)) == {
        "name": "m",
        "versions": ["1", "2"],
        "platform": "onnx_onnxv1",
        "inputs": [tensor],
        "outputs": [tensor],
    }


def test_error_carries_sentence_hint_and_code() -> None:
    """The error body holds one sentence for people and the code for machines."""
    bare = InvalidRequestError("request.shape", "it does not fit")
    assert json.loads(http.encode_error(bare)) == {
        "error": "it does not fit",
        "code": "request.shape",
    }
    hinted = InvalidRequestError("request.shape", "it does not fit", "reshape it")
    assert json.loads(http.encode_error(hinted))["error"] == "it does not fit; reshape it"

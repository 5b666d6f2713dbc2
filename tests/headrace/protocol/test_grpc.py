"""What the stock gRPC client sends and reads, malformed messages, and the missing extra."""

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import tritonclient.grpc
from tritonclient.grpc import service_pb2
from tritonclient.grpc._utils import _get_inference_request
from tritonclient.grpc.service_pb2 import ModelInferRequest as Message

from headrace.errors import (
    InvalidRequestError,
    MissingError,
    RequestError,
    TooLargeError,
    UnsupportedError,
)
from headrace.protocol import grpc
from headrace.protocol.limits import Limits
from headrace.protocol.messages import (
    InferResponse,
    ModelMetadata,
    Parameter,
    RequestedOutput,
    ServerMetadata,
    Tensor,
)
from headrace.tensors import TensorSpec

NUMBERS = np.arange(6, dtype=np.float32).reshape(2, 3)
TEXTS = np.array([b"cat", b"", b"\xff"], object)
LIMITS = Limits(max_elements=100, max_bytes_elements=10, max_entries=8, max_rank=4)


def stock_request(**options: object) -> Message:
    """Numbers and texts as the stock client sends them."""
    numbers = tritonclient.grpc.InferInput("numbers", [2, 3], "FP32").set_data_from_numpy(NUMBERS)
    texts = tritonclient.grpc.InferInput("texts", [3], "BYTES").set_data_from_numpy(TEXTS)
    defaults = {
        "model_name": "m",
        "inputs": [numbers, texts],
        "model_version": "3",
        "request_id": "abc",
        "outputs": None,
        "sequence_id": 0,
        "sequence_start": False,
        "sequence_end": False,
        "priority": 0,
        "timeout": None,
        "parameters": None,
    }
    return _get_inference_request(**{**defaults, **options})


def typed(datatype: str, shape: list[int], **contents: object) -> Message:
    """A request with one typed input."""
    message = Message(model_name="m")
    message.inputs.add(
        name="x",
        datatype=datatype,
        shape=shape,
        contents=service_pb2.InferTensorContents(**contents),
    )
    return message


def raw(datatype: str, shape: list[int], *contents: bytes, name: str = "x") -> Message:
    """A request with one input and any number of raw contents."""
    message = Message(model_name="m", raw_input_contents=contents)
    message.inputs.add(name=name, datatype=datatype, shape=shape)
    return message


def test_request_of_the_stock_client_decodes() -> None:
    """Names, version, id, tensors, outputs and parameters arrive."""
    request = grpc.decode_infer(
        stock_request(
            outputs=[tritonclient.grpc.InferRequestedOutput("y")],
            sequence_id=7,
            sequence_start=True,
            priority=2,
            timeout=1000,
            parameters={"rate": 0.5, "tag": "x", "flag": True},
        ),
        LIMITS,
    )
    assert (request.model, request.version, request.id) == ("m", "3", "abc")
    assert request.binary_by_default
    assert request.outputs == (RequestedOutput("y"),)
    assert [tensor.name for tensor in request.inputs] == ["numbers", "texts"]
    assert request.inputs[0].array.tolist() == NUMBERS.tolist()
    assert request.inputs[1].array.tolist() == TEXTS.tolist()
    assert not request.inputs[0].array.flags.writeable
    assert request.parameters == {
        "sequence_id": 7,
        "sequence_start": True,
        "sequence_end": False,
        "priority": 2,
        "timeout": 1000,
        "rate": 0.5,
        "tag": "x",
        "flag": True,
    }


def test_answer_is_read_by_the_stock_client() -> None:
    """Names, id, parameters and raw tensors come out as they went in."""
    request = grpc.decode_infer(stock_request(), LIMITS)
    outputs = (Tensor.of("numbers", NUMBERS), Tensor.of("texts", TEXTS))
    answer = grpc.encode_infer(InferResponse("m", "3", "abc", outputs, {"variant": "a"}), request)
    result = tritonclient.grpc.InferResult(answer)
    assert result.as_numpy("numbers").tolist() == NUMBERS.tolist()
    assert result.as_numpy("texts").tolist() == TEXTS.tolist()
    response = result.get_response()
    assert (response.model_name, response.model_version, response.id) == ("m", "3", "abc")
    assert response.parameters["variant"].string_param == "a"


@pytest.mark.parametrize("value", [True, False, 0, -(2**63), 2**63 - 1, 2**64 - 1, -0.5, "", "é"])
def test_parameters_keep_value_and_type(value: Parameter) -> None:
    """A parameter encoded and decoded is the same value of the same type."""
    decoded = grpc.decode_parameters(grpc.encode_parameters({"p": value}))
    assert decoded == {"p": value}
    assert type(decoded["p"]) is type(value)


def test_inputs_may_be_empty_tensors() -> None:
    """A tensor of no elements is a tensor, raw and typed."""
    for message in (raw("FP32", [0, 3], b""), typed("FP32", [0, 3])):
        request = grpc.decode_infer(message, LIMITS)
        assert request.inputs[0].array.shape == (0, 3)
        assert request.inputs[0].array.dtype == np.float32


def two_inputs(message: Message) -> Message:
    """The message with a second input, of the same name."""
    message.inputs.append(message.inputs[0])
    return message


def add_contents(message: Message) -> Message:
    """The message with typed contents beside the raw ones."""
    message.inputs[0].contents.int_contents.append(1)
    return message


def empty_parameter(message: Message) -> Message:
    """The message with a parameter that holds nothing."""
    message.parameters["p"].SetInParent()
    return message


def nan_parameter(message: Message) -> Message:
    """The message with a parameter that is not a number."""
    message.parameters["p"].double_param = float("nan")
    return message


INT8 = typed("INT8", [1], int_contents=[1])
MALFORMED: dict[str, tuple[Callable[[], Message], str]] = {
    "empty": (Message, "request.field"),
    "raw-without-inputs": (lambda: Message(raw_input_contents=[b""]), "request.raw-contents"),
    "raw-missing": (lambda: two_inputs(raw("INT8", [1], b"a")), "request.raw-contents"),
    "raw-surplus": (lambda: raw("INT8", [1], b"a", b"b"), "request.raw-contents"),
    "raw-and-typed": (lambda: add_contents(raw("INT8", [1], b"a")), "request.raw-contents"),
    "raw-short": (lambda: raw("INT32", [1], b"abc"), "request.binary-size"),
    "raw-bool": (lambda: raw("BOOL", [1], b"\x02"), "request.element"),
    "raw-bytes": (lambda: raw("BYTES", [1], b"\x02\0\0\0a"), "request.bytes-length"),
    "name": (lambda: raw("INT8", [1], b"a", name=""), "request.name"),
    "datatype": (lambda: raw("BF16", [1], b"aa"), "request.datatype"),
    "shape": (lambda: raw("INT8", [-1], b"a"), "request.shape"),
    "duplicate": (lambda: two_inputs(typed("INT8", [0])), "request.duplicate-input"),
    "typed-nothing": (lambda: typed("INT8", [1]), "request.count"),
    "typed-count": (lambda: typed("INT8", [1], int_contents=[1, 2]), "request.count"),
    "typed-field": (lambda: typed("FP32", [1], int_contents=[1]), "request.contents"),
    "typed-two": (
        lambda: typed("INT8", [1], int_contents=[1], fp32_contents=[1]),
        "request.contents",
    ),
    "typed-range": (lambda: typed("INT8", [1], int_contents=[128]), "request.range"),
    "typed-unsigned": (lambda: typed("UINT16", [1], uint_contents=[65536]), "request.range"),
    "typed-fp16": (lambda: typed("FP16", [1], fp32_contents=[1]), "request.fp16-typed"),
    "id": (lambda: Message(id="x" * 2000, inputs=INT8.inputs), "request.id"),
    "parameter-empty": (lambda: empty_parameter(stock_request()), "request.parameter"),
    "parameter-nan": (lambda: nan_parameter(stock_request()), "request.parameter"),
    "output-name": (lambda: Message(inputs=INT8.inputs, outputs=[{}]), "request.name"),
    "output-twice": (
        lambda: Message(inputs=INT8.inputs, outputs=[{"name": "y"}, {"name": "y"}]),
        "request.duplicate-output",
    ),
}


@pytest.mark.parametrize(("build", "code"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_message_has_its_code(build: Callable[[], Message], code: str) -> None:
    """Each fault is told by its code."""
    with pytest.raises(InvalidRequestError) as raised:
        grpc.decode_infer(build(), LIMITS)
    assert raised.value.code == code


TOO_LARGE: dict[str, tuple[Message, str]] = {
    "rank": (typed("INT8", [1] * 5, int_contents=[1]), "request.rank"),
    "elements": (typed("INT8", [2**40, 2**40]), "request.elements"),
    "inputs": (Message(inputs=[{}] * 9), "request.entries"),
    "raw": (Message(raw_input_contents=[b""] * 9), "request.entries"),
    "outputs": (Message(outputs=[{}] * 9), "request.entries"),
    "parameters": (Message(parameters={f"{n}": {} for n in range(9)}), "request.entries"),
}


@pytest.mark.parametrize(("message", "code"), TOO_LARGE.values(), ids=TOO_LARGE)
def test_limits_are_kept(message: Message, code: str) -> None:
    """What goes beyond a limit is refused by that limit."""
    with pytest.raises(TooLargeError) as raised:
        grpc.decode_infer(message, LIMITS)
    assert raised.value.code == code


def test_what_is_not_done_here_is_said() -> None:
    """Shared memory and classification are refused, never ignored."""
    shared = tritonclient.grpc.InferInput("x", [1], "FP32").set_shared_memory("region", 4)
    classes = tritonclient.grpc.InferRequestedOutput("y", class_count=3)
    for message, code in (
        (stock_request(inputs=[shared]), "request.shared-memory"),
        (stock_request(outputs=[classes]), "request.classification"),
    ):
        with pytest.raises(UnsupportedError) as raised:
            grpc.decode_infer(message, LIMITS)
        assert raised.value.code == code


def test_metadata_shows_dynamic_axes_as_minus_one() -> None:
    """Server and model metadata fill the protocol's messages."""
    server = grpc.encode_server_metadata(ServerMetadata("headrace", "0.1.0", ("a", "b")))
    assert (server.name, server.version, list(server.extensions)) == (
        "headrace",
        "0.1.0",
        ["a", "b"],
    )
    spec = TensorSpec(name="x", datatype="FP32", shape=("batch", 3))
    model = grpc.encode_model_metadata(ModelMetadata("m", ("1",), "onnx_onnxv1", (spec,), (spec,)))
    assert (model.name, list(model.versions), model.platform) == ("m", ["1"], "onnx_onnxv1")
    for tensor in (*model.inputs, *model.outputs):
        assert (tensor.name, tensor.datatype, list(tensor.shape)) == ("x", "FP32", [-1, 3])


@pytest.mark.parametrize("module", ["tritonclient", "tritonclient.grpc"])
def test_missing_extra_is_named(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra the error says what to install."""
    monkeypatch.delitem(sys.modules, "tritonclient.grpc", raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingError) as raised:
        grpc.load_messages()
    assert raised.value.code == "extra.grpc"
    assert "headrace[grpc]" in raised.value.hint


def test_codecs_import_nothing_of_grpc() -> None:
    """Importing the codecs loads neither tritonclient nor grpc, so that HTTP runs without them."""
    code = (
        "import sys, headrace.protocol.grpc, headrace.protocol.http;"
        "sys.exit(any(name.split('.')[0] in {'grpc', 'tritonclient'} for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_fault_is_a_request_error() -> None:
    """The codes of the tables above all begin with the area that the edges map to a status."""
    for build, code in MALFORMED.values():
        assert code.startswith("request.")
        with pytest.raises(RequestError):
            grpc.decode_infer(build(), LIMITS)

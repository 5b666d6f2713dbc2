"""The gRPC edge of the real program, asked by the stock tritonclient and by bare calls."""

import time
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton
from edge_bundles import png, png_bomb
from services import Service
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc import service_pb2_grpc
from tritonclient.utils import InferenceServerException

WEIGHT = np.arange(12, dtype=np.float32).reshape(3, 4) / 8
X = np.array([[1, 2, 3], [-1, 0, 0.5]], np.float32)
CODE = grpc.StatusCode


@pytest.fixture
def stock(edge: Service) -> Iterator[triton.InferenceServerClient]:
    """The stock client."""
    with triton.InferenceServerClient(edge.grpc) as client:
        yield client


@pytest.fixture
def channel(edge: Service) -> Iterator[grpc.Channel]:
    """A bare channel without limits of its own."""
    unlimited = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(edge.grpc, unlimited) as channel:
        yield channel


@pytest.fixture
def stub(channel: grpc.Channel) -> service_pb2_grpc.GRPCInferenceServiceStub:
    """The compiled stub of the service."""
    return service_pb2_grpc.GRPCInferenceServiceStub(channel)


def triton_input(name: str, array: np.ndarray[Any, Any], datatype: str) -> triton.InferInput:
    """A tensor of the stock client."""
    tensor = triton.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    return tensor


def request(**more: object) -> messages.ModelInferRequest:
    """A raw request for `linear`; what is given replaces fields of its only input."""
    tensor = {"name": "x", "datatype": "FP32", "shape": [2, 3], **more}
    return messages.ModelInferRequest(
        model_name="linear",
        inputs=[messages.ModelInferRequest.InferInputTensor(**tensor)],
        raw_input_contents=[X.tobytes()],
    )


def refused(call: Any, message: object, status: grpc.StatusCode, code: str) -> str:  # noqa: ANN401 - a generated callable
    """The sentence of a refusal with this status, whose trailing metadata hold this code."""
    with pytest.raises(grpc.RpcError) as caught:
        call(message, timeout=30)
    error: Any = caught.value
    trailers = {entry.key: entry.value for entry in error.trailing_metadata()}
    assert (error.code(), trailers.get("headrace-code")) == (status, code), error.details()
    assert error.details()
    return str(error.details())


def test_stock_client_reads_health_and_metadata(stock: triton.InferenceServerClient) -> None:
    """The stock client finds the server and the model alive, ready and described."""
    assert stock.is_server_live()
    assert stock.is_server_ready()
    assert stock.is_model_ready("linear")
    assert stock.is_model_ready("linear", "1")
    assert stock.get_server_metadata().name == "headrace"
    assert list(stock.get_model_metadata("linear").versions) == ["1"]


def test_metadata_lists_raw_and_ready_inputs(stock: triton.InferenceServerClient) -> None:
    """A model with preprocessing offers its encoded images and its ready tensor."""
    found = stock.get_model_metadata("colours")
    assert [(entry.name, entry.datatype, list(entry.shape)) for entry in found.inputs] == [
        ("image", "BYTES", [-1]),
        ("pixels", "FP32", [-1, 3, 8, 8]),
    ]
    assert [entry.name for entry in found.outputs] == ["scores", "indices", "labels"]


def test_raw_request_gets_a_raw_answer(stock: triton.InferenceServerClient) -> None:
    """The stock client's tensors come back with its id and the model's version."""
    result = stock.infer("linear", [triton_input("x", X, "FP32")], request_id="seven")
    assert np.allclose(result.as_numpy("y"), X @ WEIGHT)
    response = result.get_response()
    assert (response.id, response.model_name, response.model_version) == ("seven", "linear", "1")


def test_typed_request_gets_a_typed_answer(
    stub: service_pb2_grpc.GRPCInferenceServiceStub,
) -> None:
    """Contents in typed fields are answered in typed fields."""
    message = request(contents={"fp32_contents": X.ravel()})
    del message.raw_input_contents[:]
    answer = stub.ModelInfer(message)
    assert not answer.raw_output_contents
    assert np.allclose(answer.outputs[0].contents.fp32_contents, (X @ WEIGHT).ravel())


def test_only_requested_outputs(stock: triton.InferenceServerClient) -> None:
    """Outputs come as asked for: those alone, in that order."""
    image = triton_input("image", np.array([png((0, 220, 0))], dtype=object), "BYTES")
    wanted = [triton.InferRequestedOutput(name) for name in ("labels", "scores")]
    result = stock.infer("colours", [image], outputs=wanted)
    assert [entry.name for entry in result.get_response().outputs] == ["labels", "scores"]
    assert result.as_numpy("labels")[0, 0] == b"green"


def test_batch_of_images_in_one_request(stock: triton.InferenceServerClient) -> None:
    """Several images in one request get a row each, in their order."""
    images = [png(colour) for colour in ((0, 0, 220), (220, 0, 0), (0, 220, 0))]
    tensor = triton_input("image", np.array(images, dtype=object), "BYTES")
    result = stock.infer("colours", [tensor])
    assert result.as_numpy("indices")[:, 0].tolist() == [2, 0, 1]


def test_raw_image_and_ready_tensor_agree(stock: triton.InferenceServerClient) -> None:
    """A ready tensor with the pixels of an image gets the ranking of the image."""
    raw = triton_input("image", np.array([png((10, 90, 200))], dtype=object), "BYTES")
    colour = (np.array([10, 90, 200], np.float32) - 127) / 64
    pixels = np.broadcast_to(colour[None, :, None, None], (1, 3, 8, 8)).astype(np.float32)
    one = stock.infer("colours", [raw])
    other = stock.infer("colours", [triton_input("pixels", pixels, "FP32")])
    assert np.array_equal(one.as_numpy("labels"), other.as_numpy("labels"))
    assert np.allclose(one.as_numpy("scores"), other.as_numpy("scores"), atol=1e-5)


def test_unknown_model_and_version(stub: service_pb2_grpc.GRPCInferenceServiceStub) -> None:
    """An unknown model or version is NOT_FOUND for every method of a model."""
    nobody, old = {"name": "nobody"}, {"name": "linear", "version": "9"}
    for kind, call in (
        (messages.ModelReadyRequest, stub.ModelReady),
        (messages.ModelMetadataRequest, stub.ModelMetadata),
    ):
        refused(call, kind(**nobody), CODE.NOT_FOUND, "model.not-found")
        refused(call, kind(**old), CODE.NOT_FOUND, "model.version-not-found")
    message = request()
    message.model_version = "9"
    refused(stub.ModelInfer, message, CODE.NOT_FOUND, "model.version-not-found")
    message.model_name = "nobody"
    refused(stub.ModelInfer, message, CODE.NOT_FOUND, "model.not-found")


@pytest.mark.parametrize("name", ["a" * 1_000_000, "\r\nheadrace-code: x", "\0", "ü" * 5000])
def test_hostile_names_are_unknown_models(
    stub: service_pb2_grpc.GRPCInferenceServiceStub, name: str
) -> None:
    """A hostile name is NOT_FOUND with a short sentence, which fits the trailers."""
    for field in ("model_name", "model_version"):
        message = request()
        setattr(message, field, name)
        code = "model.not-found" if field == "model_name" else "model.version-not-found"
        assert len(refused(stub.ModelInfer, message, CODE.NOT_FOUND, code)) < 300


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"name": "z"}, "request.inputs"),
        ({"datatype": "FP64", "shape": [1, 3]}, "request.datatype"),
        ({"datatype": "FP33"}, "request.datatype"),
        ({"shape": [3, 2]}, "request.shape"),
        ({"shape": [-2, -3]}, "request.shape"),
        ({"shape": [2, 4]}, "request.binary-size"),
        ({"contents": {"fp32_contents": [1.0]}}, "request.raw-contents"),
    ],
)
def test_wrong_tensors(
    stub: service_pb2_grpc.GRPCInferenceServiceStub, change: dict[str, object], code: str
) -> None:
    """A tensor of another name, datatype, shape or size is an INVALID_ARGUMENT."""
    refused(stub.ModelInfer, request(**change), CODE.INVALID_ARGUMENT, code)


def test_unknown_output(stub: service_pb2_grpc.GRPCInferenceServiceStub) -> None:
    """An output that the model does not give is an INVALID_ARGUMENT."""
    message = request()
    message.outputs.add(name="z")
    refused(stub.ModelInfer, message, CODE.INVALID_ARGUMENT, "request.outputs")


def test_shared_memory_is_not_done(stub: service_pb2_grpc.GRPCInferenceServiceStub) -> None:
    """Asking for shared memory is UNIMPLEMENTED."""
    message = request()
    message.inputs[0].parameters["shared_memory_region"].string_param = "r"
    refused(stub.ModelInfer, message, CODE.UNIMPLEMENTED, "request.shared-memory")


@pytest.mark.parametrize(
    ("image", "status", "code"),
    [
        (b"hello", CODE.INVALID_ARGUMENT, "request.image"),
        (png((1, 2, 3))[:40], CODE.INVALID_ARGUMENT, "request.image"),
        (png_bomb(), CODE.RESOURCE_EXHAUSTED, "request.image-pixels"),
    ],
    ids=["no-image", "half", "bomb"],
)
def test_broken_images(
    stub: service_pb2_grpc.GRPCInferenceServiceStub,
    image: bytes,
    status: grpc.StatusCode,
    code: str,
) -> None:
    """A broken image is an INVALID_ARGUMENT, and a bomb is refused by its header."""
    message = messages.ModelInferRequest(
        model_name="colours",
        inputs=[{"name": "image", "datatype": "BYTES", "shape": [1]}],
        raw_input_contents=[len(image).to_bytes(4, "little") + image],
    )
    refused(stub.ModelInfer, message, status, code)


def test_too_many_rows(stub: service_pb2_grpc.GRPCInferenceServiceStub) -> None:
    """More rows than one request may have are RESOURCE_EXHAUSTED."""
    message = request(shape=[257, 3])
    message.raw_input_contents[0] = bytes(257 * 12)
    refused(stub.ModelInfer, message, CODE.RESOURCE_EXHAUSTED, "request.rows")


def test_hundred_megabytes_are_refused(stock: triton.InferenceServerClient) -> None:
    """A message beyond the limit is RESOURCE_EXHAUSTED, and the connection stays."""
    huge = triton_input("x", np.zeros(((100 << 20) // 12, 3), np.float32), "FP32")
    with pytest.raises(InferenceServerException) as caught:
        stock.infer("linear", [huge])
    assert caught.value.status() == "StatusCode.RESOURCE_EXHAUSTED"
    assert stock.is_server_live()


def test_compression_is_no_way_round_the_limit(
    stub: service_pb2_grpc.GRPCInferenceServiceStub,
) -> None:
    """A small message that unpacks to a huge one is refused as a huge one."""
    message = request(shape=[(100 << 20) // 12, 3])
    message.raw_input_contents[0] = bytes((100 << 20) // 12 * 12)
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(message, timeout=60, compression=grpc.Compression.Gzip)
    error: Any = caught.value
    assert error.code() == CODE.RESOURCE_EXHAUSTED
    assert stub.ServerLive(messages.ServerLiveRequest()).live


def test_bytes_that_are_no_message(channel: grpc.Channel) -> None:
    """Bytes that are no protobuf message are an INVALID_ARGUMENT for every method of a model."""
    for method in ("ModelInfer", "ModelReady", "ModelMetadata"):
        call = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
        refused(call, b"\xff\xff\xff", CODE.INVALID_ARGUMENT, "request.message")


def test_unknown_method(channel: grpc.Channel) -> None:
    """A method that this service does not have is UNIMPLEMENTED."""
    call = channel.unary_unary("/inference.GRPCInferenceService/ModelStatistics")
    with pytest.raises(grpc.RpcError) as caught:
        call(b"", timeout=30)
    error: Any = caught.value
    assert error.code() == CODE.UNIMPLEMENTED


def test_cancelled_calls_leave_the_server_answering(
    stub: service_pb2_grpc.GRPCInferenceServiceStub, http: httpx.Client
) -> None:
    """Calls whose clients give up take no place from those that come after them."""
    pictures = [png((number, 0, 0), (300, 300)) for number in range(64)]
    message = messages.ModelInferRequest(
        model_name="colours",
        inputs=[{"name": "image", "datatype": "BYTES", "shape": [len(pictures)]}],
        raw_input_contents=[b"".join(len(p).to_bytes(4, "little") + p for p in pictures)],
    )
    for _ in range(2):
        calls = [stub.ModelInfer.future(message) for _ in range(100)]
        time.sleep(0.05)
        for call in calls:
            call.cancel()
    answer = stub.ModelInfer(request(), timeout=30)
    assert answer.outputs[0].shape == [2, 4]
    assert 'model="colours",outcome="client.gone"' in http.get("/metrics").text

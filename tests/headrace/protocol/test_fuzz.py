"""Whatever arrives, decoding gives a request or an error of headrace, and nothing else."""

import contextlib
import json
import os

import numpy as np
import tritonclient.http
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from headrace.errors import RequestError
from headrace.protocol import grpc, http
from headrace.protocol.limits import Limits
from headrace.protocol.messages import InferRequest, InferResponse
from headrace.tensors import NUMPY_DTYPES

LIMITS = Limits(max_body_bytes=1 << 16, max_elements=1 << 12, max_json_depth=16)
# `make soak` asks for many more.
EXAMPLES = settings(
    max_examples=int(os.environ.get("HEADRACE_FUZZ_EXAMPLES", "300")), deadline=None
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda values: (
        st.lists(values, max_size=4) | st.dictionaries(st.text(max_size=5), values, max_size=4)
    ),
    max_leaves=8,
)


def decode_http(body: bytes, length: int | None) -> None:
    """Decodes; what decodes must be whole."""
    with contextlib.suppress(RequestError):
        check(http.decode_infer(body, model="m", version="", header_length=length, limits=LIMITS))


def decode_grpc(content: bytes) -> None:
    """Parses and decodes; what gRPC itself refuses does not reach the codec."""
    with contextlib.suppress(RequestError, DecodeError):
        check(grpc.decode_infer(service_pb2.ModelInferRequest.FromString(content), LIMITS))


def check(request: InferRequest) -> None:
    """A decoded request holds what its types say, and can be answered in kind."""
    assert request.inputs
    for tensor in request.inputs:
        assert tensor.array.dtype == NUMPY_DTYPES[tensor.datatype]
        assert tensor.array.size <= LIMITS.max_elements
        if tensor.datatype == "BYTES":
            assert all(isinstance(element, bytes) for element in tensor.array.ravel().tolist())
    response = InferResponse(request.model, request.version, request.id, request.inputs)
    with contextlib.suppress(RequestError):
        http.encode_infer(response, request)
    with contextlib.suppress(RequestError):
        grpc.encode_infer(response, request).SerializeToString()


def valid_http() -> tuple[bytes, int]:
    """A request of the stock client that mixes JSON and bytes."""
    numbers = tritonclient.http.InferInput("numbers", [2, 2], "FP32")
    numbers.set_data_from_numpy(np.ones((2, 2), np.float32))
    flags = tritonclient.http.InferInput("flags", [3], "BOOL")
    flags.set_data_from_numpy(np.array([True, False, True]))
    texts = tritonclient.http.InferInput("texts", [2], "BYTES")
    texts.set_data_from_numpy(np.array([b"ab", b"c"], object))
    counts = tritonclient.http.InferInput("counts", [2, 1], "INT8")
    counts.set_data_from_numpy(np.ones((2, 1), np.int8), binary_data=False)
    body, length = tritonclient.http.InferenceServerClient.generate_request_body(
        [numbers, flags, texts, counts], request_id="abc", parameters={"tag": "x"}
    )
    return body, length


def valid_grpc() -> list[bytes]:
    """A raw and a typed request."""
    raw = service_pb2.ModelInferRequest(model_name="m", id="a")
    raw.inputs.add(name="x", datatype="FP32", shape=[2])
    raw.inputs.add(name="t", datatype="BYTES", shape=[1])
    raw.raw_input_contents.extend([bytes(8), b"\x01\0\0\0a"])
    raw.parameters["tag"].string_param = "x"
    typed = service_pb2.ModelInferRequest(model_name="m")
    typed.inputs.add(name="x", datatype="INT8", shape=[2]).contents.int_contents.extend([1, 2])
    typed.outputs.add(name="y").parameters["binary"].bool_param = True
    return [raw.SerializeToString(), typed.SerializeToString()]


HTTP, HTTP_LENGTH = valid_http()
MUTATIONS = st.lists(
    st.tuples(st.integers(0, 2**16), st.integers(0, 4), st.binary(max_size=4)),
    min_size=1,
    max_size=4,
)


def mutated(content: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
    """The content with pieces replaced, left out or put in."""
    for place, length, piece in changes:
        start = place % (len(content) + 1)
        content = content[:start] + piece + content[start + length :]
    return content


def test_the_seeds_of_the_fuzzing_decode() -> None:
    """What is mutated below is valid before."""
    check(http.decode_infer(HTTP, model="m", version="", header_length=HTTP_LENGTH, limits=LIMITS))
    for content in valid_grpc():
        check(grpc.decode_infer(service_pb2.ModelInferRequest.FromString(content), LIMITS))


@EXAMPLES
@given(body=st.binary(max_size=200), length=st.none() | st.integers(-10, 300))
def test_random_bytes_over_http(body: bytes, length: int | None) -> None:
    """Random bytes with any header length are answered or refused."""
    decode_http(body, length)


@EXAMPLES
@given(changes=MUTATIONS, shift=st.integers(-3, 3))
def test_mutated_requests_over_http(changes: list[tuple[int, int, bytes]], shift: int) -> None:
    """A valid request with bytes changed, and its header length off, is answered or refused."""
    decode_http(mutated(HTTP, changes), HTTP_LENGTH + shift)


@EXAMPLES
@given(data=st.data())
def test_valid_json_of_wrong_values_over_http(data: st.DataObject) -> None:
    """Any JSON value in any place of a request is answered or refused."""
    request = json.loads(HTTP[:HTTP_LENGTH])
    place = data.draw(st.sampled_from([request, *request["inputs"]]))
    key = data.draw(st.sampled_from([*sorted(place), "outputs", "data", "parameters"]))
    place[key] = data.draw(JSON)
    header = json.dumps(request).encode()
    decode_http(header + HTTP[HTTP_LENGTH:], len(header))


@EXAMPLES
@given(
    datatype=st.sampled_from(sorted(NUMPY_DTYPES)),
    shape=st.lists(st.integers(-1, 4) | st.integers(), max_size=4),
    values=JSON,
)
def test_any_data_in_any_datatype_over_http(
    datatype: str, shape: list[int], values: object
) -> None:
    """Any data under any shape and datatype is answered or refused."""
    entry = {"name": "x", "datatype": datatype, "shape": shape, "data": values}
    decode_http(json.dumps({"inputs": [entry]}).encode(), None)


@EXAMPLES
@given(content=st.binary(max_size=200))
def test_random_bytes_over_grpc(content: bytes) -> None:
    """Random messages are answered or refused."""
    decode_grpc(content)


@EXAMPLES
@given(seed=st.sampled_from(valid_grpc()), changes=MUTATIONS)
def test_mutated_requests_over_grpc(seed: bytes, changes: list[tuple[int, int, bytes]]) -> None:
    """A valid message with bytes changed is answered or refused."""
    decode_grpc(mutated(seed, changes))

"""Every datatype goes through every encoding and comes back as it went, by way of stock clients."""

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tritonclient.grpc import service_pb2
from tritonclient.grpc._utils import _get_inference_request

from headrace.errors import InvalidRequestError, UnsupportedError
from headrace.protocol import grpc, http
from headrace.protocol.limits import Limits
from headrace.protocol.messages import InferRequest, InferResponse, Tensor
from headrace.tensors import NUMPY_DTYPES, Array, Datatype

LIMITS = Limits()
SHAPES = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
EXAMPLES = settings(max_examples=25, deadline=None)
TYPED_FIELDS = {
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


def tensors(datatype: Datatype, *, json: bool = False) -> st.SearchStrategy[Array]:
    """Arrays of a datatype; with `json`, only of elements that JSON has."""
    dtype = NUMPY_DTYPES[datatype]
    if datatype == "BYTES":
        elements = st.text(max_size=5).map(str.encode) if json else st.binary(max_size=5)
        return SHAPES.flatmap(lambda shape: arrays.arrays(dtype, shape, elements=elements))
    finite = {"allow_nan": False, "allow_infinity": False} if dtype.kind == "f" and json else {}
    return arrays.arrays(dtype, SHAPES, elements=arrays.from_dtype(dtype, **finite))  # type: ignore[arg-type]  # its keywords differ by kind of dtype


def same(left: Array, right: Array) -> bool:
    """Equal bit for bit, NaN and the sign of zero included."""
    if left.shape != right.shape or left.dtype != right.dtype:
        return False
    if left.dtype == object:
        return bool(left.tolist() == right.tolist())
    return left.tobytes() == right.tobytes()


def echo(request: InferRequest) -> InferResponse:
    """What an identity model answers."""
    return InferResponse(request.model, "1", request.id, request.inputs)


def through_http(array: Array, datatype: Datatype, *, binary: bool) -> tuple[Array, Array]:
    """An array as the server decodes it, and as the client reads the server's echo."""
    tensor = tritonclient.http.InferInput("x", list(array.shape), datatype)
    tensor.set_data_from_numpy(array, binary_data=binary)
    output = tritonclient.http.InferRequestedOutput("x", binary_data=binary)
    client = tritonclient.http.InferenceServerClient
    body, length = client.generate_request_body([tensor], [output])
    request = http.decode_infer(body, model="m", version="", header_length=length, limits=LIMITS)
    headers, pieces = http.encode_infer(echo(request), request)
    header_length = headers.get("inference-header-content-length")
    answer = b"".join(pieces)
    assert headers["content-length"] == str(len(answer))
    result = client.parse_response_body(
        answer, header_length=None if header_length is None else int(header_length)
    )
    answered = result.as_numpy("x")
    # From JSON the client makes strings of BYTES.
    if datatype == "BYTES" and not binary:
        answered = np.array([text.encode() for text in answered.ravel()], object)
    return request.inputs[0].array, answered.reshape(array.shape)


def typed_message(array: Array, datatype: Datatype) -> service_pb2.ModelInferRequest:
    """A request with typed contents, which the stock client does not build."""
    message = service_pb2.ModelInferRequest(model_name="m")
    tensor = message.inputs.add(name="x", datatype=datatype, shape=array.shape)
    getattr(tensor.contents, TYPED_FIELDS[datatype]).extend(array.ravel().tolist())
    return message


@pytest.mark.parametrize("datatype", sorted(set(NUMPY_DTYPES) - {"FP16"}))
@EXAMPLES
@given(data=st.data())
def test_json_keeps_every_element(datatype: Datatype, data: st.DataObject) -> None:
    """An array sent and answered as JSON arrives as it was, bit for bit."""
    array = data.draw(tensors(datatype, json=True))
    decoded, answered = through_http(array, datatype, binary=False)
    assert same(decoded, array)
    assert same(answered, array)


@pytest.mark.parametrize("datatype", sorted(NUMPY_DTYPES))
@EXAMPLES
@given(data=st.data())
def test_http_binary_keeps_every_element(datatype: Datatype, data: st.DataObject) -> None:
    """An array sent and answered as bytes over HTTP arrives as it was, NaN included."""
    array = data.draw(tensors(datatype))
    decoded, answered = through_http(array, datatype, binary=True)
    assert same(decoded, array)
    assert same(answered, array)


@pytest.mark.parametrize("datatype", sorted(NUMPY_DTYPES))
@EXAMPLES
@given(data=st.data())
def test_grpc_raw_keeps_every_element(datatype: Datatype, data: st.DataObject) -> None:
    """An array sent raw over gRPC arrives as it was, and is answered raw."""
    array = data.draw(tensors(datatype))
    tensor = tritonclient.grpc.InferInput("x", list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    message = _get_inference_request(
        model_name="m",
        inputs=[tensor],
        model_version="",
        request_id="",
        outputs=None,
        sequence_id=0,
        sequence_start=False,
        sequence_end=False,
        priority=0,
        timeout=None,
        parameters=None,
    )
    request = grpc.decode_infer(message, LIMITS)
    answer = grpc.encode_infer(echo(request), request)
    assert len(answer.raw_output_contents) == 1
    assert same(request.inputs[0].array, array)
    assert same(tritonclient.grpc.InferResult(answer).as_numpy("x"), array)


@pytest.mark.parametrize("datatype", sorted(set(NUMPY_DTYPES) - {"FP16"}))
@EXAMPLES
@given(data=st.data())
def test_grpc_typed_keeps_every_element(datatype: Datatype, data: st.DataObject) -> None:
    """An array sent in typed contents arrives as it was, and is answered in typed contents."""
    array = data.draw(tensors(datatype))
    request = grpc.decode_infer(typed_message(array, datatype), LIMITS)
    answer = grpc.encode_infer(echo(request), request)
    assert not answer.raw_output_contents
    assert same(request.inputs[0].array, array)
    contents = getattr(answer.outputs[0].contents, TYPED_FIELDS[datatype])
    back = np.empty(len(contents), NUMPY_DTYPES[datatype])
    back[:] = list(contents)
    assert same(back.reshape(tuple(answer.outputs[0].shape)), array)


@pytest.mark.parametrize("datatype", sorted(set(NUMPY_DTYPES) - {"FP16"}))
@EXAMPLES
@given(data=st.data())
def test_nested_json_equals_flat_json(datatype: Datatype, data: st.DataObject) -> None:
    """Data nested as the shape says decodes to what flat data decodes to."""
    array = data.draw(tensors(datatype, json=True).filter(lambda array: array.ndim > 0))
    tensor = tritonclient.http.InferInput("x", list(array.shape), datatype)
    tensor.set_data_from_numpy(array, binary_data=False)
    tensor._data = np.array(tensor._data, object).reshape(array.shape).tolist()
    body, _ = tritonclient.http.InferenceServerClient.generate_request_body([tensor])
    request = http.decode_infer(body, model="m", version="", header_length=None, limits=LIMITS)
    assert same(request.inputs[0].array, array)


def test_fp16_travels_only_as_bytes() -> None:
    """FP16 is refused in JSON and in typed contents, on the way in and on the way out."""
    array = np.ones((2,), np.float16)
    with pytest.raises(InvalidRequestError) as refused:
        through_http(array, "FP16", binary=False)
    assert refused.value.code == "request.fp16-json"
    message = service_pb2.ModelInferRequest()
    message.inputs.add(name="x", datatype="FP16", shape=[2]).contents.fp32_contents.extend([1, 1])
    with pytest.raises(InvalidRequestError) as refused:
        grpc.decode_infer(message, LIMITS)
    assert refused.value.code == "request.fp16-typed"
    response = InferResponse("m", "1", "", (Tensor.of("y", array),))
    request = InferRequest("m", "", "", ())
    with pytest.raises(UnsupportedError) as unsupported:
        http.encode_infer(response, request)
    assert unsupported.value.code == "response.not-json"
    with pytest.raises(UnsupportedError) as unsupported:
        grpc.encode_infer(response, request)
    assert unsupported.value.code == "response.not-typed"


def test_binary_inputs_are_views_of_the_body() -> None:
    """A binary tensor is not copied out of the body, and cannot be written through."""
    header = (
        b'{"inputs":[{"name":"x","datatype":"FP32","shape":[2],'
        b'"parameters":{"binary_data_size":8}}]}'
    )
    body = bytearray(header + np.array([1, 2], "<f4").tobytes())
    request = http.decode_infer(
        memoryview(body), model="m", version="", header_length=len(header), limits=LIMITS
    )
    array = request.inputs[0].array
    assert np.shares_memory(array, np.frombuffer(body, np.uint8))
    assert not array.flags.writeable


@pytest.mark.parametrize("binary", [True, False])
def test_outputs_that_lie_scattered_are_sent_row_major(binary: bool) -> None:  # noqa: FBT001 - pytest passes it by name
    """A transposed output is sent in the order of its shape, as bytes and as JSON."""
    array = np.arange(6, dtype=np.int32).reshape(2, 3).T
    response = InferResponse("m", "1", "", (Tensor.of("y", array),))
    request = InferRequest("m", "", "", (), binary_by_default=binary)
    headers, pieces = http.encode_infer(response, request)
    length = headers.get("inference-header-content-length")
    result = tritonclient.http.InferenceServerClient.parse_response_body(
        b"".join(pieces), header_length=None if length is None else int(length)
    )
    assert result.as_numpy("y").tolist() == array.tolist()
    answer = grpc.encode_infer(response, request)
    if binary:
        assert tritonclient.grpc.InferResult(answer).as_numpy("y").tolist() == array.tolist()
    else:
        assert list(answer.outputs[0].contents.int_contents) == array.ravel().tolist()

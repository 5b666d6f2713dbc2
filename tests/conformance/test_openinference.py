"""Every datatype, over both transports and in every encoding: what goes in comes out, bit for bit.

The stock tritonclient asks identity models on the real edge. Golden cases hold numbers alone, so no
bundle has BYTES for a tensor of its model: the same edges are asked for it in this process.
"""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
import uvicorn
from edge_bundles import bytes_identity, write_identity
from prometheus_client import CollectorRegistry
from services import free_port, is_listening, serving, wait_until
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub
from tritonclient.utils import InferenceServerException

from headrace.engine.model import Model
from headrace.observe.metrics import Metrics
from headrace.protocol.limits import Limits
from headrace.server.dataplane import DataPlane
from headrace.server.grpc import DataPlaneMethods, start_grpc
from headrace.server.http import http_app, model_routes
from headrace.tensors import NUMPY_DTYPES, Array, Datatype

NUMBERS = tuple(datatype for datatype in NUMPY_DTYPES if datatype != "BYTES")
FIELDS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "UINT64": "uint64_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
TEXTS = (b"", b"a", "grün \u0000 \U0001f600".encode(), b"x" * 70_000, b'"\\', b" ")


@dataclass(frozen=True)
class Edges:
    """Where the identity models answer: `HOST:PORT` of each edge."""

    http: str
    grpc: str


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edges]:
    """The real edge with an identity model a datatype of numbers, called like it."""
    directory = tmp_path_factory.mktemp("bundles")
    bundles = [str(write_identity(directory, kind, kind.lower())) for kind in NUMBERS]
    with serving(tmp_path_factory.mktemp("home"), "--edge", *bundles) as service:
        yield Edges(service.url.removeprefix("http://"), service.grpc)
        assert service.end() == 0


@pytest.fixture(scope="module")
def texts() -> Iterator[Edges]:
    """The edges in this process with the identity model `bytes`."""
    with _in_process(bytes_identity()) as edges:
        yield edges


@contextmanager
def _in_process(model: Model) -> Iterator[Edges]:
    plane = DataPlane([model], Metrics(CollectorRegistry()))
    ports = free_port(), free_port()
    app = http_app(model_routes(plane, Limits()))
    server = uvicorn.Server(uvicorn.Config(app, port=ports[0], log_config=None, lifespan="off"))

    async def serve() -> None:
        methods = DataPlaneMethods(plane, Limits())
        both = await start_grpc(methods, host="127.0.0.1", port=ports[1], max_message=1 << 26)
        await server.serve()
        await both.stop(grace=1)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        assert wait_until(lambda: all(map(is_listening, ports)), 20)
        yield Edges(*(f"127.0.0.1:{port}" for port in ports))
    finally:
        server.should_exit = True
        thread.join(20)
        plane.close()


def extremes(datatype: Datatype, *, finite: bool) -> Array:
    """An array of a datatype's odd values, shape (2, n); without NaN and infinities if finite."""
    dtype = NUMPY_DTYPES[datatype]
    if datatype == "BYTES":
        return np.array([TEXTS, TEXTS[::-1]], dtype=object)
    if datatype == "BOOL":
        return np.array([[True, False, True], [False, False, True]])
    if datatype.startswith("FP"):
        info = np.finfo(dtype.name)
        odd = [0.0, -0.0, 1 / 3, info.max, info.min, info.tiny, info.smallest_subnormal]
        odd += [] if finite else [np.nan, -np.nan, np.inf, -np.inf]
    else:
        whole = np.iinfo(dtype.name)
        odd = [0, 1, whole.max, whole.min, whole.max // 3]
    return np.array([odd, odd[::-1]], dtype)


def same(one: Array, other: Array) -> bool:
    """Whether two arrays are equal bit for bit, in dtype and shape too."""
    if one.dtype == object:
        return one.shape == other.shape and one.tolist() == other.tolist()
    return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())


def ask_http(edges: Edges, array: Array, datatype: str, *, sent: bool, got: bool) -> Array:
    """An answer over HTTP; `sent` and `got` say what goes as bytes rather than as JSON."""
    with tritonclient.http.InferenceServerClient(edges.http) as client:
        tensor = tritonclient.http.InferInput("x", list(array.shape), datatype)
        tensor.set_data_from_numpy(array, binary_data=sent)
        wanted = tritonclient.http.InferRequestedOutput("y", binary_data=got)
        return _output(client.infer(datatype.lower(), [tensor], outputs=[wanted]), datatype)


def ask_grpc(edges: Edges, array: Array, datatype: str) -> Array:
    """An answer over gRPC, raw both ways."""
    with tritonclient.grpc.InferenceServerClient(edges.grpc) as client:
        tensor = tritonclient.grpc.InferInput("x", list(array.shape), datatype)
        tensor.set_data_from_numpy(array)
        return _output(client.infer(datatype.lower(), [tensor]), datatype)


def ask_grpc_typed(edges: Edges, array: Array, datatype: Datatype) -> Array:
    """An answer over gRPC, typed both ways."""
    field = FIELDS.get(datatype, "fp32_contents")
    entry: dict[str, Any] = {"name": "x", "datatype": datatype, "shape": array.shape}
    message = messages.ModelInferRequest(
        model_name=datatype.lower(), inputs=[{**entry, "contents": {field: array.ravel().tolist()}}]
    )
    with grpc.insecure_channel(edges.grpc) as channel:
        answer = GRPCInferenceServiceStub(channel).ModelInfer(message, timeout=30)
    assert not answer.raw_output_contents
    (output,) = answer.outputs
    assert output.datatype == datatype
    values = list(getattr(output.contents, field))
    return np.array(values, NUMPY_DTYPES[datatype]).reshape(tuple(output.shape))


def _output(result: Any, datatype: str) -> Array:  # noqa: ANN401 - of either client
    output = result.get_output("y")
    found = output["datatype"] if isinstance(output, dict) else output.datatype
    assert found == datatype
    array = result.as_numpy("y")
    if datatype == "BYTES":  # the client gives text where JSON gave text
        flat = [e.encode() if isinstance(e, str) else e for e in array.ravel().tolist()]
        return np.array([*flat, None], dtype=object)[:-1].reshape(array.shape)
    return np.asarray(array)


@pytest.mark.parametrize("datatype", NUMBERS)
def test_binary_over_http(numbers: Edges, datatype: Datatype) -> None:
    """Bytes over HTTP keep every bit, those of NaN and of negative zero too."""
    array = extremes(datatype, finite=False)
    assert same(ask_http(numbers, array, datatype, sent=True, got=True), array)


@pytest.mark.parametrize("datatype", [name for name in NUMBERS if name != "FP16"])
@pytest.mark.parametrize(("sent", "got"), [(False, False), (False, True), (True, False)])
def test_json_over_http(numbers: Edges, datatype: Datatype, *, sent: bool, got: bool) -> None:
    """JSON keeps every bit of what JSON can say, in, out and both ways."""
    array = extremes(datatype, finite=True)
    assert same(ask_http(numbers, array, datatype, sent=sent, got=got), array)


@pytest.mark.parametrize("datatype", NUMBERS)
def test_raw_over_grpc(numbers: Edges, datatype: Datatype) -> None:
    """Raw contents over gRPC keep every bit."""
    array = extremes(datatype, finite=False)
    assert same(ask_grpc(numbers, array, datatype), array)


@pytest.mark.parametrize("datatype", [name for name in NUMBERS if name != "FP16"])
def test_typed_over_grpc(numbers: Edges, datatype: Datatype) -> None:
    """Typed contents over gRPC keep every bit."""
    array = extremes(datatype, finite=False)
    assert same(ask_grpc_typed(numbers, array, datatype), array)


@pytest.mark.parametrize("shape", [(1, 1), (3, 0), (256, 7)])
def test_shapes(numbers: Edges, shape: tuple[int, int]) -> None:
    """One element, none, and many rows come back in their shape."""
    array = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    assert same(ask_http(numbers, array, "INT32", sent=True, got=True), array)
    assert same(ask_http(numbers, array, "INT32", sent=False, got=False), array)
    assert same(ask_grpc(numbers, array, "INT32"), array)


def test_fp16_has_no_text(numbers: Edges) -> None:
    """FP16 goes as bytes alone: JSON and typed contents are refused, in both directions."""
    array = extremes("FP16", finite=True)
    with pytest.raises(InferenceServerException, match="JSON does not carry"):
        ask_http(numbers, array, "FP16", sent=True, got=False)
    with pytest.raises(grpc.RpcError) as caught:
        ask_grpc_typed(numbers, array.astype(np.float32), "FP16")
    error: Any = caught.value
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_json_says_no_nan(numbers: Edges, datatype: Datatype, odd: float) -> None:
    """NaN and infinities in an answer are refused as JSON, never sent as something else."""
    array = np.array([[odd]], NUMPY_DTYPES[datatype])
    with pytest.raises(InferenceServerException, match="JSON does not carry"):
        ask_http(numbers, array, datatype, sent=True, got=False)


@pytest.mark.parametrize("sent", [True, False])
@pytest.mark.parametrize("got", [True, False])
def test_bytes_over_http(texts: Edges, *, sent: bool, got: bool) -> None:
    """Text of every length comes back, as bytes and as JSON."""
    array = extremes("BYTES", finite=True)
    assert same(ask_http(texts, array, "BYTES", sent=sent, got=got), array)


def test_bytes_over_grpc(texts: Edges) -> None:
    """Text of every length comes back over gRPC, raw and typed."""
    array = extremes("BYTES", finite=True)
    assert same(ask_grpc(texts, array, "BYTES"), array)
    assert same(ask_grpc_typed(texts, array, "BYTES"), array)


def test_bytes_that_are_no_text(texts: Edges) -> None:
    """Bytes that are no UTF-8, which the engine cannot take, are refused and never replaced."""
    array = np.array([[b"\xff\xfe"]], dtype=object)
    with pytest.raises(InferenceServerException, match="not UTF-8"):
        ask_http(texts, array, "BYTES", sent=True, got=True)
    with pytest.raises(InferenceServerException, match="not UTF-8"):
        ask_grpc(texts, array, "BYTES")

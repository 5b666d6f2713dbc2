"""The gRPC edge: `inference.GRPCInferenceService`, from bytes to bytes.

Messages are parsed by whoever answers (`DataPlaneMethods` here, a replica behind the front of a
cluster), so a method is a function of its name and its request's bytes. Source: Open Inference
Protocol, specification/protocol/inference_grpc.md.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from headrace.errors import (
    InternalError,
    InvalidRequestError,
    MissingError,
    NotFoundError,
    RequestError,
    TooLargeError,
    UnavailableError,
    UnsupportedError,
)
from headrace.protocol import grpc as codec
from headrace.protocol.limits import Limits
from headrace.protocol.messages import error_sentence
from headrace.server.dataplane import ClientGoneError, DataPlane, server_metadata

if TYPE_CHECKING:
    import grpc
    from tritonclient.grpc.service_pb2 import ModelInferRequest

SERVICE = "inference.GRPCInferenceService"
SERVER_METHODS = ("ServerLive", "ServerReady", "ServerMetadata")
MODEL_METHODS = ("ModelReady", "ModelMetadata", "ModelInfer")
STATUS: Mapping[type[RequestError], str] = {
    InvalidRequestError: "INVALID_ARGUMENT",
    NotFoundError: "NOT_FOUND",
    TooLargeError: "RESOURCE_EXHAUSTED",
    UnsupportedError: "UNIMPLEMENTED",
    UnavailableError: "UNAVAILABLE",
    InternalError: "INTERNAL",
}
_log = structlog.get_logger("headrace.grpc")
# Clients take 8 KiB of trailers, where a letter may need twelve bytes.
_MAX_DETAILS = 500


class GrpcMethods(Protocol):
    """Answers the service's methods."""

    async def call(self, method: str, request: bytes) -> bytes:
        """One call, serialized message to serialized message; raises RequestError."""
        ...


@dataclass(frozen=True)
class DataPlaneMethods:
    """The methods, answered by a data plane in this process."""

    plane: DataPlane
    limits: Limits

    async def call(self, method: str, request: bytes) -> bytes:
        """See `GrpcMethods.call`."""
        if method in SERVER_METHODS:
            return answer_server(method, ready=True)
        messages = codec.load_messages()
        if method == "ModelInfer":
            return await self._infer(request)
        message = parse_message(messages.__dict__[f"{method}Request"], request)
        if method == "ModelMetadata":
            found = self.plane.model_metadata(message.name, message.version)
            return _serialize(codec.encode_model_metadata(found))
        self.plane.find(message.name, message.version)
        return _serialize(messages.ModelReadyResponse(ready=True))

    async def _infer(self, content: bytes) -> bytes:
        begin = time.perf_counter()
        model = ""
        outcome: RequestError | None = _unforeseen()  # unless it comes to another end
        try:
            message = parse_message(codec.load_messages().ModelInferRequest, content)
            model = message.model_name
            with self.plane.admitted():
                encoded = await self._answer(message)
            outcome = None
        except RequestError as error:
            outcome = error
            raise
        except asyncio.CancelledError:
            outcome = ClientGoneError("client.gone", "the client cancelled its call")
            raise
        finally:
            self.plane.record(model, outcome, time.perf_counter() - begin)
        return encoded

    async def _answer(self, message: "ModelInferRequest") -> bytes:
        """Decodes and encodes on the loop: protobuf's C holds the lock that a thread would need."""
        self.plane.find(message.model_name, message.model_version)  # no model, no work
        begin = time.perf_counter()
        request = codec.decode_infer(message, self.limits)
        decoded = time.perf_counter()
        response = await self.plane.infer(request)
        answered = time.perf_counter()
        encoded = _serialize(codec.encode_infer(response, request))
        seconds = {"decode": decoded - begin, "encode": time.perf_counter() - answered}
        self.plane.metrics.observe_stages(response.model, response.version, seconds)
        return encoded


def answer_server(method: str, *, ready: bool) -> bytes:
    """Answers a method that belongs to the server.

    Args:
        ready: Whether every model answers.
    """
    messages = codec.load_messages()
    if method == "ServerMetadata":
        return _serialize(codec.encode_server_metadata(server_metadata()))
    if method == "ServerLive":
        return _serialize(messages.ServerLiveResponse(live=True))
    return _serialize(messages.ServerReadyResponse(ready=ready))


def parse_message(kind: Any, content: bytes) -> Any:  # noqa: ANN401 - generated classes
    """A message of a generated class.

    Raises:
        InvalidRequestError: The bytes are not such a message.
    """
    from google.protobuf.message import DecodeError  # noqa: PLC0415 - an extra

    try:
        return kind.FromString(content)
    except DecodeError as error:
        raise InvalidRequestError(
            "request.message", "the request is not the protobuf message that this method takes"
        ) from error


def _unforeseen() -> InternalError:
    return InternalError("server.fault", "the server failed on this request")


def _serialize(message: Any) -> bytes:  # noqa: ANN401 - generated classes
    return bytes(message.SerializeToString())


async def start_grpc(
    methods: GrpcMethods, *, host: str, port: int, max_message: int
) -> "grpc.aio.Server":
    """Starts the service on a port.

    Args:
        max_message: The longest message taken, in bytes.

    Raises:
        MissingError: The extra `grpc` is not installed, or the port cannot be bound.
    """
    codec.load_messages()
    import grpc  # noqa: PLC0415 - an extra

    options = [
        ("grpc.max_receive_message_length", max_message),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),
    ]
    server = grpc.aio.server(options=options)
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(_behaviour(methods, name))
        for name in (*SERVER_METHODS, *MODEL_METHODS)
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    try:
        server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    except RuntimeError as error:
        raise MissingError(
            "port.in-use",
            f"cannot listen for gRPC on {host}:{port}",
            "`headrace status` shows your running services; or choose another port",
        ) from error
    await server.start()
    return server


def _behaviour(
    methods: GrpcMethods, name: str
) -> "Callable[[bytes, grpc.aio.ServicerContext[bytes, bytes]], Awaitable[bytes]]":
    import grpc  # noqa: PLC0415 - an extra

    async def answer(request: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
        try:
            return await methods.call(name, request)
        except RequestError as error:
            refusal: RequestError = error
        except Exception:  # noqa: BLE001 - the edge: an unforeseen fault is logged, and ours
            _log.exception("request.failed", method=name)
            refusal = _unforeseen()
        context.set_trailing_metadata((("headrace-code", refusal.code),))
        details = error_sentence(refusal)[:_MAX_DETAILS]
        await context.abort(grpc.StatusCode[STATUS[type(refusal)]], details)
        raise AssertionError  # abort raises

    return answer

"""The HTTP edge: routes of the Open Inference Protocol onto the data plane, as an ASGI app.

Source: Open Inference Protocol, specification/protocol/inference_rest.md, and Triton's
extension_binary_data.md. Errors are `{"error": sentence, "code": code}` on every path.
"""

import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from http import HTTPStatus

import structlog
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Lifespan, Receive, Scope, Send

from headrace.errors import (
    HeadraceError,
    InternalError,
    InvalidRequestError,
    NotFoundError,
    RequestError,
    TooLargeError,
    UnavailableError,
    UnsupportedError,
)
from headrace.observe.metrics import CONTENT_TYPE
from headrace.protocol import http as codec
from headrace.protocol.checks import shown
from headrace.protocol.limits import Limits
from headrace.server.dataplane import (
    LARGE_TEXT,
    ClientGoneError,
    DataPlane,
    is_large,
    server_metadata,
)

STATUS: Mapping[type[RequestError], HTTPStatus] = {
    InvalidRequestError: HTTPStatus.BAD_REQUEST,
    NotFoundError: HTTPStatus.NOT_FOUND,
    TooLargeError: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    UnsupportedError: HTTPStatus.NOT_IMPLEMENTED,
    UnavailableError: HTTPStatus.SERVICE_UNAVAILABLE,
    InternalError: HTTPStatus.INTERNAL_SERVER_ERROR,
}
_log = structlog.get_logger("headrace.http")
_DRAIN = 8  # times the limit: how much of an oversized body is read before its sender is told


async def _refuse(_: Request, error: Exception) -> Response:
    """Starlette's handler for what a route raises."""
    if isinstance(error, HTTPException):
        known = error.status_code == HTTPStatus.NOT_FOUND
        code, text = ("path.not-found", "path") if known else ("path.method", "method")
        refusal = UnsupportedError(code, f"no such {text} here")
        return _error(error.status_code, refusal, error.headers)
    if not isinstance(error, RequestError):
        raise error
    return _error(STATUS.get(type(error), HTTPStatus.INTERNAL_SERVER_ERROR), error)


async def _fault(_: Request, __: Exception) -> Response:
    """Starlette's handler for the rest; Starlette raises it again, and the server logs it."""
    return _error(HTTPStatus.INTERNAL_SERVER_ERROR, _unforeseen())


def _unforeseen() -> InternalError:
    return InternalError("server.fault", "the server failed on this request")


def _error(status: int, error: HeadraceError, headers: Mapping[str, str] | None = None) -> Response:
    content = codec.encode_error(error)
    return Response(content, status, headers, media_type="application/json")


def _json(content: bytes) -> Response:
    return Response(content, media_type="application/json")


def http_app(routes: Sequence[BaseRoute], lifespan: Lifespan[Starlette] | None = None) -> Starlette:
    """An app whose every error is in the protocol's form.

    Args:
        routes: Of `server_routes`, `model_routes`, or both.
        lifespan: What starts and ends with the app.
    """
    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        exception_handlers={HTTPException: _refuse, RequestError: _refuse, Exception: _fault},
    )
    app.router.redirect_slashes = False
    return app


def server_routes(
    ready: Callable[[], Awaitable[bool]], scrape: Callable[[], bytes]
) -> list[BaseRoute]:
    """What belongs to the server and not to a model.

    Args:
        ready: Whether every model answers.
        scrape: The metrics, in Prometheus' text format.
    """

    async def live(_: Request) -> Response:
        return _json(b'{"live":true}')

    async def is_ready(_: Request) -> Response:
        if await ready():
            return _json(b'{"ready":true}')
        raise UnavailableError("server.not-ready", "not every model is ready")

    async def metadata(_: Request) -> Response:
        return _json(codec.encode_server_metadata(server_metadata()))

    async def metrics(_: Request) -> Response:
        return Response(await run_in_threadpool(scrape), headers={"content-type": CONTENT_TYPE})

    return [
        Route("/v2", metadata),
        Route("/v2/health/live", live),
        Route("/v2/health/ready", is_ready),
        Route("/metrics", metrics),
    ]


def model_routes(plane: DataPlane, limits: Limits) -> list[BaseRoute]:
    """What belongs to the models of a data plane."""

    async def metadata(request: Request) -> Response:
        found = plane.model_metadata(*_model_of(request.path_params))
        return _json(codec.encode_model_metadata(found))

    async def ready(request: Request) -> Response:
        manifest = plane.find(*_model_of(request.path_params)).manifest
        return _json(json.dumps({"name": manifest.name, "ready": True}).encode())

    infer = InferEndpoint(plane, limits)
    routes: list[BaseRoute] = []
    for base in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        routes += [
            Route(f"{base}/infer", infer, methods=["POST"]),
            Route(base, metadata),
            Route(f"{base}/ready", ready),
        ]
    return routes


class InferEndpoint:
    """The route that matters: raw ASGI, from the body's bytes to the answer's."""

    def __init__(self, plane: DataPlane, limits: Limits) -> None:
        self._plane = plane
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, whatever happens."""
        model, version = _model_of(scope["path_params"])
        headers = Headers(scope=scope)
        begin = time.perf_counter()
        refusal: RequestError | None = None
        try:
            body = await read_body(receive, headers, self._limits.max_body_bytes)
            begin = time.perf_counter()
            with self._plane.admitted():
                reply, chunks = await self._answer(model, version, headers, body)
        except RequestError as error:
            refusal = error
        except Exception:  # noqa: BLE001 - the edge: an unforeseen fault is logged, and ours
            _log.exception("request.failed", model=model)
            refusal = _unforeseen()
        self._plane.record(model, refusal, time.perf_counter() - begin)
        if refusal is None:
            await _send(send, HTTPStatus.OK, reply, chunks)
        elif not isinstance(refusal, ClientGoneError):
            content = codec.encode_error(refusal)
            await _send(send, STATUS[type(refusal)], _error_headers(content), [content])

    async def _answer(
        self, model: str, version: str, headers: Headers, body: bytes
    ) -> tuple[dict[str, str], list[bytes | memoryview]]:
        self._plane.find(model, version)  # no model, no work
        begin = time.perf_counter()
        length = codec.parse_header_length(headers.get(codec.HEADER_LENGTH))
        decode = partial(
            codec.decode_infer,
            body,
            model=model,
            version=version,
            header_length=length,
            limits=self._limits,
        )
        text = len(body) if length is None else length
        request = await self._plane.work(decode, large=text > LARGE_TEXT)
        decoded = time.perf_counter()
        response = await self._plane.infer(request)
        answered = time.perf_counter()
        encode = partial(codec.encode_infer, response, request)
        encoded = await self._plane.work(encode, large=is_large(response))
        seconds = {"decode": decoded - begin, "encode": time.perf_counter() - answered}
        self._plane.metrics.observe_stages(response.model, response.version, seconds)
        return encoded


async def read_body(receive: Receive, headers: Headers, limit: int) -> bytes:
    """The whole body of a request.

    Raises:
        TooLargeError: It is longer than the limit. Much of it is read first and thrown away, since
            most clients read no answer before they have sent everything.
        UnsupportedError: It is compressed.
        ClientGoneError: The client closed the connection.
    """
    encoding = headers.get("content-encoding", "identity")
    chunks: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError("client.gone", "the client closed its connection")
        chunk: bytes = message.get("body", b"")
        more = message.get("more_body", False) and size <= limit * _DRAIN
        size += len(chunk)
        if size <= limit:
            chunks.append(chunk)
        else:
            chunks.clear()
    if size > limit:
        raise TooLargeError(
            "request.body-size", f"the body is larger than the {limit} bytes this server takes"
        )
    if encoding != "identity":
        raise UnsupportedError(
            "request.encoding", f"content encoding {shown(encoding)} is not supported"
        )
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def _send(
    send: Send, status: int, headers: Mapping[str, str], chunks: Sequence[bytes | memoryview]
) -> None:
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": int(status), "headers": encoded})
    last = len(chunks) - 1
    for number, chunk in enumerate(chunks):
        part = {"type": "http.response.body", "body": bytes(chunk), "more_body": number < last}
        await send(part)


def _error_headers(body: bytes | memoryview) -> dict[str, str]:
    return {"content-type": "application/json", "content-length": str(len(body))}


def _model_of(parameters: Mapping[str, str]) -> tuple[str, str]:
    return parameters["model"], parameters.get("version", "")

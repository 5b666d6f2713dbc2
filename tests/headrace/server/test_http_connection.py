"""The HTTP edge of the real program below the requests: sizes, slowness, sockets that break."""

import json
import socket
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPResponse
from typing import Any, BinaryIO

import httpx
import numpy as np
import psutil
import pytest
import tritonclient.http as triton
from services import Service
from tritonclient.utils import InferenceServerException

from headrace.server.config import DEFAULT_MAX_BODY
from headrace.server.connection import MAX_HEAD

INFER = "/v2/models/linear/infer"
ROW = json.dumps(
    {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 0, 0]}]}
).encode()
ANSWER = [0.0, 0.125, 0.25, 0.375]
HUNDRED_MB = 100 << 20


@contextmanager
def connection(service: Service) -> Iterator[socket.socket]:
    """A bare connection."""
    address = ("127.0.0.1", service.announced["http_port"])
    with socket.create_connection(address, timeout=30) as sock:
        yield sock


def head(
    path: str = INFER, length: int | None = len(ROW), *lines: str, method: str = "POST"
) -> bytes:
    """A request's head."""
    counted = () if length is None else (f"content-length: {length}",)
    return "\r\n".join([f"{method} {path} HTTP/1.1", "host: x", *counted, *lines, "\r\n"]).encode()


def read(sock: socket.socket) -> tuple[int, Any]:
    """The status and the JSON of the next answer."""
    response = HTTPResponse(sock)
    response.begin()
    body = response.read()
    return response.status, json.loads(body) if body else None


def still_answers(http: httpx.Client) -> bool:
    """Whether the server answers somebody else."""
    response = http.post(INFER, content=ROW)
    return bool(response.json()["outputs"][0]["data"] == ANSWER)


def test_hundred_megabytes_are_refused(http: httpx.Client) -> None:
    """A body beyond the limit is a 413 in the one form of errors, and its sender reads it."""
    response = http.post(INFER, content=bytes(HUNDRED_MB))
    assert response.status_code == 413
    assert response.json()["code"] == "request.body-size"
    assert still_answers(http)


def test_hundred_megabytes_from_the_stock_client(edge: Service, http: httpx.Client) -> None:
    """The stock client gets the refusal of a huge tensor as an exception, not a broken pipe."""
    huge = np.zeros((HUNDRED_MB // 12, 3), np.float32)
    with triton.InferenceServerClient(edge.url.removeprefix("http://")) as client:
        tensor = triton.InferInput("x", list(huge.shape), "FP32")
        tensor.set_data_from_numpy(huge)
        with pytest.raises(InferenceServerException, match="larger than the"):
            client.infer("linear", [tensor])
    assert still_answers(http)


def test_endless_chunked_body_is_refused_before_its_end(edge: Service, http: httpx.Client) -> None:
    """A body without an end is refused while it still comes, and costs no memory."""
    server = psutil.Process(edge.process.pid)
    before = server.memory_info().rss
    with connection(edge) as sock:
        sock.sendall(head(INFER, None, "transfer-encoding: chunked"))
        chunk = b"%x\r\n" % (1 << 20) + bytes(1 << 20) + b"\r\n"
        for _ in range(9 * (DEFAULT_MAX_BODY >> 20)):
            sock.sendall(chunk)
        status, body = read(sock)
    assert (status, body["code"]) == (413, "request.body-size")
    assert server.memory_info().rss - before < 3 * DEFAULT_MAX_BODY
    assert still_answers(http)


@pytest.mark.parametrize(
    "start",
    [
        b"GET /v2 HTTP/1.1\r\nhost: x\r\nx-long: ",
        b"GET /",
        head(INFER, None, "transfer-encoding: chunked") + b"1;extension=",
        head(INFER, None, "transfer-encoding: chunked") + b"0\r\ntrailer: ",
    ],
    ids=["header", "path", "chunk-extension", "trailer"],
)
def test_endless_head_is_refused(edge: Service, http: httpx.Client, start: bytes) -> None:
    """A head that never ends is refused, since a parser would keep all of it."""
    with connection(edge) as sock:
        sock.sendall(start)
        time.sleep(0.05)
        with pytest.raises(OSError, match=r"reset|Broken pipe"):  # noqa: PT012 - any send may fail
            for _ in range(2000):
                sock.sendall(b"a" * (MAX_HEAD // 4))
    assert still_answers(http)


def test_long_head_gets_an_answer(edge: Service) -> None:
    """Who stops after a head that is too long reads why."""
    with connection(edge) as sock:
        sock.sendall(b"GET /v2 HTTP/1.1\r\nhost: x\r\nx-long: ")
        time.sleep(0.05)
        sock.sendall(b"a" * (MAX_HEAD + 1))
        status, body = read(sock)
    assert (status, body["code"]) == (400, "request.http")


@pytest.mark.parametrize(
    "garbage",
    [
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nhost: x\r\n\r\n",
        b"POST /v2 HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n",
        b"POST /v2 HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        b"POST /v2 HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nbad header\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused(edge: Service, http: httpx.Client, garbage: bytes) -> None:
    """Bytes that are no HTTP request, or could be read as two, are a 400 in our form."""
    with connection(edge) as sock:
        sock.sendall(garbage)
        status, body = read(sock)
    assert (status, body["code"]) == (400, "request.http")
    assert still_answers(http)


def test_upgrades_are_ignored(edge: Service) -> None:
    """A request to become a WebSocket is answered as the plain request that it also is."""
    upgrade = ("connection: upgrade", "upgrade: websocket", "sec-websocket-version: 13")
    with connection(edge) as sock:
        sock.sendall(head("/v2/health/live", None, *upgrade, method="GET"))
        assert read(sock) == (200, {"live": True})


def test_chunked_body(http: httpx.Client) -> None:
    """A body of unknown length, in small chunks, is one request."""
    chunks = (ROW[start : start + 5] for start in range(0, len(ROW), 5))
    response = http.post(INFER, content=chunks)
    assert response.request.headers["transfer-encoding"] == "chunked"
    assert response.json()["outputs"][0]["data"] == ANSWER


def test_slow_body_holds_nobody_up(edge: Service, http: httpx.Client) -> None:
    """While one client sends byte by byte, others are answered, and at last it is too."""
    with connection(edge) as sock:
        for byte in head() + ROW[:-1]:
            sock.sendall(bytes([byte]))
        assert still_answers(http)
        sock.sendall(ROW[-1:])
        status, body = read(sock)
    assert (status, body["outputs"][0]["data"]) == (200, ANSWER)


def test_expect_continue(edge: Service) -> None:
    """A client that asks first is told to go on."""
    with connection(edge) as sock:
        sock.sendall(head(INFER, len(ROW), "expect: 100-continue"))
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(ROW)
        assert read(sock)[0] == 200


def test_client_gone_in_mid_body(edge: Service, http: httpx.Client) -> None:
    """A client that hangs up while it sends leaves a server that answers the next."""
    before = outcomes(http).get("client.gone", 0)
    for linger in (b"", struct.pack("ii", 1, 0)):
        with connection(edge) as sock:
            if linger:  # a reset instead of a goodbye
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            sock.sendall(head(INFER, 10_000) + b"half of it")
            time.sleep(0.05)
    deadline = time.monotonic() + 10
    while outcomes(http).get("client.gone", 0) < before + 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert outcomes(http).get("client.gone", 0) == before + 2
    assert still_answers(http)


def outcomes(http: httpx.Client) -> dict[str, float]:
    """Requests to `linear` by outcome."""
    lines = http.get("/metrics").text.splitlines()
    start = 'headrace_request_seconds_count{model="linear",outcome="'
    found = (line.removeprefix(start).split('"', 1) for line in lines if line.startswith(start))
    return {outcome: float(rest.split()[-1]) for outcome, rest in found}


def test_client_gone_in_mid_answer(edge: Service, http: httpx.Client) -> None:
    """Clients that never read, and reset instead, leave a server that answers the next."""
    for _ in range(200):
        with connection(edge) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.sendall(head("/metrics", None, method="GET") + (head() + ROW) * 3)
    assert still_answers(http)
    assert psutil.Process(edge.process.pid).num_fds() < 150


def test_keep_alive(edge: Service) -> None:
    """Requests follow each other on one connection, refused ones among them."""
    with connection(edge) as sock:
        for _ in range(3):
            sock.sendall(head() + ROW)
            assert read(sock)[0] == 200
            sock.sendall(head(INFER, 2) + b"{}")
            assert read(sock)[0] == 400
            sock.sendall(head(INFER.replace("linear", "nobody"), 2) + b"{}")
            assert read(sock)[0] == 404


def test_close_is_followed(edge: Service) -> None:
    """The connection ends after the answer where the client asks for it, and for HTTP/1.0."""
    close = head(INFER, len(ROW), "connection: close")
    for request in (close, head().replace(b"HTTP/1.1", b"HTTP/1.0")):
        with connection(edge) as sock:
            sock.sendall(request + ROW)
            received = b""
            while part := sock.recv(65536):
                received += part
        assert received.startswith(b"HTTP/1.1 200")


def test_pipelined_requests_are_answered_in_order(edge: Service) -> None:
    """Requests sent without waiting get their own answers, in their order."""
    rows = [[float(number), 0.0, 0.0] for number in range(50)]
    with connection(edge) as sock:
        for row in rows:
            entry = {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": row}
            body = json.dumps({"id": str(row[0]), "inputs": [entry]}).encode()
            sock.sendall(head(INFER, len(body)) + body)
        with sock.makefile("rb") as stream:
            answers = [_next_json(stream) for _ in rows]
    assert [answer["id"] for answer in answers] == [str(row[0]) for row in rows]
    assert [answer["outputs"][0]["data"][1] for answer in answers] == [r[0] / 8 for r in rows]


def _next_json(stream: BinaryIO) -> dict[str, Any]:
    length = 0
    while (line := stream.readline()) not in {b"\r\n", b""}:
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    answer: dict[str, Any] = json.loads(stream.read(length))
    return answer


def test_large_json_leaves_the_server_answering(edge: Service, http: httpx.Client) -> None:
    """Megabytes of JSON are answered, or refused for their size, while others are answered."""
    data = np.zeros((256, 3)).tolist()
    entry = {"name": "x", "datatype": "FP32", "shape": [256, 3], "data": data}
    padding = {"ignored": "a" * (1 << 20)}
    large = json.dumps({"inputs": [entry], **padding}).encode()
    over = json.dumps({"inputs": [entry], "ignored": "a" * (17 << 20)}).encode()

    def ask(content: bytes) -> int:
        return httpx.post(edge.url + INFER, content=content, timeout=30).status_code

    with ThreadPoolExecutor(8) as pool:
        statuses = pool.map(ask, [large, over] * 8)
        assert still_answers(http)
        assert list(statuses) == [200, 413] * 8

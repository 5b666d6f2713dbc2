"""The closed-loop client for gRPC: unary calls of raw bytes."""

import socket
import threading
import time
from contextlib import suppress

import grpc

from headrace_bench.load.closed import Stretch
from headrace_bench.load.requests import Answer
from headrace_bench.load.server import HOST

_SHOWN = 200
_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),  # or all channels share one connection
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
)
_STATUS = {"UNAVAILABLE": 503, "NOT_FOUND": 404, "UNIMPLEMENTED": 404, "DEADLINE_EXCEEDED": 504}
"""What a gRPC code would be by HTTP, where that says "not yet"; all others are refusals."""


class GrpcClient:
    """Unary calls of raw bytes, one channel a caller.

    Calls end in a callback that begins the next, so that no thread or task of a caller has to be
    woken for each answer.

    Args:
        request: The serialized message.
        method: Its full name.
        limit_s: For one answer.
    """

    def __init__(self, port: int, request: bytes, method: str, *, limit_s: float) -> None:
        self._address = f"{HOST}:{port}"
        self._port = port
        self._request = request
        self._method = method
        self._limit_s = limit_s
        self._callers: list[_GrpcCaller] = []

    def ask(self) -> Answer:
        """One answer, on a connection of its own."""
        # A channel that finds nothing waits before it tries again, so the port is asked first.
        socket.create_connection((HOST, self._port), self._limit_s).close()
        caller = self._open()
        try:
            message = caller.call(self._request, timeout=self._limit_s)
        except grpc.RpcError as error:
            code, details = error.code(), error.details()
            return Answer(_STATUS.get(code.name, 400), {}, f"{code.name}: {details}".encode())
        finally:
            caller.close()
        return Answer(200, {}, bytes(message))

    def prepare(self, load: int) -> None:
        """Opens what is missing; a channel opens a lost connection again by itself."""
        while len(self._callers) < load:
            self._callers.append(self._open())
        for caller in self._callers[:load]:
            with suppress(grpc.RpcError):  # it will fail when it is counted, too
                caller.call(self._request, timeout=self._limit_s)

    def work(self, seconds: float, load: int) -> Stretch:
        """Lets `load` callers work."""
        callers = self._callers[:load]
        begin = time.perf_counter()
        for caller in callers:
            caller.start(begin + seconds)
        for caller in callers:
            caller.finished.wait()
        faults = [caller for caller in callers if caller.errors]
        return Stretch(
            seconds=max(caller.last for caller in callers) - begin,
            latencies=tuple(latency for caller in callers for latency in caller.latencies),
            errors=sum(caller.errors for caller in faults),
            first_error=faults[0].first_error if faults else "",
        )

    def close(self) -> None:
        """Closes every channel."""
        for caller in self._callers:
            caller.close()

    def _open(self) -> "_GrpcCaller":
        return _GrpcCaller(self._address, self._method, self._request, self._limit_s)


class _GrpcCaller:
    """One channel."""

    def __init__(self, address: str, method: str, request: bytes, limit_s: float) -> None:
        self.latencies: list[float] = []
        self.errors = 0
        self.first_error = ""
        self.last = 0.0
        self.finished = threading.Event()
        self._channel = grpc.insecure_channel(address, options=_OPTIONS)
        self.call = self._channel.unary_unary(
            method, request_serializer=None, response_deserializer=None
        )
        self._request = request
        self._limit_s = limit_s
        self._until = self._began = 0.0

    def start(self, until: float) -> None:
        """Sends at least one request, and none after `until`."""
        self.latencies, self.errors, self.first_error = [], 0, ""
        self._until = until
        self.finished.clear()
        self._send()

    def close(self) -> None:
        """Closes the channel."""
        self._channel.close()

    def _send(self) -> None:
        self._began = time.perf_counter()
        self.call.future(self._request, timeout=self._limit_s).add_done_callback(self._answered)

    def _answered(self, call: grpc.Future) -> None:
        self.last = now = time.perf_counter()
        code = call.code()
        if code is grpc.StatusCode.OK:
            self.latencies.append(now - self._began)
        else:
            self.errors += 1
            self.first_error = self.first_error or f"{code.name}: {call.details()}"[:_SHOWN]
        if now < self._until and code is not grpc.StatusCode.UNAVAILABLE:
            self._send()
        else:
            self.finished.set()

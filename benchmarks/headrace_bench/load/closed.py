"""Closed-loop clients: a caller sends its next request when it has the answer to the last.

They are lean, since they share the machine with the server. Requests are built beforehand, answers
are read to their end and not looked into, and connections stay open between blocks.
"""

import asyncio
import socket
import time
from dataclasses import dataclass
from typing import Protocol, cast

import httptools
import uvloop

from headrace_bench.load.requests import Answer
from headrace_bench.load.server import HOST

_SHOWN = 200


@dataclass(frozen=True)
class Stretch:
    """What the callers did.

    Attributes:
        seconds: From the first request to the last answer.
        latencies: Of the requests that were answered well, in seconds.
        errors: Requests that were not.
        first_error: What happened to one of them.
    """

    seconds: float
    latencies: tuple[float, ...]
    errors: int
    first_error: str


class Client(Protocol):
    """A client of one server, which sends one request again and again."""

    def ask(self) -> Answer:
        """One answer, on a connection of its own.

        Raises:
            OSError: Nothing answers there.
        """
        ...

    def prepare(self, load: int) -> None:
        """Opens the connections that are missing, and sends one request on each."""
        ...

    def work(self, seconds: float, load: int) -> Stretch:
        """Lets `load` callers work, none of which begins a request after `seconds`.

        `prepare` was called before.
        """
        ...

    def close(self) -> None:
        """Closes every connection."""
        ...


class HttpClient:
    """HTTP/1.1 with kept connections.

    Args:
        request: With its head.
        limit_s: For one answer.
    """

    def __init__(self, port: int, request: bytes, *, limit_s: float) -> None:
        self._port = port
        self._request = request
        self._limit_s = limit_s
        self._late = f"no answer in {limit_s:.0f} s"
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._callers: list[_Caller] = []

    def ask(self) -> Answer:
        """One answer, on a connection of its own."""
        return exchange(self._port, self._request, self._limit_s)

    def prepare(self, load: int) -> None:
        """Opens what is missing or was closed while it had nothing to do."""
        self._runner.run(self._prepare(load))

    def work(self, seconds: float, load: int) -> Stretch:
        """Lets `load` callers work."""
        return self._runner.run(self._work(seconds, load))

    def close(self) -> None:
        """Closes every connection."""
        self._runner.run(self._close())
        self._runner.close()

    async def _prepare(self, load: int) -> None:
        while len(self._callers) < load:
            self._callers.append(_Caller(self._port, self._request))
        callers = self._callers[:load]
        await asyncio.sleep(0.001)  # connections that the server closed are found out here
        await asyncio.gather(*(caller.open() for caller in callers))
        await asyncio.wait([caller.start(0.0) for caller in callers], timeout=self._limit_s)
        for caller in callers:
            caller.give_up(self._late)
        # A server may close an idle connection at the very moment at which it is used again.
        await asyncio.gather(*(caller.open() for caller in callers))

    async def _work(self, seconds: float, load: int) -> Stretch:
        callers = self._callers[:load]
        begin = time.perf_counter()
        done = [caller.start(begin + seconds) for caller in callers]
        await asyncio.wait(done, timeout=seconds + self._limit_s)
        for caller in callers:
            caller.give_up(self._late)
        faults = [caller for caller in callers if caller.errors]
        return Stretch(
            seconds=max(caller.last for caller in callers) - begin,
            latencies=tuple(latency for caller in callers for latency in caller.latencies),
            errors=sum(caller.errors for caller in faults),
            first_error=faults[0].first_error if faults else "",
        )

    async def _close(self) -> None:
        for caller in self._callers:
            caller.close()
        await asyncio.sleep(0.001)


class _Caller:
    """Sends its next request when the last is answered.

    What happens is told by callbacks, which cost less than tasks.
    """

    def __init__(self, port: int, request: bytes) -> None:
        self.latencies: list[float] = []
        self.errors = 0
        self.first_error = ""
        self.last = 0.0
        self._port = port
        self._request = request
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[None] = self._loop.create_future()
        self._done.set_result(None)
        self._connection: _Connection | None = None
        self._why = "there is no connection"
        self._until = self._began = 0.0
        self._opening: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connects, if it is not connected as far as is known."""
        if self._connection is not None:
            return
        try:
            _, connection = await self._loop.create_connection(
                lambda: _Connection(self), HOST, self._port
            )
        except OSError as error:
            self._why = f"cannot connect: {error}"
        else:
            self._connection = connection

    def start(self, until: float) -> "asyncio.Future[None]":
        """Sends at least one request, and none after `until`; forgets what was counted before."""
        self.latencies, self.errors, self.first_error = [], 0, ""
        self._until = until
        self._done = self._loop.create_future()
        self._send()
        return self._done

    def give_up(self, why: str) -> None:
        """A request that is still in hand has taken too long."""
        if not self._done.done():
            self.close()
            self._fail(why)

    def close(self) -> None:
        """Closes the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def answered(self, status: int, said: bytes, *, kept: bool) -> None:
        """An answer is whole: on with the next request."""
        self.last = now = time.perf_counter()
        if status == 200:
            self.latencies.append(now - self._began)
        else:
            self._count(f"status {status}: {said.decode(errors='replace')}")
        if not kept:  # proxies say so while they change their configuration
            self.close()
        if now >= self._until:
            self._finish()
        elif kept:
            self._send()
        else:
            self._opening = self._loop.create_task(self._reopen())

    def lost(self, connection: "_Connection", why: str) -> None:
        """A connection is of no more use."""
        if connection is self._connection:
            self._connection = None
            self._fail(why)

    async def _reopen(self) -> None:
        await self.open()
        self._send()

    def _send(self) -> None:
        self._began = time.perf_counter()
        if self._connection is None:
            self._fail(self._why)
        else:
            self._connection.send(self._request)

    def _fail(self, why: str) -> None:
        if not self._done.done():
            self._count(why)
            self._finish()

    def _finish(self) -> None:
        if not self._done.done():
            self._done.set_result(None)

    def _count(self, why: str) -> None:
        self.errors += 1
        self.first_error = self.first_error or why
        self.last = time.perf_counter()


class _Connection(asyncio.Protocol):
    """Finds the ends of answers."""

    def __init__(self, caller: _Caller) -> None:
        self._caller = caller
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._said = bytearray()

    def send(self, request: bytes) -> None:
        """Sends a request."""
        if self._transport is not None:
            self._transport.write(request)

    def close(self) -> None:
        """Closes it, whatever is under way."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It stands."""
        # A cast for the type checker only: uvloop's transports derive from nothing of asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """A piece of an answer."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._caller.lost(self, f"no HTTP answer: {error}")
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The server closed it, or this side did."""
        self._caller.lost(self, f"the connection was lost: {exc or 'closed by the server'}")

    def on_body(self, body: bytes) -> None:
        """Keeps what an error says."""
        if self._parser.get_status_code() != 200 and len(self._said) < _SHOWN:
            self._said += body[:_SHOWN]

    def on_message_complete(self) -> None:
        """The answer is whole."""
        said = bytes(self._said)
        self._said.clear()
        status, kept = self._parser.get_status_code(), self._parser.should_keep_alive()
        self._caller.answered(status, said, kept=kept)


class _Reader:
    """Reads one answer."""

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self.whole = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.whole = True


def exchange(port: int, request: bytes, limit_s: float) -> Answer:
    """Sends one HTTP request on a connection of its own, and reads the answer.

    Args:
        limit_s: For each step of it.

    Raises:
        OSError: Nothing answers there, or no HTTP comes back.
    """
    reader = _Reader()
    with socket.create_connection((HOST, port), limit_s) as connection:
        connection.sendall(request)
        while not reader.whole:
            piece = connection.recv(1 << 16)
            if not piece:
                raise ConnectionError("the server closed the connection in the midst of an answer")
            try:
                reader.parser.feed_data(piece)
            except httptools.HttpParserError as error:
                raise ConnectionError(f"no HTTP answer: {error}") from error
    return Answer(reader.parser.get_status_code(), reader.headers, bytes(reader.body))

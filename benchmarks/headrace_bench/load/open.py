"""Open-loop clients of one server: what arrives is sent, whoever still waits for an answer.

A request that finds no room waits here in order. LoadGen counts its latency from the time at which
it was scheduled, so this waiting is in the figures.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from itertools import cycle
from queue import SimpleQueue
from typing import Any, cast

import httptools
import uvloop

from headrace.errors import CheckError
from headrace_bench.load.loadgen import Done, Query, Subject
from headrace_bench.load.requests import OIP_GRPC
from headrace_bench.load.server import HOST
from headrace_bench.measure import process_cpu_seconds

ANSWER_S = 30.0
_IDLE_S = 2.0
_SAID = 200


class Http:
    """A running server, over as many persistent connections as there are requests at once.

    One thread runs an event loop with all of them. A connection is opened when a request finds
    none free; beyond `connections`, requests wait here in order, and their clock runs.

    Args:
        port: Of the server, on the loopback interface.
        requests: Whole HTTP requests, one a sample; each is sent once before the test.
        connections: The most.
        pids: Of the server's processes, whose processor time is counted.

    Raises:
        CheckError: It does not answer one of the requests with status 200.
    """

    in_process = False

    def __init__(
        self, port: int, requests: Sequence[bytes], *, connections: int, pids: Sequence[int]
    ) -> None:
        self.samples = len(requests)
        self._pids = tuple(pids)
        self._pool = _Pool(port, requests, connections)
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="http-client")
        self._thread.start()
        try:
            _warm(self)
        except BaseException:
            self.close()
            raise

    def issue(self, queries: Sequence[Query], done: Done) -> None:
        """See `Subject.issue`."""
        self._loop.call_soon_threadsafe(self._pool.accept, queries, done)

    def cpu_seconds(self) -> float:
        """Of the server's processes."""
        return process_cpu_seconds(self._pids)

    def close(self) -> None:
        """Closes the connections, and ends the thread."""
        asyncio.run_coroutine_threadsafe(self._pool.close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class _Pool:
    """The connections and the requests that wait for one; touched by the loop's thread alone."""

    def __init__(self, port: int, requests: Sequence[bytes], limit: int) -> None:
        self._port = port
        self._requests = requests
        self._limit = limit
        self._waiting: deque[tuple[int, int, Done]] = deque()
        self._idle: list[_Connection] = []
        self._open: set[_Connection] = set()
        self._opening = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def accept(self, queries: Sequence[Query], done: Done) -> None:
        """Sends what finds a connection; the rest waits."""
        self._waiting.extend((identity, index, done) for identity, index in queries)
        self.drain()

    def drain(self) -> None:
        """Gives idle connections work, and opens as many as are lacking."""
        while self._waiting and (connection := self._take_idle()):
            identity, index, done = self._waiting.popleft()
            connection.send(self._requests[index], identity, done)
        room = self._limit - len(self._open) - self._opening
        for _ in range(min(room, len(self._waiting) - self._opening)):
            self._opening += 1
            task = asyncio.get_running_loop().create_task(self._connect())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def free(self, connection: "_Connection") -> None:
        """A connection has been answered."""
        connection.since = time.monotonic()
        self._idle.append(connection)
        self.drain()

    def lost(self, connection: "_Connection") -> None:
        """A connection is closed."""
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self.drain()

    async def close(self) -> None:
        """Closes every connection."""
        for task in self._tasks:
            task.cancel()
        self._waiting.clear()
        for connection in tuple(self._open):
            connection.abort()

    def _take_idle(self) -> "_Connection | None":
        """The one used last; those idle for long go, before the server closes them under a request.

        Servers do so after some seconds (uvicorn: 5).
        """
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and time.monotonic() - connection.since < _IDLE_S:
                return connection
            connection.abort()
        return None

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            connecting = loop.create_connection(lambda: _Connection(self), HOST, self._port)
            _, connection = await asyncio.wait_for(connecting, ANSWER_S)
        except OSError as error:  # a time that ran out is one too
            said = f"no connection to {HOST}:{self._port}: {error}"
        else:
            said = "" if connection.usable else f"{HOST}:{self._port} closed the connection at once"
        self._opening -= 1
        if said:
            if self._waiting:
                identity, _, done = self._waiting.popleft()
                done(identity, said)
            self.drain()
        else:
            self._open.add(connection)
            self.free(connection)


class _Connection(asyncio.Protocol):
    """One connection, which has at most one request on its way."""

    def __init__(self, pool: _Pool) -> None:
        self.since = 0.0
        self._pool = pool
        self._transport: asyncio.Transport | None = None
        self._parser: Any = None
        self._asked: tuple[int, Done] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._body = b""

    @property
    def usable(self) -> bool:
        """Whether it stands, as far as is known."""
        return self._transport is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        # No isinstance: uvloop's transports do what asyncio.Transport does, and are none.
        self._transport = cast("asyncio.Transport", transport)
        self._parser = httptools.HttpResponseParser(self)

    def send(self, request: bytes, identity: int, done: Done) -> None:
        """Sends a request; `done` is called when its answer is here."""
        if self._transport is None:
            raise AssertionError  # it is made before it is used
        self._asked = (identity, done)
        self._body = b""
        self._timer = asyncio.get_running_loop().call_later(ANSWER_S, self._give_up)
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._finish(f"the answer is no HTTP: {error}")
            self.abort()

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        if len(self._body) < _SAID:
            self._body += body[:_SAID]

    def on_message_complete(self) -> None:
        """Called by the parser."""
        status = self._parser.get_status_code()
        said = self._body[:_SAID].decode(errors="replace")
        keep = self._parser.should_keep_alive()
        self._finish("" if status == 200 else f"HTTP {status}: {said}")
        if keep:
            self._pool.free(self)
        else:
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self._transport = None
        self._finish(f"the connection was lost before the answer: {exc or 'the server closed it'}")
        self._pool.lost(self)

    def abort(self) -> None:
        """Closes it at once."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    def _give_up(self) -> None:
        self._finish(f"no answer in {ANSWER_S:.0f} s")
        self.abort()

    def _finish(self, error: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
        asked, self._asked, self._timer = self._asked, None, None
        if asked is not None:
            asked[1](asked[0], error)


class Grpc:
    """A running server over gRPC, raw bytes in and out.

    Args:
        port: Of the server, on the loopback interface.
        requests: Serialized messages, one a sample; each is sent once before the test.
        limit: Calls at once; beyond it, they wait here in order, and their clock runs.
        channels: Connections that the calls are spread over.
        pids: As for `Http`.

    Raises:
        CheckError: It does not answer one of the requests.
    """

    in_process = False

    def __init__(
        self,
        port: int,
        requests: Sequence[bytes],
        *,
        limit: int,
        channels: int,
        pids: Sequence[int],
    ) -> None:
        import grpc  # noqa: PLC0415 - an extra, heavy to import

        self.samples = len(requests)
        self._requests = requests
        self._pids = tuple(pids)
        self._lock = threading.Lock()
        self._room = limit
        self._waiting: deque[tuple[int, int, Done]] = deque()
        options = (
            ("grpc.use_local_subchannel_pool", 1),  # or all channels share one connection
            ("grpc.enable_http_proxy", 0),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", -1),
        )
        self._channels = [grpc.insecure_channel(f"{HOST}:{port}", options) for _ in range(channels)]
        self._calls = cycle([channel.unary_unary(OIP_GRPC) for channel in self._channels])
        try:
            _warm(self)
        except BaseException:
            self.close()
            raise

    def issue(self, queries: Sequence[Query], done: Done) -> None:
        """See `Subject.issue`."""
        with self._lock:
            self._waiting.extend((identity, index, done) for identity, index in queries)
        self._drain()

    def cpu_seconds(self) -> float:
        """Of the server's processes."""
        return process_cpu_seconds(self._pids)

    def close(self) -> None:
        """Closes the connections."""
        for channel in self._channels:
            channel.close()

    def _drain(self) -> None:
        while True:
            with self._lock:
                if not self._waiting or not self._room:
                    return
                self._room -= 1
                identity, index, done = self._waiting.popleft()
                call = next(self._calls)
            future = call.future(self._requests[index], timeout=ANSWER_S)
            future.add_done_callback(partial(self._finish, identity, done))

    def _finish(self, identity: int, done: Done, future: Any) -> None:  # noqa: ANN401 - gRPC's
        with self._lock:
            self._room += 1
        self._drain()
        failed = future.exception()
        done(identity, f"{failed.code().name}: {failed.details()}"[:_SAID] if failed else "")


def _warm(subject: Subject) -> None:
    """Asks once for every sample."""
    said: SimpleQueue[str] = SimpleQueue()
    for index in range(subject.samples):
        subject.issue([(index, index)], lambda _, error: said.put(error))
        error = said.get(timeout=2 * ANSWER_S)
        if error:
            raise CheckError("bench.subject", f"the server does not answer sample {index}: {error}")

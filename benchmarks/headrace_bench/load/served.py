"""Servers as workloads: one that stays up and is loaded, and one that is started again and again.

Runs in headrace's own environment, whatever environment the server's command starts.
"""

import os
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from headrace.errors import CheckError, UsageError
from headrace.tensors import Frozen
from headrace_bench.load.closed import Client, HttpClient, exchange
from headrace_bench.load.closed_grpc import GrpcClient
from headrace_bench.load.requests import AnswerCheck, check_answer, load_check
from headrace_bench.load.server import HOST, Server, spent
from headrace_bench.measure import Block, machine_cpu_seconds

LIMIT_S = 30.0
"""For one answer."""
START_S = 120.0
"""For a server to come up."""
_PROBE_S = 10.0
_SHOWN = 200
_NOT_YET = {404, 500, 502, 503, 504}  # what proxies and servers say while a model is not there


class Service(Frozen):
    """What to start, and what to ask it.

    Attributes:
        command: See `headrace_bench.load.server.Server`.
        environment: Of the server, beside this process's own.
        port: 0 chooses a free one at each start.
        ready: A path that is asked with GET until it answers 200, before the request; or empty.
        request: The file of what is sent: an HTTP request with its head, or a gRPC message.
        method: The full name, by gRPC.
        expected: The file of an `AnswerCheck`; if empty, every answer of status 200 will do.
        rows: Of one request.
        cores: How many cores the server gets for itself; 0 leaves all processors to both.
    """

    command: Annotated[tuple[str, ...], Field(min_length=1, strict=False)]
    environment: dict[str, str] = Field(default_factory=dict)
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    road: Literal["http", "grpc"]
    ready: str = ""
    request: str
    method: str = ""
    expected: str = ""
    rows: Annotated[int, Field(ge=1)] = 1
    cores: Annotated[int, Field(ge=0)] = 0

    def start(self) -> tuple[Server, Client, float]:
        """A server that has answered right, its client, and the seconds that took.

        Raises:
            MissingError: The port is in use.
            CheckError: It ended, did not answer in time, refused the request, or answered wrong.
        """
        request = Path(self.request).read_bytes()
        check = load_check(Path(self.expected)) if self.expected else None
        with _own_cores(self.cores):
            server = Server(self.command, self.environment, self.port)
        try:
            client = self._client(server.port, request)
            asking = _Asking(client, server.port, self.ready, request, check)
            seconds = server.wait(asking, START_S)
        except BaseException:
            server.close()
            raise
        return server, client, seconds

    def _client(self, port: int, request: bytes) -> Client:
        if self.road == "grpc":
            return GrpcClient(port, request, self.method, limit_s=LIMIT_S)
        return HttpClient(port, request, limit_s=LIMIT_S)


class _Asking:
    """Asks a server that is coming up: first whether it is ready, then for the answer."""

    def __init__(
        self, client: Client, port: int, ready: str, request: bytes, check: AnswerCheck | None
    ) -> None:
        self._client = client
        self._port = port
        self._request = request
        self._check = check
        self._probe = f"GET {ready} HTTP/1.1\r\nHost: {HOST}:{port}\r\n\r\n".encode()
        self._ready = not ready

    def __call__(self) -> str:
        """Why there is no answer yet; empty after a right one, and an error after a wrong one."""
        try:
            if not self._ready:
                answer = exchange(self._port, self._probe, _PROBE_S)
                self._ready = answer.status == 200
            if self._ready:
                answer = self._client.ask()
        except OSError as error:
            return str(error)
        if answer.status == 200 and self._ready:
            if self._check is not None:
                check_answer(self._check, self._request, answer)
            return ""
        said = f"status {answer.status}: {answer.body[:_SHOWN].decode(errors='replace')}"
        if self._ready and answer.status not in _NOT_YET:
            raise CheckError("bench.refused", f"the server refuses the request: {said}")
        return said


@contextmanager
def _own_cores(count: int) -> Iterator[None]:
    """What is started within runs on the last `count` processors, and this process on the others.

    Processors of a shared machine differ in speed, from each other and from second to second: on
    one and the same, servers that take turns can be compared.
    """
    allowed = sorted(os.sched_getaffinity(0))
    if not 0 < count < len(allowed):
        yield
        return
    os.sched_setaffinity(0, allowed[-count:])
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed[:-count])


def open_served(**arguments: object) -> "Served":
    """Starts a server and asks it until its first right answer.

    Args:
        arguments: Those of a `Service`.

    Raises:
        UsageError: They are not.
        MissingError: The port is in use.
        CheckError: It did not come up, refused the request, or answered wrong.
    """
    return Served(_service(arguments))


def open_starts(**arguments: object) -> "Starts":
    """As `open_served`, for a server that is started again and again; starts none yet.

    Args:
        arguments: Those of a `Service`.

    Raises:
        UsageError: They are not.
    """
    return Starts(_service(arguments))


class Served:
    """A server that stays up, under load.

    Raises:
        MissingError: The port is in use.
        CheckError: It did not come up, refused the request, or answered wrong.
    """

    def __init__(self, service: Service) -> None:
        self._rows = service.rows
        self._server, self._client, self._start_s = service.start()

    def block(self, seconds: float, load: int) -> Block:
        """Lets `load` callers ask for about `seconds`, each on a connection of its own."""
        self._client.prepare(load)
        processes, own = self._server.cpu_seconds(), time.process_time()
        machine = machine_cpu_seconds()
        stretch = self._client.work(seconds, load)
        machine = machine_cpu_seconds() - machine
        own = time.process_time() - own
        cpu = spent(processes, self._server.cpu_seconds())
        return Block(
            seconds=stretch.seconds,
            latencies=stretch.latencies,
            rows=self._rows,
            cpu_seconds=cpu,
            own_cpu_seconds=cpu + own,
            machine_cpu_seconds=machine,
            errors=stretch.errors,
            first_error=self._explained(stretch.first_error),
        )

    def facts(self) -> dict[str, float]:
        """Seconds to the first right answer, and the memory of all processes."""
        return {"start_s": self._start_s, "memory_mb": self._server.memory_mb()}

    def close(self) -> None:
        """Ends the server."""
        try:
            self._client.close()
        finally:
            self._server.close()

    def _explained(self, error: str) -> str:
        """That the server has ended says more than that a connection was lost."""
        try:
            if error:
                self._server.check_running()
        except CheckError as ended:
            return str(ended)
        return error


class Starts:
    """A server that is started again and again, each time until its first right answer.

    The latencies of a block are the seconds from the start of the program to the end of that
    answer; the end of the server is not measured. Processes that ended before the first answer
    are not in `cpu_seconds`.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._memory: list[float] = []

    def block(self, seconds: float, load: int) -> Block:
        """At least one start, and more of them as long as `seconds` are not over."""
        if load != 1:
            raise ValueError("a server is started by one caller")
        latencies: list[float] = []
        cpu = own = machine = 0.0
        begin = time.perf_counter()
        while not latencies or time.perf_counter() - begin < seconds:
            own_before, machine_before = time.process_time(), machine_cpu_seconds()
            server, client, took = self._service.start()
            try:
                machine += machine_cpu_seconds() - machine_before
                own += time.process_time() - own_before
                cpu += spent({}, server.cpu_seconds())
                self._memory.append(server.memory_mb())
                latencies.append(took)
            finally:
                client.close()
                server.close()
        return Block(
            seconds=sum(latencies),
            latencies=tuple(latencies),
            rows=1,
            cpu_seconds=cpu,
            own_cpu_seconds=cpu + own,
            machine_cpu_seconds=machine,
        )

    def facts(self) -> dict[str, float]:
        """The memory of all processes after the first answer: the median of the starts."""
        return {"memory_mb": statistics.median(self._memory)} if self._memory else {}

    def close(self) -> None:
        """Nothing is left running between blocks."""


def _service(arguments: Mapping[str, object]) -> Service:
    try:
        return Service.model_validate(dict(arguments))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(
            "bench.service", f"no server can be made of {where}: {first['msg']}"
        ) from None

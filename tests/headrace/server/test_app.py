"""The edges in this process: what a healthy server does not show from outside."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace

import grpc
import httpx
import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from services import GOOD, free_port
from structlog.testing import capture_logs
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from headrace.bundle.open import open_bundle
from headrace.engine.model import Model, load_model
from headrace.engine.session import Session
from headrace.errors import HeadraceError
from headrace.observe.metrics import Metrics, expose
from headrace.protocol.limits import Limits
from headrace.server.config import check_host
from headrace.server.dataplane import DataPlane
from headrace.server.grpc import DataPlaneMethods, start_grpc
from headrace.server.http import http_app, model_routes, server_routes
from headrace.tensors import Array

INFER = "/v2/models/linear/infer"
ROW = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 0, 0]}]}
FAULT = {"error": "the server failed on this request", "code": "server.fault"}


@dataclass(frozen=True)
class Failing:
    """A session with a fault that nobody foresaw."""

    placement: Mapping[str, int] = field(default_factory=dict)

    def expect(self, inputs: Mapping[str, Array]) -> None:
        """Prepares nothing."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Fails."""
        raise ZeroDivisionError(f"secret {len(inputs)}")


@dataclass(frozen=True)
class Waiting:
    """A session that answers when it is told to."""

    session: Session
    started: threading.Semaphore
    go_on: threading.Event

    def expect(self, inputs: Mapping[str, Array]) -> None:
        """Prepares nothing."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Waits, then answers."""
        self.started.release()
        assert self.go_on.wait(30)
        return self.session.run(inputs)

    @property
    def placement(self) -> Mapping[str, int]:
        """Of the session that answers."""
        return self.session.placement


@pytest.fixture(scope="module")
def model() -> Model:
    """The good bundle, loaded."""
    return load_model(open_bundle(GOOD), threads=1)


@contextmanager
def plane_of(model: Model, max_in_flight: int = 4) -> Iterator[DataPlane]:
    """A data plane with one model."""
    plane = DataPlane([model], Metrics(CollectorRegistry()), max_in_flight=max_in_flight)
    try:
        yield plane
    finally:
        plane.close()


@asynccontextmanager
async def client_of(plane: DataPlane, ready: bool = True) -> AsyncIterator[httpx.AsyncClient]:  # noqa: FBT001, FBT002 - two states
    """A client of the app, without a socket."""

    async def is_ready() -> bool:
        return ready

    def scrape() -> bytes:
        return expose(plane.metrics.registry)

    app = http_app([*model_routes(plane, Limits()), *server_routes(is_ready, scrape)])
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


def waiting_model(model: Model) -> tuple[Model, Waiting]:
    """A model whose requests wait, and take long enough to go to a thread."""
    session = Waiting(model.session, threading.Semaphore(0), threading.Event())
    return replace(model, session=session, row_seconds=1.0), session


async def started(session: Waiting) -> None:
    """Waits until one more request is in the session."""
    assert await asyncio.to_thread(session.started.acquire, timeout=30)


def test_unforeseen_fault_of_the_model_over_http(model: Model) -> None:
    """An unforeseen exception is a 500 that tells strangers nothing, a log line and an outcome."""

    async def ask(plane: DataPlane) -> tuple[httpx.Response, str]:
        async with client_of(plane) as client:
            return await client.post(INFER, json=ROW), (await client.get("/metrics")).text

    with plane_of(replace(model, session=Failing())) as plane, capture_logs() as logs:
        response, metrics = asyncio.run(ask(plane))
    assert (response.status_code, response.json()) == (500, FAULT)
    assert [entry["event"] for entry in logs] == ["request.failed"]
    assert 'outcome="server.fault"' in metrics


def test_unforeseen_fault_of_another_route() -> None:
    """A fault outside inference is a 500 in the one form of errors too."""

    async def ask() -> httpx.Response:
        async def ready() -> bool:
            raise ZeroDivisionError

        app = http_app(server_routes(ready, bytes))
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get("/v2/health/ready")

    response = asyncio.run(ask())
    assert (response.status_code, response.json()) == (500, FAULT)


def test_not_ready_is_unavailable(model: Model) -> None:
    """A server that is not ready says so with a 503, and still lives."""

    async def ask(plane: DataPlane) -> list[httpx.Response]:
        async with client_of(plane, ready=False) as client:
            return [await client.get(f"/v2/health/{path}") for path in ("ready", "live")]

    with plane_of(model) as plane:
        ready, live = asyncio.run(ask(plane))
    assert (ready.status_code, ready.json()["code"]) == (503, "server.not-ready")
    assert live.status_code == 200


def test_busy_is_unavailable_until_a_place_is_free(model: Model) -> None:
    """One request more than there are places is a 503; when one is answered, the next is taken."""
    slow, session = waiting_model(model)

    async def ask(plane: DataPlane) -> list[int]:
        async with client_of(plane) as client:
            first = asyncio.create_task(client.post(INFER, json=ROW))
            await started(session)
            busy = await client.post(INFER, json=ROW)
            unknown = await client.post("/v2/models/nobody/infer", json=ROW)
            assert busy.json()["code"] == unknown.json()["code"] == "server.busy"
            session.go_on.set()
            return [busy.status_code, (await first).status_code] + [
                (await client.post(INFER, json=ROW)).status_code for _ in range(3)
            ]

    with plane_of(slow, max_in_flight=1) as plane:
        assert asyncio.run(ask(plane)) == [503, 200, 200, 200, 200]


def test_cancelled_and_failed_requests_give_their_places_back(model: Model) -> None:
    """Places are given back by requests that are cancelled, refused or fail, as by others."""
    slow, session = waiting_model(model)

    async def ask(plane: DataPlane) -> list[int]:
        async with client_of(plane) as client:
            tasks = [asyncio.create_task(client.post(INFER, json=ROW)) for _ in range(2)]
            await started(session)
            await started(session)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            session.go_on.set()
            refused = [(await client.post(INFER, content=b"{")).status_code for _ in range(5)]
            answered = [(await client.post(INFER, json=ROW)).status_code for _ in range(3)]
            return refused + answered

    with plane_of(slow, max_in_flight=2) as plane:
        assert asyncio.run(ask(plane)) == [400] * 5 + [200] * 3


def test_grpc_faults_and_places(model: Model) -> None:
    """Over gRPC a fault is INTERNAL with a log line, and a busy server UNAVAILABLE."""
    slow, session = waiting_model(model)
    row = messages.ModelInferRequest(
        model_name="linear",
        inputs=[{"name": "x", "datatype": "FP32", "shape": [1, 3]}],
        raw_input_contents=[np.ones(3, np.float32).tobytes()],
    )

    async def busy(stub: GRPCInferenceServiceStub) -> list[grpc.StatusCode]:
        first = asyncio.ensure_future(stub.ModelInfer(row))
        await started(session)
        codes = [await status(stub.ModelInfer(row))]
        session.go_on.set()
        await first
        return [*codes, await status(stub.ModelInfer(row))]

    async def failing(stub: GRPCInferenceServiceStub) -> list[grpc.StatusCode]:
        return [await status(stub.ModelInfer(row))]

    with plane_of(slow, max_in_flight=1) as plane:
        codes = asyncio.run(with_stub(plane, busy))
    assert codes == [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.OK]
    with plane_of(replace(model, session=Failing())) as plane, capture_logs() as logs:
        assert asyncio.run(with_stub(plane, failing)) == [grpc.StatusCode.INTERNAL]
        assert b'outcome="server.fault"' in expose(plane.metrics.registry)
    assert [entry["event"] for entry in logs] == ["request.failed"]


async def status(call: grpc.aio.UnaryUnaryCall[object, object]) -> grpc.StatusCode:
    """The status of a call."""
    return await call.code()


async def with_stub(
    plane: DataPlane, ask: Callable[[GRPCInferenceServiceStub], object]
) -> list[grpc.StatusCode]:
    """What a client finds at the gRPC edge of a data plane."""
    port = free_port()
    methods = DataPlaneMethods(plane, Limits())
    server = await start_grpc(methods, host="127.0.0.1", port=port, max_message=1 << 20)
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            found: list[grpc.StatusCode] = await ask(GRPCInferenceServiceStub(channel))  # type: ignore[misc]
            return found
    finally:
        await server.stop(grace=None)


def test_rows_of_any_size_leave_the_loop(model: Model) -> None:
    """A model is answered on the loop only where its rows foretell the time that it takes."""
    threads: list[str] = []

    @dataclass(frozen=True)
    class Telling:
        session: Session

        def expect(self, inputs: Mapping[str, Array]) -> None:
            pass

        def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
            threads.append(threading.current_thread().name)
            return self.session.run(inputs)

        @property
        def placement(self) -> Mapping[str, int]:
            return self.session.placement

    async def ask(plane: DataPlane) -> None:
        async with client_of(plane) as client:
            assert (await client.post(INFER, json=ROW)).status_code == 200

    manifest = model.manifest
    spec = manifest.inputs[0].model_copy(update={"shape": ("batch", "length")})
    free = replace(model.bundle, manifest=manifest.model_copy(update={"inputs": (spec,)}))
    quick = replace(model, session=Telling(model.session), row_seconds=1e-6)
    for each in (quick, replace(quick, row_seconds=1.0), replace(quick, bundle=free)):
        with plane_of(each) as plane:
            asyncio.run(ask(plane))
    assert [name.startswith("headrace-session") for name in threads] == [False, True, True]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_is_no_exposure(host: str) -> None:
    """Listening on this machine alone needs no flag."""
    check_host(host, insecure=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.0.0.1", "example.org", "::ffff:0.0.0.0"])  # noqa: S104 - refused
def test_everything_else_is_exposure(host: str) -> None:
    """Every other address needs --insecure."""
    with pytest.raises(HeadraceError) as caught:
        check_host(host, insecure=False)
    assert caught.value.code == "serve.exposed"
    check_host(host, insecure=True)

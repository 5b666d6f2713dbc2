"""`headrace serve --edge`: both edges in one process, without Ray."""

import asyncio
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

import structlog
import uvicorn
import uvloop
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp

from headrace.bundle.open import Bundle
from headrace.engine.model import Model, load_model
from headrace.engine.prepared import GraphCache
from headrace.errors import UsageError
from headrace.observe.metrics import Metrics, expose
from headrace.processes import start_time
from headrace.protocol.limits import Limits
from headrace.server.config import ServeConfig
from headrace.server.connection import BoundedConnection
from headrace.server.dataplane import DataPlane
from headrace.server.grpc import DataPlaneMethods, start_grpc
from headrace.server.http import http_app, model_routes, server_routes
from headrace.server.service import (
    ServiceRecord,
    check_port,
    clear,
    new_service_id,
    reclaim,
    write_record,
)

_GRACE_S = 10
"""How long requests in hand have, once the end is asked for."""


def check_names(bundles: Sequence[Bundle]) -> None:
    """Checks that a service's bundles have different names.

    Raises:
        UsageError: Two have one name.
    """
    names = [bundle.manifest.name for bundle in bundles]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UsageError("serve.names", f"two of the bundles are called '{twice}'")


def run_edge(
    config: ServeConfig,
    bundles: Sequence[Bundle],
    home: Path,
    announce: Callable[[ServiceRecord], None],
) -> None:
    """Serves until SIGTERM or SIGINT, then ends: no new requests, those in hand are answered.

    Args:
        announce: Called once, when requests are answered.

    Raises:
        MissingError: A port is in use, a provider or an extra is not there.
        UsageError: Two bundles have one name, or both edges one port.
        BundleError: A model fails its golden replay here.
    """
    # Standard output is the announcement's.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    check_names(bundles)
    if config.http_port == config.grpc_port:
        raise UsageError("serve.ports", f"HTTP and gRPC cannot both have port {config.grpc_port}")
    reclaim(home)
    for port in filter(None, (config.http_port, config.grpc_port)):
        check_port(config.host, port)
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    models = load_models(config, bundles, metrics)
    plane = DataPlane(models, metrics, max_in_flight=config.max_in_flight)
    record = ServiceRecord(
        id=new_service_id(),
        pid=os.getpid(),
        started=start_time(os.getpid()) or 0,
        mode="edge",
        host=config.host,
        http_port=config.http_port,
        grpc_port=config.grpc_port,
        models=tuple(bundle.label for bundle in bundles),
    )
    scrape = partial(expose, registry)
    try:
        write_record(home, record)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(config, plane, scrape, partial(announce, record)))
    finally:
        plane.close()
        clear(home, record.id)


def load_models(
    config: ServeConfig, bundles: Sequence[Bundle], metrics: Metrics
) -> tuple[Model, ...]:
    """Loads every bundle: open, warm, replay golden cases; each load is recorded.

    Raises:
        MissingError: The provider is not to be had.
        BundleError: A model fails its golden replay here.
    """
    models = []
    for bundle in bundles:
        manifest = bundle.manifest
        wanted = config.variants.get(manifest.name, "")
        model = load_model(
            bundle,
            variant=manifest.variant(wanted) if wanted else None,
            provider=config.provider,
            threads=config.threads,
            max_rows=config.max_rows,
            cache=_graphs(config),
            allow_reference=config.allow_reference,
        )
        metrics.observe_load(
            manifest.name, manifest.version, model.variant.name, model.load_seconds
        )
        models.append(model)
    return tuple(models)


def _graphs(config: ServeConfig) -> GraphCache | None:
    """The host's prepared graphs; files that nobody has touched since are not hashed at each load.

    What the session computes is proven by the golden replay all the same.
    """
    if config.graphs is None:
        return None
    log = structlog.get_logger()
    return GraphCache(config.graphs, verify="changed", tell=log.warning)


async def _serve(
    config: ServeConfig,
    plane: DataPlane,
    scrape: Callable[[], bytes],
    announce: Callable[[], None],
) -> None:
    limits = Limits(max_body_bytes=config.max_body)

    async def ready() -> bool:
        return True  # a model that is not ready was never put into the plane

    async def no_grpc() -> None:
        pass

    stop_grpc: Callable[[], Awaitable[None]] = no_grpc
    # Loading took its time; whoever took a port meanwhile is found out here.
    check_port(config.host, config.http_port)
    if config.grpc_port is not None:
        grpc_server = await start_grpc(
            DataPlaneMethods(plane, limits),
            host=config.host,
            port=config.grpc_port,
            max_message=config.max_body,
        )
        stop_grpc = partial(grpc_server.stop, grace=_GRACE_S)
    app = http_app([*model_routes(plane, limits), *server_routes(ready, scrape)])
    try:
        await _Server(_uvicorn_config(config, app), announce, stop_grpc).serve()
    finally:
        await stop_grpc()


def _uvicorn_config(config: ServeConfig, app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=config.host,
        port=config.http_port,
        http=BoundedConnection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
    )


class _Server(uvicorn.Server):
    """A uvicorn server that says when it listens, and ends together with the gRPC edge."""

    def __init__(
        self,
        config: uvicorn.Config,
        announce: Callable[[], None],
        stop_grpc: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(config)
        self._announce = announce
        self._stop_grpc = stop_grpc

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._announce()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await asyncio.gather(super().shutdown(sockets), self._stop_grpc())

"""The Serve applications: one a model, whose replicas own their sockets, and a small front.

A model's application stands under `/v2/models/NAME`, so that each scales and fails alone; HAProxy
sends its requests straight to a replica, where the same data plane answers as in `--edge`. The
front answers what belongs to the server. It owns the gRPC port too: stock clients name no Serve
application, and HAProxy cannot read a model's name out of a protobuf body.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from ray import serve
from ray.exceptions import RayError
from ray.serve.config import AutoscalingConfig
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle  # noqa: TC002 - one room, one import of ray
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from headrace.bundle.open import open_bundle
from headrace.errors import InternalError, NotFoundError, RequestError, UnavailableError
from headrace.observe.metrics import MULTIPROCESS, Metrics, expose_directory
from headrace.protocol import grpc as codec
from headrace.protocol.limits import Limits
from headrace.server.config import ServeConfig
from headrace.server.dataplane import DataPlane
from headrace.server.edge import load_models
from headrace.server.grpc import (
    SERVER_METHODS,
    DataPlaneMethods,
    answer_server,
    parse_message,
    start_grpc,
)
from headrace.server.http import http_app, model_routes, server_routes

FRONT = "front"
STATUS_PATH = "/status"
_FORWARD_TIMEOUT_S = 60.0
_TARGET_ONGOING = 2.0  # one in the session, one being decoded or encoded
# A draining replica has nothing to wait for once its requests are answered.
_LIFE: dict[str, Any] = {
    "graceful_shutdown_wait_loop_s": 0.2,
    "graceful_shutdown_timeout_s": 10.0,
    "max_constructor_retry_count": 1,
}


def model_application(name: str) -> str:
    """The Serve application of a model."""
    return f"model-{name}"


@dataclass(frozen=True)
class Refused:
    """A RequestError on its way back from a replica; errors lose their class in Ray's wrapping."""

    error: RequestError


@serve.ingress()
class ModelReplica:
    """One replica of one model: loads and proves its bundle, then answers.

    Args:
        config: A `ServeConfig` as JSON.
        bundle: The bundle's path.
    """

    def __init__(self, config: str, bundle: str) -> None:
        parsed = ServeConfig.model_validate_json(config)
        metrics = Metrics(CollectorRegistry())
        models = load_models(parsed, [open_bundle(Path(bundle))], metrics)
        self._limits = Limits(max_body_bytes=parsed.max_body)
        self._plane = DataPlane(models, metrics, max_in_flight=parsed.max_in_flight)
        self._methods = DataPlaneMethods(self._plane, self._limits)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """The app behind this replica's own socket; the method's name is Ray Serve's."""
        return _full_path(http_app(model_routes(self._plane, self._limits)))

    async def call(self, method: str, request: bytes) -> bytes | Refused:
        """One gRPC method, for the front."""
        try:
            return await self._methods.call(method, request)
        except RequestError as error:
            return Refused(error)


@serve.ingress()
class Front:
    """What belongs to the server, and the gRPC port.

    Args:
        config: A `ServeConfig` as JSON.
        models: The names of the models served.
        metrics: The directory to which the replicas write their metrics.
    """

    def __init__(self, config: str, models: list[str], metrics: str) -> None:
        self._config = ServeConfig.model_validate_json(config)
        self._models = tuple(models)
        self._metrics = Path(metrics)
        self._handles: dict[str, DeploymentHandle[Any]] = {}

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """The app behind this replica's own socket; the gRPC server lives as long as it."""

        @asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[None]:
            if self._config.grpc_port is None:
                yield
                return
            server = await start_grpc(
                self,
                host=self._config.host,
                port=self._config.grpc_port,
                max_message=self._config.max_body,
            )
            yield
            await server.stop(grace=5)

        async def status(_: Request) -> Response:
            return JSONResponse({"models": await asyncio.to_thread(describe_models, self._models)})

        async def no_model(request: Request) -> Response:
            raise self._no_model(request.path_params["model"])

        every = ["GET", "POST"]
        routes = [
            *server_routes(self._ready, lambda: expose_directory(self._metrics)),
            Route(STATUS_PATH, status),
            Route("/v2/models/{model}", no_model, methods=every),
            Route("/v2/models/{model}/{rest:path}", no_model, methods=every),
        ]
        return _full_path(http_app(routes, lifespan))

    async def call(self, method: str, request: bytes) -> bytes:
        """One gRPC method: answered here if it is the server's, by a replica if it is a model's."""
        if method in SERVER_METHODS:
            return answer_server(method, ready=await self._ready())
        message = parse_message(codec.load_messages().__dict__[f"{method}Request"], request)
        name = message.model_name if method == "ModelInfer" else message.name
        if name not in self._models:
            raise self._no_model(name)
        if name not in self._handles:
            self._handles[name] = serve.get_app_handle(model_application(name))
        try:
            response = self._handles[name].call.remote(method, request)
            answer = await asyncio.wait_for(response, _FORWARD_TIMEOUT_S)
        except TimeoutError as error:
            raise UnavailableError(
                "server.timeout", f"model '{name}' did not answer in {_FORWARD_TIMEOUT_S:.0f} s"
            ) from error
        except RayError as error:
            raise InternalError(
                "server.replica-lost", f"model '{name}' lost the request"
            ) from error
        except RayServeException as error:
            raise UnavailableError(
                "server.no-replica", f"no replica of model '{name}' can answer now"
            ) from error
        if isinstance(answer, Refused):
            raise answer.error
        return bytes(answer)

    async def _ready(self) -> bool:
        states = await asyncio.to_thread(describe_models, self._models)
        return all(state["status"] == "RUNNING" for state in states)

    def _no_model(self, name: str) -> RequestError:
        if name in self._models:
            return UnavailableError("server.no-replica", f"model '{name}' has no replica just now")
        return NotFoundError("model.not-found", f"there is no model '{name}' here")


def describe_models(names: tuple[str, ...]) -> list[dict[str, object]]:
    """The state of each model's application, as Serve's controller knows it."""
    applications = serve.status().applications
    found: list[dict[str, object]] = []
    for name in names:
        application = applications.get(model_application(name))
        if application is None:
            found.append({"name": name, "status": "MISSING", "replicas": {}, "message": ""})
            continue
        replicas = {
            state.value if hasattr(state, "value") else str(state): count
            for deployment in application.deployments.values()
            for state, count in deployment.replica_states.items()
        }
        found.append(
            {
                "name": name,
                "status": application.status.value,
                "replicas": replicas,
                "message": "\n".join(
                    [application.message, *(d.message for d in application.deployments.values())]
                ).strip(),
            }
        )
    return found


def build_applications(
    config: ServeConfig, models: dict[str, Path], metrics: Path, threads: int
) -> list[serve.RunTarget]:
    """Every application of a service.

    Args:
        models: The bundle of each model, by its name.
        metrics: The directory to which the replicas write their metrics.
        threads: Of one replica.
    """
    environment = {"env_vars": {MULTIPROCESS: str(metrics)}}
    encoded = config.model_copy(update={"threads": threads}).model_dump_json()
    front = serve.deployment(
        name="Front",
        ray_actor_options={"num_cpus": 0, "runtime_env": environment},
        max_ongoing_requests=1000,
        **_LIFE,
    )(Front)
    replica = serve.deployment(
        name="Model",
        ray_actor_options={"num_cpus": threads, "runtime_env": environment},
        max_ongoing_requests=config.max_in_flight * 2,
        **_scale(config),
        **_LIFE,
    )(ModelReplica)
    targets = [
        serve.RunTarget(
            target=replica.bind(encoded, str(bundle)),
            name=model_application(name),
            route_prefix=f"/v2/models/{name}",
        )
        for name, bundle in models.items()
    ]
    bound = front.bind(encoded, list(models), str(metrics))
    return [serve.RunTarget(target=bound, name=FRONT, route_prefix="/"), *targets]


def _scale(config: ServeConfig) -> dict[str, Any]:
    if config.min_replicas == config.max_replicas:
        return {"num_replicas": config.min_replicas}
    scaling = AutoscalingConfig(
        min_replicas=config.min_replicas,
        max_replicas=config.max_replicas,
        target_ongoing_requests=_TARGET_ONGOING,
        upscale_delay_s=5.0,
        downscale_delay_s=60.0,
    )
    return {"autoscaling_config": scaling}


def _full_path(app: ASGIApp) -> ASGIApp:
    """Serve puts an application's prefix into `root_path`; our routes are written in full."""

    async def routed(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "root_path": ""}, receive, send)

    return routed

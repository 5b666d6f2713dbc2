"""The environment in which Ray is started for a service. Ray reads most of it when imported."""

import os
from pathlib import Path

from headrace.processes import MARK
from headrace.server.service import free_port, scratch_directory, service_directory

METRICS_DIRECTORY = "metrics"
_LOOPBACK = "127.0.0.1"


def token_file(home: Path, service: str) -> Path:
    """The secret without which nothing talks to this service's Ray."""
    return service_directory(home, service) / "ray-token"


def ray_environment(home: Path, service: str, max_body: int) -> dict[str, str]:
    """What Ray 2.60 and its Serve are told by their environment.

    HAProxy balances straight onto the replicas' own ports; its statistics get ports and sockets of
    this service's own, so that two services can run on one machine. Ray sends no usage reports.

    Args:
        max_body: The largest body in bytes, which a message between replicas must hold too.
    """
    scratch = scratch_directory(service)
    return {
        MARK: service,
        "SPT_NOENV": "1",  # or setproctitle overwrites the environment in which the mark stands
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_file(home, service)),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DEDUP_LOGS": "0",  # kept back, lines would come out after the end
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_NBTHREAD": str(max(1, len(os.sched_getaffinity(0)) // 2)),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(scratch / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(scratch / "a.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(scratch / "m.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(scratch),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(scratch / "state"),
        # Ray opens these two so that others can share them: another service would get our requests.
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port(_LOOPBACK)),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(free_port(_LOOPBACK)),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port(_LOOPBACK)),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port(_LOOPBACK)),
        # Long enough for HAProxy to take a stopping replica out (it checks every 250 ms), short
        # enough that a clean end takes seconds; Ray's default is half a minute.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
        "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(max_body + (1 << 20)),
    }

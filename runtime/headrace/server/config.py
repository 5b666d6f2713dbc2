"""How a service is to run: built once from flags, and passed down as it is."""

import ipaddress
from pathlib import Path
from typing import Annotated

from pydantic import Field

from headrace.engine.model import MAX_ROWS
from headrace.engine.session import CPU, MAX_THREADS
from headrace.errors import UsageError
from headrace.tensors import Frozen

Port = Annotated[int, Field(ge=1, le=65535)]
DEFAULT_MAX_BODY = 64 << 20
"""64 MiB, as Triton's default."""


class ServeConfig(Frozen):
    """What `headrace serve` was asked for.

    Attributes:
        bundles: Directories, one a model; names must differ.
        grpc_port: None leaves gRPC off.
        variants: The variant to run, by the model's name; the most precise where none is named.
        graphs: Where graphs are kept that were optimized for this host; None keeps none.
        allow_reference: Prepare images in NumPy where none of a bundle's libraries runs here.
        threads: Of one session; 0 takes what the replica has.
        max_rows: The largest request, in rows.
        max_body: The largest body, in bytes.
        max_in_flight: Requests accepted and not yet answered, in one replica; one more is refused.
        min_replicas: On Ray, of each model.
        max_replicas: On Ray, of each model; equal to the minimum turns autoscaling off.
    """

    bundles: Annotated[tuple[Path, ...], Field(min_length=1)]
    host: str = "127.0.0.1"
    http_port: Port = 8000
    grpc_port: Port | None = 8001
    provider: str = CPU
    variants: dict[str, str] = Field(default_factory=dict)
    graphs: Path | None = None
    allow_reference: bool = False
    threads: Annotated[int, Field(ge=0, le=MAX_THREADS)] = 0
    max_rows: Annotated[int, Field(ge=1)] = MAX_ROWS
    max_body: Annotated[int, Field(ge=1)] = DEFAULT_MAX_BODY
    max_in_flight: Annotated[int, Field(ge=1)] = 128
    min_replicas: Annotated[int, Field(ge=1)] = 1
    max_replicas: Annotated[int, Field(ge=1)] = 1

    def threads_on_ray(self, cores: int) -> int:
        """Of one replica: what was asked for, or an equal share of the cores."""
        return self.threads or max(1, cores // (self.max_replicas * len(self.bundles)))


def check_host(host: str, *, insecure: bool) -> None:
    """Refuses to listen beyond this machine while nothing asks callers who they are.

    Raises:
        UsageError: The host is no loopback address, and `--insecure` was not given.
    """
    if insecure or _is_loopback(host):
        return
    raise UsageError(
        "serve.exposed",
        f"listening on {host} would answer anyone who can reach it, and there are no keys yet",
        "listen on 127.0.0.1 behind a proxy that authenticates, or pass --insecure",
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

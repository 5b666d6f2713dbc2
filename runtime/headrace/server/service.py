"""The record of a running service: written when it starts, removed when it has ended cleanly.

A record whose process is gone is what a crash leaves; `reclaim` clears what belongs to it.
"""

import errno
import secrets
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from headrace.errors import MissingError
from headrace.processes import is_running, sweep
from headrace.tensors import Frozen

_RECORD = "service.json"


class ServiceRecord(Frozen):
    """One running service.

    Attributes:
        id: Random; also the mark in the environment of its processes.
        pid: Of the process that was started by `headrace serve`.
        started: Its start time, in clock ticks since boot.
        models: Names and versions served.
        grpc_port: None where gRPC is off.
    """

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
    pid: Annotated[int, Field(ge=1)]
    started: int
    mode: Literal["edge", "ray"]
    host: str
    http_port: int
    grpc_port: int | None
    models: tuple[str, ...]

    @property
    def url(self) -> str:
        """Where HTTP is answered."""
        return f"http://{url_host(self.host)}:{self.http_port}"

    @property
    def running(self) -> bool:
        """Whether the process that wrote the record still runs."""
        return is_running(self.pid, self.started)


def url_host(host: str) -> str:
    """A bound address as a client on this machine writes it."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared only
    return f"[{reachable}]" if ":" in reachable else reachable


def new_service_id() -> str:
    """A random id."""
    return secrets.token_hex(6)


def service_directory(home: Path, service: str) -> Path:
    """Where the state of one service lies."""
    return home / "services" / service


def write_record(home: Path, record: ServiceRecord) -> Path:
    """Writes a record, and returns the service's directory."""
    directory = service_directory(home, record.id)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = directory / f"{_RECORD}.partial"
    partial.write_text(record.model_dump_json(indent=1))
    partial.rename(directory / _RECORD)
    return directory


def read_records(home: Path) -> tuple[ServiceRecord, ...]:
    """Every record, of running services and of crashed ones, oldest first."""
    found = []
    for path in (home / "services").glob(f"*/{_RECORD}"):
        try:
            record = ServiceRecord.model_validate_json(path.read_bytes())
        except (ValidationError, FileNotFoundError):
            continue  # written by another version, or removed meanwhile
        if record.id == path.parent.name:  # a copy speaks for nobody
            found.append(record)
    return tuple(sorted(found, key=lambda record: record.started))


def scratch_directory(service: str) -> Path:
    """Where a service's sockets and logs lie: a short path, since a socket's has 107 bytes."""
    return Path(tempfile.gettempdir()) / f"headrace-{service}"


def clear(home: Path, service: str, *, grace_s: float = 0.0) -> bool:
    """Ends every process of a service and removes its state; the record goes last.

    Args:
        grace_s: How long the processes have to end by themselves.

    Returns:
        False if a process does not end; its record stays.
    """
    if not sweep(service, grace_s=grace_s):
        return False
    shutil.rmtree(scratch_directory(service), ignore_errors=True)
    shutil.rmtree(service_directory(home, service), ignore_errors=True)
    return True


def reclaim(home: Path) -> tuple[str, ...]:
    """Clears what crashed services left.

    Returns:
        The ids of the services reclaimed.
    """
    dead = [record.id for record in read_records(home) if not record.running]
    return tuple(service for service in dead if clear(home, service))


def check_port(host: str, port: int) -> None:
    """Checks that a port can be bound.

    Raises:
        MissingError: It is in use (`port.in-use`), needs more rights, or this machine has no such
            address (both `port.unavailable`).
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, UnicodeError) as error:  # UnicodeError: no name for a host
            reason = error.strerror if isinstance(error, OSError) else error
            message = f"cannot listen on {host}:{port}: {reason}"
            if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
                hint = "`headrace status` shows your running services; or choose another port"
                raise MissingError("port.in-use", message, hint) from error
            hint = "choose an address of this machine, and a port above 1023"
            raise MissingError("port.unavailable", message, hint) from error


def free_port(host: str) -> int:
    """A port that was free a moment ago."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])

"""The records of services: written, read, and cleared when their process is gone."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from headrace.errors import MissingError, UsageError
from headrace.processes import MARK, marked_processes, send, start_time
from headrace.server.config import ServeConfig, check_host
from headrace.server.service import (
    ServiceRecord,
    check_port,
    clear,
    free_port,
    new_service_id,
    read_records,
    reclaim,
    scratch_directory,
    service_directory,
    url_host,
    write_record,
)

LOOPBACKS = ["127.0.0.1", *(["::1"] if Path("/proc/net/if_inet6").exists() else [])]
SLEEP = "print(flush=True); import time; time.sleep(100)"


def _record(pid: int, started: int, service: str = "") -> ServiceRecord:
    return ServiceRecord(
        id=service or new_service_id(),
        pid=pid,
        started=started,
        mode="edge",
        host="127.0.0.1",
        http_port=8000,
        grpc_port=None,
        models=("linear 1",),
    )


def _mine() -> ServiceRecord:
    return _record(os.getpid(), start_time(os.getpid()) or 0)


def _dead() -> ServiceRecord:
    """A record whose process is gone: its id has another start time."""
    return _record(os.getpid(), (start_time(os.getpid()) or 0) - 1)


@pytest.fixture
def orphan() -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """A service, and a process that it left."""
    service = new_service_id()
    process = subprocess.Popen(
        [sys.executable, "-c", SLEEP],
        env={**os.environ, MARK: service},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    yield service, process
    send(marked_processes(service), signal.SIGKILL)
    process.communicate()


def test_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    """A record survives its file, in a directory for its owner alone."""
    record = _mine()
    directory = write_record(tmp_path, record)
    assert directory == service_directory(tmp_path, record.id)
    assert directory.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in directory.iterdir()] == ["service.json"]
    assert read_records(tmp_path) == (record,)
    assert record.running
    assert not _dead().running


def test_records_come_oldest_first(tmp_path: Path) -> None:
    """The service that started first is told first."""
    records = [_record(1, started) for started in (30, 10, 20)]
    for record in records:
        write_record(tmp_path, record)
    assert [record.started for record in read_records(tmp_path)] == [10, 20, 30]


def test_home_without_services_has_no_records(tmp_path: Path) -> None:
    """Where nothing was ever served there is no record, and no error."""
    assert read_records(tmp_path) == ()
    assert read_records(tmp_path / "absent") == ()
    assert reclaim(tmp_path / "absent") == ()


def test_records_of_other_versions_are_passed_over(tmp_path: Path) -> None:
    """A record that cannot be read, or lies under another's name, is none."""
    record = _mine()
    content = (write_record(tmp_path, record) / "service.json").read_text()
    for name, text in {
        "broken": "{",
        "newer": content.replace('"mode"', '"more": 1, "mode"'),
        "backup": content,
        "climbing": content.replace(record.id, "../../.."),
        "empty": content.replace(record.id, ""),
    }.items():
        place = tmp_path / "services" / name
        place.mkdir()
        (place / "service.json").write_text(text)
    assert read_records(tmp_path) == (record,)
    assert reclaim(tmp_path) == ()
    assert len(list((tmp_path / "services").iterdir())) == 6


@pytest.mark.parametrize("service", ["../../..", "", "a/b", "x" * 12, "0" * 11, "0" * 12 + "\n"])
def test_id_is_never_a_path(service: str) -> None:
    """What is removed by its id must not name anything else."""
    with pytest.raises(ValidationError):
        ServiceRecord.model_validate({**_mine().model_dump(), "id": service})


def test_reclaim_clears_what_a_crash_left(
    tmp_path: Path, orphan: tuple[str, "subprocess.Popen[str]"]
) -> None:
    """The processes, the scratch directory and the record of a dead service go, and no other's."""
    service, process = orphan
    living, dead = _mine(), _record(os.getpid(), 1, service)
    for record in (living, dead):
        write_record(tmp_path, record)
    scratch = scratch_directory(service)
    scratch.mkdir()
    assert reclaim(tmp_path) == (service,)
    assert process.wait(10) == -signal.SIGKILL
    assert not scratch.exists()
    assert not service_directory(tmp_path, service).exists()
    assert read_records(tmp_path) == (living,)


def test_clear_asks_before_it_insists(
    tmp_path: Path, orphan: tuple[str, "subprocess.Popen[str]"]
) -> None:
    """With time to end, a service's processes are asked to."""
    service, process = orphan
    write_record(tmp_path, _record(os.getpid(), 1, service))
    assert clear(tmp_path, service, grace_s=10)
    assert process.wait(10) == -signal.SIGTERM
    assert read_records(tmp_path) == ()


def test_clearing_twice_is_no_error(tmp_path: Path) -> None:
    """A service that is gone already is cleared."""
    record = _dead()
    write_record(tmp_path, record)
    assert clear(tmp_path, record.id)
    assert clear(tmp_path, record.id)


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),  # noqa: S104 - not bound
        ("::", "[::1]"),
        ("::1", "[::1]"),
        ("localhost", "localhost"),
    ],
)
def test_url_is_one_that_a_client_can_use(host: str, shown: str) -> None:
    """The address told is one that can be connected to, in the form that URLs take."""
    assert url_host(host) == shown
    record = _mine().model_copy(update={"host": host})
    assert record.url == f"http://{shown}:8000"


@pytest.mark.parametrize("host", LOOPBACKS)
def test_taken_port_is_missing(host: str) -> None:
    """A port on which somebody listens is told; once it is free it passes."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.bind((host, 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(MissingError, match=f"{port}: Address already in use") as caught:
            check_port(host, port)
        assert caught.value.code == "port.in-use"
    check_port(host, port)


@pytest.mark.parametrize("host", ["192.0.2.1", "a" * 80 + ".invalid"])
def test_address_of_another_machine_is_missing(host: str) -> None:
    """An address that this machine does not have, or that is none, is told."""
    with pytest.raises(MissingError) as caught:
        check_port(host, 8000)
    assert caught.value.code == "port.unavailable"


def test_free_port_can_be_bound() -> None:
    """A port said to be free passes the check."""
    check_port("127.0.0.1", free_port("127.0.0.1"))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_needs_no_leave(host: str) -> None:
    """Listening on this machine alone is always allowed."""
    check_host(host, insecure=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", "127.1", ""])  # noqa: S104 - not bound
def test_listening_beyond_this_machine_needs_leave(host: str) -> None:
    """Any other address is refused unless the user says that it is meant."""
    with pytest.raises(UsageError) as caught:
        check_host(host, insecure=False)
    assert caught.value.code == "serve.exposed"
    check_host(host, insecure=True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"bundles": ()},
        {"http_port": 0},
        {"http_port": 65536},
        {"grpc_port": -1},
        {"threads": -1},
        {"threads": 10**12},
        {"max_rows": 0},
        {"max_body": 0},
        {"min_replicas": 0},
        {"colour": "green"},
    ],
    ids=str,
)
def test_impossible_configuration_is_refused(wrong: dict[str, object]) -> None:
    """Ports, sizes and counts have their limits, and unknown keys are errors."""
    with pytest.raises(ValidationError):
        ServeConfig.model_validate({"bundles": (Path("a"),), **wrong})


def test_configuration_survives_json() -> None:
    """What a replica is told in JSON is what the program was asked for."""
    config = ServeConfig(bundles=(Path("/a"), Path("/b")), grpc_port=None, threads=3)
    assert ServeConfig.model_validate_json(config.model_dump_json()) == config

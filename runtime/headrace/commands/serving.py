"""`serve`, `status`, `stop`: a service and its life."""

import json
import signal
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from headrace.bundle.open import Bundle, open_bundle
from headrace.cachedir import trim
from headrace.choice import choose_variant
from headrace.commands.profile import shown_progress
from headrace.commands.screen import AllowReference, AsJson, err, print_json, print_table
from headrace.engine.model import MAX_ROWS
from headrace.engine.session import CPU
from headrace.errors import CheckError, MissingError, UsageError
from headrace.hardware import detect_hardware
from headrace.processes import end_on_signals, ending_cleanly, marked_processes, send, wait_for_end
from headrace.server.config import DEFAULT_MAX_BODY, ServeConfig, check_host
from headrace.server.service import ServiceRecord, clear, read_records, reclaim
from headrace.settings import Settings

_STOP_S = 40.0
_STATUS_TIMEOUT_S = 5.0
_SHOWN = ("state", "mode", "pid", "url", "grpc_port", "models", "replicas")


def register(app: typer.Typer) -> None:
    """Adds these commands to the program."""
    app.command("serve")(serve)
    app.command("status")(status)
    app.command("stop")(stop)


def serve(  # noqa: PLR0913 - one argument a flag
    bundles: Annotated[list[Path], typer.Argument(metavar="BUNDLE...", help="One a model.")],
    *,
    edge: Annotated[bool, typer.Option("--edge", help="One process, no Ray.")] = False,
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="For HTTP.")] = 8000,
    grpc_port: Annotated[
        int | None,
        typer.Option(help="For gRPC; 0 leaves it off.  [default: 8001 where gRPC is installed]"),
    ] = None,
    provider: Annotated[str, typer.Option(help="The execution provider.")] = CPU,
    variant: Annotated[
        list[str] | None,
        typer.Option(metavar="[MODEL=]VARIANT", help="Run this one, not the one measured best."),
    ] = None,
    threads: Annotated[int, typer.Option(help="Of one session; 0 shares out the cores.")] = 0,
    min_replicas: Annotated[int, typer.Option(help="On Ray, of each model.")] = 1,
    max_replicas: Annotated[int, typer.Option(help="On Ray, of each model.")] = 1,
    max_rows: Annotated[int, typer.Option(help="The largest request, in rows.")] = MAX_ROWS,
    max_body: Annotated[int, typer.Option(help="The largest body, in bytes.")] = DEFAULT_MAX_BODY,
    allow_reference: AllowReference = False,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Listen beyond this machine without keys.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Serve bundles until Ctrl-C or SIGTERM: on Ray Serve, or with --edge in one process."""
    check_host(host, insecure=insecure)
    if min_replicas > max_replicas:
        raise UsageError("serve.replicas", "--min-replicas is larger than --max-replicas")
    end_on_signals()
    settings = Settings()
    with err().status("checking digests"):
        opened = [open_bundle(path) for path in bundles]
    config = ServeConfig(
        bundles=tuple(bundle.path for bundle in opened),
        host=host,
        http_port=port,
        grpc_port=_grpc_port(grpc_port),
        provider=provider,
        graphs=settings.cache / "graphs",
        allow_reference=allow_reference,
        threads=threads,
        max_rows=max_rows,
        max_body=max_body,
        min_replicas=min_replicas,
        max_replicas=max_replicas,
    )
    with ending_cleanly():
        chosen = _choose(config, opened, asked_variants(variant or [], opened), edge=edge)
        _run(config.model_copy(update={"variants": chosen}), opened, edge=edge, as_json=as_json)


def asked_variants(asked: Sequence[str], bundles: Sequence[Bundle]) -> dict[str, str]:
    """The variants asked for, by model; without a model's name, a variant is for all models.

    Raises:
        UsageError: No bundle has the name.
    """
    names = [bundle.manifest.name for bundle in bundles]
    wanted: dict[str, str] = {}
    for each in asked:
        model, equals, variant = each.rpartition("=")
        if equals and model not in names:
            raise UsageError("serve.variant", f"--variant names the model '{model}', not served")
        wanted |= dict.fromkeys([model] if equals else names, variant)
    return wanted


def _choose(
    config: ServeConfig, bundles: Sequence[Bundle], wanted: Mapping[str, str], *, edge: bool
) -> dict[str, str]:
    """The variant of each model, once for all replicas; says which, and why."""
    home, hardware = Settings().ensure_home(), detect_hardware()
    chosen = {}
    for bundle in bundles:
        name = bundle.manifest.name
        with shown_progress() as told:
            found = choose_variant(
                bundle,
                hardware,
                threads=config.threads if edge else config.threads_on_ray(hardware.cores),
                provider=config.provider,
                wanted=wanted.get(name, ""),
                home=home,
                told=told,
            )
        if len(bundle.manifest.variants) > 1:
            err().print(f"{bundle.label}: {found.variant.name}, {found.reason}", markup=False)
        chosen[name] = found.variant.name
    return chosen


def _run(config: ServeConfig, bundles: list[Bundle], *, edge: bool, as_json: bool) -> None:
    home = Settings().ensure_home()
    trim((config.graphs,) if config.graphs else (), int(Settings().cache_limit))
    waiting = err().status("loading and proving the models")

    def announce(record: ServiceRecord) -> None:
        waiting.stop()
        _announce(record, as_json=as_json)

    waiting.start()
    try:
        if edge:
            from headrace.server.edge import run_edge  # noqa: PLC0415 - uvicorn is not light

            run_edge(config, bundles, home, announce)
        else:
            from headrace.cluster.run import run_cluster  # noqa: PLC0415 - nor is Ray

            run_cluster(config, bundles, home, announce, waiting.update)
    finally:
        waiting.stop()


def status(*, as_json: AsJson = False) -> None:
    """Show the running services. Exits with 1 if there is none."""
    services = [
        {
            **record.model_dump(mode="json"),
            "url": record.url,
            "models": ", ".join(record.models),
            **_ask(record),
        }
        for record in read_records(Settings().home)
        if record.running
    ]
    if as_json:
        print_json({"services": services})
        raise typer.Exit(0 if services else 1)
    for service in services:
        rows = [(key, service[key]) for key in _SHOWN if service[key] not in {"", None}]
        print_table(f"service {service['id']}", ("", ""), rows)
    if not services:
        raise CheckError("status.none", "no service of yours is running here")


def stop(
    service: Annotated[str, typer.Argument(help="Which one; all of yours if left out.")] = "",
    *,
    as_json: AsJson = False,
) -> None:
    """End services cleanly, and clear what crashed ones left. Exits with 1 if there was none."""
    home = Settings().home
    reclaimed = reclaim(home)
    records = [record for record in read_records(home) if service in {"", record.id}]
    with err().status("waiting for requests in hand"):
        for record in records:
            end_service(home, record)
    ended = [record.id for record in records]
    if as_json:
        print_json({"stopped": ended, "reclaimed": list(reclaimed)})
        raise typer.Exit(0 if ended or reclaimed else 1)
    if ended or reclaimed:
        rows = [(each, "stopped") for each in ended] + [(each, "reclaimed") for each in reclaimed]
        print_table("services", ("service", ""), rows)
    if not ended and not reclaimed:
        raise CheckError("stop.none", f"there is no running service {service}".rstrip())


def end_service(home: Path, record: ServiceRecord) -> None:
    """Asks a service to end and waits for it; insists when it takes too long.

    Raises:
        CheckError: Something of it still runs.
    """
    if record.running:
        send([record.pid], signal.SIGTERM)
        if not wait_for_end(record.pid, record.started, _STOP_S):
            send([record.pid], signal.SIGKILL)
            wait_for_end(record.pid, record.started, 5.0)
    if not clear(home, record.id):
        left = ", ".join(str(pid) for pid in marked_processes(record.id))
        raise CheckError("stop.left", f"processes {left} of service {record.id} do not end")


def _grpc_port(asked: int | None) -> int | None:
    """The port asked for; without a wish, the usual one where gRPC is installed."""
    installed = find_spec("grpc") is not None and find_spec("tritonclient") is not None
    if asked is None:
        return 8001 if installed else None
    if asked == 0:
        return None
    if not installed:
        raise MissingError(
            "extra.grpc", "gRPC was asked for and is not installed", "pip install 'headrace[grpc]'"
        )
    return asked


def _announce(record: ServiceRecord, *, as_json: bool) -> None:
    if as_json:
        print_json({**record.model_dump(mode="json"), "url": record.url})
        return
    grpc = f"{record.host}:{record.grpc_port}" if record.grpc_port else "off"
    print_table(
        "serving; Ctrl-C ends it",
        ("", ""),
        [
            ("service", f"{record.id} ({record.mode}, pid {record.pid})"),
            ("models", ", ".join(record.models)),
            ("HTTP", record.url),
            ("gRPC", grpc),
            ("metrics", f"{record.url}/metrics"),
        ],
    )


def _ask(record: ServiceRecord) -> dict[str, Any]:
    """What a service says of itself: its state, and on Ray the replicas of each model."""
    path = "/status" if record.mode == "ray" else "/v2/health/ready"
    try:
        with urllib.request.urlopen(  # noqa: S310 - our own record, always http
            f"{record.url}{path}", timeout=_STATUS_TIMEOUT_S
        ) as response:
            content = json.loads(response.read())
    except (urllib.error.URLError, OSError, ValueError):
        return {"state": "starting or stopping", "replicas": ""}
    if record.mode == "edge":
        return {"state": "ready", "replicas": "1"}
    models = content["models"]
    ready = all(model["status"] == "RUNNING" for model in models)
    replicas = [
        f"{model['name']}: "
        + ", ".join(f"{count} {state.lower()}" for state, count in model["replicas"].items())
        for model in models
    ]
    return {"state": "ready" if ready else "not ready", "replicas": "; ".join(replicas)}

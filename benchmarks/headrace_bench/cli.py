"""`headrace bench`. What it needs is imported where it is needed: the program's help needs none."""

import sys
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.commands.screen import AsJson, err, print_json, print_table
from headrace.errors import MissingError
from headrace.processes import INTERRUPTED, end_on_signals
from headrace.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace_bench.gate import GateReport
    from headrace_bench.peers.environments import Peer
    from headrace_bench.result import CaseResult

Threshold = Annotated[float, typer.Option(min=0.001, max=1.0, help="The change that matters.")]
Out = Annotated[Path | None, typer.Option(help="Where the report goes; by default under the home.")]


def register(app: typer.Typer) -> None:
    """Adds the benchmark's commands to the program."""
    bench = typer.Typer(help="Measure, compare, and gate a change.", no_args_is_help=True)
    bench.command("run")(run)
    bench.command("gate")(gate)
    bench.command("compare")(compare)
    peers = typer.Typer(help="The environments of the peers.", no_args_is_help=True)
    peers.command("list")(peers_list)
    peers.command("install")(peers_install)
    bench.add_typer(peers, name="peers")
    app.add_typer(bench, name="bench")


def run(  # noqa: PLR0913 - one argument a flag
    suite: Annotated[str, typer.Argument(help="kernels, compile, serving, coldstart, endtoend.")],
    *,
    bundle: Annotated[Path | None, typer.Option(help="Measure this bundle.")] = None,
    case: Annotated[str, typer.Option(help="Only cases like this; * and ? as in a shell.")] = "*",
    peer: Annotated[list[str] | None, typer.Option(help="Only this peer; may be repeated.")] = None,
    no_peers: Annotated[bool, typer.Option("--no-peers", help="headrace alone.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Minutes, with wider intervals.")] = False,
    allow_load: Annotated[
        bool, typer.Option("--allow-load", help="Give figures though others use the machine.")
    ] = False,
    out: Out = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON line a case, as each is done.")
    ] = False,
) -> None:
    """Run a suite. Exits with 1 if a case failed, with 4 if others disturbed one."""
    _needs_extra()
    from headrace.bundle.open import open_bundle  # noqa: PLC0415
    from headrace.hardware import detect_hardware  # noqa: PLC0415
    from headrace_bench.contest import FULL, QUICK  # noqa: PLC0415
    from headrace_bench.report.table import print_results  # noqa: PLC0415
    from headrace_bench.report.write import write_report  # noqa: PLC0415
    from headrace_bench.runner import keep, run_suite  # noqa: PLC0415

    end_on_signals(INTERRUPTED)
    home = Settings().ensure_home()
    directory = out or _run_directory(home, suite)
    with err().status(suite) as status:
        measured = run_suite(
            suite,
            bundle=open_bundle(bundle) if bundle else None,
            case=case,
            home=home,
            peers=() if no_peers else tuple(each.name for each in _peers(peer)),
            effort=replace(QUICK if quick else FULL, allow_load=allow_load),
            quick=quick,
            hardware=detect_hardware(),
            progress=status.update,
        )
        results = tuple(_told(keep(measured, directory), as_json=as_json))
    write_report(directory, results)
    if not as_json:
        print_results(results)
    err().print(f"report: {directory}", soft_wrap=True, highlight=False)
    statuses = {result.status for result in results}
    raise typer.Exit(1 if "failed" in statuses else 4 if "disturbed" in statuses else 0)


def gate(  # noqa: PLR0913 - one argument a flag
    *,
    base: Annotated[str, typer.Option(help="A bundle, environment, source tree or revision.")],
    head: Annotated[str, typer.Option(help="As --base: what is to be no worse.")],
    bundle: Annotated[Path | None, typer.Option(help="What two versions serve.")] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="Its evaluation data decides on two bundles' accuracy.")
    ] = None,
    threshold: Threshold = 0.05,
    points: Annotated[float, typer.Option(help="Accuracy that may be lost, in points.")] = 0.5,
    metric: Annotated[
        list[str] | None, typer.Option(help="Only this decides; may be repeated.")
    ] = None,
    threads: Annotated[
        int, typer.Option(min=1, help="Of each server's session; the client needs a core too.")
    ] = 1,
    minutes: Annotated[
        float | None,
        typer.Option(min=0.1, help="No new start after these.  [default: 10; quick 1.5]"),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A minute or two.")] = False,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Compare head with base, in alternation. Exits with 0, 1 (regressed) or 4 (no verdict)."""
    _needs_extra()
    from headrace_bench.gate import QUICK, GateEffort  # noqa: PLC0415
    from headrace_bench.gating import GateRequest, gate_subjects  # noqa: PLC0415

    end_on_signals(INTERRUPTED)
    effort = QUICK if quick else GateEffort()
    request = GateRequest(
        base=base,
        head=head,
        bundle=bundle,
        recipe=recipe,
        threshold=threshold,
        points=points,
        metrics=tuple(metric or ()),
        threads=threads,
        effort=effort if minutes is None else replace(effort, limit_s=minutes * 60),
    )
    with err().status("gate") as status:
        report = gate_subjects(request, status.update)
    _end(report, out or _run_directory(Settings().ensure_home(), "gate"), as_json=as_json)


def compare(
    base: Annotated[Path, typer.Argument(help="The directory of a run.")],
    head: Annotated[Path, typer.Argument(help="The directory of another, on the same machine.")],
    *,
    threshold: Threshold = 0.10,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Compare two stored runs of one machine. Exits as the gate does."""
    _needs_extra()
    from headrace_bench.compare import compare_runs  # noqa: PLC0415

    report = compare_runs(base, head, threshold=threshold)
    _end(report, out or _run_directory(Settings().ensure_home(), "compare"), as_json=as_json)


def peers_list(*, as_json: AsJson = False) -> None:
    """Show the peers, and which are installed."""
    _needs_extra()
    from headrace_bench.peers.environments import list_peers  # noqa: PLC0415

    peers = list_peers(Settings().home)
    if as_json:
        print_json({"peers": [asdict(peer) for peer in peers]})
        return
    rows = [(p.name, ", ".join(p.suites), p.state, f"{p.size_mb:.0f}") for p in peers]
    print_table("peers", ("peer", "suites", "state", "MB"), rows)


def peers_install(
    names: Annotated[list[str] | None, typer.Argument(help="All, if left out.")] = None,
) -> None:
    """Build the peers' environments, under HEADRACE_HOME."""
    _needs_extra()
    from headrace_bench.peers.environments import install  # noqa: PLC0415

    end_on_signals(INTERRUPTED)
    home = Settings().ensure_home()
    for peer in _peers(names):
        with err().status(f"installing {peer.name}") as status:
            install(peer, home, status.update)
        err().print(f"[green]done[/green] {peer.name}")


def _needs_extra() -> None:
    try:
        import mlperf_loadgen  # noqa: F401, PLC0415
        import scipy  # noqa: F401, PLC0415
    except ImportError as error:
        raise MissingError(
            "extra.bench", "benchmarks are not installed", "pip install 'headrace[cpu,bench]'"
        ) from error


def _peers(names: list[str] | None) -> "tuple[Peer, ...]":
    from headrace_bench.peers.environments import PEERS, find_peer  # noqa: PLC0415

    return tuple(map(find_peer, names)) if names else PEERS


def _run_directory(home: Path, what: str) -> Path:
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return home / "bench" / "runs" / f"{stamp}-{what}"


def _told(results: "Iterator[CaseResult]", *, as_json: bool) -> "Iterator[CaseResult]":
    """Passes results on, and tells of each at once."""
    for result in results:
        if as_json:
            sys.stdout.write(f"{result.to_line()}\n")
            sys.stdout.flush()
        else:
            colour = {"ok": "green", "failed": "red"}.get(result.status, "yellow")
            line = f"[{colour}]{result.status}[/{colour}] {result.case} {result.contestant}"
            err().print(line, highlight=False)
        yield result


def _end(report: "GateReport", directory: Path, *, as_json: bool) -> None:
    from headrace_bench.report.table import print_gate  # noqa: PLC0415
    from headrace_bench.report.write import write_gate_report  # noqa: PLC0415

    directory.mkdir(parents=True, exist_ok=True)
    write_gate_report(directory, report)
    if as_json:
        print_json(report.model_dump(mode="json"))
    else:
        print_gate(report)
    err().print(f"report: {directory}", soft_wrap=True, highlight=False)
    raise typer.Exit(report.exit_status)

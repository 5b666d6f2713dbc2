"""`profile`: measures a bundle's variants on this machine, and adds the measurement to it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn

from headrace.bundle.measurement import Candidate, Measurement
from headrace.bundle.open import open_bundle
from headrace.commands.screen import AsJson, err, milliseconds, print_json, print_table
from headrace.engine.session import CPU
from headrace.errors import CheckError, MissingError
from headrace.hardware import detect_hardware
from headrace.profile import Conditions, measure_bundle, measurement_name, write_measurement
from headrace.timing import FULL, QUICK, Told


def register(app: typer.Typer) -> None:
    """Adds this command to the program."""
    app.command("profile")(profile)


def profile(
    path: Annotated[Path, typer.Argument(help="A bundle's directory.", metavar="BUNDLE")],
    *,
    provider: Annotated[str, typer.Option(help="The execution provider.")] = CPU,
    quick: Annotated[
        bool, typer.Option("--quick", help="A few points only; good enough to choose.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Measure every variant of a bundle on this machine, choose, and add what was found."""
    with err().status("checking digests"):
        bundle = open_bundle(path)
    hardware = detect_hardware()
    with shown_progress() as told:
        found = measure_bundle(
            bundle, Conditions(hardware, QUICK if quick else FULL, provider), told=told
        )
    target = bundle.path / measurement_name(hardware, provider)
    try:
        write_measurement(target, found)
    except OSError as error:
        raise MissingError(
            "profile.write", f"{target} cannot be written: {error.strerror or error}"
        ) from error
    if as_json:
        print_json({"path": str(target), **found.model_dump(mode="json")})
    else:
        print_measurement(found)
    if not found.selection.choices:
        raise CheckError("profile.nothing", "no variant of this bundle can be used here")


@contextmanager
def shown_progress() -> Iterator[Told]:
    """A bar on standard error that follows a measurement."""
    with Progress(
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), console=err()
    ) as bar:
        task: TaskID | None = None

        def told(what: str, done: int, of: int) -> None:
            nonlocal task
            if task is None:  # no bar where nothing is measured
                task = bar.add_task(what, total=1)
            bar.update(task, description=what, completed=done, total=max(of, 1))

        yield told
        if task is not None:
            bar.update(task, description="measured", completed=1, total=1)


def print_measurement(found: Measurement) -> None:
    """The tables of a measurement: what was timed, what is chosen where, what was dropped."""
    threads = sorted({timing.point.threads for each in found.candidates for timing in each.timings})
    print_table(
        f"measured on {found.hardware.fingerprint}",
        ("variant", "precision", "engine", "loss", *(_times(n) for n in threads), "memory", "load"),
        [
            (
                each.name,
                each.precision,
                each.engine,
                _loss(each),
                *(_time(each, count) for count in threads),
                "" if each.memory_mib is None else f"{each.memory_mib:.0f} MiB",
                "" if each.load_seconds is None else milliseconds(each.load_seconds),
            )
            for each in found.candidates
        ],
    )
    print_table(
        "chosen",
        ("batch", "threads", "variant"),
        [
            (choice.point.batch, choice.point.threads, choice.variant)
            for choice in found.selection.choices
        ],
    )
    if found.selection.dropped:
        print_table(
            "dropped",
            ("variant", "gate", "reason"),
            [(each.variant, each.gate, each.reason) for each in found.selection.dropped],
        )


def _times(threads: int) -> str:
    return f"b1, {threads} thread{'s' if threads > 1 else ''}"


def _time(candidate: Candidate, threads: int) -> str:
    """The median of the smallest batch on so many threads."""
    found = [
        timing
        for timing in candidate.timings
        if timing.point.threads == threads and timing.point.sessions == timing.point.callers == 1
    ]
    return milliseconds(min(found, key=lambda each: each.point.batch).p50) if found else ""


def _loss(candidate: Candidate) -> str:
    accuracy = candidate.accuracy
    return "" if accuracy is None else f"{accuracy.loss:.2g} (at most {accuracy.loss_high:.2g})"

"""`headrace compile`."""

import json
from pathlib import Path
from typing import Annotated, Literal, Self

import typer
from rich.console import Console

from headrace.commands.profile import print_measurement
from headrace.settings import Settings
from headrace_compiler.build import Built, Caching, StepRecord, build


def register(app: typer.Typer) -> None:
    """Adds the compiler's commands to the program."""
    app.command("compile")(compile_recipe)


def compile_recipe(
    recipe: Annotated[Path, typer.Argument(help="The Python file that holds the recipe.")],
    target: Annotated[
        str, typer.Option(help="What to compile for: cpu, arm64, cuda or tensorrt.")
    ] = "cpu",
    out: Annotated[Path, typer.Option(help="Where the bundle is to stand.")] = Path(),
    *,
    measure: Annotated[
        Literal["full", "quick", "none"],
        typer.Option(help="How thoroughly to look for the fastest variant; none packs fp32 alone."),
    ] = "full",
    replay: Annotated[
        Path | None,
        typer.Option(help="Repeat the selection that this bundle recorded; measure nothing."),
    ] = None,
    fuse_preprocessing: Annotated[
        Literal["kernels", "graph"],
        typer.Option(help="What it becomes: native code, or for images operators in the graph."),
    ] = "kernels",
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle of this name.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Compile a recipe into a bundle: prove it, and keep the variants that pay on this machine."""
    settings = Settings()
    caching = Caching(settings.cache / "steps", int(settings.cache_limit))
    with _Screen(Console(stderr=True)) as screen:
        built = build(
            recipe,
            target=target,
            out=out,
            replace=force,
            measure=measure,
            replay=replay,
            fuse=fuse_preprocessing,
            caching=caching if settings.cache_limit else None,
            progress=screen,
        )
    if as_json:
        typer.echo(json.dumps(_document(built), indent=1))
    else:
        _print(built)


class _Screen:
    """Shows the step that runs, and leaves one line for each that is done."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status = console.status("reading the recipe")
        self._step = ""

    def __enter__(self) -> Self:
        self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._status.stop()

    def started(self, step: str) -> None:
        """Shows the step."""
        self._step = step
        self._status.update(step)

    def advanced(self, what: str, done: int, of: int) -> None:
        """Shows how far the step has come."""
        self._status.update(f"{self._step}: {what}, {done} of {of}")

    def finished(self, step: StepRecord) -> None:
        """Leaves its line."""
        how = "[cyan]kept[/cyan]" if step.cached else "[green]done[/green]"
        self._console.print(f"{how} {step.name:<32} [dim]{step.seconds:6.1f} s[/dim]")

    def warned(self, message: str) -> None:
        """Leaves a line."""
        self._console.print(message, style="yellow", markup=False)


def _document(built: Built) -> dict[str, object]:
    found = built.measurement
    return {
        "path": str(built.path),
        "digest": built.digest,
        "steps": [
            {"name": step.name, "seconds": step.seconds, "cached": step.cached}
            for step in built.steps
        ],
        "measurement": None if found is None else found.model_dump(mode="json"),
    }


def _print(built: Built) -> None:
    if built.measurement is not None:
        print_measurement(built.measurement)
    # Not a table: a path or a digest that is cut to the width of the screen cannot be copied.
    console = Console(soft_wrap=True, markup=False, highlight=False)
    console.print(f"bundle  {built.path}")
    console.print(f"digest  {built.digest}")

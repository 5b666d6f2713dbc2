"""`headrace compile`."""

import json
from pathlib import Path
from typing import Annotated, Self

import typer
from rich.console import Console

from headrace_compiler.build import Built, build


def register(app: typer.Typer) -> None:
    """Adds the compiler's commands to the program."""
    app.command("compile")(compile_recipe)


def compile_recipe(
    recipe: Annotated[Path, typer.Argument(help="The Python file that holds the recipe.")],
    target: Annotated[str, typer.Option(help="What to compile for.")] = "cpu",
    out: Annotated[Path, typer.Option(help="Where the bundle is to stand.")] = Path(),
    *,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle of this name.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Compile a recipe into a bundle, and prove that it computes what the model computes."""
    with _Screen(Console(stderr=True)) as screen:
        built = build(recipe, target=target, out=out, replace=force, progress=screen)
    if as_json:
        typer.echo(json.dumps(_document(built), indent=1))
    else:
        _print(built)


class _Screen:
    """Shows the step that runs, and leaves one line for each that is done."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status = console.status("reading the recipe")

    def __enter__(self) -> Self:
        self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._status.stop()

    def started(self, step: str) -> None:
        """Shows the step."""
        self._status.update(step)

    def finished(self, step: str, seconds: float) -> None:
        """Leaves its line."""
        self._console.print(f"[green]done[/green] {step:<10} [dim]{seconds:6.1f} s[/dim]")


def _document(built: Built) -> dict[str, object]:
    return {
        "path": str(built.path),
        "digest": built.digest,
        "steps": [{"name": step.name, "seconds": step.seconds} for step in built.steps],
    }


def _print(built: Built) -> None:
    # Not a table: a path or a digest that is cut to the width of the screen cannot be copied.
    console = Console(soft_wrap=True, markup=False, highlight=False)
    console.print(f"bundle  {built.path}")
    console.print(f"digest  {built.digest}")

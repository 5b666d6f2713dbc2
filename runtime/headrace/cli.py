"""The program `headrace`: puts the commands together, prints errors, and chooses exit statuses.

Exit status: 0 done; 1 a check said no; 2 the input or the usage is wrong; 3 something needed is
missing; 130 interrupted.
"""

import sys
from importlib.metadata import entry_points
from typing import Annotated

import typer
from rich.console import Console

from headrace.commands import bundles, machine, predict, serving
from headrace.commands.screen import print_json
from headrace.errors import CheckError, HeadraceError, MissingError, RequestError, UsageError
from headrace.hardware import installed_version

COMMANDS = "headrace.commands"
"""The entry point group through which the other packages add theirs: `register(app)`."""


def exit_status(error: HeadraceError) -> int:
    """The exit status that an error ends the program with."""
    if isinstance(error, CheckError):
        return 1
    if isinstance(error, UsageError | RequestError):
        return 2
    if isinstance(error, MissingError):
        return 3
    return 1


def build_app() -> typer.Typer:
    """The program with every command that is installed."""
    app = typer.Typer(
        name="headrace",
        help="Compile models into proven bundles, and serve them.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
    )
    app.callback()(_options)
    for entry_point in sorted(entry_points(group=COMMANDS), key=lambda point: point.name):
        entry_point.load()(app)
    for module in (bundles, machine, predict, serving):
        module.register(app)
    return app


def main() -> None:
    """Runs the program."""
    try:
        build_app()()
    except HeadraceError as error:
        _print_error(error)
        sys.exit(exit_status(error))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _print_error(MissingError("system", f"{where}{error.strerror or error}"))
        sys.exit(3)


def _options(
    *,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        sys.stdout.write(f"headrace {installed_version('headrace')}\n")
        raise typer.Exit


def _print_error(error: HeadraceError) -> None:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print("error", style="bold red", end=": ")
    console.print(error.message, markup=False)
    if error.hint:
        console.print(f"  {error.hint}", markup=False)
    if "--json" in sys.argv:
        print_json({"error": {"code": error.code, "message": error.message, "hint": error.hint}})


if __name__ == "__main__":
    main()

"""The program `headrace`: puts the commands together, prints errors, and chooses exit statuses.

Exit status: 0 done; 1 a check said no; 2 the input or the usage is wrong; 3 something needed is
missing; 130 interrupted.
"""

import sys
from importlib.metadata import entry_points
from typing import Annotated, NoReturn

import typer
from pydantic import ValidationError
from rich.console import Console

from headrace.commands import bundles, cache, machine, predict, profile, serving
from headrace.commands.screen import print_json, visible
from headrace.errors import (
    HeadraceError,
    InternalError,
    MissingError,
    RequestError,
    UnavailableError,
    UsageError,
)
from headrace.hardware import installed_version

COMMANDS = "headrace.commands"
"""The entry point group through which the other packages add theirs: `register(app)`."""


def exit_status(error: HeadraceError) -> int:
    """The exit status that an error ends the program with."""
    if isinstance(error, MissingError | UnavailableError):
        return 3
    if isinstance(error, UsageError | RequestError) and not isinstance(error, InternalError):
        return 2
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
    for module in (bundles, cache, machine, predict, profile, serving):
        module.register(app)
    return app


def main() -> None:
    """Runs the program."""
    try:
        sys.exit(build_app()(standalone_mode=False))
    except HeadraceError as error:
        _end(error)
    except typer.TyperException as error:
        # Without any command, the help stands on the screen by now.
        message = error.format_message() or "no command was given"
        _end(UsageError("usage.command", message, "`--help` says what there is"))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        _end(UsageError("usage.value", f"{where}: {first['msg']}"))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _end(MissingError("system.refused", f"{where}{error.strerror or error}"))


def _print_version(asked: bool) -> None:  # noqa: FBT001 - the form that typer calls
    if asked:
        sys.stdout.write(f"headrace {installed_version('headrace')}\n")
        raise typer.Exit


def _options(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


def _end(error: HeadraceError) -> NoReturn:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print("error", style="bold red", end=": ")
    console.print(visible(error.message), markup=False, emoji=False)
    if error.hint:
        console.print(f"  {visible(error.hint)}", markup=False, emoji=False)
    if "--json" in sys.argv:
        print_json({"error": {"code": error.code, "message": error.message, "hint": error.hint}})
    sys.exit(exit_status(error))


if __name__ == "__main__":
    main()

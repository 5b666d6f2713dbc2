"""`headrace bench`."""

import typer


def register(app: typer.Typer) -> None:
    """Adds the benchmark's commands to the program."""
    bench = typer.Typer(help="Measure, compare, and gate a change.", no_args_is_help=True)
    app.add_typer(bench, name="bench")

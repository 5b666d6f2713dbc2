"""How commands speak: tables for people on standard output, or one JSON document for machines."""

import json
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]


def err() -> Console:
    """Where progress and remarks go."""
    return Console(stderr=True)


def print_json(document: object) -> None:
    """The one JSON document of a command, on standard output."""
    sys.stdout.write(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table on standard output; cells are shown as they are and folded, never cut."""
    table = Table(
        *(Column(name, overflow="fold") for name in columns),
        title=Text(title, style="bold"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_header=any(columns),
    )
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    Console().print(table)


def milliseconds(seconds: float) -> str:
    """A time as people read it."""
    return f"{seconds * 1e3:.2f} ms"

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

_WIDE = 10_000
"""Columns where no terminal limits them: whoever reads a pipe wants a digest in one piece."""
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
AllowReference = Annotated[
    bool,
    typer.Option(
        "--allow-reference", help="Prepare images in NumPy if no native library runs here."
    ),
]


def err() -> Console:
    """Where progress and remarks go."""
    return Console(stderr=True)


def print_json(document: object) -> None:
    """The one JSON document of a command, on standard output.

    In ASCII, so that it can be written wherever standard output goes, and a file's name too that
    is no Unicode text.
    """
    sys.stdout.write(json.dumps(document, indent=1) + "\n")
    sys.stdout.flush()


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table on standard output, whose cells are never cut: folded on a terminal, else whole."""
    table = Table(
        *(Column(visible(name), overflow="fold") for name in columns),
        title=Text(visible(title), style="bold"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_header=any(columns),
    )
    for row in rows:
        table.add_row(*(Text(visible(str(cell))) for cell in row))
    Console(width=None if sys.stdout.isatty() else _WIDE).print(table)


def visible(text: str) -> str:
    """Text from a bundle or a server, with escapes for what would steer the terminal."""
    return "".join(
        letter
        if letter.isprintable() or letter == "\n"
        else letter.encode("unicode_escape").decode()
        for letter in text
    )


def milliseconds(seconds: float) -> str:
    """A time as people read it."""
    return f"{seconds * 1e3:.2f} ms"

"""`headrace compile`."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from headrace.errors import UsageError
from headrace_compiler.cli import register

Write = Callable[..., Path]


@pytest.fixture
def app() -> typer.Typer:
    """The program, with the compiler's commands alone."""
    program = typer.Typer()
    register(program)
    program.callback()(lambda: None)
    return program


def test_json_is_one_document(app: typer.Typer, tmp_path: Path, write_recipe: Write) -> None:
    """With --json, standard output holds the result alone; progress is on standard error."""
    arguments = ["compile", str(write_recipe()), "--out", str(tmp_path / "out"), "--json"]
    arguments += ["--measure", "none"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    document = json.loads(done.stdout)
    assert document["path"] == str(tmp_path / "out" / "tiny-1.0.bundle")
    assert len(document["digest"]) == 64
    assert [step["name"] for step in document["steps"]][-1] == "package"
    assert "parity" in done.stderr


def test_people_get_the_path_and_the_digest(
    app: typer.Typer, tmp_path: Path, write_recipe: Write
) -> None:
    """Neither is cut to the width of the screen; --force replaces a bundle."""
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    arguments = ["compile", str(write_recipe()), "--out", str(deep), "--measure", "none"]
    CliRunner().invoke(app, arguments, catch_exceptions=False)
    done = CliRunner().invoke(app, [*arguments, "--force"], catch_exceptions=False)
    assert str(deep / "tiny-1.0.bundle") in done.stdout
    assert "digest" in done.stdout


def test_errors_are_left_to_the_program(
    app: typer.Typer, tmp_path: Path, write_recipe: Write
) -> None:
    """The command raises headrace's own errors; the program prints them and exits."""
    arguments = ["compile", str(write_recipe()), "--out", str(tmp_path), "--target", "abacus"]
    with pytest.raises(UsageError):
        CliRunner().invoke(app, arguments, catch_exceptions=False)

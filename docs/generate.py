"""Writes the parts of the reference that the code knows best; `--check` only compares.

python docs/generate.py [--check]
"""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "docs" / "reference"
COMMANDS = (
    *("compile", "inspect", "diff", "verify", "predict"),
    *("serve", "status", "stop", "doctor"),
    *("profile", "cache", "cache clear", "cache trim"),
    *("bench run", "bench gate", "bench compare", "bench peers list", "bench peers install"),
)
ACTS = {
    "CheckError": "exit 1",
    "BundleError": "exit 1",
    "UsageError": "exit 2",
    "MissingError": "exit 3",
    "InvalidRequestError": "HTTP 400",
    "NotFoundError": "HTTP 404",
    "TooLargeError": "HTTP 413",
    "UnsupportedError": "HTTP 501",
    "UnavailableError": "HTTP 503",
    "InternalError": "HTTP 500",
    "ClientGoneError": "no answer",
}


def program() -> str:
    """The help of every command."""
    parts = [
        "# The program",
        "",
        "Exit status: 0 done; 1 a check said no; 2 the input or the usage is wrong; 3 something",
        "needed is missing; 4 no verdict (too noisy to say); 130 interrupted. `--json` prints",
        "one JSON document on standard output and everything else on standard error; of",
        "`bench run` it prints one line a case.",
    ]
    for command in ("", *COMMANDS):
        arguments = [*command.split(), "--help"]
        parts += ["", f"## headrace {command}".rstrip(), "", "```", help_of(arguments), "```"]
    return "\n".join(parts) + "\n"


def help_of(arguments: list[str]) -> str:
    """What the program prints, at a width of 100 columns and without colours."""
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    done = subprocess.run(  # noqa: S603 - our own program
        [Path(sys.executable).with_name("headrace"), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return "\n".join(line.rstrip() for line in done.stdout.strip("\n").splitlines())


def errors() -> str:
    """Every error code that the sources raise, with what becomes of it."""
    found = sorted({row for path in sorted(sources()) for row in raised(path)})
    rows = [f"| `{code}` | {kind} | {ACTS[kind]} |" for code, kind in found]
    head = ["# Errors", "", "Codes are stable across versions; sentences are not.", ""]
    return "\n".join([*head, "| code | class | outcome |", "|---|---|---|", *rows]) + "\n"


def sources() -> Iterator[Path]:
    """The source files of every package."""
    for room in ("runtime", "compiler", "benchmarks", "deploy"):
        yield from (ROOT / room).rglob("*.py")


def raised(path: Path) -> Iterator[tuple[str, str]]:
    """The codes and classes of the errors that a file constructs."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
            first = node.args[0]
            if node.func.id in ACTS and isinstance(first, ast.Constant):
                yield str(first.value), node.func.id


def main() -> int:
    """Writes, or compares."""
    stale = []
    for name, content in (("program.md", program()), ("errors.md", errors())):
        path = REFERENCE / name
        if "--check" not in sys.argv:
            path.write_text(content)
        elif not path.exists() or path.read_text() != content:
            stale.append(name)
    if stale:
        sys.stderr.write(f"stale: {', '.join(stale)}; run python docs/generate.py\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())

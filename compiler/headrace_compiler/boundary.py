"""Where code that is not ours runs: its exceptions become one sentence with the line at fault."""

import linecache
import sys
import sysconfig
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from headrace.errors import HeadraceError

_FRAMEWORKS = ("torch", "onnx", "onnx_ir", "onnxscript", "onnxruntime", "numpy", "pydantic")
_OURS = ("headrace", "headrace_compiler")


@dataclass(frozen=True)
class Line:
    """A line of source code."""

    path: Path
    number: int

    def show(self, folder: Path) -> str:
        """As `recipe.py:12: the code`; the path is relative if it lies in the folder."""
        inside = self.path.is_relative_to(folder)
        path = self.path.relative_to(folder) if inside else self.path
        linecache.checkcache(str(self.path))
        return f"{path}:{self.number}: {linecache.getline(str(self.path), self.number).strip()}"


class Translated:
    """A context in which another party's exceptions become ours.

    A recipe and the frameworks may raise anything, so every exception is translated and chained;
    errors that are headrace's own pass, and so does an interrupt.
    """

    def __init__(self, translate: Callable[[BaseException], HeadraceError]) -> None:
        self._translate = translate

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, Exception | SystemExit) and not isinstance(error, HeadraceError):
            raise self._translate(error) from error


def user_line(error: BaseException, folder: Path) -> Line | None:
    """The innermost line of the recipe's folder, or else of any code but the frameworks'."""
    if isinstance(error, SyntaxError) and error.filename is not None:
        return Line(Path(error.filename), error.lineno or 1)
    lines = [
        Line(Path(frame.f_code.co_filename), number)
        for frame, number in traceback.walk_tb(error.__traceback__)
    ]
    return innermost(lines, folder)


def innermost(lines: list[Line], folder: Path) -> Line | None:
    """The last line that lies in the folder, or else the last that is some user's."""
    theirs = [line for line in lines if is_user_code(line.path)]
    inside = [line for line in theirs if line.path.is_relative_to(folder)]
    chosen = inside or theirs
    return chosen[-1] if chosen else None


def is_user_code(path: Path) -> bool:
    """False for the standard library, the frameworks and headrace itself."""
    standard = path.is_relative_to(sysconfig.get_path("stdlib"))
    if not path.is_file() or (standard and "site-packages" not in path.parts):
        return False
    modules = [sys.modules.get(name) for name in (*_FRAMEWORKS, *_OURS)]
    files = [module.__file__ for module in modules if module is not None and module.__file__]
    return not any(path.is_relative_to(Path(file).parent) for file in files)


def first_line(error: BaseException) -> str:
    """The exception's type and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def at(line: Line | None, folder: Path) -> str:
    """` (recipe.py:12: the code)`, or nothing where the line is not known."""
    return "" if line is None else f" ({line.show(folder)})"

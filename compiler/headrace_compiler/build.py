"""Builds a bundle: runs the plan of a target over a recipe.

Importing this module does not import torch or onnx; calling `build` does.
"""

import importlib.util
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, Protocol, TypeVar

from headrace.bundle.digest import hash_file
from headrace.bundle.manifest import BuildRecord
from headrace.bundle.write import bundle_name, write_build_record
from headrace.errors import HeadraceError, MissingError, UsageError
from headrace.hardware import detect_hardware
from headrace_compiler.loading import importable, load_recipe

P = ParamSpec("P")
T = TypeVar("T")

_NEEDED = ("torch", "onnx", "onnx_ir", "onnxscript", "onnxruntime")


class Progress(Protocol):
    """What is told of a build while it runs."""

    def started(self, step: str) -> None:
        """A step begins."""
        ...

    def finished(self, step: str, seconds: float) -> None:
        """A step is done."""
        ...


@dataclass(frozen=True)
class StepRecord:
    """One step that was run."""

    name: str
    seconds: float


@dataclass(frozen=True)
class Built:
    """A bundle that was built.

    Attributes:
        path: Of its directory.
        digest: Its identity.
        steps: What was run, in order.
    """

    path: Path
    digest: str
    steps: tuple[StepRecord, ...]


class Silent:
    """Progress that nobody watches."""

    def started(self, step: str) -> None:
        """Says nothing."""

    def finished(self, step: str, seconds: float) -> None:
        """Says nothing."""


def build(
    recipe: Path,
    *,
    target: str = "cpu",
    out: Path,
    replace: bool = False,
    progress: Progress | None = None,
) -> Built:
    """Compiles a recipe into a bundle.

    Args:
        recipe: The Python file that holds it.
        target: Whose plan to run.
        out: The directory in which the bundle is to stand.
        replace: Whether a bundle of the same name may be replaced.
        progress: Who is told of each step.

    Raises:
        MissingError: The compiler's extra is not installed, or the disk is not writable.
        UsageError: The recipe or the model is wrong, or there is a bundle of this name.
        CheckError: The graph does not compute what the model computes.
    """
    _require_extra()
    # Only now is it known that they can be imported.
    from headrace_compiler.lineage import Origin, git_commit  # noqa: PLC0415
    from headrace_compiler.plan import PLANS, Job  # noqa: PLC0415
    from headrace_compiler.steps.package import Destination  # noqa: PLC0415

    if target not in PLANS:
        raise UsageError(
            "build.target", f"there is no target '{target}'", f"targets are {', '.join(PLANS)}"
        )
    path = recipe.resolve()
    with importable(path.parent):
        declared = load_recipe(path)
        _refuse_existing(out / bundle_name(declared.name, declared.version), replace=replace)
        origin = Origin(recipe=hash_file(path).sha256, seed=declared.seed, target=target)
        runner = _Runner(progress or Silent())
        job = Job(declared, path.parent, origin, Destination(out, replace=replace))
        package = PLANS[target](runner, job)
    record = BuildRecord(
        commit=git_commit(path.parent),
        fingerprint=detect_hardware().fingerprint,
        seconds={step.name: round(step.seconds, 3) for step in runner.records},
    )
    write_build_record(package.path, record)
    return Built(path=package.path, digest=package.digest, steps=tuple(runner.records))


class _Runner:
    """Times each step, and lets its errors say where in the plan they happened."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.records: list[StepRecord] = []

    @property
    def started(self) -> tuple[str, ...]:
        return tuple(record.name for record in self.records)

    def __call__(self, name: str, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        self._progress.started(name)
        begin = time.perf_counter()
        with _named(name, self.started):
            made = step(*args, **kwargs)
        seconds = time.perf_counter() - begin
        self.records.append(StepRecord(name, seconds))
        self._progress.finished(name, seconds)
        return made


@contextmanager
def _named(step: str, before: tuple[str, ...]) -> Iterator[None]:
    """Lets an error name the step that failed and those before it."""
    try:
        yield
    except HeadraceError as error:
        after = f" (after {', '.join(before)})" if before else ""
        message = f"step {step}{after}: {error.message}"
        raise type(error)(error.code, message, error.hint) from error


def _require_extra() -> None:
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingError(
            "extra.compiler",
            f"compiling needs {', '.join(missing)}, which cannot be imported",
            "pip install 'headrace[cpu,compiler]'",
        )


def _refuse_existing(target: Path, *, replace: bool) -> None:
    """Says at once what the last step would say after minutes."""
    if (target.exists() or target.is_symlink()) and not replace:
        raise UsageError(
            "bundle.exists",
            f"{target} is there already",
            "give the recipe a new version, or pass --force to replace the bundle",
        )

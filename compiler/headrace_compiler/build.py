"""Builds a bundle: runs the plan of a target over a recipe.

Importing this module does not import torch or onnx; calling `build` does.
"""

import importlib.util
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, ParamSpec, Protocol, TypeVar

from headrace.bundle.manifest import MEASURED
from headrace.bundle.measurement import Measurement
from headrace.bundle.open import open_bundle
from headrace.bundle.write import bundle_name
from headrace.engine.session import CPU, load_onnxruntime
from headrace.errors import HeadraceError, MissingError, UsageError
from headrace.hardware import detect_hardware
from headrace.preprocess.image.spec import ImagePreprocessing
from headrace.profile import Conditions, read_measurement
from headrace.timing import FULL, QUICK
from headrace_compiler.cache import StepCache, cached_call
from headrace_compiler.loading import importable, load_recipe, recipe_digest
from headrace_compiler.recipe import Recipe
from headrace_compiler.targets import TARGETS, Target

P = ParamSpec("P")
T = TypeVar("T")

Measure = Literal["full", "quick", "none"]
"""How thoroughly to look for variants: `quick` times a few points only, and `none` packs the fp32
graph alone, with nothing to choose."""

Fuse = Literal["kernels", "graph"]
"""What preprocessing becomes: native code, or for images standard operators in the graph."""

_NEEDED = (
    "torch",
    "onnx",
    "onnx_ir",
    "onnxscript",
    "onnxruntime",
    "nncf",
    "datasketches",
    "numba",
    "ziglang",
)


class Progress(Protocol):
    """What is told of a build while it runs."""

    def started(self, step: str) -> None:
        """A step begins."""
        ...

    def advanced(self, what: str, done: int, of: int) -> None:
        """So much of a long step is done."""
        ...

    def finished(self, step: "StepRecord") -> None:
        """A step is done."""
        ...

    def warned(self, message: str) -> None:
        """Something that the build goes on without."""
        ...


@dataclass(frozen=True)
class StepRecord:
    """One step.

    Attributes:
        cached: Whether it was not run, because its result was kept.
    """

    name: str
    seconds: float
    cached: bool


@dataclass(frozen=True)
class Built:
    """A bundle that was built.

    Attributes:
        path: Of its directory.
        digest: Its identity.
        steps: What was run, in order.
        measurement: What was measured of its variants; None where nothing was.
    """

    path: Path
    digest: str
    steps: tuple[StepRecord, ...]
    measurement: Measurement | None


class Silent:
    """Progress that nobody watches."""

    def started(self, step: str) -> None:
        """Says nothing."""

    def advanced(self, what: str, done: int, of: int) -> None:
        """Says nothing."""

    def finished(self, step: StepRecord) -> None:
        """Says nothing."""

    def warned(self, message: str) -> None:
        """Says nothing."""


@dataclass(frozen=True)
class Caching:
    """Where steps are kept for the next build.

    Attributes:
        root: A directory.
        limit_bytes: Of all that is kept in it.
    """

    root: Path
    limit_bytes: int


def build(  # noqa: PLR0913 - the options of the program
    recipe: Path,
    *,
    target: str = "cpu",
    out: Path,
    replace: bool = False,
    measure: Measure = "full",
    replay: Path | None = None,
    fuse: Fuse = "kernels",
    caching: Caching | None = None,
    progress: Progress | None = None,
) -> Built:
    """Compiles a recipe into a bundle.

    Args:
        recipe: The Python file that holds it.
        target: Whose plan to run.
        out: The directory in which the bundle is to stand.
        replace: Whether a bundle of the same name may be replaced.
        measure: How thoroughly to look for variants.
        replay: A bundle whose recorded selection is to be repeated, instead of measuring.
        fuse: What the preprocessing becomes.
        caching: Where steps are kept; None runs all of them.
        progress: Who is told of each step.

    Raises:
        MissingError: The compiler's extra is not installed, or the disk is not writable.
        UsageError: The recipe or the model is wrong, or there is a bundle of this name.
        CheckError: The graph does not compute what the model computes, or no variant keeps the
            recipe's budget; then the report is written nevertheless.
    """
    _require_extra()  # only now is it known that they can be imported
    from headrace_compiler.drafts import Workbench  # noqa: PLC0415
    from headrace_compiler.job import Destination, Job  # noqa: PLC0415
    from headrace_compiler.lineage import Origin, tool_versions  # noqa: PLC0415
    from headrace_compiler.plan import PLANS  # noqa: PLC0415

    meant, path, told = _target(target), recipe.resolve(), progress or Silent()
    with importable(path.parent), tempfile.TemporaryDirectory(prefix="headrace-build-") as scratch:
        declared = load_recipe(path)
        _refuse_existing(out / bundle_name(declared.name, declared.version), replace=replace)
        runner = _Runner(told, caching, tool_versions())
        conditions, here = _conditions(meant, measure)
        job = Job(
            recipe=declared,
            folder=path.parent,
            origin=Origin(recipe=recipe_digest(path), seed=declared.seed, target=target),
            destination=Destination(out, replace=replace),
            target=meant,
            scratch=Path(scratch),
            bench=Workbench(Path(scratch), conditions, told.advanced),
            here=here,
            only_fp32=measure == "none",
            in_graph=_fused(declared) if fuse == "graph" else None,
            replay=None if replay is None else _recorded(replay, target, fuse),
        )
        package = PLANS[target](runner, job)
    _tell_of_other_content(job.replay, package.digest, told)
    return Built(package.path, package.digest, tuple(runner.records), package.measurement)


def _fused(recipe: Recipe) -> ImagePreprocessing:
    from headrace_compiler.shipping import fusible  # noqa: PLC0415 - it imports onnx

    return fusible(recipe)


def _conditions(target: Target, measure: Measure) -> tuple[Conditions, bool]:
    """How to measure, and whether this machine is one of the target's kind."""
    hardware = detect_hardware()
    here = target.is_here(hardware, tuple(load_onnxruntime().get_available_providers()))
    effort = FULL if measure == "full" else QUICK
    return Conditions(hardware, effort, target.provider if here else CPU), here


def _tell_of_other_content(recorded: Measurement | None, made: str, told: Progress) -> None:
    if recorded is not None and recorded.content != made:
        told.warned(
            f"this is not the content that was recorded, and its measurement is not taken over:"
            f" {made} instead of {recorded.content}"
        )


def _target(name: str) -> Target:
    if name not in TARGETS:
        raise UsageError(
            "build.target", f"there is no target '{name}'", f"targets are {', '.join(TARGETS)}"
        )
    return TARGETS[name]


def _recorded(path: Path, target: str, fuse: Fuse) -> Measurement:
    """The measurement that a bundle's content follows from.

    Raises:
        UsageError: The bundle was built for another target, or holds no measurement.
    """
    bundle = open_bundle(path)
    found = sorted((bundle.path / MEASURED).glob("*.json"))
    built = bundle.manifest.lineage.target
    if built != target:
        raise UsageError("replay.target", f"{path} was built for '{built}', not for '{target}'")
    fused: Fuse = "kernels" if bundle.manifest.in_graph is None else "graph"
    if fused != fuse:
        raise UsageError("replay.fuse", f"{path} was built with --fuse-preprocessing {fused}")
    record = bundle.build_record()
    fitting = [each for each in found if record and each.stem == record.fingerprint]
    if not fitting:
        raise UsageError(
            "replay.nothing", f"{path} holds no measurement of the machine that built it"
        )
    return read_measurement(fitting[0])


class _Runner:
    """Times each step, and lets its errors say where in the plan they happened."""

    def __init__(
        self, progress: Progress, caching: Caching | None, tools: Mapping[str, str]
    ) -> None:
        self._progress = progress
        self._cache = StepCache(caching.root, caching.limit_bytes) if caching else None
        self._tools = tools
        self._warned = False
        self.records: list[StepRecord] = []

    @property
    def seconds(self) -> dict[str, float]:
        """Of each step so far."""
        return {step.name: round(step.seconds, 3) for step in self.records}

    def __call__(self, name: str, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return self._run(name, lambda: (step(*args, **kwargs), False))

    def cached(self, name: str, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Takes what the step made of equal arguments before, if that was kept."""
        cache = self._cache
        if cache is None:
            return self(name, step, *args, **kwargs)

        def run() -> tuple[T, bool]:
            called = cached_call(cache, self._tools, name, step, *args, **kwargs)
            if called.fault and not self._warned:
                self._warned = True
                self._progress.warned(f"steps are not kept for the next build: {called.fault}")
            return called.result, called.hit

        return self._run(name, run)

    def _run(self, name: str, run: Callable[[], tuple[T, bool]]) -> T:
        self._progress.started(name)
        begin = time.perf_counter()
        with _named(name, tuple(record.name for record in self.records)):
            made, hit = run()
        record = StepRecord(name, time.perf_counter() - begin, cached=hit)
        self.records.append(record)
        self._progress.finished(record)
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
    except OSError as error:
        # What a recipe's functions raise is translated where they are called.
        raise MissingError(
            "build.write",
            f"step {step}: {error.filename or 'a file'} cannot be written or read:"
            f" {error.strerror or error}",
            "make room, or choose another directory with --out or TMPDIR",
        ) from error


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

"""What a plan works with: the job, the runner of its steps, and what the first steps made."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, Protocol, TypeVar

from headrace.bundle.golden import GoldenCase
from headrace.bundle.measurement import Measurement
from headrace.preprocess.image.spec import ImagePreprocessing
from headrace_compiler.drafts import Workbench
from headrace_compiler.graph import Graph
from headrace_compiler.lineage import Origin
from headrace_compiler.recipe import Recipe
from headrace_compiler.source import Source
from headrace_compiler.steps.parity import Reference
from headrace_compiler.steps.samples import Samples
from headrace_compiler.targets import Target

P = ParamSpec("P")
T = TypeVar("T")


class Runner(Protocol):
    """Runs one step of a plan after the other."""

    @property
    def seconds(self) -> Mapping[str, float]:
        """Of each step so far."""
        ...

    def __call__(self, name: str, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs a step under a name; returns what it makes."""
        ...

    def cached(self, name: str, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As a call, unless the step was run on equal arguments before: then what it made."""
        ...


@dataclass(frozen=True)
class Destination:
    """Where a bundle is to stand.

    Attributes:
        directory: Its parent.
        replace: Whether a bundle of this name may be replaced.
    """

    directory: Path
    replace: bool


@dataclass(frozen=True)
class Job:
    """What a plan works on.

    Attributes:
        folder: Of the recipe.
        origin: What the lineage says of the recipe.
        destination: Where the bundle is to stand.
        scratch: A directory that is removed after the build.
        bench: This machine.
        here: Whether this machine is of the target's kind, so that variants are measured.
        only_fp32: Whether the fp32 graph alone is wanted, with nothing to choose.
        in_graph: The preprocessing that goes into the graph instead of into kernels.
        replay: The measurement whose selection is repeated, instead of measuring again.
    """

    recipe: Recipe
    folder: Path
    origin: Origin
    destination: Destination
    target: Target
    scratch: Path
    bench: Workbench
    here: bool
    only_fp32: bool
    in_graph: ImagePreprocessing | None
    replay: Measurement | None


@dataclass(frozen=True)
class Model:
    """The source model and its graph, with what the source answered.

    Attributes:
        references: To batches of several sizes.
        cases: The golden ones.
    """

    samples: Samples
    source: Source
    graph: Graph
    references: Sequence[Reference]
    cases: tuple[GoldenCase, ...]

"""The plan of each target: the literal list of its steps."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, Protocol, TypeVar

from headrace_compiler.lineage import Origin, trace
from headrace_compiler.recipe import Recipe
from headrace_compiler.steps.capture import capture
from headrace_compiler.steps.export import export
from headrace_compiler.steps.golden import golden
from headrace_compiler.steps.package import Destination, Package, package
from headrace_compiler.steps.parity import parity
from headrace_compiler.steps.samples import draw_samples
from headrace_compiler.steps.simplify import simplify

P = ParamSpec("P")
T = TypeVar("T")


class Runner(Protocol):
    """Runs one step of a plan after the other."""

    @property
    def started(self) -> tuple[str, ...]:
        """The names of the steps run so far."""
        ...

    def __call__(self, name: str, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs a step under a name; returns what it makes."""
        ...


@dataclass(frozen=True)
class Job:
    """What a plan works on.

    Attributes:
        folder: Of the recipe.
        origin: What the lineage says of the recipe.
        destination: Where the bundle is to stand.
    """

    recipe: Recipe
    folder: Path
    origin: Origin
    destination: Destination


def cpu(run: Runner, job: Job) -> Package:
    """One fp32 graph for ONNX Runtime on any CPU."""
    recipe, folder = job.recipe, job.folder
    samples = run("samples", draw_samples, recipe, folder)
    source = run("capture", capture, recipe, folder, samples)
    exported = run("export", export, recipe, folder, source)
    graph = run("simplify", simplify, exported)
    proof = run("parity", parity, recipe, samples, source, graph)
    cases = run("golden", golden, samples, source, proof)
    lineage = trace(job.origin, samples.digest, source.weights, (*run.started, "package"))
    return run("package", package, recipe, graph, proof, cases, lineage, job.destination)


PLANS: Mapping[str, Callable[[Runner, Job], Package]] = {"cpu": cpu}
"""By target."""

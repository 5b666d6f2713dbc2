"""Quantizes with the ranges of each method, and finds the one whose outputs err least."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from headrace.engine.session import OrtSession
from headrace.tensors import Array
from headrace_compiler.datasets import Dataset
from headrace_compiler.graph import Graph
from headrace_compiler.steps.calibrate import Method
from headrace_compiler.steps.restore import PROBED, Static, relative_error


@dataclass(frozen=True)
class Best:
    """Graphs that differ in nothing but their ranges.

    Attributes:
        method: Of the graph that errs least.
        graphs: By method.
        superseded: Why each of the others is not used.
    """

    method: Method
    graphs: Mapping[Method, Graph]
    superseded: Mapping[Method, str]


def best_ranges(each: Mapping[Method, Static], calibration: Dataset) -> Best:
    """Quantizes with each method's ranges, and compares on calibration data.

    All of them run equally fast, so the most accurate is as good as any of them in all else.
    """
    inputs = list(islice(calibration, PROBED))
    first = next(iter(each.values()))
    wanted = _run(first.graph, inputs)
    graphs = {method: static.quantize() for method, static in each.items()}
    errors = {
        method: relative_error(_run(graph, inputs), wanted) for method, graph in graphs.items()
    }
    method = min(errors, key=lambda each: errors[each])
    return Best(
        method=method,
        graphs=graphs,
        superseded={
            other: f"with {other} ranges its outputs err by {error:.3g} of their size on"
            f" calibration data, with {method} ones by {errors[method]:.3g}"
            for other, error in errors.items()
            if other != method
        },
    )


def _run(graph: Graph, inputs: Sequence[Mapping[str, Array]]) -> list[dict[str, Array]]:
    session = OrtSession(graph.content, threads=1)  # sums in one order, and so one best method
    return [session.run(sample) for sample in inputs]

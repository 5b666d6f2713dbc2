"""Runs samples through a graph and finds the ranges of its activations."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

import onnx

from headrace.engine.session import OrtSession
from headrace.errors import CheckError, UsageError
from headrace.tensors import BATCH, Array, Frozen
from headrace_compiler.graph import Graph
from headrace_compiler.histogram import Histogram
from headrace_compiler.quantizable import choose_nodes

Method = Literal["minmax", "percentile", "entropy"]
METHODS: tuple[Method, ...] = ("minmax", "percentile", "entropy")
SHARE = 0.9999
"""Of the values of a tensor that lie inside its percentile range."""
ROWS = 4
"""Of a batch that run together; only their activations are held at once."""


class TensorRange(Frozen):
    """The range of one activation."""

    name: str
    low: float
    high: float


class Ranges(Frozen):
    """The ranges of the activations of one graph.

    Attributes:
        method: By which they were read off what was seen.
        tensors: Sorted by name.
    """

    method: Method
    tensors: tuple[TensorRange, ...]


def calibrate(graph: Graph, batches: Iterable[Mapping[str, Array]]) -> Mapping[Method, Ranges]:
    """The ranges that quantization needs, by each method, from one pass over the samples.

    A histogram of fixed size is all that is kept of a tensor, so memory does not depend on how
    many samples there are, nor on how large a batch is where the graph has a batch axis.

    Args:
        graph: As `prepare` returns it.
        batches: Inputs by name; all axes that the graph declares dynamic may vary.

    Raises:
        UsageError: There are no batches, or one does not fit the graph.
        CheckError: An activation is NaN or infinite.
    """
    model = onnx.ModelProto.FromString(graph.content)
    names = _activations(model)
    session = OrtSession(_exposing(model, names), threads=1)
    histograms = {name: Histogram() for name in names}
    number = -1
    for number, batch in enumerate(batches):
        for rows in _rows(graph, batch):
            _count(session, rows, histograms, number)
    if number < 0:
        raise UsageError(
            "calibration.empty",
            "there are no samples to calibrate with",
            "let the recipe's calibration() return some",
        )
    return {method: _ranges(method, histograms) for method in METHODS}


def _activations(model: onnx.ModelProto) -> list[str]:
    """The float32 inputs and outputs of the nodes that quantization may choose."""
    values = (*model.graph.value_info, *model.graph.input, *model.graph.output)
    floats = {
        value.name for value in values if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }
    constant = {tensor.name for tensor in model.graph.initializer}
    found = {name for node in choose_nodes(model) for name in (*node.input, *node.output)}
    return sorted(found & floats - constant)


def _exposing(model: onnx.ModelProto, names: list[str]) -> bytes:
    """The graph with these values as its outputs."""
    known = {value.name: value for value in (*model.graph.value_info, *model.graph.output)}
    inputs = {value.name for value in model.graph.input}
    outputs = [known[name] for name in names if name not in inputs]
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    del exposed.graph.output[:]
    exposed.graph.output.extend(outputs or [*model.graph.output])
    return bytes(exposed.SerializeToString())


def _rows(graph: Graph, batch: Mapping[str, Array]) -> Iterator[Mapping[str, Array]]:
    """A batch in portions, where every input has the batch axis first."""
    if any(spec.shape[:1] != (BATCH,) for spec in graph.inputs):
        yield batch
        return
    size = max((len(array) for array in batch.values()), default=0)
    for start in range(0, size, ROWS):
        yield {name: array[start : start + ROWS] for name, array in batch.items()}


def _count(
    session: OrtSession,
    rows: Mapping[str, Array],
    histograms: Mapping[str, Histogram],
    number: int,
) -> None:
    seen = {**session.run(rows), **rows}
    for name, histogram in histograms.items():
        if not histogram.add(seen[name]):
            raise CheckError(
                "calibration.not-finite",
                f"tensor '{name}' is NaN or infinite for calibration sample {number}",
                "take samples like those that the model was trained on",
            )


def _ranges(method: Method, histograms: Mapping[str, Histogram]) -> Ranges:
    read = {
        "minmax": Histogram.minmax,
        "percentile": lambda histogram: histogram.percentile(SHARE),
        "entropy": Histogram.entropy,
    }[method]
    tensors = []
    for name, histogram in histograms.items():
        low, high = read(histogram)
        tensors.append(TensorRange(name=name, low=low, high=high))
    return Ranges(method=method, tensors=tuple(tensors))

"""Which nodes of a graph are worth computing in int8.

Layers with weights, and, between convolutions, what would otherwise go back to float32 and on
again. Sums beside matrix products stay float32: in an attention they carry its mask, whose range
leaves nothing for the scores.
"""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import onnx

from headrace_compiler.graph import Graph

_LAYERS = {"Conv": 1, "Gemm": 1, "MatMul": 1}
"""Operators that carry weights, and at which input."""
_REMOVED = ("Relu", "Clip")
"""Operators that the range of an int8 output can stand for."""
_CARRIERS = {
    **dict.fromkeys((*_REMOVED, "LeakyRelu", "Sigmoid"), 1),
    **dict.fromkeys(("MaxPool", "AveragePool", "GlobalAveragePool", "Resize"), 1),
    **dict.fromkeys(("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze"), 1),
    **dict.fromkeys(("Add", "Mul"), 2),
    "Concat": None,
}
"""Operators that ONNX Runtime computes in int8 between two layers, and how many of their first
inputs are data; None: all."""


@dataclass(frozen=True)
class Layer:
    """A node that carries weights.

    Attributes:
        node: Its name.
        operator: Its type, as ONNX calls it.
    """

    node: str
    operator: str


def quantizable(graph: Graph) -> tuple[Layer, ...]:
    """The layers that int8 can speed up, in the order in which they run."""
    model = onnx.ModelProto.FromString(graph.content)
    weights = _float_constants(model)
    return tuple(
        Layer(node.name, node.op_type) for node in model.graph.node if _is_layer(node, weights)
    )


def choose_nodes(
    model: onnx.ModelProto,
    keep_float: AbstractSet[str] = frozenset(),
    only: AbstractSet[str] | None = None,
) -> list[onnx.NodeProto]:
    """The nodes to quantize, in the order in which they run.

    Args:
        keep_float: Names of nodes that stay as they are.
        only: Names of the only layers to quantize, each with the activation behind it.
    """
    weights = _float_constants(model)
    int8: set[str] = set()
    chosen = []
    for node in model.graph.node:
        if node.name in keep_float:
            continue
        layer = _is_layer(node, weights)
        if layer and only is not None and node.name not in only:
            continue
        if layer or _is_carrier(node, int8, weights, operators=_CARRIERS if only is None else {}):
            chosen.append(node)
            # A matrix product gives float32, for what follows it is seldom int8.
            int8.update(node.output if node.op_type != "MatMul" else ())
    return chosen


def _is_layer(node: onnx.NodeProto, weights: dict[str, int]) -> bool:
    """Weights have a row or more for each channel; a MatMul's may not be a stack of matrices."""
    place = _LAYERS.get(node.op_type)
    if place is None or node.domain or len(node.input) <= place:
        return False
    rank = weights.get(node.input[place])
    bias = len(node.input) < 3 or not node.input[2] or node.input[2] in weights
    return bias and (rank == 2 if node.op_type != "Conv" else rank is not None and rank >= 3)


def _is_carrier(
    node: onnx.NodeProto,
    int8: AbstractSet[str],
    weights: dict[str, int],
    operators: dict[str, int | None],
) -> bool:
    if node.domain or node.op_type not in (operators or _REMOVED):
        return False
    data = [*node.input][: operators.get(node.op_type, 1)]
    return any(name in int8 for name in data) and all(
        name in int8 or name in weights for name in data
    )


def _float_constants(model: onnx.ModelProto) -> dict[str, int]:
    """The ranks of float32 initializers by name."""
    return {
        tensor.name: len(tensor.dims)
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT
    }

"""Brings a graph into the form that quantization starts from."""

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from headrace.errors import CheckError
from headrace_compiler.boundary import Translated, first_line
from headrace_compiler.chatter import quiet
from headrace_compiler.finish import finish
from headrace_compiler.graph import Graph


def prepare(graph: Graph) -> Graph:
    """The same function with a name for every node, and the type and shape of every value.

    A mean over height and width becomes a global average pool, which can be computed in int8.
    Give every quantizing step, and `calibrate`, the graph that this returns: they know nodes and
    tensors by name.

    Raises:
        CheckError: The shapes contradict each other.
    """
    model = ir.from_proto(onnx.ModelProto.FromString(graph.content))
    with Translated(_fault), quiet():
        ShapeInferencePass()(model)
        for node in list(model.graph):
            if _is_global_pool(node):
                _pool(model.graph, node)
        ShapeInferencePass()(model)
    return finish(model, graph)


def _is_global_pool(node: ir.Node) -> bool:
    if node.op_type != "ReduceMean" or node.domain or not node.inputs:
        return False
    source = node.inputs[0]
    rank = None if source is None or source.shape is None else len(source.shape)
    return rank == 4 and {axis % 4 for axis in _axes(node)} == {2, 3}


def _axes(node: ir.Node) -> list[int]:
    """Of a reduction; an input since opset 18, an attribute before."""
    if len(node.inputs) < 2:
        return [*node.attributes.get_ints("axes", [])]
    given = node.inputs[1]
    tensor = None if given is None else ir.convenience.get_const_tensor(given)
    return [] if tensor is None else [int(axis) for axis in np.ravel(tensor.numpy())]


def _pool(graph: ir.Graph, node: ir.Node) -> None:
    name = node.name or node.outputs[0].name
    made = [ir.Node("", "GlobalAveragePool", [node.inputs[0]], num_outputs=1, name=f"{name}_pool")]
    if not node.attributes.get_int("keepdims", 1):
        made[0].outputs[0].name = f"{node.outputs[0].name}_pooled"
        axis = {"axis": ir.AttrInt64("axis", 1)}
        flat = ir.Node("", "Flatten", made[0].outputs, axis, num_outputs=1, name=f"{name}_flat")
        made.append(flat)
    ir.convenience.replace_nodes_and_values(
        graph, node, [node], made, [node.outputs[0]], [made[-1].outputs[0]]
    )


def _fault(error: BaseException) -> CheckError:
    return CheckError("graph.prepare", f"the graph cannot be prepared: {first_line(error)}")

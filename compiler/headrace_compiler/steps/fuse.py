"""Fuses attention, layer norms with what is added before them, and GELU with its bias.

ONNX Runtime's own optimizer finds none of the attentions in graphs of the dynamo exporter.
"""

import onnx
import onnx_ir as ir
from onnxscript.rewriter.ort_fusions import optimize_for_ort

from headrace.errors import CheckError
from headrace_compiler.attention import CONTRIB, merge_attention
from headrace_compiler.boundary import Translated, first_line
from headrace_compiler.chatter import quiet
from headrace_compiler.finish import finish
from headrace_compiler.graph import Graph


def fuse(graph: Graph) -> Graph | None:
    """The same function with operators of ONNX Runtime's own domain, com.microsoft.

    All of them are exact but for the order of float32 sums; a GELU of erf stays one of erf.

    Returns:
        None where nothing could be fused.

    Raises:
        CheckError: The rewriting fails, or what came out is not valid ONNX.
    """
    model = ir.from_proto(onnx.ModelProto.FromString(graph.content))
    before = _count(model)
    with Translated(_fault), quiet():
        optimize_for_ort(model)
        merge_attention(model)
        _drop_unused_outputs(model)
    return finish(model, graph) if _count(model) > before else None


def has_attention(fused: Graph | None) -> bool:
    """Whether attentions were found: then the model is a transformer."""
    if fused is None:
        return False
    nodes = onnx.ModelProto.FromString(fused.content).graph.node
    return any("Attention" in node.op_type for node in nodes)


def _count(model: ir.Model) -> int:
    return sum(node.domain == CONTRIB for node in model.graph)


def _drop_unused_outputs(model: ir.Model) -> None:
    """A sum that nobody reads is otherwise written to memory all the same."""
    for node in model.graph:
        used = [bool(value.uses()) or value.is_graph_output() for value in node.outputs]
        if node.domain == CONTRIB and used[0] and not any(used[1:]):
            node.resize_outputs(1)


def _fault(error: BaseException) -> CheckError:
    return CheckError("graph.fuse", f"the graph cannot be fused: {first_line(error)}")

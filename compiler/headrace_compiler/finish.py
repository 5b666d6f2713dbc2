"""What every transformation of a graph ends with: old names, nothing of this machine, a check."""

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass, TopologicalSortPass

from headrace.errors import CheckError
from headrace_compiler.boundary import first_line
from headrace_compiler.graph import Graph, encode, rename, strip


def finish(model: ir.Model | onnx.ModelProto, source: Graph) -> Graph:
    """The graph that came of another, under the same names and axes.

    Args:
        source: Whose inputs these are, by name, and whose outputs, in the same order.

    Raises:
        CheckError: It is not valid ONNX.
    """
    changed = model if isinstance(model, ir.Model) else ir.from_proto(model)
    RemoveUnusedNodesPass()(changed)
    TopologicalSortPass()(changed)
    # Not the declared order: a graph may take its inputs in another, and keeps it.
    inputs = [str(value.name) for value in changed.graph.inputs]
    rename(changed, inputs, [spec.name for spec in source.outputs])
    strip(changed)
    for value, spec in zip(changed.graph.outputs, source.outputs, strict=True):
        value.shape = ir.Shape(spec.shape)
    changed.producer_name = changed.producer_version = None
    content = encode(changed)
    try:
        onnx.checker.check_model(content, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise CheckError(
            "graph.invalid", f"the transformed graph is not valid: {first_line(error)}"
        ) from error
    return Graph(content=content, inputs=source.inputs, outputs=source.outputs)

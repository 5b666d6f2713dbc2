"""Folds constants, fuses what ONNX has one operator for, and checks the result."""

import onnx
import onnx_ir as ir
import onnxscript.optimizer
import onnxscript.rewriter.onnx_fusions
from onnx_ir.passes.common import TopologicalSortPass

from headrace.errors import CheckError
from headrace_compiler.boundary import Translated, first_line
from headrace_compiler.chatter import quiet
from headrace_compiler.graph import Graph, encode, rename, strip


def simplify(graph: Graph) -> Graph:
    """The same function in fewer nodes.

    Raises:
        CheckError: It cannot be simplified, or what came out is not valid ONNX.
    """
    model = ir.from_proto(onnx.ModelProto.FromString(graph.content))
    with Translated(_fault), quiet():
        onnxscript.optimizer.optimize_ir(model)
        onnxscript.rewriter.onnx_fusions.fuse(model)
        TopologicalSortPass()(model)
    inputs = [str(value.name) for value in model.graph.inputs]
    rename(model, inputs, [spec.name for spec in graph.outputs])
    strip(model)
    for value, spec in zip(model.graph.outputs, graph.outputs, strict=True):
        value.shape = ir.Shape(spec.shape)
    content = encode(model)
    try:
        onnx.checker.check_model(content, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise CheckError(
            "graph.invalid", f"the simplified graph is not valid: {first_line(error)}"
        ) from error
    return Graph(content=content, inputs=graph.inputs, outputs=graph.outputs)


def _fault(error: BaseException) -> CheckError:
    return CheckError("graph.simplify", f"the graph cannot be simplified: {first_line(error)}")

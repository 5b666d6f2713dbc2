"""Folds constants, fuses what ONNX has one operator for, and checks the result."""

import onnx
import onnx_ir as ir
import onnxscript.optimizer
import onnxscript.rewriter.onnx_fusions

from headrace.errors import CheckError
from headrace_compiler.boundary import Translated, first_line
from headrace_compiler.chatter import quiet
from headrace_compiler.finish import finish
from headrace_compiler.graph import Graph


def simplify(graph: Graph) -> Graph:
    """The same function in fewer nodes.

    Raises:
        CheckError: It cannot be simplified, or what came out is not valid ONNX.
    """
    model = ir.from_proto(onnx.ModelProto.FromString(graph.content))
    with Translated(_fault), quiet():
        onnxscript.optimizer.optimize_ir(model)
        onnxscript.rewriter.onnx_fusions.fuse(model)
    return finish(model, graph)


def _fault(error: BaseException) -> CheckError:
    return CheckError("graph.simplify", f"the graph cannot be simplified: {first_line(error)}")

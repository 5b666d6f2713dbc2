"""Puts image preprocessing into a graph, which then takes decoded images."""

from dataclasses import replace

import onnx
import onnx_ir as ir
from onnx_ir.tape import Tape

from headrace.errors import UsageError
from headrace.preprocess.image.spec import ImagePreprocessing
from headrace_compiler.finish import finish
from headrace_compiler.graph import Graph
from headrace_compiler.kernels.onnx_image import OPSET, image_input, prepare_images
from headrace_compiler.kernels.onnx_terms import Writer


def fuse_preprocessing(graph: Graph, spec: ImagePreprocessing) -> Graph:
    """The same function of decoded images, which the graph prepares by standard operators.

    What stands behind the graph's one input stays as it is, be it in float or quantized. An engine
    that is told to compute float32 in bf16 or fp16 does so with pixels and weights, too: they are
    then off by up to some hundredths of their range.

    Args:
        spec: Whose result is that input, in shape and datatype.

    Returns:
        A graph of one input, `image_input(spec)`.

    Raises:
        UsageError: The graph is of an older opset, or has an output of the images' name.
        CheckError: What came out is not valid ONNX.
    """
    model = ir.from_proto(onnx.ModelProto.FromString(graph.content))
    opset = model.opset_imports.get("", 1)
    if opset < OPSET:
        raise UsageError(
            "fuse.opset",
            f"the graph is of opset {opset}, and preprocessing needs {OPSET} or a later one",
            "export the model to a later opset, or leave its preprocessing to the kernels",
        )
    taken = image_input(spec)
    image = ir.Value(
        name=taken.name, type=ir.TensorType(ir.DataType.UINT8), shape=ir.Shape(taken.shape)
    )
    (pixels,) = model.graph.inputs
    made = prepare_images(Writer(Tape(model.graph), _free_prefix(model)), image, spec)
    ir.convenience.replace_all_uses_with(pixels, made, replace_graph_outputs=True)
    model.graph.inputs[:] = [image]
    return finish(model, replace(graph, inputs=(taken,)))


def _free_prefix(model: ir.Model) -> str:
    """One that no name in the graph begins with."""
    names = {str(value.name) for node in model.graph for value in node.outputs}
    names |= {*model.graph.initializers, *(str(node.name) for node in model.graph)}
    prefix = "preprocess"
    while any(name.startswith(prefix) for name in names):
        prefix += "_"
    return prefix

"""Four-bit weights for large linear layers; activations stay as they are."""

import onnx

from headrace.errors import CheckError
from headrace_compiler.boundary import Translated, first_line
from headrace_compiler.finish import finish
from headrace_compiler.graph import Graph
from headrace_compiler.muted import muted

LARGE = 1 << 20
"""Weights of a layer from which on reading them takes longer than computing with them."""
_INT8_COMPUTE = 4
"""The accuracy level at which ONNX Runtime multiplies in int8."""


def quantize_weights(graph: Graph, *, block: int = 32) -> Graph | None:
    """The graph with four-bit weights in every product with a matrix of `LARGE` elements or more.

    Args:
        graph: Fused or not.
        block: How many weights of a column share a scale: a power of two from 16 on.

    Returns:
        None where no layer is that large.

    Raises:
        CheckError: The graph cannot be quantized.
    """
    model = _products(onnx.ModelProto.FromString(graph.content))
    large = _large(model)
    if not large:
        return None
    with Translated(_fault), muted():
        from onnxruntime.quantization.matmul_nbits_quantizer import (  # noqa: PLC0415 - heavy
            MatMulNBitsQuantizer,
        )

        quantizer = MatMulNBitsQuantizer(
            model,
            bits=4,
            block_size=block,
            is_symmetric=True,
            accuracy_level=_INT8_COMPUTE,
            nodes_to_exclude=[node.name for node in model.graph.node if node.name not in large],
        )
        quantizer.process()
        made = quantizer.model.model
    return finish(made, graph)


def _products(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with `Gemm` as a product and a sum: what the quantizer looks for."""
    from onnxruntime.quantization.onnx_model import ONNXModel  # noqa: PLC0415 - heavy

    with Translated(_fault), muted():
        wrapped = ONNXModel(model)
        wrapped.replace_gemm_with_matmul()
    made: onnx.ModelProto = wrapped.model
    return made


def _large(model: onnx.ModelProto) -> set[str]:
    """The names of the matrix products with large constant weights."""
    sizes = {
        tensor.name: tensor.dims[0] * tensor.dims[1]
        for tensor in model.graph.initializer
        if len(tensor.dims) == 2 and tensor.data_type == onnx.TensorProto.FLOAT
    }
    return {
        node.name
        for node in model.graph.node
        if node.op_type == "MatMul" and sizes.get(node.input[1], 0) >= LARGE
    }


def _fault(error: BaseException) -> CheckError:
    return CheckError("graph.quantize", f"the graph cannot be quantized: {first_line(error)}")

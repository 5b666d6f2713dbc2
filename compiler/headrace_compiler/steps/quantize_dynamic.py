"""Int8 weights, and activations whose ranges are found anew in every run."""

import tempfile
from pathlib import Path

import onnx

from headrace.errors import CheckError
from headrace_compiler.attention import CONTRIB
from headrace_compiler.boundary import Translated, first_line
from headrace_compiler.finish import finish
from headrace_compiler.graph import Graph
from headrace_compiler.muted import muted

_OPERATORS = ("Attention", "Gemm", "MatMul")
_MADE = ("MatMulInteger", "QAttention")
_UNKNOWN_TO_INT8 = ("scale", "qkv_hidden_sizes")
"""Attributes of an `Attention` that its int8 counterpart does not have."""


def quantize_dynamic(graph: Graph, *, reduce_range: bool = False) -> Graph | None:
    """The graph with matrix products and attentions with constant weights in int8.

    Needs no calibration. Activations are uint8, weights int8 with a scale for each column.

    Args:
        graph: Fused or not.
        reduce_range: Whether weights keep to seven bits; see `activation_types`.

    Returns:
        None where there is nothing to quantize.

    Raises:
        CheckError: The graph cannot be quantized.
    """
    model = onnx.ModelProto.FromString(graph.content)
    before = _count(model)
    with Translated(_fault), muted():
        made = _quantized(model, reduce_range=reduce_range)
    return finish(made, graph) if _count(made) > before else None


def _quantized(model: onnx.ModelProto, *, reduce_range: bool) -> onnx.ModelProto:
    from onnxruntime import quantization  # noqa: PLC0415 - heavy

    kept = [node.name for node in model.graph.node if _must_stay(node)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        quantization.quantize_dynamic(
            model,
            path,
            op_types_to_quantize=[*_OPERATORS],
            per_channel=True,
            reduce_range=reduce_range,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=kept,
            extra_options={"MatMulConstBOnly": True},
        )
        return onnx.load_from_string(path.read_bytes())


def _must_stay(node: onnx.NodeProto) -> bool:
    """True for attentions whose int8 counterpart would compute something else.

    The quantizer drops the inputs that lie beyond the mask.
    """
    if node.op_type != "Attention" or node.domain != CONTRIB:
        return False
    beyond = any(node.input[4:]) or len(node.input) < 3 or not node.input[2]
    return beyond or any(each.name in _UNKNOWN_TO_INT8 for each in node.attribute)


def _count(model: onnx.ModelProto) -> int:
    return sum(node.op_type in _MADE for node in model.graph.node)


def _fault(error: BaseException) -> CheckError:
    return CheckError("graph.quantize", f"the graph cannot be quantized: {first_line(error)}")

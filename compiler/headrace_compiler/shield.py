"""Keeps the float32 layers of a quantized graph from being quantized by ONNX Runtime."""

import numpy as np
import onnx_ir as ir

_REQUANTIZED = ("Conv", "ConvTranspose", "Gemm")
"""Operators whose float32 weights ONNX Runtime may quantize by itself."""


def shield(model: ir.Model) -> None:
    """Keeps layers float32 that are to be float32, in place.

    Where a layer's input and output are quantized and its weights are not, ONNX Runtime quantizes
    them while it loads the graph, and all channels by one scale: the accuracy that keeping the
    layer was to save is lost. It only does so behind a dequantization by one scale, so the layer
    gets one of its own with the same scale for every channel.
    """
    for node in list(model.graph):
        if node.domain or node.op_type not in _REQUANTIZED:
            continue
        before, weights = (None if value is None else value.producer() for value in node.inputs[:2])
        quantized = weights is not None and weights.op_type == "DequantizeLinear"
        if before is None or before.op_type != "DequantizeLinear" or quantized:
            continue
        channels = _channels(node)
        if channels is not None:
            _dequantize_by_channel(model.graph, node, before, channels)


def _channels(node: ir.Node) -> int | None:
    """How many channels the input of a layer has, along axis 1."""
    shape = node.inputs[1].shape if node.inputs[1] is not None else None
    if shape is None or node.attributes.get_int("transA"):
        return None
    place = {"Conv": 1, "ConvTranspose": 0, "Gemm": node.attributes.get_int("transB", 0)}
    size = shape[int(place[node.op_type] or 0)]
    if not isinstance(size, int):
        return None
    groups = node.attributes.get_int("group", 1) or 1
    return size * (groups if node.op_type == "Conv" else 1)


def _dequantize_by_channel(graph: ir.Graph, node: ir.Node, before: ir.Node, channels: int) -> None:
    inputs = [before.inputs[0]]
    for value in before.inputs[1:]:
        one = None if value is None else ir.convenience.get_const_tensor(value)
        if value is None or one is None or one.size != 1:
            return
        array = np.repeat(one.numpy().reshape(1), channels)
        inputs.append(ir.Value(name=f"{node.name}_{value.name}", const_value=ir.tensor(array)))
    for value in inputs[1:]:
        if value is not None:
            graph.register_initializer(value)
    axis = {"axis": ir.AttrInt64("axis", 1)}
    name = f"{node.name}_input"
    made = ir.Node("", "DequantizeLinear", inputs, axis, num_outputs=1, name=f"{name}_dequantized")
    made.outputs[0].name = name
    graph.insert_before(node, made)
    node.replace_input_with(0, made.outputs[0])

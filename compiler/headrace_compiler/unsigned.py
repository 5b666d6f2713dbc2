"""Int8 activations as uint8, which is what ONNX Runtime's kernels for x86 take."""

import numpy as np
import onnx_ir as ir

_OFFSET = 128


def make_unsigned(model: ir.Model) -> None:
    """Moves the zero point of every int8 activation by 128, in place; no value changes."""
    for node in list(model.graph):
        if node.op_type == "QuantizeLinear" and _can_move(node):
            users = list(node.outputs[0].consumers())
            for each in (node, *users):
                _move(model.graph, each)
            node.outputs[0].dtype = ir.DataType.UINT8


def _can_move(node: ir.Node) -> bool:
    """True if only dequantizations read what a node quantizes to int8."""
    users = list(node.outputs[0].consumers())
    return not node.outputs[0].is_graph_output() and all(
        (each is node or each.op_type == "DequantizeLinear") and _zero_point(each) is not None
        for each in (node, *users)
    )


def _zero_point(node: ir.Node) -> ir.TensorProtocol | None:
    """The int8 constant that stands for zero."""
    value = node.inputs[2] if len(node.inputs) > 2 else None
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return tensor if tensor is not None and tensor.dtype == ir.DataType.INT8 else None


def _move(graph: ir.Graph, node: ir.Node) -> None:
    signed = _zero_point(node)
    if signed is None:
        raise ValueError(f"'{node.name}' has no int8 zero point")
    array = (signed.numpy().astype(np.int16) + _OFFSET).astype(np.uint8)
    value = ir.Value(name=f"{node.name}_unsigned_zero_point", const_value=ir.tensor(array))
    value.dtype, value.shape = ir.DataType.UINT8, ir.Shape(array.shape)
    graph.register_initializer(value)
    node.replace_input_with(2, value)

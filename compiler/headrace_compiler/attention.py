"""Merges the projections of an attention into it: the operator `Attention` of com.microsoft.

ONNX Runtime's dynamic quantization computes an `Attention` in int8 as a whole, where around a
`MultiHeadAttention` it only reaches the matrix products one by one. What is not known to compute
the same stays as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from headrace.tensors import Array

CONTRIB = "com.microsoft"
_MASKED = -1e4
"""Of a score: at or below it, its share after softmax is zero in float32."""
_CARRIED = ("num_heads", "scale", "unidirectional")


@dataclass(frozen=True)
class _Linear:
    """A product with constant weights (D, N), and what is added to it (N), if anything."""

    source: ir.Value
    weights: Array
    bias: Array | None


@dataclass(frozen=True)
class _Mask:
    """True where a token is kept; (batch, 1, 1, tokens).

    Attributes:
        fill: Added to the score of every other token.
    """

    keep: ir.Value
    fill: float


def merge_attention(model: ir.Model) -> int:
    """Turns each `MultiHeadAttention` into an `Attention` with packed weights, in place.

    Only self-attention without a cache qualifies whose projections have constant weights and are
    used nowhere else, and whose mask, if there is one, keeps or hides whole tokens.

    Args:
        model: With the shapes of its values.

    Returns:
        How many `Attention` nodes there are in the graph with a mask by token, or none at all.
    """
    masks: dict[str, ir.Value] = {}
    merged = 0
    for node in list(model.graph):
        if node.domain == CONTRIB and node.op_type == "MultiHeadAttention":
            merged += _merge(model.graph, node, masks)
        elif node.domain == CONTRIB and node.op_type == "Attention":
            merged += _plain(model.graph, node, masks)
    RemoveUnusedNodesPass()(model)
    return merged


def _merge(graph: ir.Graph, node: ir.Node, masks: dict[str, ir.Value]) -> bool:
    query, key, value, bias, padding, scores, *cache = _padded(node.inputs, 8)
    sources = (query, key, value)
    heads = node.attributes.get_int("num_heads", 0)
    extra = _array(bias)
    strange = padding is not None or any(cache) or len(node.outputs) > 1
    if strange or not heads or (bias is not None and extra is None):
        return False
    for each in sources:
        _ask_elsewhere(each)
    linear = _packed(sources, node) or _joined(sources, node)
    if linear is None or (linear.weights.shape[1] // 3) % heads:
        return False
    mask = None if scores is None else _token_mask(scores, linear.source)
    if scores is not None and mask is None:
        return False
    total = _sum(linear.bias, extra, linear.weights)
    weights = _initializer(graph, f"{node.name}_weights", linear.weights)
    biases = _initializer(graph, f"{node.name}_bias", total)
    _replace(graph, node, [linear.source, weights, biases], mask, masks)
    return True


def _plain(graph: ir.Graph, node: ir.Node, masks: dict[str, ir.Value]) -> bool:
    """Brings an `Attention` with three equal parts into the form that can be quantized."""
    source, weights, bias, index, past, scores, *_ = _padded(node.inputs, 7)
    sizes = node.attributes.get_ints("qkv_hidden_sizes", [])
    packed = _array(weights)
    if source is None or past is not None or index is not None or len(set(sizes or [0])) > 1:
        return False
    mask = None if scores is None else _token_mask(scores, source)
    if packed is None or (scores is not None and mask is None):
        return False
    _replace(graph, node, [source, weights, bias], mask, masks)
    return True


def _replace(
    graph: ir.Graph,
    node: ir.Node,
    inputs: list[ir.Value | None],
    mask: _Mask | None,
    masks: dict[str, ir.Value],
) -> None:
    carried = {name: node.attributes[name] for name in _CARRIED if name in node.attributes}
    if mask is not None:
        inputs = [*inputs, _mask_index(graph, mask, node, masks)]
        carried["mask_filter_value"] = ir.AttrFloat32("mask_filter_value", mask.fill)
    made = ir.Node(CONTRIB, "Attention", inputs, carried, num_outputs=1, name=f"{node.name}_packed")
    ir.convenience.replace_nodes_and_values(
        graph, node, [node], [made], [node.outputs[0]], [made.outputs[0]]
    )


def _mask_index(
    graph: ir.Graph, mask: _Mask, node: ir.Node, masks: dict[str, ir.Value]
) -> ir.Value:
    """One int32 (batch, tokens) for all attentions that share a mask."""
    name = str(mask.keep.name)
    if name not in masks:
        axes = _initializer(graph, f"{name}_axes", np.array([1, 2], np.int64))
        squeeze = ir.Node("", "Squeeze", [mask.keep, axes], num_outputs=1, name=f"{name}_tokens")
        to = {"to": ir.AttrInt64("to", ir.DataType.INT32)}
        cast = ir.Node("", "Cast", [squeeze.outputs[0]], to, num_outputs=1, name=f"{name}_index")
        squeeze.outputs[0].name, cast.outputs[0].name = f"{name}_by_token", f"{name}_mask_index"
        graph.insert_before(node, [squeeze, cast])
        masks[name] = cast.outputs[0]
    return masks[name]


def _ask_elsewhere(value: ir.Value | None) -> None:
    """Lets who asks a projection for its batch or length ask what is projected, in place."""
    asking = [] if value is None else [user for user in value.consumers() if _asks_rows(user)]
    source = value
    for operator in ("Split", "Add", "MatMul"):
        node = None if source is None else source.producer()
        if node is not None and node.op_type == operator:
            wide = [each for each in node.inputs if each is not None and _rank(each) == 3]
            source = wide[0] if len(wide) == 1 else None
    if source is not None and source is not value:
        for user in asking:
            user.replace_input_with(0, source)


def _asks_rows(node: ir.Node) -> bool:
    start, end = (node.attributes.get_int(name, -1) for name in ("start", "end"))
    return node.op_type == "Shape" and (start, end) in {(0, 1), (1, 2), (0, 2)}


def _packed(sources: Sequence[ir.Value | None], user: ir.Node) -> _Linear | None:
    """The linear layer whose output is split into query, key and value."""
    first = sources[0]
    split = None if first is None else first.producer()
    if split is None or split.op_type != "Split" or len(split.outputs) != 3:
        return None
    alone = all(_only_user(value, user) for value in split.outputs)
    widths = {value.shape[2] for value in split.outputs if _rank(value) == 3 and value.shape}
    equal = len(widths) == 1 and all(isinstance(width, int) for width in widths)
    last = split.attributes.get_int("axis", 0) in {2, -1}
    if tuple(sources) != tuple(split.outputs) or not (alone and last and equal):
        return None
    return _linear(split.inputs[0], split)


def _joined(sources: Sequence[ir.Value | None], user: ir.Node) -> _Linear | None:
    """Three linear layers of one input and one width as one."""
    parts = [_linear(value, user) for value in sources]
    query, key, value = parts
    if query is None or key is None or value is None:
        return None
    known = (query, key, value)
    one = all(part.source is query.source for part in known)
    if not one or len({part.weights.shape for part in known}) > 1:
        return None
    biases = [_sum(part.bias, None, part.weights) for part in known]
    weights = np.concatenate([part.weights for part in known], axis=1)
    return _Linear(query.source, weights, np.concatenate(biases))


def _linear(value: ir.Value | None, user: ir.Node) -> _Linear | None:
    if value is None or not _only_user(value, user):
        return None
    node, bias = value.producer(), None
    if node is not None and node.op_type == "Add":
        left, right = node.inputs
        bias = _array(right)
        value = left if bias is not None else right
        bias = _array(left) if bias is None else bias
        if bias is None or bias.ndim != 1 or value is None or not _only_user(value, node):
            return None
        node = value.producer()
    if node is None or node.op_type != "MatMul":
        return None
    source, weights = node.inputs[0], _array(node.inputs[1])
    if source is None or _rank(source) != 3 or weights is None or weights.ndim != 2:
        return None
    if bias is not None and bias.shape != weights.shape[1:]:
        return None
    return _Linear(source, weights, bias)


def _token_mask(scores: ir.Value, source: ir.Value) -> _Mask | None:
    """What a bias on the scores keeps, if it is zero there and hides every other token."""
    node = _before(scores, "Expand").producer()
    if node is None or node.op_type != "Where":
        return None
    keep, zero, fill = node.inputs[0], _array(node.inputs[1]), _array(node.inputs[2])
    if keep is None or zero is None or fill is None or zero.size != 1 or fill.size != 1:
        return None
    keep = _before(keep, "Expand")
    shape, wanted, low = keep.shape, source.shape, float(fill.item())
    if shape is None or wanted is None or len(shape) != 4 or [*shape[1:3]] != [1, 1]:
        return None
    same = _same(shape[0], wanted[0]) and _same(shape[3], wanted[1])
    # An infinite bias gives NaN for a row without any token, and the graph may expect that.
    if not same or float(zero.item()) != 0.0 or not np.finfo(np.float32).min <= low <= _MASKED:
        return None
    return _Mask(keep, low)


def _same(first: int | ir.SymbolicDim, second: int | ir.SymbolicDim) -> bool:
    """True if two axes are known to have one size."""
    known = isinstance(first, int) or first.value is not None
    return known and first == second


def _before(value: ir.Value, operator: str) -> ir.Value:
    node = value.producer()
    if node is None or node.op_type != operator or node.inputs[0] is None:
        return value
    return node.inputs[0] if _rank(node.inputs[0]) == _rank(value) else value


def _sum(first: Array | None, second: Array | None, weights: Array) -> Array:
    total: Array = np.zeros(weights.shape[1], weights.dtype)
    for bias in (first, second):
        total = total if bias is None else np.add(total, bias)
    return total


def _only_user(value: ir.Value, user: ir.Node) -> bool:
    return not value.is_graph_output() and all(use.node is user for use in value.uses())


def _initializer(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, const_value=tensor)
    value.dtype, value.shape = tensor.dtype, ir.Shape(array.shape)
    graph.register_initializer(value)
    return value


def _array(value: ir.Value | None) -> Array | None:
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def _rank(value: ir.Value) -> int | None:
    return None if value.shape is None else len(value.shape)


def _padded(inputs: Sequence[ir.Value | None], length: int) -> list[ir.Value | None]:
    return [*inputs, *[None] * (length - len(inputs))]

"""Int8 weights and activations, with ranges that calibration found."""

from collections.abc import Set as AbstractSet
from typing import Literal

import numpy as np
import onnx
import onnx_ir as ir

from headrace.errors import CheckError
from headrace_compiler.boundary import Translated, first_line
from headrace_compiler.finish import finish
from headrace_compiler.graph import Graph
from headrace_compiler.muted import muted
from headrace_compiler.quantizable import choose_nodes
from headrace_compiler.shield import shield
from headrace_compiler.steps.calibrate import Ranges

Activations = Literal["uint8", "int8"]
_VNNI = ("avx512_vnni", "avx_vnni")
_EXACT_OUTPUTS = ("Gemm",)
"""Operators that ONNX Runtime computes in int8 with an output in float32 as fast."""


def activation_types(
    instruction_sets: AbstractSet[str], architecture: str
) -> tuple[Activations, bool]:
    """The type of activations for a processor, and whether weights must keep to seven bits.

    Args:
        instruction_sets: As Linux names them, for example `avx512_vnni`.
        architecture: As `platform.machine()` names it.

    Returns:
        What `quantize_static` takes as `activations` and `reduce_range`. Without VNNI, x86 adds
        pairs of products in 16 bits, where eight-bit weights overflow.
    """
    if architecture in {"aarch64", "arm64"}:
        return "int8", False
    return "uint8", not instruction_sets & set(_VNNI)


def quantize_static(
    graph: Graph,
    ranges: Ranges,
    *,
    activations: Activations,
    reduce_range: bool,
    keep_float: frozenset[str] = frozenset(),
    only: frozenset[str] | None = None,
) -> Graph:
    """The graph with int8 weights, per channel, and pairs of quantization between the layers.

    Args:
        graph: As `prepare` returns it.
        ranges: Of this graph's activations.
        activations: Their type.
        reduce_range: Whether weights keep to seven bits.
        keep_float: Names of nodes that stay float32.
        only: Names of the only layers to quantize.

    Raises:
        CheckError: The graph cannot be quantized.
        ValueError: The ranges are another graph's, or there is no such node.
    """
    model = onnx.ModelProto.FromString(graph.content)
    nodes = choose_nodes(model, keep_float, only)
    _check(model, nodes, ranges, keep_float | (only or frozenset()))
    with Translated(_fault), muted():
        made = ir.from_proto(_quantized(model, nodes, ranges, activations, reduce_range))
        _restore_outputs(made)
        shield(made)
    return finish(made, graph)


def _check(
    model: onnx.ModelProto,
    nodes: list[onnx.NodeProto],
    ranges: Ranges,
    named: AbstractSet[str],
) -> None:
    strange = sorted(named - {node.name for node in model.graph.node})
    if strange:
        raise ValueError(f"there is no node '{strange[0]}' in the graph")
    known = {each.name for each in ranges.tensors}
    constant = {tensor.name for tensor in model.graph.initializer}
    for node in nodes:
        if not known.issuperset({*node.input[:1], *node.output} - constant):
            raise ValueError(f"the ranges lack those of node '{node.name}'")


def _quantized(
    model: onnx.ModelProto,
    nodes: list[onnx.NodeProto],
    ranges: Ranges,
    activations: Activations,
    reduce_range: bool,  # noqa: FBT001 - private
) -> onnx.ModelProto:
    from onnxruntime.quantization import QuantType  # noqa: PLC0415 - heavy
    from onnxruntime.quantization.calibrate import (  # noqa: PLC0415
        CalibrationMethod,
        TensorData,
        TensorsData,
    )
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer  # noqa: PLC0415
    from onnxruntime.quantization.quant_utils import add_infer_metadata  # noqa: PLC0415

    bounds = {
        each.name: TensorData(lowest=np.float32(each.low), highest=np.float32(each.high))
        for each in ranges.tensors
    }
    if not nodes:
        return model
    add_infer_metadata(model)  # `prepare` inferred the shapes
    quantizer = QDQQuantizer(
        model,
        per_channel=True,
        reduce_range=reduce_range,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8 if activations == "uint8" else QuantType.QInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, bounds),
        nodes_to_quantize=[node.name for node in nodes],
        nodes_to_exclude=[],
        op_types_to_quantize=sorted({node.op_type for node in nodes}),
        extra_options={"OpTypesToExcludeOutputQuantization": ["MatMul"]},
    )
    quantizer.quantize_model()
    made: onnx.ModelProto = quantizer.model.model
    return made


def _restore_outputs(model: ir.Model) -> None:
    """Lets the graph's outputs keep what a layer computed, where that costs nothing, in place.

    In 256 steps, the two highest of a thousand logits are often equal.
    """
    for place, value in enumerate(model.graph.outputs):
        quantize = _producer(value, "DequantizeLinear")
        source = None if quantize is None else _producer(quantize, "QuantizeLinear")
        node = None if source is None else source.producer()
        alone = source is not None and len(source.uses()) == 1
        if source is not None and alone and node is not None and node.op_type in _EXACT_OUTPUTS:
            source.shape, source.type = value.shape, value.type
            model.graph.outputs[place] = source


def _producer(value: ir.Value, operator: str) -> ir.Value | None:
    """The first input of the node that makes a value, if that node is such an operator."""
    node = value.producer()
    return node.inputs[0] if node is not None and node.op_type == operator else None


def _fault(error: BaseException) -> CheckError:
    return CheckError("graph.quantize", f"the graph cannot be quantized: {first_line(error)}")

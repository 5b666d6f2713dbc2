"""Static int8 quantization from given ranges."""

import functools
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from networks import columns_graph, pictures_graph, pixels, texts_graph, tokens
from transformations import answers, elsewhere, operators, optimized, similarity

from headrace_compiler.graph import Graph
from headrace_compiler.quantizable import Layer, quantizable
from headrace_compiler.steps.calibrate import Ranges, calibrate
from headrace_compiler.steps.prepare import prepare
from headrace_compiler.steps.quantize_static import activation_types, quantize_static


@functools.cache
def pictures() -> tuple[Graph, Ranges]:
    """The convolutional network and its ranges."""
    graph = prepare(pictures_graph())
    return graph, calibrate(graph, [pixels(32, seed) for seed in range(2)])["minmax"]


@functools.cache
def texts() -> tuple[Graph, Ranges]:
    """The transformer and its ranges."""
    graph = prepare(texts_graph())
    return graph, calibrate(graph, [tokens(8, 12, seed) for seed in range(2)])["minmax"]


def quantized(
    of: tuple[Graph, Ranges], keep: frozenset[str] = frozenset(), only: frozenset[str] | None = None
) -> Graph:
    """With uint8 activations and all eight bits of the weights."""
    graph, ranges = of
    return quantize_static(
        graph, ranges, activations="uint8", reduce_range=False, keep_float=keep, only=only
    )


def weights(graph: Graph) -> list[int]:
    """The largest magnitude of each int8 initializer with more than one axis."""
    arrays = [
        onnx.numpy_helper.to_array(tensor)
        for tensor in onnx.load_from_string(graph.content).graph.initializer
    ]
    return [
        int(np.abs(array.astype(np.int32)).max())
        for array in arrays
        if array.dtype == np.int8 and array.ndim > 1
    ]


def test_a_convolutional_network_runs_wholly_in_int8(tmp_path: Path) -> None:
    """ONNX Runtime fuses every layer, the activations, the sum and the pool."""
    graph, _ = pictures()
    made = quantized(pictures())
    assert (made.inputs, made.outputs) == (graph.inputs, graph.outputs)
    found = optimized(made, tmp_path)
    assert found["QLinearConv"] == 3
    assert (found["QLinearAdd"], found["QLinearGlobalAveragePool"], found["QGemm"]) == (1, 1, 1)
    assert found["Clip"] == found["Conv"] == found["DequantizeLinear"] == 0
    inputs = pixels(16, 9)
    assert similarity(answers(made, inputs)["scores"], answers(graph, inputs)["scores"]) > 0.99


def test_outputs_are_not_rounded_to_eight_bits() -> None:
    """The last layer gives what it computed: more than 256 values."""
    scores = answers(quantized(pictures()), pixels(64, 9))["scores"]
    assert len(np.unique(scores)) > 300


def test_a_transformer_runs_its_products_in_int8(tmp_path: Path) -> None:
    """Products with weights give float32 at once; attention and its mask stay float32."""
    graph, _ = texts()
    made = quantized(texts())
    found = optimized(made, tmp_path)
    assert found["MatMulIntegerToFloat"] == 4
    inputs = tokens(4, 12, 9)
    assert similarity(answers(made, inputs)["vectors"], answers(graph, inputs)["vectors"]) > 0.99


def test_weights_have_a_scale_for_each_channel_and_may_keep_to_seven_bits() -> None:
    """Without VNNI, sums of eight-bit products overflow: the range is halved."""
    graph, ranges = pictures()
    full, reduced = (
        weights(quantize_static(graph, ranges, activations="uint8", reduce_range=reduce))
        for reduce in (False, True)
    )
    assert len(full) == 4
    assert max(full) >= 127
    assert max(reduced) <= 64
    model = onnx.load_from_string(quantized(pictures()).content)
    scales = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    found = [node for node in model.graph.node if node.op_type == "DequantizeLinear"]
    kernels = [node for node in found if len(scales.get(node.input[0], ())) > 1]
    assert len(kernels) == 4
    assert all(len(scales[node.input[1]]) == 1 for node in kernels)


@pytest.mark.parametrize("activations", ["uint8", "int8"])
def test_activations_have_the_type_asked_for(activations: str) -> None:
    """Every zero point of an activation is of it."""
    graph, ranges = pictures()
    made = quantize_static(
        graph,
        ranges,
        activations="uint8" if activations == "uint8" else "int8",
        reduce_range=False,
    )
    model = onnx.load_from_string(made.content)
    kinds = {
        tensor.name: onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).name
        for tensor in model.graph.initializer
    }
    found = {kinds[node.input[2]] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    assert found == {activations}


def test_layers_can_be_listed() -> None:
    """By name and operator, in the order in which they run."""
    graph, _ = pictures()
    layers = quantizable(graph)
    assert [layer.operator for layer in layers] == ["Conv", "Conv", "Conv", "Gemm"]
    names = [node.name for node in onnx.load_from_string(graph.content).graph.node]
    assert [names.index(layer.node) for layer in layers] == sorted(
        names.index(layer.node) for layer in layers
    )
    assert [layer.operator for layer in quantizable(texts()[0])] == ["MatMul"] * 4


@pytest.mark.parametrize("place", range(4))
def test_a_layer_can_be_kept_float(place: int, tmp_path: Path) -> None:
    """It is float32 in the graph, and ONNX Runtime leaves it float32 when it loads it."""
    layer = quantizable(pictures()[0])[place]
    made = quantized(pictures(), keep=frozenset({layer.node}))
    assert len(weights(made)) == 3
    found = optimized(made, tmp_path)
    assert found["QLinearConv"] + found["QGemm"] == 3
    assert found[layer.operator] + found[f"Fused{layer.operator}"] == 1


def test_a_layer_kept_float_computes_what_its_graph_says() -> None:
    """With and without ONNX Runtime's optimizations the answers are the same."""
    layer = quantizable(pictures()[0])[1]
    made = quantized(pictures(), keep=frozenset({layer.node}))
    plain = ort.SessionOptions()
    plain.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(made.content, plain, providers=["CPUExecutionProvider"])
    inputs = pixels(8, 9)
    wanted = session.run(["scores"], dict(inputs))[0]
    # Where a value lies between two steps, the order of a sum decides: a few may differ by one.
    assert similarity(answers(made, inputs)["scores"], wanted) > 0.9999


def test_one_layer_can_be_quantized_alone() -> None:
    """For each layer; the others stay as they are, and none of them gives the graph itself."""
    graph, _ = pictures()
    inputs = pixels(8, 9)
    wanted = answers(graph, inputs)["scores"]
    for layer in quantizable(graph):
        made = quantized(pictures(), only=frozenset({layer.node}))
        assert len(weights(made)) == 1
        got = answers(made, inputs)["scores"]
        assert 0.99 < similarity(got, wanted) < 1 - 1e-9
    none = quantized(pictures(), only=frozenset())
    assert np.array_equal(answers(none, inputs)["scores"], wanted)
    assert operators(none)["QuantizeLinear"] == 0


def test_unknown_nodes_and_foreign_ranges_are_refused() -> None:
    """Both are mistakes of the caller."""
    graph, _ = pictures()
    with pytest.raises(ValueError, match="no node 'nowhere'"):
        quantized(pictures(), keep=frozenset({"nowhere"}))
    columns = prepare(columns_graph())
    with pytest.raises(ValueError, match="the ranges lack"):
        quantized((columns, pictures()[1]))
    with pytest.raises(ValueError, match="the ranges lack"):
        quantized((graph, Ranges(method="minmax", tensors=())))


def test_quantizing_is_deterministic(tmp_path: Path) -> None:
    """The same graph and samples give the same bytes, in this process and in another."""
    graph, _ = pictures()
    made = quantized(pictures(), keep=frozenset({quantizable(graph)[1].node}))
    imports = (
        "from headrace_compiler.quantizable import quantizable\n"
        "from headrace_compiler.steps.calibrate import calibrate\n"
        "from headrace_compiler.steps.quantize_static import quantize_static\n"
        "def batch(seed):\n"
        "    generator = np.random.default_rng(seed)\n"
        "    return {'pixels': generator.standard_normal((32, 3, 16, 16), dtype=np.float32)}\n"
    )
    expression = (
        "quantize_static(graph, calibrate(graph, map(batch, range(2)))['minmax'],"
        " activations='uint8', reduce_range=False,"
        " keep_float=frozenset({quantizable(graph)[1].node}))"
    )
    assert elsewhere(graph, imports, expression, tmp_path) == made.content


@pytest.mark.parametrize(
    ("sets", "architecture", "types"),
    [
        ({"avx512f", "avx512_vnni"}, "x86_64", ("uint8", False)),
        ({"avx2", "avx_vnni"}, "x86_64", ("uint8", False)),
        ({"avx2"}, "x86_64", ("uint8", True)),
        ({"asimddp"}, "aarch64", ("int8", False)),
    ],
)
def test_types_follow_the_processor(
    sets: set[str], architecture: str, types: tuple[str, bool]
) -> None:
    """Only x86 without VNNI needs weights of seven bits."""
    assert activation_types(sets, architecture) == types


def test_layers_are_plain_data() -> None:
    """Two of one name and operator are equal."""
    assert Layer("a", "Conv") == Layer("a", "Conv")

"""Dynamic int8 quantization."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import columns, columns_graph, texts_graph, tokens
from transformations import answers, elsewhere, operators, similarity

from headrace_compiler.graph import Graph
from headrace_compiler.steps.fuse import fuse
from headrace_compiler.steps.quantize_dynamic import quantize_dynamic


def quantized(graph: Graph, *, reduce_range: bool = False) -> Graph:
    """What quantizing gives, where there is something to quantize."""
    made = quantize_dynamic(graph, reduce_range=reduce_range)
    assert made is not None
    return made


def fused(graph: Graph) -> Graph:
    """The graph with its attention fused."""
    made = fuse(graph)
    assert made is not None
    return made


def test_products_with_weights_are_quantized() -> None:
    """Four products of a transformer; those inside the attention have no weights."""
    graph = texts_graph()
    made = quantized(graph)
    assert operators(made)["MatMulInteger"] == 4
    assert operators(made)["MatMul"] == 2
    assert (made.inputs, made.outputs) == (graph.inputs, graph.outputs)
    for rows, length in ((1, 7), (3, 12)):
        inputs = tokens(rows, length)
        wanted, got = answers(graph, inputs)["vectors"], answers(made, inputs)["vectors"]
        assert similarity(got, wanted) > 0.99


def test_a_fused_attention_is_quantized_as_one() -> None:
    """Its mask still hides what it hides."""
    graph = texts_graph()
    made = quantized(fused(graph))
    assert (operators(made)["QAttention"], operators(made)["MatMulInteger"]) == (1, 3)
    inputs = tokens(3, 12)
    wanted, got = answers(graph, inputs)["vectors"], answers(made, inputs)["vectors"]
    assert similarity(got, wanted) > 0.99
    hidden = {**inputs, "ids": np.where(inputs["mask"] == 1, inputs["ids"], 3)}
    # What is hidden still takes part in the range that one tensor has.
    assert similarity(answers(made, hidden)["vectors"], got) > 0.999


def test_an_attention_with_more_than_a_mask_stays_float() -> None:
    """Int8 attention has no input for a bias on the scores; the quantizer would just drop it."""
    graph = fused(texts_graph())
    model = onnx.load_from_string(graph.content)
    node = next(node for node in model.graph.node if node.op_type == "Attention")
    scores = onnx.numpy_helper.from_array(np.zeros((1, 1, 7, 7), np.float32), "scores")
    model.graph.initializer.append(scores)
    del node.input[3:]
    node.input.extend(["", "", "scores"])
    biased = Graph(model.SerializeToString(), graph.inputs, graph.outputs)
    made = quantized(biased)
    assert (operators(made)["QAttention"], operators(made)["Attention"]) == (0, 1)
    inputs = tokens(3, 7)
    assert similarity(answers(made, inputs)["vectors"], answers(biased, inputs)["vectors"]) > 0.99


def test_linear_layers_of_rows_are_quantized() -> None:
    """The exporter gives them as Gemm, and their weights have a scale for each column."""
    graph = columns_graph()
    made = quantized(graph)
    assert (operators(made)["MatMulInteger"], operators(made)["Gemm"]) == (2, 0)
    inputs = columns(8)
    assert similarity(answers(made, inputs)["scores"], answers(graph, inputs)["scores"]) > 0.99
    sizes = [
        tensor.dims[0]
        for tensor in onnx.load_from_string(made.content).graph.initializer
        if tensor.name.endswith("_scale") and tensor.dims
    ]
    assert sorted(sizes) == [10, 64]


def test_weights_may_keep_to_seven_bits() -> None:
    """For processors without VNNI."""
    model = onnx.load_from_string(quantized(columns_graph(), reduce_range=True).content)
    arrays = [onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    weights = [array for array in arrays if array.dtype == np.int8 and array.ndim == 2]
    assert len(weights) == 2
    assert all(np.abs(array.astype(np.int32)).max() <= 64 for array in weights)


def test_where_there_is_nothing_to_quantize_there_is_no_graph() -> None:
    """A graph without products has nothing to quantize."""
    graph = columns_graph()
    x, y = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", size])
        for name, size in (("columns", 64), ("scores", 64))
    )
    body = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["columns"], ["scores"])], "g", [x], [y]
    )
    model = onnx.helper.make_model(
        body, ir_version=10, opset_imports=[onnx.helper.make_opsetid("", 20)]
    )
    output = graph.outputs[0].model_copy(update={"shape": ("batch", 64)})
    assert quantize_dynamic(Graph(model.SerializeToString(), graph.inputs, (output,))) is None


@pytest.mark.parametrize("whole", [False, True])
def test_quantizing_is_deterministic(tmp_path: Path, *, whole: bool) -> None:
    """The same graph gives the same bytes, in this process and in another."""
    graph = fused(texts_graph()) if whole else texts_graph()
    made = quantized(graph)
    assert made == quantized(graph)
    imports = "from headrace_compiler.steps.quantize_dynamic import quantize_dynamic"
    assert elsewhere(graph, imports, "quantize_dynamic(graph)", tmp_path) == made.content

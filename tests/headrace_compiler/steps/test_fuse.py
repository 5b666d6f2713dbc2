"""Fusing attention, layer norms and GELU in graphs of the dynamo exporter."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from networks import columns_graph, pictures_graph, texts_graph, tokens
from transformations import answers, distance, elsewhere, operators

from headrace_compiler.graph import Graph
from headrace_compiler.loading import importable, load_recipe
from headrace_compiler.steps.capture import capture
from headrace_compiler.steps.export import Exportable, export
from headrace_compiler.steps.fuse import fuse, has_attention
from headrace_compiler.steps.samples import draw_samples
from headrace_compiler.steps.simplify import simplify

MINILM = Path(__file__).parents[3] / "examples" / "sentence_embedding" / "recipe.py"
SIZES = ((1, 7), (3, 7), (4, 1), (2, 33))


def fused(graph: Graph) -> Graph:
    """What fusing gives, where there is something to fuse."""
    made = fuse(graph)
    assert made is not None
    return made


@pytest.mark.parametrize("packed", [True, False])
def test_attention_is_fused_with_its_projections(*, packed: bool) -> None:
    """Whether projected at once or by three layers, and with a mask, in any length."""
    graph = texts_graph(packed=packed)
    made = fused(graph)
    found = operators(made)
    assert (found["Attention"], found["SkipLayerNormalization"], found["BiasGelu"]) == (1, 2, 1)
    assert found["Softmax"] == found["MultiHeadAttention"] == 0
    assert (made.inputs, made.outputs) == (graph.inputs, graph.outputs)
    for rows, length in SIZES:
        inputs = tokens(rows, length)
        wanted, got = (answers(each, inputs)["vectors"] for each in (graph, made))
        assert distance(got, wanted) < 1e-5


def test_a_mask_that_is_not_by_token_keeps_its_attention_apart() -> None:
    """Causal attention is fused without its projections, and a GELU of tanh stays one of tanh."""
    graph = texts_graph(masked=False, causal=True, approximate="tanh")
    made = fused(graph)
    found = operators(made)
    assert (found["MultiHeadAttention"], found["Attention"]) == (1, 0)
    assert (found["Gelu"], found["BiasGelu"], found["FastGelu"]) == (1, 0, 0)
    for rows, length in SIZES:
        inputs = tokens(rows, length)
        wanted, got = answers(graph, inputs)["vectors"], answers(made, inputs)["vectors"]
        assert distance(got, wanted) < 1e-5


def test_an_additive_mask_is_not_taken_for_one_by_token() -> None:
    """A mask whose two values are not zero and a very low number is added as it is."""
    model = onnx.load_from_string(texts_graph().content)
    low = [
        tensor
        for tensor in model.graph.initializer
        if np.any(onnx.numpy_helper.to_array(tensor) == np.finfo(np.float32).min)
    ]
    assert len(low) == 1
    low[0].CopyFrom(onnx.numpy_helper.from_array(np.array(-2.0, np.float32), low[0].name))
    graph = texts_graph()
    soft = Graph(model.SerializeToString(), graph.inputs, graph.outputs)
    made = fused(soft)
    assert operators(made)["MultiHeadAttention"] == 1
    inputs = tokens(3, 7)
    wanted, got = answers(soft, inputs)["vectors"], answers(made, inputs)["vectors"]
    assert distance(got, wanted) < 1e-5


def test_a_projection_that_is_read_elsewhere_is_not_swallowed() -> None:
    """What an attention projects may also be an output of the graph."""
    graph = texts_graph()
    model = ir.from_proto(onnx.load_from_string(graph.content))
    split = next(node for node in model.graph if node.op_type == "Split")
    model.graph.outputs.append(split.outputs[1])
    content = ir.to_proto(model).SerializeToString()
    spec = graph.outputs[0].model_copy(update={"name": str(split.outputs[1].name)})
    both = Graph(content, graph.inputs, (*graph.outputs, spec))
    made = fused(both)
    assert operators(made)["MultiHeadAttention"] == 1
    inputs = tokens(3, 7)
    wanted, got = answers(both, inputs), answers(made, inputs)
    assert all(distance(got[name], wanted[name]) < 1e-5 for name in wanted)


def test_where_there_is_nothing_to_fuse_there_is_no_graph() -> None:
    """Neither a convolutional network nor layers of columns have anything to fuse."""
    assert fuse(pictures_graph()) is None
    assert fuse(columns_graph()) is None


def test_attention_tells_transformers() -> None:
    """A graph in which an attention was found is a transformer's."""
    assert has_attention(fuse(texts_graph()))
    assert has_attention(fuse(texts_graph(masked=False, causal=True, approximate="tanh")))
    assert not has_attention(fuse(columns_graph()))


def test_fusing_is_deterministic(tmp_path: Path) -> None:
    """The same graph gives the same bytes, in this process and in another."""
    graph = texts_graph()
    made = fused(graph)
    assert made == fused(graph)
    imports = "from headrace_compiler.steps.fuse import fuse"
    assert elsewhere(graph, imports, "fuse(graph)", tmp_path) == made.content


def test_all_attentions_of_minilm_are_fused() -> None:
    """Six layers of six: 6 attentions, 12 layer norms and 6 GELUs."""
    with importable(MINILM.parent):
        recipe = load_recipe(MINILM)
        samples = draw_samples(recipe, MINILM.parent)
        source = capture(recipe, MINILM.parent, samples)
        graph = simplify(export(Exportable(recipe, MINILM.parent, source)))
    made = fused(graph)
    assert operators(made) & Counter(Attention=9, SkipLayerNormalization=99, BiasGelu=9) == Counter(
        Attention=6, SkipLayerNormalization=12, BiasGelu=6
    )
    inputs = samples.inputs[3]
    for inputs in samples.inputs[:4]:
        wanted, got = (answers(each, inputs)["sentence_embedding"] for each in (graph, made))
        assert distance(got, wanted) < 1e-5

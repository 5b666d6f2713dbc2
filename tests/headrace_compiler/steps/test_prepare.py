"""Bringing graphs into the form that quantization starts from."""

import onnx
from networks import pictures_graph, pixels, texts_graph
from transformations import answers, distance, operators

from headrace_compiler.graph import Graph
from headrace_compiler.steps.prepare import prepare


def test_a_mean_over_a_picture_becomes_a_pool() -> None:
    """The function stays, and so do names and axes."""
    graph = pictures_graph()
    made = prepare(graph)
    assert operators(graph)["ReduceMean"] == operators(made)["GlobalAveragePool"] == 1
    assert operators(made)["ReduceMean"] == 0
    assert (made.inputs, made.outputs) == (graph.inputs, graph.outputs)
    wanted, got = (answers(one, pixels(3))["scores"] for one in (graph, made))
    assert distance(got, wanted) < 1e-5


def test_a_mean_that_drops_its_axes_becomes_a_pool_too() -> None:
    """Without keepdims, what the pool gives is flattened."""
    model = onnx.load_from_string(pictures_graph().content)
    mean = next(node for node in model.graph.node if node.op_type == "ReduceMean")
    reshape = next(node for node in model.graph.node if node.input[0] == mean.output[0])
    assert reshape.op_type == "Reshape"
    keepdims = next(each for each in mean.attribute if each.name == "keepdims")
    keepdims.i = 0
    mean.output[0] = reshape.output[0]
    model.graph.node.remove(reshape)
    del model.graph.value_info[:]
    graph = Graph(model.SerializeToString(), pictures_graph().inputs, pictures_graph().outputs)
    made = prepare(graph)
    assert (operators(made)["GlobalAveragePool"], operators(made)["Flatten"]) == (1, 1)
    wanted, got = (answers(one, pixels(3))["scores"] for one in (graph, made))
    assert distance(got, wanted) < 1e-5


def test_every_node_has_a_name_and_every_value_a_type() -> None:
    """Names are unique also where the graph had none, and preparing twice changes nothing."""
    model = onnx.load_from_string(texts_graph().content)
    for node in model.graph.node:
        node.name = ""
    del model.graph.value_info[:]
    graph = Graph(model.SerializeToString(), texts_graph().inputs, texts_graph().outputs)
    made = prepare(graph)
    after = onnx.load_from_string(made.content).graph
    names = [node.name for node in after.node]
    assert all(names)
    assert len(set(names)) == len(names)
    typed = {value.name for value in (*after.value_info, *after.output)}
    assert {name for node in after.node for name in node.output} <= typed
    assert prepare(made) == made == prepare(graph)

"""Half precision."""

from pathlib import Path

import numpy as np
import onnx
from networks import pictures_graph, pixels, texts_graph, tokens
from transformations import answers, distance, elsewhere

from headrace_compiler.steps.half import half


def test_weights_are_halves_and_inputs_and_outputs_are_not() -> None:
    """The convolutional network computes nearly the same, in half the bytes."""
    graph = pictures_graph()
    made = half(graph)
    assert (made.inputs, made.outputs) == (graph.inputs, graph.outputs)
    model = onnx.load_from_string(made.content)
    kinds = {tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) > 1}
    assert kinds == {onnx.TensorProto.FLOAT16}
    assert {
        value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)
    } == {onnx.TensorProto.FLOAT}
    wanted, got = (answers(one, pixels(4))["scores"] for one in (graph, made))
    assert got.dtype == np.float32
    assert distance(got, wanted) < 0.02 * np.abs(wanted).max()


def test_a_mask_still_hides_in_half_precision() -> None:
    """The lowest float32, which masks with, becomes the lowest float16 and no NaN."""
    graph = texts_graph()
    made = half(graph)
    inputs = tokens(3, 9)
    wanted, got = (answers(one, inputs)["vectors"] for one in (graph, made))
    assert np.isfinite(got).all()
    assert distance(got, wanted) < 0.02 * np.abs(wanted).max()


def test_halving_is_deterministic(tmp_path: Path) -> None:
    """The same graph gives the same bytes, in this process and in another."""
    graph = pictures_graph()
    imports = "from headrace_compiler.steps.half import half"
    assert elsewhere(graph, imports, "half(graph)", tmp_path) == half(graph).content

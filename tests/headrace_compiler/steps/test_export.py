"""Exporting to ONNX: names, axes, and what is said of models that do not fit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from headrace.engine.session import OrtSession
from headrace.errors import UsageError
from headrace.tensors import TensorSpec

Export = Callable[..., Any]
LABEL = '[TensorSpec(name="x", datatype="FP32", shape=("n", 8))]'


def refusal(exported: Export, **parts: str) -> UsageError:
    """The error that exporting the recipe raises."""
    with pytest.raises(UsageError) as caught:
        exported(**parts)
    return caught.value


def test_the_graph_has_the_declared_names_and_axes(exported: Export) -> None:
    """Inputs, outputs and the batch axis go by the recipe's names, in the graph as in the specs."""
    graph = exported(more="outputs=('scores',),").graph
    assert graph.inputs == (TensorSpec(name="x", datatype="FP32", shape=("batch", 8)),)
    assert graph.outputs == (TensorSpec(name="scores", datatype="FP32", shape=("batch", 4)),)
    model = onnx.load_from_string(graph.content)
    shape = model.graph.output[0].type.tensor_type.shape
    assert [axis.dim_param or axis.dim_value for axis in shape.dim] == ["batch", 4]


@pytest.mark.parametrize("name", ["linear", "linear.weight", "val_0", "relu", "mul"])
def test_an_output_may_bear_the_name_of_a_value_inside(exported: Export, name: str) -> None:
    """Where a public name clashes inside the graph, the inner value is renamed."""
    made = exported(
        forward="y = self.linear(x); z = torch.relu(y) * 2; return z + y",
        more=f"outputs=({name!r},),",
    )
    session = OrtSession(made.graph.content)
    inputs = made.samples.inputs[0]
    answer = session.run(inputs)
    assert list(answer) == [name]
    assert np.allclose(answer[name], made.source.run(inputs)[name], atol=1e-6)


def test_an_output_with_the_name_of_an_input_is_refused(exported: Export) -> None:
    """A dictionary whose key is an input's name cannot be told from the input."""
    assert "returns 'x', and that is the name of an input" in str(
        refusal(exported, forward="return {'x': self.linear(x)}")
    )


@pytest.mark.parametrize(
    ("forward", "outputs"),
    [
        ("return x", "('y',)"),
        ("return x, x", "('y', 'z')"),
        ("y = self.linear(x); return y, y", "('a', 'b')"),
    ],
)
def test_outputs_that_share_a_value_stay_apart(
    exported: Export, forward: str, outputs: str
) -> None:
    """An input handed through, and one value under two names, each come out under their names."""
    made = exported(
        forward=forward,
        inputs=LABEL,
        sample='yield {"x": np.ones((2, 8), np.float32)}',
        more=f"outputs={outputs},",
    )
    inputs = made.samples.inputs[0]
    expected = made.source.run(inputs)
    answer = OrtSession(made.graph.content).run(inputs)
    assert list(answer) == list(expected)
    assert all(np.allclose(answer[name], expected[name], atol=1e-6) for name in expected)


def test_several_inputs_and_axes(exported: Export) -> None:
    """Named axes keep their names, and one that the model derives gets a name of its own."""
    made = exported(
        forward="return x.sum(1), torch.cat([x, x], 1)",
        inputs='[TensorSpec(name="x", datatype="FP32", shape=("batch", "length", 8))]',
        sample='yield {"x": np.ones((1, 5, 8), np.float32)}',
        more="outputs=('total', 'twice'),",
    )
    assert [spec.shape for spec in made.graph.outputs] == [
        ("batch", 8),
        ("batch", "twice_axis1", 8),
    ]
    answer = OrtSession(made.graph.content).run({"x": np.ones((3, 9, 8), np.float32)})
    assert [array.shape for array in answer.values()] == [(3, 8), (3, 18, 8)]


def test_axes_that_must_be_equal_need_one_name(exported: Export) -> None:
    """Two names for axes that the model takes of one size only are refused."""
    error = refusal(
        exported,
        arguments="x, y",
        forward="return x + y",
        sample='yield {n: np.ones((1, 5), np.float32) for n in "xy"}',
        inputs='[TensorSpec(name=n, datatype="FP32", shape=("batch", n + "_n")) for n in "xy"]',
    )
    assert error.code == "model.equal-axes"
    assert "'x_n' and 'y_n'" in error.message


def test_nothing_tells_where_a_graph_was_made(exported: Export, tmp_path: Path) -> None:
    """Source paths, lines and metadata are stripped."""
    content = exported(forward="return torch.relu(self.linear(x))").graph.content
    assert str(tmp_path).encode() not in content
    assert b"recipe.py" not in content
    assert b"forward" not in content
    assert not onnx.load_from_string(content).metadata_props


def test_an_operator_without_counterpart_is_named(exported: Export) -> None:
    """The error names the operator and the user's line."""
    forward = "return torch.linalg.eigvals(x.reshape(-1, 2, 4) @ x.reshape(-1, 4, 2)).real + 1"
    error = refusal(exported, forward=forward)
    assert error.code == "model.operator"
    assert "aten.linalg_eig" in error.message
    assert f"recipe.py:15: {forward}" in error.message
    assert "\n" not in error.message


def test_an_output_that_cannot_be_served_is_refused(exported: Export) -> None:
    """Datatypes without a name in the protocol are refused."""
    error = refusal(exported, forward="return self.linear(x).to(torch.bfloat16)")
    assert error.code == "model.run"
    assert "BFloat16" in error.message


def test_postprocessing_must_fit_the_outputs(exported: Export) -> None:
    """Three labels for four classes are refused once the number of classes is known."""
    more = "outputs=('y',), postprocessing=TopK(output='y', k=2, labels=('a', 'b', 'c')),"
    error = refusal(exported, more=more)
    assert error.code == "recipe.processing"
    assert "3 labels for 4 classes" in error.message


def test_a_program_that_fixes_its_batch_is_refused(tmp_path: Path, exported: Export) -> None:
    """A .pt2 file exported without dynamic shapes does not fit a declared batch axis."""
    torch.export.save(torch.export.export(nn.ReLU(), (torch.ones(2, 8),)), tmp_path / "net.pt2")
    error = refusal(exported, model='"net.pt2"')
    assert error.code == "model.specialised"
    assert "fixes it to 2" in error.message


def onnx_file(path: Path, axes: list[str | int | None], **external: object) -> None:
    """Writes `y = x * 2` with an input of these axes."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, axes)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, axes)
    two = numpy_helper.from_array(np.full((8,), 2, np.float32), "two")
    node = helper.make_node("Mul", ["x", "two"], ["y"])
    graph = helper.make_graph([node], "g", [x], [y], [two])
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    onnx.save_model(model, path, **external)  # type: ignore[arg-type]


@pytest.mark.parametrize("axes", [["N", 8], [None, 8], ["N", "K"]])
def test_a_graph_gets_the_declared_axes(
    tmp_path: Path, exported: Export, axes: list[str | int | None]
) -> None:
    """Whatever an ONNX file calls its dynamic axes, the declared names are given to them."""
    onnx_file(tmp_path / "net.onnx", axes)
    made = exported(model='"net.onnx"')
    assert made.source.reference == "graph"
    assert made.graph.inputs[0].shape == ("batch", 8)
    assert made.graph.outputs[0].shape[0] == "batch"
    assert made.graph.outputs[0].name == "y"


def test_a_graph_must_fit_the_declaration(tmp_path: Path, exported: Export) -> None:
    """Fixed batches, other sizes, ranks and names of an ONNX file are refused."""
    onnx_file(tmp_path / "net.onnx", [2, 8])
    assert refusal(exported, model='"net.onnx"').code == "model.specialised"
    onnx_file(tmp_path / "net.onnx", ["N", 8])
    assert refusal(exported, model='"net.onnx"', more="outputs=('z',),").code == "recipe.outputs"
    renamed = '[TensorSpec(name="w", datatype="FP32", shape=("batch", 8))]'
    sample = 'yield {"w": np.ones((1, 8), np.float32)}'
    error = refusal(exported, model='"net.onnx"', inputs=renamed, sample=sample)
    assert error.code == "recipe.inputs"
    onnx_file(tmp_path / "net.onnx", ["N", 1, 8])
    assert refusal(exported, model='"net.onnx"').code == "model.run"


def test_external_data_must_lie_beside_the_graph(tmp_path: Path, exported: Export) -> None:
    """Weights in a file beside the graph are taken in; elsewhere, or missing, they are refused."""
    beside = {"save_as_external_data": True, "location": "w.bin", "size_threshold": 0}
    onnx_file(tmp_path / "net.onnx", ["N", 8], **beside)
    made = exported(model='"net.onnx"')
    assert made.source.outputs["y"].shape == (2, 8)
    (tmp_path / "w.bin").rename(tmp_path / "elsewhere.bin")
    assert refusal(exported, model='"net.onnx"').code == "model.external-data"
    OrtSession(made.graph.content)
    model = onnx.load(tmp_path / "net.onnx", load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = "../w.bin"
    onnx.save(model, tmp_path / "net.onnx")
    assert refusal(exported, model='"net.onnx"').code == "model.external-data"

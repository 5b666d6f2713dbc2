"""Simplifying a graph."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

from headrace.engine.session import OrtSession
from headrace.errors import CheckError
from headrace_compiler.graph import Graph
from headrace_compiler.steps.simplify import simplify

Export = Callable[..., Any]


def test_a_simplified_graph_is_smaller_and_computes_the_same(exported: Export) -> None:
    """Constants are folded and operators fused; names, axes and answers stay."""
    made = exported(
        forward="return self.linear(x.reshape(x.shape[0], 2, 4).flatten(1)) * (3.0 - 1.0) + 0.0",
        more="outputs=('linear',),",
    )
    graph = simplify(made.graph)
    before, after = (onnx.load_from_string(one.content) for one in (made.graph, graph))
    assert len(after.graph.node) < len(before.graph.node)
    assert (graph.inputs, graph.outputs) == (made.graph.inputs, made.graph.outputs)
    assert after.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    inputs = made.samples.inputs[0]
    expected = made.source.run(inputs)["linear"]
    assert np.allclose(OrtSession(graph.content).run(inputs)["linear"], expected, atol=1e-6)


def test_simplifying_twice_changes_nothing(exported: Export) -> None:
    """The same graph gives the same bytes, and a simple graph is left as it is."""
    made = exported(forward="return torch.relu(self.linear(x))")
    once = simplify(made.graph)
    assert once == simplify(made.graph)
    assert once == simplify(once)


def test_what_is_no_valid_graph_is_refused(exported: Export) -> None:
    """A graph that ONNX's checker refuses does not get into a bundle."""
    made = exported()
    model = onnx.load_from_string(made.graph.content)
    model.graph.node[0].op_type = "NoSuchOperator"
    broken = Graph(model.SerializeToString(), made.graph.inputs, made.graph.outputs)
    with pytest.raises(CheckError) as caught:
        simplify(broken)
    assert caught.value.code == "graph.invalid"
    assert "NoSuchOperator" in caught.value.message

"""What every transformation of a graph ends with."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from transformations import answers

from headrace_compiler.graph import Graph
from headrace_compiler.steps.half import half
from headrace_compiler.steps.prepare import prepare
from headrace_compiler.steps.simplify import simplify

Export = Callable[..., Any]
RECIPE = {
    "arguments": "a, b",
    "forward": "return self.linear(a) - 2 * self.linear(b)",
    "inputs": '[TensorSpec(name=n, datatype="FP32", shape=("batch", 8)) for n in ("b", "a")]',
    "sample": 'yield {n: generator.standard_normal((1, 8)).astype(np.float32) for n in ("a", "b")}',
    "more": "outputs=('y',),",
}


@pytest.mark.parametrize("step", [simplify, prepare, half])
def test_inputs_that_are_declared_in_another_order_are_not_exchanged(
    exported: Export, step: Callable[[Graph], Graph]
) -> None:
    """A graph takes its inputs as the model's arguments stand; each keeps its own name."""
    made = exported(**RECIPE)
    inputs = made.samples.inputs[1]
    expected = made.source.run(inputs)["y"]
    found = answers(step(made.graph), inputs)["y"]
    assert np.allclose(found, expected, atol=2e-2)
    assert not np.allclose(found, -expected, atol=2e-2)

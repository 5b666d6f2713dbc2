"""Four-bit weights for large layers."""

from pathlib import Path

import pytest
from networks import columns, columns_graph, texts_graph
from transformations import answers, elsewhere, operators, similarity

from headrace_compiler.graph import Graph
from headrace_compiler.steps.quantize_weights import quantize_weights

WIDE = 1024
"""Of layers with 2**20 weights."""


def quantized(graph: Graph, block: int) -> Graph:
    """What quantizing gives, where there is something to quantize."""
    made = quantize_weights(graph, block=block)
    assert made is not None
    return made


@pytest.mark.parametrize("block", [32, 128])
def test_large_layers_are_quantized(block: int) -> None:
    """The file is smaller by what the large layer was, and the small layer stays."""
    graph = columns_graph(WIDE)
    made = quantized(graph, block)
    assert (operators(made)["MatMulNBits"], operators(made)["MatMul"]) == (1, 1)
    assert (made.inputs, made.outputs) == (graph.inputs, graph.outputs)
    assert len(made.content) < 0.2 * len(graph.content)
    inputs = columns(8, WIDE)
    assert similarity(answers(made, inputs)["scores"], answers(graph, inputs)["scores"]) > 0.98


def test_without_large_layers_there_is_no_graph() -> None:
    """Small layers are not worth it."""
    assert quantize_weights(columns_graph()) is None
    assert quantize_weights(texts_graph()) is None


def test_quantizing_is_deterministic(tmp_path: Path) -> None:
    """The same graph gives the same bytes, in this process and in another."""
    graph = columns_graph(WIDE)
    made = quantized(graph, 32)
    imports = "from headrace_compiler.steps.quantize_weights import quantize_weights"
    assert elsewhere(graph, imports, "quantize_weights(graph)", tmp_path) == made.content

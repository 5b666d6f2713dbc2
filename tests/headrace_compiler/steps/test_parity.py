"""Parity between the graph and the source model."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from headrace.bundle.manifest import Parity, Tolerance
from headrace.errors import CheckError
from headrace.tensors import Array
from headrace_compiler import Budget
from headrace_compiler.graph import Graph
from headrace_compiler.recipe import Recipe
from headrace_compiler.source import Source
from headrace_compiler.steps.parity import BATCH_SIZES, answer_batches
from headrace_compiler.steps.parity import parity as compare_graph
from headrace_compiler.steps.samples import Samples

Export = Callable[..., Any]


def parity(recipe: Recipe, samples: Samples, source: Source, graph: Graph) -> Parity:
    """Runs the source model on the batches, and compares the graph with it."""
    references = answer_batches(recipe, samples, source)
    return compare_graph(references, source, graph, recipe.budget)


def test_a_faithful_graph_passes_at_every_batch_size(exported: Export) -> None:
    """The record holds the sizes that were compared and the largest error."""
    made = exported()
    found = parity(made.recipe, made.samples, made.source, made.graph)
    assert found.batch_sizes == BATCH_SIZES
    assert found.reference == "eager"
    assert 0 <= found.max_absolute_error < 1e-5


def test_a_branch_on_an_odd_batch_is_caught(exported: Export) -> None:
    """A branch that the capture fixed is wrong at other sizes; the first of them is named."""
    made = exported(
        forward="y = self.linear(x); return y if x.shape[0] % 2 == 0 else y * 3",
        more="outputs=('y',),",
    )
    with pytest.raises(CheckError) as caught:
        parity(made.recipe, made.samples, made.source, made.graph)
    assert caught.value.code == "parity.failed"
    for part in ("at batch size 1", "output 'y' at [0, ", "off by", "0.0001 + 0.001 of"):
        assert part in caught.value.message


def shifted(source: Source, place: tuple[int, int], by: float) -> Source:
    """A source whose third and later rows are off at one place."""

    def run(inputs: dict[str, Array]) -> dict[str, Array]:
        outputs = {name: array.copy() for name, array in source.run(inputs).items()}
        for array in outputs.values():
            if len(array) > place[0]:
                array[place] = by
        return outputs

    return replace(source, run=run)  # type: ignore[arg-type]


def test_a_failure_says_where_and_by_how_much(exported: Export) -> None:
    """One wrong element in one row of a batch is found and named."""
    made = exported(more="outputs=('y',),")
    source = shifted(made.source, (2, 1), 50.0)
    with pytest.raises(CheckError) as caught:
        parity(made.recipe, made.samples, source, made.graph)
    assert "at batch size 3, output 'y' at [2, 1] is" in caught.value.message
    assert "should be 50" in caught.value.message


def test_the_budget_decides(exported: Export) -> None:
    """The same error passes under a wide budget and fails under a narrow one."""
    made = exported(forward="return torch.tanh(self.linear(x * 3)).cumsum(1) * 50")
    narrow = Budget(parity=Tolerance(absolute=0.0, relative=0.0))
    assert parity(made.recipe, made.samples, made.source, made.graph).max_absolute_error > 0
    with pytest.raises(CheckError):
        parity(
            made.recipe.model_copy(update={"budget": narrow}),
            made.samples,
            made.source,
            made.graph,
        )


def test_another_shape_or_dtype_is_a_failure(exported: Export) -> None:
    """An answer of another dtype is not compared, but refused."""
    made = exported(more="outputs=('y',),")
    wide = replace(
        made.source,
        run=lambda inputs: {
            name: array.astype(np.float64) for name, array in made.source.run(inputs).items()
        },
    )
    with pytest.raises(CheckError, match="should be float64"):
        parity(made.recipe, made.samples, wide, made.graph)


def test_samples_of_other_shapes_are_compared_too(exported: Export) -> None:
    """Each further shape among the samples is run as it is."""
    made = exported(
        forward="return x.sum(1) if x.shape[1] % 2 == 0 else x.sum(1) + 9",
        inputs='[TensorSpec(name="x", datatype="FP32", shape=("batch", "length"))]',
        sample='yield {"x": np.ones((1, 4 + _), np.float32)}',
    )
    with pytest.raises(CheckError, match="at batch size 1, output 'output0'"):
        parity(made.recipe, made.samples, made.source, made.graph)


def test_a_model_without_a_batch_is_compared_on_its_samples(exported: Export) -> None:
    """Where no axis is the batch, every sample is run as it is."""
    made = exported(
        inputs='[TensorSpec(name="x", datatype="FP32", shape=(5, 8))]',
        sample='yield {"x": generator.standard_normal((5, 8)).astype(np.float32)}',
    )
    assert parity(made.recipe, made.samples, made.source, made.graph).batch_sizes == (5,)

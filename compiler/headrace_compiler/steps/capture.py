"""Turns what the recipe calls its model into something that computes and can be exported."""

from collections.abc import Mapping
from pathlib import Path

from headrace.tensors import Array
from headrace_compiler.batches import compose
from headrace_compiler.onnx_source import capture_graph
from headrace_compiler.recipe import Recipe
from headrace_compiler.source import Source, check_outputs
from headrace_compiler.steps.samples import Samples
from headrace_compiler.torch_source import capture_module, capture_program

ROWS = 2
"""Of the example batch: one row would pass for an axis that does not grow."""


def capture(recipe: Recipe, folder: Path, samples: Samples) -> Source:
    """Reads or makes the model, runs it once, and captures it.

    Args:
        folder: Of the recipe, to name the line at fault.

    Raises:
        UsageError: The model cannot be had, run or exported, or its outputs do not fit.
    """
    example = _example(recipe, samples)
    if not isinstance(recipe.model, str | Path):
        source = capture_module(recipe, folder, example)
    elif Path(recipe.model).suffix == ".pt2":
        source = capture_program(recipe, Path(recipe.model), example)
    else:
        source = capture_graph(recipe, Path(recipe.model), example)
    check_outputs(source.outputs, rows=ROWS if recipe.batched else None)
    return source


def _example(recipe: Recipe, samples: Samples) -> Mapping[str, Array]:
    return compose(samples.inputs, ROWS) if recipe.batched else samples.inputs[0]

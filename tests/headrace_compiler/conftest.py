"""Recipes of tiny models, written as files."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from headrace_compiler.graph import Graph
from headrace_compiler.loading import importable, load_recipe
from headrace_compiler.recipe import Recipe
from headrace_compiler.source import Source
from headrace_compiler.steps.capture import capture
from headrace_compiler.steps.export import Exportable, export
from headrace_compiler.steps.samples import Samples, draw_samples

WriteRecipe = Callable[..., Path]

_RECIPE = """
import numpy as np
import torch
from torch import nn

from headrace_compiler import *


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 4)

    def forward(self, {arguments}):
        {forward}


def samples():
    generator = np.random.default_rng(0)
    for _ in range(3):
        {sample}


recipe = Recipe(
    name="tiny",
    version="1.0",
    model={model},
    inputs={inputs},
    samples=samples,
    {more}
)
"""
_PARTS = {
    "arguments": "x",
    "forward": "return self.linear(x)",
    "sample": 'yield {"x": generator.standard_normal((1, 8)).astype(np.float32)}',
    "model": "Net",
    "inputs": '[TensorSpec(name="x", datatype="FP32", shape=("batch", 8))]',
    "more": "",
}


@pytest.fixture
def write_recipe(tmp_path: Path) -> WriteRecipe:
    """Writes a recipe of one linear layer, with the given parts of its text replaced."""

    def write(folder: Path = tmp_path, **parts: str) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "recipe.py"
        path.write_text(_RECIPE.format(**{**_PARTS, **parts}))
        return path

    return write


@dataclass(frozen=True)
class Exported:
    """A recipe with what the first three steps made of it."""

    recipe: Recipe
    samples: Samples
    source: Source
    graph: Graph


@pytest.fixture
def exported(write_recipe: WriteRecipe) -> Callable[..., Exported]:
    """Writes a recipe with the given parts, and runs the steps up to the export."""

    def run(**parts: str) -> Exported:
        path = write_recipe(**parts)
        with importable(path.parent):
            recipe = load_recipe(path)
            samples = draw_samples(recipe, path.parent)
            source = capture(recipe, path.parent, samples)
            return Exported(
                recipe, samples, source, export(Exportable(recipe, path.parent, source))
            )

    return run

"""The tiny model of the serving suites: so small that all but the model shows."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from headrace_compiler import Recipe, TensorSpec

SAMPLES = 3


def model() -> torch.nn.Module:
    """Two layers; float32 (batch, 64) in, (batch, 10) out; random weights."""
    return torch.nn.Sequential(
        torch.nn.Linear(64, 64),
        torch.nn.ReLU(),
        torch.nn.Linear(64, 10),
    )


def samples() -> Iterator[dict[str, npt.NDArray[np.float32]]]:
    """Rows of normally distributed numbers."""
    generator = np.random.default_rng(0)
    for _ in range(SAMPLES):
        yield {"x": generator.standard_normal((1, 64), np.float32)}


recipe = Recipe(
    name="tiny",
    version="1",
    description="A perceptron of 64, 64 and 10 units with random weights.",
    model=model,
    inputs=(TensorSpec(name="x", datatype="FP32", shape=("batch", 64)),),
    outputs=("y",),
    samples=samples,
)

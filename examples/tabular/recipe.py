"""A network trained here on a table: thirty measurements of cell nuclei in, benign or not out.

    headrace compile examples/tabular/recipe.py

The table is the Breast Cancer Wisconsin (Diagnostic) data set, which scikit-learn carries. The
columns differ in size by a factor of 100,000; the network holds their means and deviations, so that
clients send the numbers as they were measured.
"""

# ruff: noqa: TID251 - a recipe makes a torch module

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from sklearn.datasets import load_breast_cancer  # type: ignore[import-untyped]
from torch import nn
from torch.nn.functional import cross_entropy

from headrace.tensors import Array
from headrace_compiler import Budget, Recipe, TensorSpec, TopK

CLASSES = ("malignant", "benign")
COLUMNS = 30
STEPS, WIDTH = 200, 64
SAMPLES = 16


class Network(nn.Module):
    """Brings every column to mean 0 and deviation 1; then two hidden layers.

    Args:
        rows: What it is to be trained on: float32 (rows, 30).
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, rows: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", rows.mean(dim=0))
        self.register_buffer("deviation", rows.std(dim=0))
        self.layers = nn.Sequential(
            nn.Linear(COLUMNS, WIDTH),
            nn.ReLU(),
            nn.Linear(WIDTH, WIDTH),
            nn.ReLU(),
            nn.Linear(WIDTH, len(CLASSES)),
        )

    def forward(self, measurements: torch.Tensor) -> torch.Tensor:
        """float32 (batch, 30) to logits (batch, 2)."""
        logits: torch.Tensor = self.layers((measurements - self.mean) / self.deviation)
        return logits


def model() -> nn.Module:
    """A network that was trained on the first half of the table, in a second."""
    rows, classes = half(0)
    inputs, wanted = torch.from_numpy(rows), torch.from_numpy(classes)
    network = Network(inputs)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.1)
    for _ in range(STEPS):
        loss = cross_entropy(network(inputs), wanted)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch publishes no type for it
        optimizer.step()
    return network


def half(number: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Every second row, from row 0 or 1: measurements (rows, 30), and classes (rows,)."""
    table = load_breast_cancer()
    rows = slice(number, None, 2)
    return table.data[rows].astype(np.float32), table.target[rows].astype(np.int64)


def samples() -> Iterator[dict[str, Array]]:
    """Rows that were trained on, one a sample."""
    rows, _ = half(0)
    return ({"measurements": row[np.newaxis]} for row in rows[:SAMPLES])


def calibration() -> Iterator[dict[str, Array]]:
    """All rows that were trained on, one a sample."""
    rows, _ = half(0)
    return ({"measurements": row[np.newaxis]} for row in rows)


def evaluation() -> Iterator[tuple[dict[str, Array], Array]]:
    """The rows that were held out, with their classes."""
    rows, classes = half(1)
    yield {"measurements": rows}, classes


recipe = Recipe(
    name="breast-cancer",
    version="1",
    description="Tells malignant from benign by thirty measurements of cell nuclei.",
    model=model,
    inputs=(TensorSpec(name="measurements", datatype="FP32", shape=("batch", COLUMNS)),),
    outputs=("logits",),
    postprocessing=TopK(output="logits", k=2, labels=CLASSES),
    samples=samples,
    calibration=calibration,
    evaluation=evaluation,
    metric="f1",
    # 284 rows on which nothing changes still leave a loss of 3/284 open.
    budget=Budget(accuracy_loss=0.02),
)

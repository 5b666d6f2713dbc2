"""A network trained here on a table: thirty measurements of cell nuclei in, benign or not out.

    headrace compile examples/tabular/recipe.py

The table is the Breast Cancer Wisconsin (Diagnostic) data set, which scikit-learn carries. The
columns differ in size by a factor of 100,000; the bundle holds their means and deviations, so that
clients send the numbers as they were measured, one tensor a column.
"""

# ruff: noqa: TID251 - a recipe makes a torch module

from collections.abc import Iterator
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch
from sklearn.datasets import load_breast_cancer  # type: ignore[import-untyped]
from torch import nn
from torch.nn.functional import cross_entropy

from headrace.preprocess.table.reference import prepare
from headrace_compiler import Budget, Number, Recipe, TablePreprocessing, TensorSpec, TopK

TABLE = load_breast_cancer()
COLUMNS = tuple(str(name).replace(" ", "_") for name in TABLE.feature_names)
CLASSES = ("malignant", "benign")
STEPS, WIDTH = 200, 64
SAMPLES = 16


def half(number: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Every second row, from row 0 or 1: measurements (rows, 30), and classes (rows,)."""
    rows = slice(number, None, 2)
    return TABLE.data[rows], TABLE.target[rows].astype(np.int64)


def columns() -> Iterator[Number]:
    """Each brought to mean 0 and deviation 1 on the first half of the table."""
    rows, _ = half(0)
    for name, mean, std in zip(COLUMNS, rows.mean(axis=0), rows.std(axis=0), strict=True):
        yield Number(name=name, mean=float(mean), std=float(std))


PREPROCESSING = TablePreprocessing(columns=tuple(columns()), output="features")


def model() -> nn.Module:
    """A network that was trained on the first half of the table, in a second.

    float32 features (batch, 30) in, logits (batch, 2) out.
    """
    rows, classes = half(0)
    features = prepare(PREPROCESSING, dict(zip(COLUMNS, rows.T, strict=True)))
    inputs, wanted = torch.from_numpy(features), torch.from_numpy(classes)
    network = nn.Sequential(
        nn.Linear(len(COLUMNS), WIDTH),
        nn.ReLU(),
        nn.Linear(WIDTH, WIDTH),
        nn.ReLU(),
        nn.Linear(WIDTH, len(CLASSES)),
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.1)
    for _ in range(STEPS):
        loss = cross_entropy(network(inputs), wanted)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch publishes no type for it
        optimizer.step()
    return network


def measurements(number: int) -> Iterator[dict[str, float]]:
    """The rows of one half of the table, as clients send them."""
    rows, _ = half(number)
    return (dict(zip(COLUMNS, row, strict=True)) for row in rows.tolist())


def samples() -> Iterator[dict[str, float]]:
    """Rows that were trained on."""
    return islice(measurements(0), SAMPLES)


def calibration() -> Iterator[dict[str, float]]:
    """All rows that were trained on."""
    return measurements(0)


def evaluation() -> Iterator[tuple[dict[str, float], int]]:
    """The rows that were held out, with their classes."""
    _, classes = half(1)
    return zip(measurements(1), classes.tolist(), strict=True)


recipe = Recipe(
    name="breast-cancer",
    version="1",
    description="Tells malignant from benign by thirty measurements of cell nuclei.",
    model=model,
    inputs=(TensorSpec(name="features", datatype="FP32", shape=("batch", len(COLUMNS))),),
    outputs=("logits",),
    preprocessing=PREPROCESSING,
    postprocessing=TopK(output="logits", k=2, labels=CLASSES),
    samples=samples,
    calibration=calibration,
    evaluation=evaluation,
    metric="f1",
    # 284 rows on which nothing changes still leave a loss of 3/284 open.
    budget=Budget(accuracy_loss=0.02),
)

"""The model as the user gave it: what it computes, and what a graph is made from."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch.export import ExportedProgram

from headrace.errors import UsageError
from headrace.tensors import Array

Against = Literal["eager", "program", "graph"]
Run = Callable[[Mapping[str, Array]], dict[str, Array]]
"""Prepared tensors by name in, outputs by name out."""


@dataclass(frozen=True)
class Source:
    """A captured model.

    Attributes:
        reference: What `run` computes with: the eager module, the exported program, or the graph
            as it was given, unoptimised.
        run: The reference. It is what every variant is compared with.
        captured: What the graph is made from: a program, or the bytes of an ONNX model.
        inputs: The names of the captured arguments, in the order in which they enter.
        outputs: What `run` gave for the example batch, in the order in which they leave.
        weights: sha256 over names, dtypes, shapes and bytes of parameters and buffers.
    """

    reference: Against
    run: Run
    captured: ExportedProgram | bytes
    inputs: tuple[str, ...]
    outputs: Mapping[str, Array]
    weights: str


def digest_weights(weights: Iterable[tuple[str, str, tuple[int, ...], bytes]]) -> str:
    """sha256 over weights as (name, dtype, shape, bytes), sorted by name."""
    digest = hashlib.sha256()
    for name, dtype, shape, content in sorted(weights, key=lambda weight: weight[0]):
        digest.update(f"{name} {dtype} {list(shape)} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def check_outputs(outputs: Mapping[str, Array], *, rows: int | None) -> None:
    """Checks what a reference gave.

    Args:
        rows: Of the batch that went in; None where requests are not batched.

    Raises:
        UsageError: An output does not keep the rows apart, or is not finite.
    """
    for name, array in outputs.items():
        if rows is not None and array.shape[:1] != (rows,):
            raise UsageError(
                "model.rows",
                f"output '{name}' has shape {list(array.shape)} for a batch of {rows};"
                f" its first axis must be the batch",
                "let every output keep one row a request, or give the inputs' first axis"
                " another name than 'batch'",
            )
        if np.issubdtype(array.dtype, np.inexact) and not np.isfinite(array).all():
            raise UsageError(
                "model.not-finite",
                f"output '{name}' holds NaN or infinity on the recipe's samples",
                "look at the weights, and at the scale of the inputs",
            )


def name_outputs(declared: tuple[str, ...], found: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the outputs: as the recipe declares them, or else as the model has them.

    Raises:
        UsageError: The recipe declares another number of outputs than the model has.
    """
    if declared and len(declared) != len(found):
        raise UsageError(
            "recipe.outputs",
            f"the recipe declares {len(declared)} outputs ({', '.join(declared)}),"
            f" and the model returns {len(found)} ({', '.join(found)})",
        )
    return declared or found

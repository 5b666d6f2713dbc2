"""Compares the graph in ONNX Runtime with the source model, at several batch sizes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from headrace.bundle.manifest import Parity, Tolerance
from headrace.engine.session import OrtSession, Session
from headrace.errors import CheckError, InternalError
from headrace.tensors import Array
from headrace_compiler.batches import compose
from headrace_compiler.compare import compare
from headrace_compiler.graph import Graph
from headrace_compiler.recipe import Budget, Recipe
from headrace_compiler.source import Against, Source, check_outputs
from headrace_compiler.steps.samples import Samples

BATCH_SIZES = (1, 2, 3, 7)
"""One, even, odd and prime: models that fix a size, or branch on one, differ at some of them."""
WHOLE = 8
"""How many samples of different shapes are compared as they are."""
VARIANT = "fp32"


@dataclass(frozen=True)
class Reference:
    """What the source model answers to one batch."""

    rows: int
    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]


def answer_batches(recipe: Recipe, samples: Samples, source: Source) -> tuple[Reference, ...]:
    """Runs the source model on the samples, and on batches made of them.

    Raises:
        UsageError: It does not run at one of the sizes.
    """
    found = []
    for rows, inputs in _batches(samples, batched=recipe.batched):
        outputs = source.run(inputs)
        check_outputs(outputs, rows=rows if recipe.batched else None)
        found.append(Reference(rows, inputs, outputs))
    return tuple(found)


def parity(references: Sequence[Reference], source: Source, graph: Graph, budget: Budget) -> Parity:
    """Compares the graph's answers with the source model's.

    Raises:
        CheckError: An output differs by more than the budget.
    """
    session = OrtSession(graph.content, threads=1)
    try:
        largest = largest_error(session, references, budget.parity)
    except ValueError as error:
        raise CheckError(
            "parity.failed",
            f"the graph does not compute what the model computes: {error}",
            "a Python branch on a shape is fixed when the model is captured; if the model is right"
            " and the difference is rounding, widen the recipe's budget",
        ) from error
    return parity_record(VARIANT, source.reference, references, largest)


def parity_record(
    variant: str, against: Against, references: Sequence[Reference], largest: float
) -> Parity:
    """The record of a comparison."""
    return Parity(
        variant=variant,
        reference=against,
        batch_sizes=tuple(sorted({each.rows for each in references})),
        max_absolute_error=largest,
    )


def largest_error(session: Session, references: Sequence[Reference], tolerance: Tolerance) -> float:
    """The largest difference between a session's answers and the source model's.

    Raises:
        ValueError: One lies outside the tolerance, is no number, or has another shape or dtype;
            the message says where.
    """
    return max(
        compare_at(session, f"at batch size {each.rows}", each.inputs, each.outputs, tolerance)
        for each in references
    )


def compare_at(
    session: Session,
    where: str,
    inputs: Mapping[str, Array],
    expected: Mapping[str, Array],
    tolerance: Tolerance,
) -> float:
    """The largest difference of one answer; see `largest_error`."""
    try:
        worst = compare(expected, session.run(inputs), tolerance)
    except (ValueError, InternalError) as error:
        raise ValueError(f"{where}, {error}") from error
    if worst.excess > 0 or not np.isfinite(worst.error):
        raise ValueError(
            f"{where}, output '{worst.output}' at {list(worst.index)} is"
            f" {worst.got:.6g} and should be {worst.expected:.6g}: off by"
            f" {abs(worst.got - worst.expected):.3g}, more than {tolerance.absolute:g} +"
            f" {tolerance.relative:g} of the value"
        )
    return worst.error


def _batches(samples: Samples, *, batched: bool) -> Iterator[tuple[int, Mapping[str, Array]]]:
    """Batches of every size, then one sample of every further shape as it is."""
    seen = set()
    if batched:
        seen.add(_tails(samples.inputs[0]))
        for rows in BATCH_SIZES:
            yield rows, compose(samples.inputs, rows)
    for sample in samples.inputs:
        first = next(iter(sample.values()))
        if not batched or (_tails(sample) not in seen and len(seen) <= WHOLE):
            seen.add(_tails(sample))
            yield (first.shape[0] if first.ndim else 1), sample


def _tails(sample: Mapping[str, Array]) -> tuple[tuple[int, ...], ...]:
    return tuple(array.shape[1:] for array in sample.values())

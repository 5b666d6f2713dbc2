"""Compares the graph in ONNX Runtime with the source model, at several batch sizes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from headrace.bundle.manifest import Parity, Tolerance
from headrace.engine.session import OrtSession
from headrace.errors import CheckError, InternalError
from headrace.tensors import Array
from headrace_compiler.batches import compose
from headrace_compiler.compare import Worst, compare
from headrace_compiler.graph import Graph
from headrace_compiler.recipe import Budget, Recipe
from headrace_compiler.source import Source, check_outputs
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
    errors = [
        _compare(session, each.rows, each.inputs, each.outputs, budget.parity).error
        for each in references
    ]
    return Parity(
        variant=VARIANT,
        reference=source.reference,
        batch_sizes=tuple(sorted({each.rows for each in references})),
        max_absolute_error=max(errors),
    )


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


def _compare(
    session: OrtSession,
    rows: int,
    inputs: Mapping[str, Array],
    expected: Mapping[str, Array],
    tolerance: Tolerance,
) -> Worst:
    try:
        worst = compare(expected, session.run(inputs), tolerance)
    except (ValueError, InternalError) as error:
        raise _failed(f"at batch size {rows}, {error}") from error
    if worst.excess > 0:
        raise _failed(
            f"at batch size {rows}, output '{worst.output}' at {list(worst.index)} is"
            f" {worst.got:.6g} and should be {worst.expected:.6g}: off by"
            f" {abs(worst.got - worst.expected):.3g}, more than {tolerance.absolute:g} +"
            f" {tolerance.relative:g} of the value"
        )
    return worst


def _failed(what: str) -> CheckError:
    return CheckError(
        "parity.failed",
        f"the graph does not compute what the model computes: {what}",
        "a Python branch on a shape is fixed when the model is captured; if the model is right and"
        " the difference is rounding, widen the recipe's budget",
    )

"""Compares every draft with the source model, at several batch sizes and on the golden cases."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from headrace.bundle.golden import GoldenCase
from headrace.bundle.manifest import Parity, Tolerance
from headrace.errors import BundleError, InternalError, MissingError
from headrace_compiler.drafts import Draft, Workbench
from headrace_compiler.source import Against
from headrace_compiler.steps.parity import (
    Reference,
    compare_at,
    largest_error,
    parity_record,
)

_ANYTHING = Tolerance(absolute=float(np.finfo(np.float32).max), relative=0.0)


@dataclass(frozen=True)
class Proof:
    """How one draft compares with the source model.

    Attributes:
        parity: None where the draft does not run.
        golden_error: The largest absolute difference on the golden cases.
        placement: How many nodes of the graph each execution provider runs.
        fault: Why the draft may not be used; empty if it may.
    """

    draft: str
    parity: Parity | None
    golden_error: float
    placement: Mapping[str, int]
    fault: str


def prove(
    drafts: Sequence[Draft],
    references: Sequence[Reference],
    cases: Sequence[GoldenCase],
    against: Against,
    budget: Tolerance,
    bench: Workbench,
) -> tuple[Proof, ...]:
    """Runs each draft on one thread.

    Args:
        against: What the references come from.
        budget: Of drafts in float32; others are held to their accuracy later.
    """
    return tuple(_prove(draft, references, cases, against, budget, bench) for draft in drafts)


def _prove(
    draft: Draft,
    references: Sequence[Reference],
    cases: Sequence[GoldenCase],
    against: Against,
    budget: Tolerance,
    bench: Workbench,
) -> Proof:
    tolerance = budget if draft.precision == "fp32" else _ANYTHING
    try:
        session = bench.open(draft, threads=1)
        largest = largest_error(session, references, tolerance)
        golden = max(
            compare_at(session, f"on golden case {number}", case.inputs, case.outputs, tolerance)
            for number, case in enumerate(cases)
        )
    except (MissingError, BundleError, InternalError, ValueError) as error:
        return Proof(draft.name, None, 0.0, {}, str(error))
    parity = parity_record(draft.name, against, references, largest)
    return Proof(draft.name, parity, golden, dict(session.placement), "")

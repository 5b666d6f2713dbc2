"""Gathers what decides between drafts: proof, accuracy, time; and chooses."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from headrace.bundle.measurement import (
    Accuracy,
    Candidate,
    Dropped,
    Limits,
    Measurement,
    Selection,
    Sensitivity,
)
from headrace.errors import CheckError, InternalError, UsageError
from headrace.footprint import Footprint
from headrace.profile import Conditions, Instruments, time_candidates, typical_case
from headrace.selection import gates, ladder, refused, select
from headrace.timing import Request, Timings
from headrace_compiler.datasets import Data
from headrace_compiler.drafts import Draft, Workbench, on_both, on_openvino
from headrace_compiler.graph import Graph
from headrace_compiler.job import Job, Model, Runner
from headrace_compiler.metrics import Metric, Rows, accuracy, metric_of
from headrace_compiler.shipping import ship, shippable
from headrace_compiler.steps.evaluate import Answers, evaluate
from headrace_compiler.steps.prove import Proof, prove
from headrace_compiler.steps.restore import Search, Static, restore

T = TypeVar("T")

WHOLE = ("int8", "int8-openvino", "int8-nncf", "int8-nncf-openvino")
"""Drafts whose whole graph is in int8."""
MIXED = "int8-mixed"
"""The draft that keeps the budget with its worst layers in float."""


@dataclass(frozen=True)
class Evidence:
    """What is known of the drafts, and which of them become variants.

    Attributes:
        model: As it ships.
        kept: The fp32 graph and what was chosen, the most precise first.
        proofs: By draft.
        candidates: All drafts; empty where nothing was to be chosen.
        selection: None where nothing was measured.
        dropped: The candidates that a gate refused, where nothing was measured.
        data: What they were judged on.
    """

    model: Model
    kept: tuple[Draft, ...]
    proofs: Mapping[str, Proof]
    candidates: tuple[Candidate, ...] = ()
    selection: Selection | None = None
    sensitivity: tuple[Sensitivity, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    data: Data | None = None


def gather(
    run: Runner,
    job: Job,
    model: Model,
    drafts: Sequence[Draft],
    data: Data | None,
    static: Static | None,
) -> Evidence:
    """Proves, scores and times drafts, and selects.

    Args:
        drafts: The fp32 graph first.
        static: What the draft `int8` was quantized from, to find the layers that must stay float.
    """
    drafts = shippable(job, drafts)
    if job.replay is not None:
        return _replayed(run, job, model, drafts, data, static, job.replay)
    proofs = _prove(run, job, model, drafts)
    scores: dict[str, Accuracy] = {}
    sensitivity: tuple[Sensitivity, ...] = ()
    if data is not None:
        judge = _judge(run, job, model, drafts[0], data)
        scores, proofs = judge.score(drafts, proofs)
        mixed, sensitivity = judge.mend(static, scores)
        mixed = shippable(job, mixed)
        if mixed:
            drafts = [*drafts, *mixed]
            proofs = {**proofs, **_prove(run, job, model, mixed)}
            more, proofs = judge.score(mixed, proofs)
            scores = {**scores, **more}
    shipped, drafts = ship(run, job, model, drafts)
    candidates = [_candidate(draft, proofs[draft.name], scores.get(draft.name)) for draft in drafts]
    limits = job.recipe.budget.limits
    selection: Selection | None = None
    dropped: tuple[Dropped, ...] = ()
    if job.here:
        measures = _Measures(run, job.bench, drafts, shipped)
        candidates = time_candidates(candidates, limits, measures, proven=False)
        selection = select(candidates, limits)
        names = {*selection.chosen}
    else:
        timeless = Limits(accuracy_loss=limits.accuracy_loss)
        dropped = refused(candidates, gates(timeless, proven=False))
        names = {each.name for each in candidates} - {each.variant for each in dropped}
    kept = _in_order(drafts, {*names, drafts[0].name}, candidates)
    return Evidence(
        model=shipped,
        kept=kept,
        proofs=proofs if job.in_graph is None else _prove_shipped(run, job, shipped, kept),
        candidates=tuple(ladder(candidates)),
        selection=selection,
        sensitivity=sensitivity,
        dropped=dropped,
        data=data,
    )


def only(run: Runner, job: Job, model: Model, draft: Draft) -> Evidence:
    """A draft with nothing beside it, so that there is nothing to choose."""
    shipped, kept = ship(run, job, model, [draft])
    return Evidence(model=shipped, kept=kept, proofs=_prove(run, job, shipped, kept))


@dataclass(frozen=True)
class _Judge:
    """Scores drafts on the evaluation data.

    Attributes:
        answers: Of the fp32 graph.
        fp32: Its numbers, row by row.
    """

    run: Runner
    job: Job
    data: Data
    metric: Metric
    answers: Answers
    fp32: Rows

    def score(
        self, drafts: Sequence[Draft], proofs: Mapping[str, Proof]
    ) -> tuple[dict[str, Accuracy], dict[str, Proof]]:
        """The accuracy of every draft that runs; a draft that fails on a sample gets a fault."""
        scores, found = {}, dict(proofs)
        for draft in drafts:
            if proofs[draft.name].fault or draft.superseded:
                continue
            try:
                rows = self._rows(draft)
            except InternalError as error:
                found[draft.name] = replace(proofs[draft.name], fault=error.message)
            else:
                seed = self.job.recipe.seed
                scores[draft.name] = accuracy(self.metric, rows, self.fp32, seed=seed)
        return scores, found

    def _rows(self, draft: Draft) -> Rows:
        if draft == self.answers.fp32:
            return self.fp32
        step, bench = f"evaluate-{draft.name}", self.job.bench
        return self.run.cached(step, evaluate, self.metric, self.answers, draft, bench)

    def mend(
        self, static: Static | None, scores: Mapping[str, Accuracy]
    ) -> tuple[tuple[Draft, ...], tuple[Sensitivity, ...]]:
        """Where int8 throughout breaks the budget, a graph with its worst layers in float."""
        budget = self.job.recipe.budget
        whole = [each.loss_high for name, each in scores.items() if name in WHOLE]
        if static is None or "int8" not in scores or min(whole) <= budget.accuracy_loss:
            return (), ()
        search = Search(
            metric=self.metric,
            answers=self.answers,
            fp32=self.fp32,
            limit=budget.accuracy_loss,
            seconds=budget.search_seconds,
            seed=self.job.recipe.seed,
        )
        made = self.run.cached(
            "restore", restore, "int8", MIXED, static, self.data.calibration, search, self.job.bench
        )
        return _mixed(made.graph), (made.sensitivity,)


def _judge(run: Runner, job: Job, model: Model, fp32: Draft, data: Data) -> _Judge:
    names = tuple(spec.name for spec in model.graph.outputs)
    metric = metric_of(job.recipe, names, job.folder)
    answers = Answers(data.evaluation, fp32, job.bench, job.scratch / "answers")
    rows = run.cached("evaluate-fp32", evaluate, metric, answers, fp32, job.bench)
    return _Judge(run, job, data, metric, answers, rows)


def _mixed(graph: Graph | None) -> tuple[Draft, ...]:
    """A graph with some layers in int8, on both engines; in bf16 what is not in int8."""
    return () if graph is None else (*on_both(MIXED, graph), on_openvino(MIXED, graph))


@dataclass(frozen=True)
class Measured:
    """What is measured, and how; all that a time depends on but the machine's mood.

    Attributes:
        conditions: Of the workbench, whose own digest leaves out how thorough they are.
    """

    drafts: tuple[Draft, ...]
    request: Request
    conditions: Conditions
    bench: Workbench

    @property
    def names(self) -> list[str]:
        """Of the drafts."""
        return [draft.name for draft in self.drafts]

    def instruments(self) -> Instruments:
        """What measures them in this process."""
        files = {each.name: (self.bench.file(each.graph), each.variant()) for each in self.drafts}
        return Instruments(files, self.request, self.conditions, self.bench.told)


def race_drafts(measured: Measured) -> Timings:
    """Compares drafts; see `headrace.timing.race`."""
    return measured.instruments().race(measured.names)


def weigh_drafts(measured: Measured) -> Mapping[str, Footprint]:
    """What loading each draft costs."""
    return measured.instruments().weigh(measured.names)


def curve_drafts(measured: Measured) -> Timings:
    """The points beyond the race; see `headrace.timing.curves`."""
    return measured.instruments().curve(measured.names)


@dataclass(frozen=True)
class _Measures:
    """Times drafts; what was timed under equal conditions before is not timed again."""

    run: Runner
    bench: Workbench
    drafts: Sequence[Draft]
    model: Model

    @property
    def thorough(self) -> bool:
        """See `headrace.profile.Measures`."""
        return bool(self.bench.conditions.effort.curve)

    def race(self, names: Sequence[str]) -> Timings:
        """See `headrace.profile.Measures`."""
        return self._cached("race", race_drafts, names)

    def weigh(self, names: Sequence[str]) -> Mapping[str, Footprint]:
        """See `headrace.profile.Measures`."""
        return self._cached("weigh", weigh_drafts, names)

    def curve(self, names: Sequence[str]) -> Timings:
        """See `headrace.profile.Measures`."""
        return self._cached("curve", curve_drafts, names)

    def _cached(self, name: str, step: Callable[[Measured], T], names: Sequence[str]) -> T:
        by_name = {draft.name: draft for draft in self.drafts}
        inputs, batched = typical_case(self.model.cases).inputs, self.model.graph.batched
        measured = Measured(
            drafts=tuple(by_name[each] for each in names),
            request=Request(inputs, batched=batched),
            conditions=self.bench.conditions,
            bench=self.bench,
        )
        return self.run.cached(name, step, measured)


def _prove(run: Runner, job: Job, model: Model, drafts: Sequence[Draft]) -> dict[str, Proof]:
    found = run.cached(
        "prove",
        prove,
        tuple(drafts),
        tuple(model.references),
        model.cases,
        model.source.reference,
        job.recipe.budget.parity,
        job.bench,
    )
    return {proof.draft: proof for proof in found}


def _candidate(draft: Draft, proof: Proof, scored: Accuracy | None) -> Candidate:
    return Candidate(
        name=draft.name,
        precision=draft.precision,
        engine=draft.engine,
        arithmetic=draft.arithmetic,
        graph=draft.sha256,
        size=len(draft.graph.content),
        error=None if proof.fault else proof.golden_error,
        accuracy=scored,
        placement=dict(proof.placement),
        fault=proof.fault,
        superseded=draft.superseded,
    )


def _replayed(
    run: Runner,
    job: Job,
    model: Model,
    drafts: Sequence[Draft],
    data: Data | None,
    static: Static | None,
    recorded: Measurement,
) -> Evidence:
    """The variants that a recorded measurement chose, made anew."""
    wanted = {*recorded.selection.chosen, drafts[0].name}
    made = [*drafts]
    for found in recorded.sensitivity:
        if found.made and static is not None:
            restored = frozenset(layer.node for layer in found.layers if layer.restored)
            made += _mixed(static.quantize(keep_float=restored))
    missing = sorted(wanted - {draft.name for draft in made})
    if missing:
        raise UsageError(
            "replay.unknown",
            f"the recorded selection holds '{missing[0]}', which this recipe does not make here",
            "replay a bundle of the same recipe, target and kind of machine",
        )
    kept = tuple(draft for draft in made if draft.name in wanted)
    order = [each.name for each in recorded.candidates]
    kept = tuple(sorted(kept, key=lambda draft: order.index(draft.name)))
    shipped, kept = ship(run, job, model, kept)
    proofs = _prove_shipped(run, job, shipped, kept)
    return Evidence(model=shipped, kept=kept, proofs=proofs, data=data)


def _prove_shipped(
    run: Runner, job: Job, shipped: Model, kept: Sequence[Draft]
) -> dict[str, Proof]:
    """The proofs of what ships, which was chosen elsewhere or in another form.

    Raises:
        CheckError: Part of it fails here.
    """
    proofs = _prove(run, job, shipped, kept)
    for proof in proofs.values():
        if proof.fault:
            raise CheckError(
                "build.fault",
                f"'{proof.draft}' was chosen, and fails as it is to ship here: {proof.fault}",
                "replay a selection on a machine of the kind that made the record",
            )
    return proofs


def _in_order(
    drafts: Sequence[Draft], names: set[str], candidates: Sequence[Candidate]
) -> tuple[Draft, ...]:
    by_name = {draft.name: draft for draft in drafts}
    return tuple(by_name[each.name] for each in ladder(candidates) if each.name in names)

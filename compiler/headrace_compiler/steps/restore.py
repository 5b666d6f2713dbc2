"""Puts the layers that harm the most back to float, until the accuracy budget holds."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from headrace.bundle.measurement import LayerEffect, Sensitivity
from headrace.engine.session import OrtSession, Session
from headrace.tensors import Array
from headrace_compiler.datasets import Dataset
from headrace_compiler.drafts import Workbench
from headrace_compiler.graph import Graph
from headrace_compiler.metrics import Metric, Rows, accuracy
from headrace_compiler.quantizable import Layer, quantizable
from headrace_compiler.steps.calibrate import Ranges
from headrace_compiler.steps.evaluate import Answers, score
from headrace_compiler.steps.quantize_static import Activations, quantize_static

PROBED = 32
"""Samples of the calibration data on which a layer's effect is measured."""


@dataclass(frozen=True)
class Search:
    """What a search is given.

    Attributes:
        limit: Of the accuracy's loss, upper end.
        fp32: The metric's rows of the fp32 graph on the evaluation data.
        seconds: How long it may last.
        seed: Of the intervals.
    """

    metric: Metric
    answers: Answers
    fp32: Rows
    limit: float
    seconds: float
    seed: int

    @property
    def digest(self) -> str:
        """Of what decides its outcome; `fp32` follows from the answers."""
        parts = (self.metric.digest, self.answers.digest, self.limit, self.seconds, self.seed)
        return repr(parts)


@dataclass(frozen=True)
class Static:
    """What static quantization starts from.

    Attributes:
        graph: As `prepare` returns it.
        ranges: Of its activations.
        activations: Their type.
        reduce_range: Whether weights keep to seven bits.
    """

    graph: Graph
    ranges: Ranges
    activations: Activations
    reduce_range: bool

    def quantize(
        self, keep_float: frozenset[str] = frozenset(), only: frozenset[str] | None = None
    ) -> Graph:
        """See `quantize_static`."""
        return quantize_static(
            self.graph,
            self.ranges,
            activations=self.activations,
            reduce_range=self.reduce_range,
            keep_float=keep_float,
            only=only,
        )


@dataclass(frozen=True)
class Restored:
    """A graph that keeps the budget, if there is one, and how it was found."""

    graph: Graph | None
    sensitivity: Sensitivity


def restore(
    source: str,
    made: str,
    static: Static,
    calibration: Dataset,
    search: Search,
    bench: Workbench,
) -> Restored:
    """Ranks the layers by their effect on the metric, and restores the worst in growing groups.

    A layer's effect is that of quantizing it alone, on calibration data: the loss of the metric
    against the fp32 graph's own answers, and between layers that lose nothing, the error of the
    outputs. Groups double until the evaluation data shows the budget kept; then halving finds how
    few of the layers are enough.

    Args:
        source: The name of the draft that broke the budget.
        made: The name of the one that may come of it.
    """
    deadline = time.monotonic() + search.seconds
    effects, complete = _rank(static, calibration, search, bench, deadline)
    names = [effect.node for effect in effects]
    passed: dict[int, Graph] = {}

    def keeps(count: int) -> bool:
        tried = static.quantize(keep_float=frozenset(names[:count]))
        rows = score(search.metric, search.answers, _session(tried, bench))
        found = accuracy(search.metric, rows, search.fp32, seed=search.seed)
        if found.loss_high <= search.limit:
            passed[count] = tried
        return count in passed

    failed, count = 0, 1
    while count < len(names) and time.monotonic() < deadline and not keeps(count):
        failed, count = count, count * 2
    while passed and count - failed > 1 and time.monotonic() < deadline:
        middle = (failed + count) // 2
        failed, count = (failed, middle) if keeps(middle) else (middle, count)
    kept = min(passed) if passed else 0
    return Restored(
        graph=passed.get(kept),
        sensitivity=Sensitivity(
            source=source,
            made=made if passed else "",
            layers=tuple(
                effect.model_copy(update={"restored": place < kept})
                for place, effect in enumerate(effects)
            ),
            complete=complete and time.monotonic() < deadline,
        ),
    )


def _rank(
    static: Static,
    calibration: Dataset,
    search: Search,
    bench: Workbench,
    deadline: float,
) -> tuple[list[LayerEffect], bool]:
    """The layers, the most harmful first, and whether all of them were tried in time."""
    inputs = list(islice(calibration, PROBED))
    wanted = _run(_session(static.graph, bench), inputs)
    effects: list[LayerEffect] = []
    for layer in quantizable(static.graph):
        if time.monotonic() > deadline:
            return _sorted(effects), False
        alone = static.quantize(only=frozenset({layer.node}))
        found = _run(_session(alone, bench), inputs)
        effects.append(_effect(layer, search.metric, found, wanted))
    return _sorted(effects), True


def _effect(
    layer: Layer,
    metric: Metric,
    found: Sequence[Mapping[str, Array]],
    wanted: Sequence[Mapping[str, Array]],
) -> LayerEffect:
    pairs = list(zip(found, wanted, strict=True))
    ours = metric.total(np.concatenate([metric.of(ran, None, fp32) for ran, fp32 in pairs]))
    best = metric.total(np.concatenate([metric.of(fp32, None, fp32) for _, fp32 in pairs]))
    loss = float(best - ours) if metric.higher else float(ours - best)
    return LayerEffect(
        node=layer.node,
        operator=layer.operator,
        loss=loss,
        error=relative_error(found, wanted),
        restored=False,
    )


def relative_error(
    found: Sequence[Mapping[str, Array]], wanted: Sequence[Mapping[str, Array]]
) -> float:
    """The norm of the difference of all outputs over the norm of those wanted."""
    difference = total = 0.0
    for ours, theirs in zip(found, wanted, strict=True):
        for name, reference in theirs.items():
            wide = reference.astype(np.float64)
            difference += float(np.square(ours[name].astype(np.float64) - wide).sum())
            total += float(np.square(wide).sum())
    return float(np.sqrt(difference / max(total, 1e-30)))


def _sorted(effects: list[LayerEffect]) -> list[LayerEffect]:
    return sorted(effects, key=lambda effect: (-effect.loss, -effect.error, effect.node))


def _session(graph: Graph, bench: Workbench) -> Session:
    return OrtSession(graph.content, threads=bench.conditions.hardware.cores)


def _run(session: Session, inputs: Sequence[Mapping[str, Array]]) -> list[dict[str, Array]]:
    return [session.run(sample) for sample in inputs]

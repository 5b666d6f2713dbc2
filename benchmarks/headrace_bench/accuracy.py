"""Whether head answers as well as base: on golden cases, or on a recipe's evaluation data."""

from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import numpy as np

from headrace.bundle.manifest import Tolerance
from headrace.bundle.open import Bundle
from headrace.engine.model import Model, load_model
from headrace.errors import CheckError, UsageError
from headrace.postprocess.spec import TopK
from headrace.preprocess.spec import raw_row
from headrace.tensors import Array
from headrace_bench.gate import Comparison
from headrace_bench.statistics import RESAMPLES, Verdict
from headrace_compiler.loading import load_recipe
from headrace_compiler.recipe import Sample
from headrace_compiler.steps.samples import sample_row

MAX_SAMPLES = 20_000


def golden_agreement(base: Bundle, head: Bundle) -> Comparison:
    """The share of base's golden rows on which head agrees with what was recorded.

    A row of scores agrees when its largest is the same; a row of anything else when it lies within
    base's tolerance. One row that does not agree is a regression.

    Raises:
        CheckError: Head does not take what base takes.
    """
    if base.manifest.inputs != head.manifest.inputs:
        raise CheckError("gate.inputs", "the two bundles do not take the same inputs")
    session, tolerance = load_model(head).session, base.manifest.variants[0].tolerance
    agreed: list[bool] = []
    for case in base.golden_cases():
        answer = session.run(case.inputs)
        for name, reference in case.outputs.items():
            if name not in answer or answer[name].shape != reference.shape:
                raise CheckError("gate.outputs", f"head gives no output '{name}' of base's shape")
            agreed += _rows_agree(answer[name], reference, tolerance)
    share = sum(agreed) / len(agreed)
    verdict: Verdict = "no difference shown" if share == 1 else "regressed"
    return _comparison("golden_agreement", (1.0, share), (share, share), verdict, len(agreed))


def evaluation_accuracy(
    base: Bundle, head: Bundle, recipe: Path, *, points: float, seed: int = 0
) -> Comparison:
    """Top-1 accuracy of both on the recipe's evaluation data, sample by sample.

    Args:
        recipe: Its `evaluation` yields pairs of a sample and its class, a number or a label.
        points: How many percentage points less are a regression.
        seed: Of the resampling.

    Raises:
        UsageError: The recipe has no evaluation data.
    """
    evaluation = load_recipe(recipe).evaluation
    if evaluation is None:
        raise UsageError("gate.evaluation", f"{recipe} gives no evaluation data")
    models = [load_model(bundle) for bundle in (base, head)]
    right = np.array(
        [
            row
            for sample, label in islice(evaluation(), MAX_SAMPLES)
            for row in zip(*(_correct(model, sample, label) for model in models), strict=True)
        ],
        dtype=np.float64,
    )
    if not len(right):
        raise UsageError("gate.evaluation", f"the evaluation data of {recipe} is empty")
    gains = right[:, 1] - right[:, 0]
    drawn = np.random.default_rng(seed).integers(0, len(gains), (RESAMPLES, len(gains)))
    low, high = (float(q) for q in np.quantile(gains[drawn].mean(axis=1), (0.025, 0.975)))
    shares = (float(right[:, 0].mean()), float(right[:, 1].mean()))
    verdict = judge_points(float(gains.mean()), low, high, points / 100)
    return _comparison("accuracy", shares, (shares[0] + low, shares[0] + high), verdict, len(right))


def judge_points(gain: float, low: float, high: float, limit: float) -> Verdict:
    """What a difference of two shares says; as `statistics.judge`, for differences."""
    if high < 0 and gain <= -limit:
        return "regressed"
    if low > 0 and gain >= limit:
        return "improved"
    return "no difference shown" if low > -limit and high < limit else "too noisy to say"


def _rows_agree(answer: Array, reference: Array, tolerance: Tolerance) -> list[bool]:
    if reference.ndim == 2 and reference.shape[1] > 1 and reference.dtype.kind == "f":
        same = answer.argmax(axis=1) == reference.argmax(axis=1)
        return [bool(row) for row in same]
    close = np.isclose(answer, reference, rtol=tolerance.relative, atol=tolerance.absolute)
    return [bool(row.all()) for row in close.reshape(len(reference), -1)]


def _ready(model: Model, sample: Sample) -> Mapping[str, Array]:
    """A sample's tensors, as the model itself prepares them."""
    spec, prepare = model.manifest.preprocessing, model.stages.prepare
    if spec is None or prepare is None:
        return {name: value for name, value in sample.items() if isinstance(value, np.ndarray)}
    return prepare.run(raw_row(sample_row(spec.takes, "an evaluation sample", sample)))


def _correct(model: Model, sample: Sample, label: object) -> list[bool]:
    """For each row of a sample, whether the model's likeliest class is the labelled one."""
    wanted = model.manifest.postprocessing
    read = wanted.reads[0] if wanted else model.manifest.outputs[0].name
    scores = model.session.run(_ready(model, sample))[read]
    if scores.ndim != 2:
        raise UsageError("gate.evaluation", "top-1 accuracy needs an output (batch, classes)")
    found: list[object] = scores.argmax(axis=1).tolist()
    if isinstance(wanted, TopK) and isinstance(label, str):
        found = [wanted.labels[index] for index in scores.argmax(axis=1)]
    expected: list[object] = np.atleast_1d(np.asarray(label)).tolist()
    if len(expected) != len(found):
        raise UsageError(
            "gate.evaluation", f"a sample of {len(found)} rows has {len(expected)} labels"
        )
    return [one == other for one, other in zip(found, expected, strict=True)]


def _comparison(
    metric: str,
    values: tuple[float, float],
    interval: tuple[float, float],
    verdict: Verdict,
    count: int,
) -> Comparison:
    base, head = values
    scale = base or 1.0
    return Comparison(
        metric=metric,
        unit="1",
        better="higher",
        base=base,
        head=head,
        ratio=head / scale,
        low=interval[0] / scale,
        high=interval[1] / scale,
        verdict=verdict,
        pairs=0,
        note=f"{count} rows" if metric != "accuracy" else f"{count} samples",
    )

"""How well answers fit their labels, and how sure that is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from headrace.bundle.measurement import Accuracy
from headrace.errors import UsageError
from headrace.postprocess.spec import TopK
from headrace.tensors import Array
from headrace_compiler.boundary import Translated, at, first_line, user_line
from headrace_compiler.cache_keys import source_digest
from headrace_compiler.recipe import Recipe, Score

Rows = npt.NDArray[np.float64]
"""What a metric keeps of each row: one or more numbers; shape (rows, numbers)."""

RESAMPLES = 1000
_CHUNK = 1 << 21  # indices drawn at once: bounds the memory of the resampling


@dataclass(frozen=True)
class Metric:
    """A metric in two parts, so that rows can be drawn again and again for its interval.

    Attributes:
        of: Rows of one sample: its outputs, its label, and what fp32 answers, which stands in for
            the label None.
        total: The metric of all rows, along the axis before the last: (..., rows, numbers) to
            (...).
        higher: Whether more is better.
        share: Whether it counts rows, so that no loss in n rows still allows one of 3/n.
        digest: Of what decides its values.
    """

    name: str
    of: Callable[[Mapping[str, Array], object, Mapping[str, Array]], Rows]
    total: Callable[[Rows], Rows]
    higher: bool
    share: bool
    digest: str


def metric_of(recipe: Recipe, outputs: tuple[str, ...], folder: Path) -> Metric:
    """The metric that a recipe names.

    Args:
        outputs: Of the model, in order; the metric reads the one that the postprocessing reads, or
            the first.
        folder: Of the recipe, to name the line at fault.
    """
    wanted = recipe.postprocessing
    output = outputs[0] if wanted is None else wanted.reads[0]
    labels = wanted.labels if isinstance(wanted, TopK) else ()
    name = recipe.metric
    if callable(name):
        shown = getattr(name, "__name__", "score")
        own = partial(_own, name, folder)
        try:
            digest = source_digest(name)
        except TypeError as error:
            raise UsageError(
                "metric.kind",
                f"the metric '{shown}' cannot be told from another: {error}",
                "give the recipe a plain function as its metric",
            ) from error
        return Metric(shown, own, _mean, higher=True, share=False, digest=digest)
    digest = repr((name, output, labels))
    if name == "top1":
        of = partial(_top1, output, labels)
        return Metric(name, of, _mean, higher=True, share=True, digest=digest)
    if name == "f1":
        of = partial(_classes, output, labels)
        return Metric(name, of, _macro_f1, higher=True, share=True, digest=digest)
    if name == "cosine":
        of = partial(_cosine, output)
        return Metric(name, of, _mean, higher=True, share=False, digest=digest)
    of = partial(_mean_error, output)
    return Metric(name, of, _mean, higher=False, share=False, digest=digest)


def accuracy(metric: Metric, ours: Rows, fp32: Rows, *, seed: int) -> Accuracy:
    """The metric of a candidate, and its loss against fp32 row by row, with 95 % intervals.

    The intervals are those of a paired percentile bootstrap (Efron and Tibshirani, An Introduction
    to the Bootstrap, 1993, chapter 13). Where a metric counts rows, the upper end of the loss is at
    least what n rows leave open: 3/n (Hanley and Lippman-Hand, JAMA 249, 1983).

    Args:
        seed: Of the resampling.
    """
    count = len(ours)
    sign = 1.0 if metric.higher else -1.0
    value, reference = float(metric.total(ours)), float(metric.total(fp32))
    drawn_ours, drawn_fp32 = _resample(metric, ours, fp32, seed)
    low, high = np.quantile(drawn_ours, (0.025, 0.975))
    loss = sign * (reference - value)
    loss_low, loss_high = np.quantile(sign * (drawn_fp32 - drawn_ours), (0.025, 0.975))
    return Accuracy(
        metric=metric.name,
        value=value,
        low=float(low),
        high=float(high),
        loss=loss,
        loss_low=float(loss_low),
        loss_high=max(float(loss_high), 3 / count if metric.share else loss),
        samples=count,
    )


def _resample(metric: Metric, ours: Rows, fp32: Rows, seed: int) -> tuple[Rows, Rows]:
    generator, count = np.random.default_rng(seed), len(ours)
    at_once = max(1, _CHUNK // count)
    found: list[tuple[Rows, Rows]] = []
    for begin in range(0, RESAMPLES, at_once):
        drawn = generator.integers(0, count, (min(at_once, RESAMPLES - begin), count))
        found.append((metric.total(ours[drawn]), metric.total(fp32[drawn])))
    return np.concatenate([a for a, _ in found]), np.concatenate([b for _, b in found])


def _mean(rows: Rows) -> Rows:
    mean: Rows = rows[..., 0].mean(axis=-1)
    return mean


def _macro_f1(rows: Rows) -> Rows:
    """The mean over classes of 2 TP / (2 TP + FP + FN); rows are (answer, label)."""
    found, labels = rows[..., 0], rows[..., 1]
    scores = []
    for label in np.unique(labels):
        hits = ((found == label) & (labels == label)).sum(axis=-1)
        all_of_it = (found == label).sum(axis=-1) + (labels == label).sum(axis=-1)
        scores.append(2 * hits / np.maximum(all_of_it, 1))
    mean: Rows = np.mean(scores, axis=0)
    return mean


def _classes(
    output: str,
    names: tuple[str, ...],
    outputs: Mapping[str, Array],
    label: object,
    reference: Mapping[str, Array],
) -> Rows:
    """The likeliest class of each row beside the labelled one."""
    found = _likeliest(outputs[output])
    if label is None:
        wanted = _likeliest(reference[output])
    elif isinstance(label, str):
        if label not in names:
            raise _unfit(f"the label '{label:.80}' is none of the postprocessing's labels")
        wanted = np.array([names.index(label)])
    else:
        wanted = np.atleast_1d(np.asarray(label))
    if wanted.shape != found.shape or not np.issubdtype(wanted.dtype, np.integer):
        raise _unfit(
            f"{len(found)} rows have labels of shape {list(wanted.shape)} and type {wanted.dtype};"
            " each row needs one class number"
        )
    return np.stack([found, wanted], axis=1).astype(np.float64)


def _top1(
    output: str,
    names: tuple[str, ...],
    outputs: Mapping[str, Array],
    label: object,
    reference: Mapping[str, Array],
) -> Rows:
    pairs = _classes(output, names, outputs, label, reference)
    right: Rows = (pairs[:, :1] == pairs[:, 1:]).astype(np.float64)
    return right


def _likeliest(scores: Array) -> npt.NDArray[np.int64]:
    if scores.ndim < 2:
        raise _unfit(f"an output of shape {list(scores.shape)} has no scores of classes")
    flat = scores.reshape(-1, scores.shape[-1])
    if flat.shape[1] == 1:  # one logit or one probability: which of the two, the sign cannot tell
        raise _unfit("an output of one score a row has no likeliest class")
    likeliest: npt.NDArray[np.int64] = flat.argmax(axis=1)
    return likeliest


def _pair(
    output: str, outputs: Mapping[str, Array], label: object, reference: Mapping[str, Array]
) -> tuple[Rows, Rows]:
    """Each row's answer and what it should be, flattened to (rows, numbers)."""
    found = outputs[output].astype(np.float64)
    wanted = np.asarray(reference[output] if label is None else label, dtype=np.float64)
    if wanted.size != found.size:
        raise _unfit(f"a label of shape {list(wanted.shape)} for an answer {list(found.shape)}")
    rows = len(found) if found.ndim else 1
    return found.reshape(rows, -1), wanted.reshape(rows, -1)


def _cosine(
    output: str, outputs: Mapping[str, Array], label: object, reference: Mapping[str, Array]
) -> Rows:
    found, wanted = _pair(output, outputs, label, reference)
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
    cosine: Rows = (found * wanted).sum(axis=1) / np.maximum(lengths, 1e-30)
    # Two zero vectors agree; a zero one agrees with nothing else.
    cosine[(lengths == 0) & (found == wanted).all(axis=1)] = 1.0
    return cosine[:, None]


def _mean_error(
    output: str, outputs: Mapping[str, Array], label: object, reference: Mapping[str, Array]
) -> Rows:
    found, wanted = _pair(output, outputs, label, reference)
    error: Rows = np.abs(found - wanted).mean(axis=1, keepdims=True)
    return error


def _own(
    score: Score,
    folder: Path,
    outputs: Mapping[str, Array],
    label: object,
    reference: Mapping[str, Array],
) -> Rows:
    def fault(error: BaseException) -> UsageError:
        where = at(user_line(error, folder), folder)
        return UsageError("metric.failed", f"the recipe's metric fails: {first_line(error)}{where}")

    with Translated(fault):
        value = float(score(outputs, reference if label is None else label))
    if not np.isfinite(value):
        raise UsageError("metric.not-finite", f"the recipe's metric gives {value}")
    return np.array([[value]])


def _unfit(message: str) -> UsageError:
    return UsageError("metric.labels", message, "see `metric` and `evaluation` of the recipe")

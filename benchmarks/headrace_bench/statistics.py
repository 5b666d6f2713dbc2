"""How sure a comparison is: paired ratios, bootstrap intervals, and the verdict on them."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

Verdict = Literal["regressed", "improved", "no difference shown", "too noisy to say"]
Floats = npt.NDArray[np.float64]
RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """An estimate, and the ends of its confidence interval."""

    value: float
    low: float
    high: float


def bootstrap_ratio(
    groups: Sequence[Sequence[float]], *, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """The typical ratio, from groups of paired ratios.

    The ratios of one group share what only happened once: a process's memory layout, a start. So
    whole groups are resampled, then the ratios within them. A percentile interval from few groups
    is too narrow; it is widened as Hesterberg, "What Teachers Should Know about the Bootstrap",
    The American Statistician 69 (2015), section 4.2 ("expanded percentile interval") has it.

    Args:
        groups: Ratios above 0; one group a pair of processes. At least one ratio in each.
        confidence: Of the interval.
        seed: Of the resampling.

    Returns:
        The exponential of the mean, over groups, of the median logarithm in each; with one group
        alone, the interval comes from the ratios within it.

    Raises:
        ValueError: There is no group, or an empty one.
    """
    if not groups or not all(len(group) for group in groups):
        raise ValueError("a ratio needs at least one pair")
    logs = [np.log(np.asarray(group, dtype=np.float64)) for group in groups]
    estimate = float(np.mean([np.median(group) for group in logs]))
    if len(logs) == 1:  # nothing is known of what differs between processes
        logs = [logs[0][index : index + 1] for index in range(len(logs[0]))]
    if len(logs) == 1:
        return Interval(float(np.exp(estimate)), 0.0, float("inf"))
    means = _resample(logs, np.random.default_rng(seed))
    low, high = np.quantile(means, _expanded(len(logs), confidence))
    return Interval(*(float(np.exp(value)) for value in (estimate, low, high)))


def bootstrap_median(values: Sequence[float], *, confidence: float = 0.95) -> Interval:
    """The median of independent values, with its bootstrap interval; one value has no interval.

    Raises:
        ValueError: There is no value.
    """
    if not values:
        raise ValueError("a median needs a value")
    array = np.asarray(values, dtype=np.float64)
    drawn = np.random.default_rng(0).integers(0, len(array), (RESAMPLES, len(array)))
    medians = np.median(array[drawn], axis=1)
    low, high = np.quantile(medians, _expanded(max(2, len(array)), confidence))
    return Interval(float(np.median(array)), float(low), float(high))


def judge(ratio: Interval, *, threshold: float, better: Literal["lower", "higher"]) -> Verdict:
    """What a ratio of head to base says.

    A change counts when the interval leaves 1 out and the estimate lies beyond the threshold; it is
    ruled out when the interval lies within the threshold.

    Args:
        ratio: Head over base.
        threshold: The smallest relative change that matters, as 0.05.
        better: Which direction is an improvement.
    """
    if better == "higher":
        ratio = Interval(1 / ratio.value, _inverse(ratio.high), _inverse(ratio.low))
    if ratio.low > 1 and ratio.value >= 1 + threshold:
        return "regressed"
    if ratio.high < 1 and ratio.value <= 1 / (1 + threshold):
        return "improved"
    if ratio.low > 1 / (1 + threshold) and ratio.high < 1 + threshold:
        return "no difference shown"
    return "too noisy to say"


def _resample(groups: Sequence[Floats], generator: np.random.Generator) -> Floats:
    """Means over resampled groups of the medians within them: `RESAMPLES` of them."""
    medians = np.empty((len(groups), RESAMPLES))
    for row, group in enumerate(groups):
        drawn = generator.integers(0, len(group), (RESAMPLES, len(group)))
        medians[row] = np.median(group[drawn], axis=1)
    chosen = generator.integers(0, len(groups), (RESAMPLES, len(groups)))
    means: Floats = medians[chosen, np.arange(RESAMPLES)[:, None]].mean(axis=1)
    return means


def _expanded(count: int, confidence: float) -> tuple[float, float]:
    """The quantiles to take instead of the nominal ones, for `count` independent values."""
    tail = (1 - confidence) / 2
    wide = float(stats.t.ppf(tail, count - 1)) * (count / (count - 1)) ** 0.5
    low = NormalDist().cdf(wide)
    return low, 1 - low


def _inverse(value: float) -> float:
    return float("inf") if value == 0 else 1 / value

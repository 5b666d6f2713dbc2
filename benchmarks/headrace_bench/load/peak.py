"""The highest Poisson rate that meets an objective: doubling, then bisection.

The search knows nothing of servers; `find_peak` gives it LoadGen's Server scenario to ask.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from headrace_bench.load.loadgen import LoadSettings, ScenarioResult, SubjectSpec, run_scenario

PRECISION = 0.05
"""The bracket's width, relative to its lower end."""
TIMES = 2
"""How often a rate has to be met."""
_LOWEST = 1 / 1024


@dataclass(frozen=True)
class Probe:
    """One question and its answer.

    Attributes:
        rate: Arrivals a second.
        met: Whether the objective was met, this time.
    """

    rate: float
    met: bool


@dataclass(frozen=True)
class Peak:
    """Between which rates the peak lies.

    Attributes:
        met: The highest rate that was met; 0 if none was.
        missed: The lowest rate that was missed; None if none was.
        probes: All questions, in order.
        complete: The bracket is as narrow as was asked for; else time ran out, or the first rate's
            thousandth part was missed too.
    """

    met: float
    missed: float | None
    probes: tuple[Probe, ...]
    complete: bool


@dataclass(frozen=True)
class MeasuredPeak:
    """A peak, and the runs that it was found by.

    Attributes:
        runs: One a probe, in order.
    """

    peak: Peak
    runs: tuple[ScenarioResult, ...]

    def best(self) -> ScenarioResult | None:
        """The last run at the highest rate that was met."""
        found = [run for run in self.runs if run.settings.rate == self.peak.met]
        return found[-1] if found else None


def search(
    probe: Callable[[float], bool],
    *,
    first: float,
    budget_s: float,
    precision: float = PRECISION,
    clock: Callable[[], float] = time.monotonic,
) -> Peak:
    """Searches the highest rate that is met.

    A rate counts as met if it is met twice in a row; one miss is a miss, and no rate is asked again
    after its verdict. So chance errs towards a lower peak.

    Args:
        probe: Tries a rate once.
        first: Where to begin, above 0.
        budget_s: No probe begins later than this.
        precision: Ends when the missed rate is at most this part above the met one.
        clock: Seconds.

    Raises:
        ValueError: The first rate, or the precision, is not above 0.
    """
    if first <= 0 or precision <= 0:
        raise ValueError("a search begins at a rate above 0, and ends at a precision above 0")
    end = clock() + budget_s
    probes: list[Probe] = []
    met, missed = 0.0, None
    rate: float | None = first
    while rate is not None:
        verdict = _judge(probe, rate, probes, lambda: clock() < end)
        if verdict is None:
            return Peak(met, missed, tuple(probes), complete=False)
        if verdict:
            met = rate
        else:
            missed = rate
        rate = _next(first, met, missed, precision)
    return Peak(met, missed, tuple(probes), complete=met > 0)


def find_peak(
    subject: SubjectSpec,
    settings: LoadSettings,
    logs: Path,
    *,
    budget_s: float,
    progress: Callable[[str], None] = lambda _: None,
) -> MeasuredPeak:
    """Searches the highest rate at which a server keeps an objective.

    A run meets it when the percentile of its latencies is within the bound, nothing failed, and it
    lasted as long as was asked. LoadGen's own verdict is not asked for: its early stopping wants
    more queries than a probe of seconds has.

    Args:
        subject: What is driven.
        settings: Of the Server scenario: `rate` is where to begin, `bound_s` and `percentile` are
            the objective, `seconds` and `queries` say how long a probe is. Each probe has a seed
            of its own, counted up from `seed`.
        logs: Gets a directory a probe.
        budget_s: No probe begins later than this.
        progress: Told about every probe.

    Raises:
        MissingError: LoadGen is not installed.
        LoadGenError: A run crashed or hung.
    """
    runs: list[ScenarioResult] = []

    def probe(rate: float) -> bool:
        number = len(runs)
        progress(f"probe {number + 1}: {rate:.4g} requests a second")
        asked = replace(settings, scenario="Server", rate=rate, seed=settings.seed + number)
        runs.append(run_scenario(subject, asked, logs / f"probe-{number + 1:02d}"))
        return meets(runs[-1])

    peak = search(probe, first=settings.rate, budget_s=budget_s)
    return MeasuredPeak(peak, tuple(runs))


def meets(run: ScenarioResult) -> bool:
    """Whether a run of the Server scenario met its objective."""
    settings, logged = run.settings, run.logged
    return (
        not run.account.errors
        and not logged.errors
        and logged.lasted
        and logged.latencies_s[settings.target] <= settings.bound_s
    )


def _judge(
    probe: Callable[[float], bool], rate: float, probes: list[Probe], in_time: Callable[[], bool]
) -> bool | None:
    """Whether a rate is met; None if the time was up before that was clear."""
    for _ in range(TIMES):
        if not in_time():
            return None
        probes.append(Probe(rate, probe(rate)))
        if not probes[-1].met:
            return False
    return True


def _next(first: float, met: float, missed: float | None, precision: float) -> float | None:
    """The rate to try next; None when there is none."""
    if missed is None:
        return 2 * met
    if met == 0:
        return missed / 2 if missed / 2 >= first * _LOWEST else None
    return None if missed <= met * (1 + precision) else (met + missed) / 2

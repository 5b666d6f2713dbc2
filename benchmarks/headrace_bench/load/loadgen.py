"""One MLPerf LoadGen scenario: run in a process of its own, judged by LoadGen's own logs.

LoadGen keeps global state and ends its process on misuse, hence the process. Its latencies count
from the time at which a query was scheduled, so waiting in a queue is never left out.
Source: MLCommons, "inference/loadgen/README.md" and "test_settings.h"; Reddi et al., "MLPerf
Inference Benchmark", ISCA 2020 (arXiv:1911.02549), section 4.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from headrace.errors import MissingError
from headrace_bench.load.logs import DETAIL, SUMMARY, LoadGenError, Logged, Scenario, read_logs

MLPERF_SECONDS = 600.0
"""What MLPerf asks of every scenario: `*.min_duration` of LoadGen's own mlperf.conf."""
_ROOT = Path(__file__).parents[2]
_TARGETS: Mapping[Scenario, float] = {"SingleStream": 0.9, "MultiStream": 0.99, "Server": 0.99}
_SHOWN_LINES = 6
_SAID = 300
_OFFLINE_TRIALS = 3
_MORE = 1.3


Query = tuple[int, int]
"""LoadGen's id of a sample that is to be answered, and the sample's index."""
Done = Callable[[int, str], None]
"""Takes the id of a sample and what went wrong with it, which is empty if nothing did."""


class Subject(Protocol):
    """What is driven, made and warm.

    Attributes:
        samples: How many different samples it can be asked with.
        in_process: Whether its processor time is this process's.
    """

    samples: int
    in_process: bool

    def issue(self, queries: Sequence[Query], done: Done) -> None:
        """Takes samples and returns at once; `done` is called for each, from any thread."""
        ...

    def cpu_seconds(self) -> float:
        """What it has spent until now: of a server its whole process tree."""
        ...

    def close(self) -> None:
        """Ends what it started."""
        ...


@dataclass(frozen=True)
class SubjectSpec:
    """What is driven, and how to make it in the scenario's process.

    Attributes:
        factory: `package.module:function`, which returns a `Subject`.
        arguments: Of the factory; JSON.
        paths: Put before everything else on the process's import path.
    """

    factory: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    paths: tuple[Path, ...] = ()


@dataclass(frozen=True)
class LoadSettings:
    """What LoadGen is to do.

    Attributes:
        seconds: The least duration.
        queries: The least number of queries.
        rate: Server: mean arrivals a second (Poisson). Offline: the samples a second that are
            expected; the one query has 1.1 times as many as fill `seconds` at that rate.
        bound_s: Server: the latency that the percentile has to keep.
        samples_per_query: MultiStream: samples that arrive at once.
        percentile: Of the latency that is judged, as 0.99; None takes MLPerf's.
        seed: Of arrivals and of the order of samples.
        grace_s: How much longer than `seconds` it may take before it counts as hung.
    """

    scenario: Scenario
    seconds: float
    queries: int = 1
    rate: float = 1.0
    bound_s: float = 1.0
    samples_per_query: int = 8
    percentile: float | None = None
    seed: int = 0
    grace_s: float = 180.0

    @property
    def target(self) -> float:
        """The percentile that is judged; of an offline run none is."""
        return self.percentile or _TARGETS.get(self.scenario, 0.99)


@dataclass(frozen=True)
class Account:
    """What the scenario's own process saw.

    Attributes:
        samples: That were issued to the subject; every one of them was answered or failed.
        errors: Samples that failed.
        first_error: What the first of them said.
        seconds: How long the test took, its last answer included.
        cpu_seconds: What the subject spent: of a server its whole process tree; in process,
            LoadGen and its callers too.
        own_cpu_seconds: What subject and LoadGen spent together.
        machine_cpu_seconds: What the whole machine was busy, time stolen by its host included.
    """

    samples: int
    errors: int
    first_error: str
    seconds: float
    cpu_seconds: float
    own_cpu_seconds: float
    machine_cpu_seconds: float


@dataclass(frozen=True)
class ScenarioResult:
    """One scenario on one subject.

    Attributes:
        logs: Where LoadGen's files lie.
    """

    settings: LoadSettings
    logged: Logged
    account: Account
    logs: Path

    @property
    def valid(self) -> bool:
        """Whether its figures may be used: LoadGen found it so, and no sample failed."""
        return self.logged.verdict and not self.account.errors

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it is not valid."""
        account = self.account
        if not account.errors:
            return self.logged.reasons
        failed = f"{account.errors} of {account.samples} samples failed: {account.first_error}"
        return (failed, *self.logged.reasons)

    @property
    def shorter_than_mlperf(self) -> bool:
        """Whether MLPerf would ask for a longer run."""
        return self.settings.seconds < MLPERF_SECONDS

    def require_valid(self) -> None:
        """Passes if it is valid.

        Raises:
            LoadGenError: It is not; the sentence gives the reasons.
        """
        if not self.valid:
            raise LoadGenError(
                "bench.invalid", f"{self.settings.scenario} is INVALID: {'; '.join(self.reasons)}"
            )


def run_scenario(subject: SubjectSpec, settings: LoadSettings, logs: Path) -> ScenarioResult:
    """Runs one scenario in a process of its own, and reads what LoadGen wrote.

    Args:
        subject: What is driven.
        settings: How.
        logs: A directory that gets LoadGen's files; made if need be, and earlier logs replaced.

    Raises:
        MissingError: LoadGen is not installed.
        LoadGenError: The process crashed (the subject could not be made, for one) or hung, or
            its logs cannot be read.
    """
    if find_spec("mlperf_loadgen") is None:
        raise MissingError(
            "extra.bench", "MLPerf LoadGen is not installed", "pip install 'headrace[bench]'"
        )
    logs.mkdir(parents=True, exist_ok=True)
    for name in (SUMMARY, DETAIL):
        (logs / name).unlink(missing_ok=True)
    order = {
        "subject": {"factory": subject.factory, "arguments": dict(subject.arguments)},
        "settings": asdict(settings),
        "logs": str(logs.resolve()),
    }
    account = _account(_run_process(subject, settings, json.dumps(order)))
    return ScenarioResult(settings, read_logs(logs, settings.scenario), account, logs)


def run_offline(subject: SubjectSpec, settings: LoadSettings, logs: Path) -> ScenarioResult:
    """As `run_scenario`, again with more samples where those expected were too few to last.

    Args:
        settings: Of the Offline scenario; its `rate` is where to begin.

    Raises:
        MissingError: LoadGen is not installed.
        LoadGenError: As `run_scenario`.
    """
    result = run_scenario(subject, settings, logs)
    for _ in range(_OFFLINE_TRIALS):
        if result.valid or result.account.errors or not result.logged.rate:
            break
        settings = replace(settings, rate=_MORE * max(settings.rate, result.logged.rate))
        result = run_scenario(subject, settings, logs)
    return result


def _run_process(subject: SubjectSpec, settings: LoadSettings, order: str) -> str:
    limit = settings.seconds + settings.grace_s
    paths = [*map(str, subject.paths), str(_ROOT), os.environ.get("PYTHONPATH", "")]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "headrace_bench.load.scenarios"],
            input=order,
            capture_output=True,
            text=True,
            timeout=limit,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        )
    except subprocess.TimeoutExpired:
        raise LoadGenError(
            "bench.hung", f"{settings.scenario} did not end in {limit:.0f} s and was ended"
        ) from None
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        how = (
            f"was killed by signal {-done.returncode}"
            if done.returncode < 0
            else f"ended with status {done.returncode}"
        )
        raise LoadGenError(
            "bench.crashed",
            f"{settings.scenario} {how}: {lines[-1] if lines else 'it said nothing'}",
            "\n".join(lines[-_SHOWN_LINES:-1]),
        )
    return done.stdout


def _account(line: str) -> Account:
    try:
        return Account(**json.loads(line))
    except (ValueError, TypeError) as error:
        said = line.strip()[:_SAID] or "nothing"
        raise LoadGenError("bench.crashed", f"the scenario's process said {said}") from error

"""Photographs to classes, under MLPerf LoadGen's scenarios: in process, over HTTP and over gRPC.

These are no contests: LoadGen sets the pace, and says whether a run may be believed. A run that it
finds INVALID gives its reasons and no figures.
"""

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

from headrace.bundle.open import Bundle, open_bundle
from headrace.errors import HeadraceError, MissingError, UsageError
from headrace.hardware import Hardware, installed_version
from headrace_bench.load.figures import (
    judge,
    judge_peak,
    other_cores,
    peak_metrics,
    rounded,
    scenario_metrics,
)
from headrace_bench.load.loadgen import (
    LoadSettings,
    SubjectSpec,
    run_offline,
    run_scenario,
)
from headrace_bench.load.logs import Scenario
from headrace_bench.load.peak import find_peak
from headrace_bench.load.requests import write_request
from headrace_bench.load.served import Service
from headrace_bench.load.server import headrace_command, home_environment
from headrace_bench.result import CaseResult, Metric, Status
from headrace_bench.suites.options import SuiteOptions

SUITE = "endtoend"
EXAMPLE = Path(__file__).parents[3] / "examples" / "image_classification" / "recipe.py"
PEAK = "peak-rate"
LOGS = Path("bench") / "loadgen"
"""Where LoadGen's logs stay, below HEADRACE_HOME."""
_SCENARIOS: tuple[Scenario, ...] = ("SingleStream", "MultiStream", "Offline", "Server")
_PROGRAM = (sys.executable, "-P", "-m", "headrace.cli")
_SUBJECTS = "headrace_bench.load.subjects:"
_PACKAGES = ("headrace", "onnxruntime", "mlcommons-loadgen", "uvicorn", "grpcio", "ray")
_PACED = frozenset({"Offline", "Server", PEAK})
"""Cases whose load is scaled to what the stand can do."""
_UTILISATION = 0.5
_BOUND = 10
_LEAST_BOUND_S = 0.02
"""Below it, the 99th percentile is the scheduler's of a shared machine, and not the server's."""
_AT_ONCE = {"SingleStream": 1, "MultiStream": 8, "Offline": 16, "Server": 512}
"""The most requests on their way. The server refuses more than 128, which then counts as errors."""


@dataclass(frozen=True)
class Stand:
    """Where the model is asked.

    Attributes:
        layout: `process` is this benchmark's own; else as `headrace serve` has it.
        long: Left out where minutes are wanted.
    """

    road: Literal["in-process", "http", "grpc"]
    layout: Literal["process", "edge", "ray"]
    long: bool = False

    def case(self, what: str) -> str:
        """The name of a case here."""
        return f"{what.lower()}-{self.road}{'-ray' if self.layout == 'ray' else ''}"


STANDS = (
    Stand("in-process", "process"),
    Stand("http", "edge"),
    Stand("grpc", "edge"),
    Stand("http", "ray", long=True),
    Stand("grpc", "ray", long=True),
)


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    Attributes:
        pace_s: The least, of each of the two runs that the load is scaled by.
        seconds: The least, of a scenario.
        percentile: Of MultiStream and Server; LoadGen wants the more queries the nearer it is to 1.
        queries: The least, for that percentile.
        probe_s: Seconds of a probe of the peak.
        budget_s: No probe begins later.
    """

    pace_s: float
    seconds: float
    percentile: float
    queries: int
    probe_s: float
    budget_s: float


QUICK = Effort(pace_s=0.5, seconds=2.0, percentile=0.9, queries=100, probe_s=2.0, budget_s=60.0)
FULL = Effort(pace_s=2.0, seconds=10.0, percentile=0.99, queries=662, probe_s=5.0, budget_s=240.0)

MakeSubject = Callable[[Scenario], SubjectSpec]


def results(
    options: SuiteOptions, hardware: Hardware, progress: Callable[[str], None]
) -> list[CaseResult]:
    """One result a scenario and stand, and the peak rate over HTTP.

    Raises:
        UsageError: No bundle was given, and the example is not here.
    """
    wanted = [stand for stand in STANDS if _cases(stand, options)]
    if not wanted:
        return []
    bundle = options.bundle or _example(options.scratch, progress)
    effort = QUICK if options.quick else FULL
    started = datetime.now(UTC)
    logs = options.home / LOGS / started.strftime("%Y%m%dT%H%M%SZ")
    logs.mkdir(parents=True, exist_ok=True, mode=0o700)
    session = _Session(options, bundle, hardware, progress, effort, logs)
    return [result for stand in wanted for result in session.measure(stand)]


@dataclass(frozen=True)
class _Session:
    """What all cases of a run share."""

    options: SuiteOptions
    bundle: Bundle
    hardware: Hardware
    progress: Callable[[str], None]
    effort: Effort
    logs: Path

    def measure(self, stand: Stand) -> Iterator[CaseResult]:
        """The cases of a stand; a fault of one is told in its result, and the others go on."""
        cases = _cases(stand, self.options)
        begin = datetime.now(UTC), time.perf_counter()
        self.progress(f"{stand.case('')[1:]}: starting")
        try:
            with _open(stand, self.bundle, self.options.scratch) as subject:
                pace = _UNPACED if _PACED.isdisjoint(cases) else self._pace(stand, subject)
                while cases:
                    what = cases.pop(0)
                    self.progress(f"{stand.case(what)}: measuring")
                    begin = datetime.now(UTC), time.perf_counter()
                    yield self._measured(stand, what, subject, pace, begin)
        except HeadraceError as error:
            status: Status = "missing" if isinstance(error, MissingError) else "failed"
            for what in cases:
                yield self._result(stand, what, begin, status=status, reason=str(error))

    def _pace(self, stand: Stand, make: MakeSubject) -> "_Pace":
        """How quick the stand is, from two short runs; what the open-loop cases are scaled by."""
        folder = self.logs / stand.case("pace")
        short = LoadSettings("SingleStream", self.effort.pace_s, queries=64)
        single = run_scenario(make("SingleStream"), short, folder / "singlestream")
        single.require_valid()
        guess = max(1.0, 2 * (single.logged.rate or 1.0))
        asked = replace(short, scenario="Offline", rate=guess, queries=1)
        offline = run_offline(make("Offline"), asked, folder / "offline")
        offline.require_valid()
        bound = rung(max(_LEAST_BOUND_S, _BOUND * single.logged.latencies_s[0.5]))
        return _Pace(offline.logged.rate or 1.0, bound)

    def _measured(
        self,
        stand: Stand,
        what: str,
        make: MakeSubject,
        pace: "_Pace",
        begin: tuple[datetime, float],
    ) -> CaseResult:
        logs = self.logs / stand.case(what)
        try:
            if what == PEAK:
                return self._peak(stand, make, pace, begin)
            settings = self._settings(what, pace)
            run = run_offline if what == "Offline" else run_scenario
            found = run(make(settings.scenario), settings, logs)
        except HeadraceError as error:
            return self._result(stand, what, begin, status="failed", reason=str(error))
        others = other_cores([found])
        status, reason = judge(found, others, self.hardware.cores)
        return self._result(
            stand,
            what,
            begin,
            status=status,
            reason=reason,
            metrics=scenario_metrics(found) if status == "ok" else (),
            others=others,
            settings=found.settings,
        )

    def _peak(
        self, stand: Stand, make: MakeSubject, pace: "_Pace", begin: tuple[datetime, float]
    ) -> CaseResult:
        effort = self.effort
        first = LoadSettings(
            "Server", effort.probe_s, rate=pace.rate / 4, bound_s=pace.bound_s, percentile=0.99
        )
        found = find_peak(
            make("Server"),
            first,
            self.logs / stand.case(PEAK),
            budget_s=effort.budget_s,
            progress=lambda said: self.progress(f"{stand.case(PEAK)}: {said}"),
        )
        others = other_cores(found.runs)
        status, reason = judge_peak(found, others, self.hardware.cores)
        return self._result(
            stand,
            PEAK,
            begin,
            status=status,
            reason=reason,
            metrics=peak_metrics(found) if status == "ok" else (),
            others=others,
            settings=replace(first, rate=found.peak.met or first.rate),
        )

    def _settings(self, what: str, pace: "_Pace") -> LoadSettings:
        effort = self.effort
        if what == "SingleStream":
            return LoadSettings("SingleStream", effort.seconds, queries=64)
        if what == "Offline":
            return LoadSettings("Offline", effort.seconds, rate=1.1 * pace.rate)
        if what == "MultiStream":
            return LoadSettings(
                "MultiStream",
                effort.seconds,
                queries=effort.queries,
                percentile=effort.percentile,
            )
        return LoadSettings(
            "Server",
            effort.seconds,
            queries=effort.queries,
            rate=_UTILISATION * pace.rate,
            bound_s=pace.bound_s,
            percentile=effort.percentile,
            grace_s=180.0 + 2 * effort.queries / (_UTILISATION * pace.rate),
        )

    def _result(
        self,
        stand: Stand,
        what: str,
        begin: tuple[datetime, float],
        *,
        status: Status,
        reason: str,
        metrics: tuple[Metric, ...] = (),
        others: float | None = None,
        settings: LoadSettings | None = None,
    ) -> CaseResult:
        started, clock = begin
        case = stand.case(what)
        logs = self.logs.relative_to(self.options.home) / case
        return CaseResult(
            suite=SUITE,
            case=case,
            contestant="headrace",
            status=status,
            reason=reason,
            parameters={
                "layout": stand.layout,
                "model": self.bundle.manifest.name,
                "logs": str(logs),
                **(_parameters(settings) if settings else {}),
            },
            metrics=metrics,
            bundle=self.bundle.digest,
            fingerprint=self.hardware.fingerprint,
            processor=self.hardware.processor,
            versions={name: found for name in _PACKAGES if (found := installed_version(name))},
            other_cores=others,
            seconds=round(time.perf_counter() - clock, 3),
            started=started.isoformat(timespec="seconds"),
        )


@dataclass(frozen=True)
class _Pace:
    """Of one stand.

    Attributes:
        rate: Samples a second, offline.
        bound_s: The latency that the open-loop cases have to keep: about ten times what
            half of all single requests take, on a ladder of 1, 2 and 5, so that runs are alike.
    """

    rate: float
    bound_s: float


_UNPACED = _Pace(1.0, 1.0)
"""Where no case asks for it."""


def rung(seconds: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that is not below."""
    power = 10.0 ** math.floor(math.log10(seconds))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= seconds)


@contextmanager
def _open(stand: Stand, bundle: Bundle, scratch: Path) -> Iterator[MakeSubject]:
    """What makes the subjects of a stand; its server, where it has one, runs meanwhile."""
    arguments: dict[str, object] = {"bundle": str(bundle.path)}
    if stand.layout == "process":
        yield lambda scenario: SubjectSpec(
            f"{_SUBJECTS}in_process",
            {**arguments, "callers": min(2, _AT_ONCE[scenario])},
        )
        return
    if stand.road == "in-process":
        raise AssertionError  # a server is reached by a road
    road = stand.road
    service = Service.model_validate(
        {
            "command": headrace_command(
                _PROGRAM, bundle, layout=stand.layout, road=road, threads=0
            ),
            "environment": home_environment(scratch / f"home-{stand.case('')[1:]}"),
            **write_request(
                bundle,
                scratch / f"request-{stand.case('')[1:]}",
                road=road,
                image=bundle.manifest.preprocessing is not None,
            ),
        }
    )
    server, client, _ = service.start()
    limit = "connections" if road == "http" else "limit"
    try:
        client.close()
        yield lambda scenario: SubjectSpec(
            f"{_SUBJECTS}{road}",
            {**arguments, "port": server.port, limit: _AT_ONCE[scenario], "pids": server.pids()},
        )
    finally:
        server.close()


def _cases(stand: Stand, options: SuiteOptions) -> list[str]:
    """Which scenarios of a stand were asked for."""
    if stand.long and options.quick:
        return []
    peak = (PEAK,) if stand.road == "http" else ()
    return [what for what in (*_SCENARIOS, *peak) if fnmatch(stand.case(what), options.case)]


def _example(scratch: Path, progress: Callable[[str], None]) -> Bundle:
    if not EXAMPLE.is_file():
        raise UsageError(
            "bench.no-example",
            f"the suite {SUITE} measures a recipe of headrace's source tree, and this is none",
            f"give a bundle of your own: headrace bench run {SUITE} --bundle my.bundle",
        )
    from headrace_compiler.build import build  # noqa: PLC0415 - torch, which a bundle does without

    progress("compiling the example")
    return open_bundle(build(EXAMPLE, out=scratch / "bundles", measure="none").path)


def _parameters(settings: LoadSettings) -> dict[str, str | int | float]:
    found: dict[str, str | int | float] = {"seconds": settings.seconds}
    if settings.scenario == "Server":
        found["rate"] = rounded(settings.rate)
        found["bound_ms"] = rounded(1e3 * settings.bound_s)
        found["percentile"] = settings.target
    if settings.scenario == "MultiStream":
        found["samples_per_query"] = settings.samples_per_query
    return found

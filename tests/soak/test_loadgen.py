"""LoadGen against a hand calculation, on a subject that takes a constant time.

One at a time, first come first served, c seconds each: alone a sample takes c, n at once take n c,
and offline 1/c are done a second. Under Poisson arrivals at utilisation rho it is the queue M/D/1,
whose mean wait is rho c / (2 (1 - rho)): the Pollaczek-Khinchine formula for a service time without
variance (L. Kleinrock, "Queueing Systems", volume 1, Wiley 1975, section 5.6).

Each run writes what it saw to `docs/soak/`, dated and with the machine's fingerprint.
"""

import json
import statistics
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from headrace.hardware import detect_hardware
from headrace_bench.load.loadgen import LoadSettings, ScenarioResult, SubjectSpec, run_scenario
from headrace_bench.load.subjects import Constant

RESULTS = Path(__file__).parents[2] / "docs" / "soak"
CONSTANT_S = 0.01
AT_ONCE = 4
UTILISATIONS = (0.3, 0.5, 0.7)
IDLE = 0.1
EARLY = 662
"""Queries that LoadGen's early stopping wants for a 99th percentile."""
RUNS = 5
"""At each utilisation; their median is taken, which a stall of the machine in one does not move."""
SHORT_S, LONG_S = 20.0, 40.0
CLOSE = 0.05
"""For what has no chance in it: sleeps end a little late."""
MEAN_WAIT = 0.25
"""For a median of means of waits, which depend on each other: more than four standard errors, as
found by simulating RUNS times LONG_S of M/D/1 (they are 4 to 6 %)."""
SUBJECT = SubjectSpec(f"{Constant.__module__}:constant", {"seconds": CONSTANT_S})


def test_constant_time_model_agrees_with_calculation(tmp_path: Path) -> None:
    """LoadGen finds every scenario VALID, and its figures are those of the hand calculation."""
    single = measured(LoadSettings("SingleStream", SHORT_S), tmp_path)
    multi = measured(
        LoadSettings("MultiStream", SHORT_S, samples_per_query=AT_ONCE, percentile=0.9), tmp_path
    )
    offline = measured(LoadSettings("Offline", SHORT_S, rate=1 / CONSTANT_S), tmp_path)
    assert offline.logged.rate is not None
    rows = [
        row("SingleStream, p50, ms", 1e3 * CONSTANT_S, p50_ms(single), CLOSE),
        row(f"MultiStream of {AT_ONCE}, p50, ms", 1e3 * AT_ONCE * CONSTANT_S, p50_ms(multi), CLOSE),
        row("Offline, samples a second", 1 / CONSTANT_S, offline.logged.rate, CLOSE),
    ]
    # What an answer costs without a queue: the median where hardly any of them waits.
    usual = p50_ms(poisson(IDLE, 1, tmp_path))
    for utilisation in UTILISATIONS:
        runs = [poisson(utilisation, seed, tmp_path) for seed in range(1, RUNS + 1)]
        name = f"Server at utilisation {utilisation:g}, mean wait, ms"
        found = statistics.median(1e3 * run.logged.mean_s - usual for run in runs)
        rows.append(row(name, 1e3 * mean_wait(utilisation), found, MEAN_WAIT))
    write_down(rows, single.logged.version)
    for entry in rows:
        assert entry["measured"] == pytest.approx(entry["calculated"], rel=entry["bound"]), entry


def poisson(utilisation: float, seed: int, logs: Path) -> ScenarioResult:
    """One run of the Server scenario, with arrivals of its own."""
    rate = utilisation / CONSTANT_S
    return measured(
        LoadSettings("Server", LONG_S, queries=EARLY, rate=rate, bound_s=1.0, seed=seed), logs
    )


def mean_wait(utilisation: float) -> float:
    """Of M/D/1, in seconds."""
    return utilisation * CONSTANT_S / (2 * (1 - utilisation))


def measured(settings: LoadSettings, logs: Path) -> ScenarioResult:
    """A run that LoadGen finds VALID."""
    found = run_scenario(
        SUBJECT, settings, logs / f"{settings.scenario}-{settings.rate:g}-{settings.seed}"
    )
    found.require_valid()
    assert found.account.errors == 0
    return found


def p50_ms(found: ScenarioResult) -> float:
    """The median, in milliseconds."""
    return 1e3 * found.logged.latencies_s[0.5]


def row(name: str, calculated: float, found: float, bound: float) -> dict[str, Any]:
    """One comparison; the bound is relative."""
    return {
        "quantity": name,
        "calculated": round(calculated, 3),
        "measured": round(found, 3),
        "bound": bound,
    }


def write_down(rows: list[dict[str, Any]], version: str) -> None:
    """One dated result; the newest of a machine replaces the one before."""
    hardware = detect_hardware()
    RESULTS.mkdir(exist_ok=True)
    result = {
        "case": "loadgen-calculation",
        "date": datetime.now(UTC).date().isoformat(),
        "fingerprint": hardware.fingerprint,
        "loadgen": version,
        "constant_seconds": CONSTANT_S,
        "seconds": {"others": SHORT_S, "Server": LONG_S},
        "runs": {"others": 1, "Server": RUNS},
        "valid": True,
        "rows": rows,
    }
    path = RESULTS / f"loadgen-calculation-{hardware.fingerprint}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")

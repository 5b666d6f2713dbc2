"""What LoadGen writes: its summary and its detail, read strictly into one typed record."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from headrace.errors import CheckError

Scenario = Literal["SingleStream", "MultiStream", "Server", "Offline"]
SUMMARY, DETAIL = "mlperf_log_summary.txt", "mlperf_log_detail.txt"
_LOG_PREFIX = ":::MLLOG "
_RATES: Mapping[Scenario, str] = {
    "SingleStream": "result_qps_with_loadgen_overhead",
    "Server": "result_completed_samples_per_sec",
    "Offline": "result_samples_per_second",
}


class LoadGenError(CheckError):
    """A scenario's process crashed or hung, or its logs are not what LoadGen writes."""


@dataclass(frozen=True)
class Logged:
    """What LoadGen's summary and detail say, which agree.

    Attributes:
        verdict: "Result is : VALID", and LoadGen counted no error of its own.
        reasons: Why not, in LoadGen's words.
        lasted: As long, and with as many queries, as was asked.
        errors: That LoadGen counted of its own.
        queries: That were issued and completed.
        latencies_s: By percentile (0.5, 0.9, 0.95, 0.97, 0.99, 0.999), in seconds from the
            scheduled time: of a query in MultiStream, else of a sample.
        rate: Samples a second, as far as the scenario has a rate: SingleStream, Server (those
            completed), Offline.
        scheduled_rate: Server: the arrivals a second that came about.
        version: LoadGen's.
    """

    scenario: Scenario
    verdict: bool
    reasons: tuple[str, ...]
    lasted: bool
    errors: int
    queries: int
    latencies_s: Mapping[float, float]
    mean_s: float
    min_s: float
    max_s: float
    rate: float | None
    scheduled_rate: float | None
    version: str


def read_logs(logs: Path, scenario: Scenario) -> Logged:
    """Reads LoadGen's summary and detail, and checks each against the other.

    Args:
        logs: The directory they lie in.
        scenario: Which it has to be.

    Raises:
        LoadGenError: A file is missing, cut short, of another scenario, or they disagree.
    """
    detail = _read_detail(logs / DETAIL)
    summary = _read_summary(logs / SUMMARY)
    try:
        verdicts = {detail["result_validity"], summary["Result is"]}
        scenarios = {scenario, detail["requested_scenario"], summary["Scenario"]}
        if len(verdicts) != 1 or not verdicts <= {"VALID", "INVALID"}:
            raise _unreadable(logs, f"verdicts are {', '.join(sorted(map(str, verdicts)))}")
        if len(scenarios) != 1:
            raise _unreadable(logs, f"scenarios are {', '.join(sorted(map(str, scenarios)))}")
        return _logged(scenario, detail, summary)
    except (KeyError, TypeError, ValueError) as error:
        raise _unreadable(logs, f"there is no usable {error}") from error


def _logged(scenario: Scenario, detail: Mapping[str, Any], summary: Mapping[str, str]) -> Logged:
    per_query = "_per_query" if scenario == "MultiStream" else ""
    whole = "_query" if scenario == "MultiStream" else ""
    pattern = re.compile(rf"result_([0-9.]+)_percentile{per_query}_latency_ns")
    latencies = {
        round(float(matched[1]) / 100, 6): _seconds(value)
        for key, value in detail.items()
        if (matched := pattern.fullmatch(key))
    }
    if not {0.5, 0.9, 0.99} <= latencies.keys():
        raise KeyError(pattern.pattern)
    errors = int(detail["num_errors"])
    scheduled = detail["result_scheduled_samples_per_sec"] if scenario == "Server" else None
    return Logged(
        scenario=scenario,
        verdict=detail["result_validity"] == "VALID" and not errors,
        reasons=_reasons(detail, summary, errors),
        lasted=detail["result_min_duration_met"] and detail["result_min_queries_met"],
        errors=errors,
        queries=int(detail["result_query_count"]),
        latencies_s=latencies,
        mean_s=_seconds(detail[f"result_mean{whole}_latency_ns"]),
        min_s=_seconds(detail[f"result_min{whole}_latency_ns"]),
        max_s=_seconds(detail[f"result_max{whole}_latency_ns"]),
        rate=float(detail[_RATES[scenario]]) if scenario in _RATES else None,
        scheduled_rate=None if scheduled is None else float(scheduled),
        version=str(detail["loadgen_version"]),
    )


def _reasons(detail: Mapping[str, Any], summary: Mapping[str, str], errors: int) -> tuple[str, ...]:
    """What was not satisfied, LoadGen's advice, and its errors."""
    found = [f"{key}: no" for key, value in summary.items() if value == "NO"]
    if detail["result_validity"] != "VALID":
        told = (detail.get("result_invalid_reason"), detail.get("early_stopping_result"))
        found += [" ".join(str(text).replace(" * ", " ").split()) for text in told if text]
    if errors:
        said = detail.get("error_runtime", "see its detail log")
        found.append(f"LoadGen's own errors ({errors}): {said}")
    return tuple(found)


def _read_detail(path: Path) -> dict[str, Any]:
    """The last value of each key."""
    found: dict[str, Any] = {}
    for number, line in enumerate(_lines(path), start=1):
        try:
            entry = json.loads(line.removeprefix(_LOG_PREFIX))
            found[entry["key"]] = entry["value"]
        except (ValueError, KeyError, TypeError) as error:
            raise _unreadable(path, f"line {number} is not one of its lines") from error
    return found


def _read_summary(path: Path) -> dict[str, str]:
    pairs = (line.partition(":") for line in _lines(path) if ":" in line)
    return {key.strip(): value.strip() for key, _, value in pairs}


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise _unreadable(path, "there is no such file")
    return path.read_text(errors="replace").splitlines()


def _seconds(nanoseconds: Any) -> float:  # noqa: ANN401 - as the log has it
    return int(nanoseconds) / 1e9


def _unreadable(path: Path, why: str) -> LoadGenError:
    return LoadGenError("bench.loadgen-log", f"{path} is no log of a finished run: {why}")

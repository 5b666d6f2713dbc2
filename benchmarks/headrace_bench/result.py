"""What a benchmark says: one JSON line a case, under the fingerprint of its machine."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from headrace.errors import UsageError
from headrace.tensors import Frozen

RESULTS = "results.jsonl"

Status = Literal["ok", "failed", "missing", "disturbed"]
"""`failed`: it crashed or answered wrong. `missing`: something it needs is not here. `disturbed`:
others kept the machine busy, so no figures are given."""


class Metric(Frozen):
    """One figure.

    Attributes:
        unit: `ms`, `s`, `1/s`, `MB`, `cores` or `1` (a plain number).
        low: Lower end of the 95 % interval, where there is one.
        high: Upper end of it.
    """

    name: str
    value: float
    unit: Literal["ms", "s", "1/s", "MB", "cores", "1"]
    better: Literal["lower", "higher", "neither"] = "lower"
    low: float | None = None
    high: float | None = None


class Ratio(Frozen):
    """How a contestant compares with another one of the same case, measured in alternation.

    Attributes:
        other: The contestant that this one is divided by.
        value: Of the metric's two values; above 1 means larger here.
        low: Lower end of the 95 % interval.
        high: Upper end of it.
    """

    metric: str
    other: str
    value: float
    low: float
    high: float


class CaseResult(Frozen):
    """One contestant of one case.

    Attributes:
        case: The name of the case in its suite; the contestants of a case do the same work.
        contestant: `headrace`, or a peer's name.
        reason: Why there are no figures, or what is to be known of them.
        bundle: The digest of the bundle that was used.
        versions: Of the packages that decide the speed.
        other_cores: How many cores others kept busy meanwhile, on average.
        started: ISO 8601, UTC.
    """

    schema_version: Literal[1] = 1
    suite: str
    case: str
    contestant: str
    status: Status
    reason: str = ""
    parameters: dict[str, str | int | float] = Field(default_factory=dict)
    metrics: tuple[Metric, ...] = ()
    ratios: tuple[Ratio, ...] = ()
    bundle: str | None = None
    fingerprint: str
    processor: str
    versions: dict[str, str]
    other_cores: float | None = None
    seconds: float
    started: str

    def metric(self, name: str) -> Metric | None:
        """The metric of a name, if it was measured."""
        return next((metric for metric in self.metrics if metric.name == name), None)

    def to_line(self) -> str:
        """One line of JSON."""
        return json.dumps(self.model_dump(mode="json"), separators=(",", ":"))


def read_results(path: Path) -> tuple[CaseResult, ...]:
    """The results of a run, from its directory or its file of lines.

    Raises:
        UsageError: There is none, or a line is no result.
    """
    file = path / RESULTS if path.is_dir() else path
    if not file.is_file():
        raise UsageError("bench.no-run", f"{path} holds no run: there is no {RESULTS}")
    results = []
    for number, line in enumerate(file.read_text().splitlines(), start=1):
        try:
            results.append(CaseResult.model_validate_json(line))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise UsageError("bench.result", f"{file}:{number}: {where}: {first['msg']}") from error
    return tuple(results)


def contested(results: Sequence[CaseResult]) -> dict[tuple[str, str], tuple[CaseResult, ...]]:
    """The results by suite and case, in the order of the run."""
    found: dict[tuple[str, str], list[CaseResult]] = {}
    for result in results:
        found.setdefault((result.suite, result.case), []).append(result)
    return {key: tuple(group) for key, group in found.items()}

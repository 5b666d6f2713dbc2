"""Two stored runs are compared case by case, and only where they can be."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from headrace.errors import UsageError
from headrace_bench.compare import compare_runs
from headrace_bench.result import RESULTS, CaseResult, Metric, Status, read_results
from headrace_bench.runner import keep


@dataclass(frozen=True)
class Run:
    """Writes runs of one case, each in a directory of its own."""

    root: Path

    def __call__(
        self,
        name: str,
        latency: float,
        *,
        width: float = 0.01,
        fingerprint: str = "machine",
        status: Status = "ok",
        case: str = "b1",
    ) -> Path:
        """A run whose latency has an interval of `width` to both sides."""
        figure = Metric(
            name="latency_p50",
            value=latency,
            unit="ms",
            low=latency * (1 - width),
            high=latency * (1 + width),
        )
        result = CaseResult(
            suite="compile",
            case=case,
            contestant="headrace",
            status=status,
            reason="" if status == "ok" else "it crashed",
            metrics=(figure,) if status == "ok" else (),
            fingerprint=fingerprint,
            processor="a processor",
            versions={"onnxruntime": "1"},
            seconds=1.0,
            started="2020-01-01T00:00:00+00:00",
        )
        directory = self.root / name
        assert list(keep(iter([result]), directory)) == [result]
        return directory


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Writes runs."""
    return Run(tmp_path)


@pytest.mark.parametrize(
    ("after", "width", "verdict", "status"),
    [
        (13.0, 0.01, "regressed", 1),
        (8.0, 0.01, "improved", 0),
        (10.1, 0.01, "no difference shown", 0),
        (13.0, 0.5, "too noisy to say", 4),
    ],
)
def test_a_change_is_judged_by_both_intervals(
    run: Run, after: float, width: float, verdict: str, status: int
) -> None:
    """The ratio's interval is as wide as both runs' together."""
    report = compare_runs(run("a", 10.0), run("b", after, width=width), threshold=0.1)
    assert (report.verdict, report.exit_status) == (verdict, status)
    (comparison,) = report.comparisons
    assert comparison.ratio == pytest.approx(after / 10)
    assert comparison.low < comparison.ratio < comparison.high
    assert report.reason == "the runs were not measured side by side"


def test_runs_of_unlike_machines_are_refused(run: Run) -> None:
    """Figures of one machine say nothing of another."""
    with pytest.raises(UsageError, match="unlike machines: machine, other"):
        compare_runs(run("a", 10.0), run("b", 10.0, fingerprint="other"), threshold=0.1)


def test_runs_without_a_case_in_common_are_refused(run: Run) -> None:
    """There is nothing to say of them."""
    with pytest.raises(UsageError, match="no measured case in common"):
        compare_runs(run("a", 10.0), run("b", 10.0, case="b8"), threshold=0.1)


def test_a_case_that_fails_now_has_regressed(run: Run) -> None:
    """A case that had figures and crashed is a regression, with its reason."""
    report = compare_runs(run("a", 10.0), run("b", 10.0, status="failed"), threshold=0.1)
    assert report.verdict == "regressed"
    assert report.comparisons[0].note == "it crashed"


def test_a_disturbed_case_is_no_verdict(run: Run) -> None:
    """A case whose figures were withheld is no regression."""
    report = compare_runs(run("a", 10.0), run("b", 10.0, status="disturbed"), threshold=0.1)
    assert report.exit_status == 4


def test_runs_are_read_strictly(run: Run, tmp_path: Path) -> None:
    """No run, and a line that is no result, are errors that name the place."""
    with pytest.raises(UsageError, match=r"there is no results\.jsonl"):
        read_results(tmp_path)
    directory = run("a", 10.0)
    with (directory / RESULTS).open("a") as file:
        file.write('{"schema_version": 2}\n')
    with pytest.raises(UsageError, match=r"results\.jsonl:2: "):
        read_results(directory)

"""Runs a suite: every case that was asked for, each result kept as soon as it is there."""

import tempfile
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

from headrace.bundle.open import Bundle
from headrace.errors import UsageError
from headrace.hardware import Hardware
from headrace_bench.contest import Effort, run_contest
from headrace_bench.result import RESULTS, CaseResult
from headrace_bench.suites import contests_of, results_of
from headrace_bench.suites.options import SuiteOptions


def run_suite(  # noqa: PLR0913 - what, how, where, and whom to tell
    suite: str,
    *,
    bundle: Bundle | None,
    case: str,
    home: Path,
    peers: tuple[str, ...],
    effort: Effort,
    quick: bool,
    hardware: Hardware,
    progress: Callable[[str], None],
) -> Iterator[CaseResult]:
    """Yields each result as it is measured.

    Args:
        case: A pattern as of a shell; only cases that match are run.
        peers: Names of the peers to measure beside headrace.

    Raises:
        UsageError: There is no such suite or case, or the suite cannot measure the bundle.
    """
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as scratch:
        options = SuiteOptions(bundle, Path(scratch), home, quick, peers, case)
        found = False
        make_contests, make_results = contests_of(suite), results_of(suite)
        if make_contests is not None:
            progress(f"{suite}: preparing")
            contests = [c for c in make_contests(options) if fnmatch(c.case, case)]
            for number, contest in enumerate(contests, start=1):
                found = True
                where = partial(_say, progress, f"case {number} of {len(contests)}")
                yield from run_contest(contest, effort, hardware, where)
        if make_results is not None:
            for result in make_results(options, hardware, progress):
                found = True
                yield result
        if not found:
            raise UsageError("bench.case", f"suite '{suite}' has no case like '{case}'")


def keep(results: Iterator[CaseResult], directory: Path) -> Iterator[CaseResult]:
    """Passes results on, each written down first: an interrupted run keeps what it has."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / RESULTS).open("w") as file:
        for result in results:
            file.write(f"{result.to_line()}\n")
            file.flush()
            yield result


def _say(progress: Callable[[str], None], where: str, what: str) -> None:
    progress(f"{where}, {what}")

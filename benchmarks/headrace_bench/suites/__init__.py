"""The suites: what each measures stands in a module of its own."""

from collections.abc import Callable, Mapping
from importlib import import_module
from types import ModuleType
from typing import cast

from headrace.errors import UsageError
from headrace.hardware import Hardware
from headrace_bench.contest import Contest
from headrace_bench.result import CaseResult
from headrace_bench.suites.options import SuiteOptions

SUITES: Mapping[str, str] = {
    "kernels": "preprocessing of images, beside Pillow, OpenCV, torch and albumentations",
    "compile": "inference in one process, beside ONNX Runtime, OpenVINO and PyTorch",
    "serving": "a server under load, beside other servers and the floors of each road",
    "coldstart": "from the start of a server to its first right answer; the size of an install",
    "endtoend": "photographs to classes under MLPerf LoadGen's scenarios",
}

Contests = Callable[[SuiteOptions], list[Contest]]
Results = Callable[[SuiteOptions, Hardware, Callable[[str], None]], list[CaseResult]]


def contests_of(suite: str) -> Contests | None:
    """What makes a suite's contests; None for one that has none."""
    return cast("Contests | None", getattr(_module(suite), "contests", None))


def results_of(suite: str) -> Results | None:
    """What measures those cases of a suite that are no contests; None where all are."""
    return cast("Results | None", getattr(_module(suite), "results", None))


def _module(suite: str) -> ModuleType:
    if suite not in SUITES:
        raise UsageError(
            "bench.suite", f"there is no suite '{suite}'; there are {', '.join(SUITES)}"
        )
    return import_module(f"headrace_bench.suites.{suite}")

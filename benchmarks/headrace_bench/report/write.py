"""Puts the reports of a run beside its lines; a reader finds the old file or the new one."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from headrace_bench.gate import GateReport
from headrace_bench.report.html import gate_page, page
from headrace_bench.report.junit import gate_junit, junit
from headrace_bench.report.markdown import gate_markdown, markdown
from headrace_bench.result import CaseResult

SUMMARY, JUNIT, PAGE, GATE = "summary.md", "junit.xml", "report.html", "gate.json"
_MODE = 0o644


def write_report(directory: Path, results: Sequence[CaseResult]) -> tuple[Path, ...]:
    """Writes the reports of a run, and returns the files.

    Raises:
        OSError: The disk is full or not writable.
    """
    return _write(
        directory, {SUMMARY: markdown(results), JUNIT: junit(results), PAGE: page(results)}
    )


def write_gate_report(directory: Path, report: GateReport) -> tuple[Path, ...]:
    """Writes the reports of a gate, and the gate itself as JSON; returns the files.

    Raises:
        OSError: The disk is full or not writable.
    """
    return _write(
        directory,
        {
            SUMMARY: gate_markdown(report),
            JUNIT: gate_junit(report),
            PAGE: gate_page(report),
            GATE: report.model_dump_json(indent=1) + "\n",
        },
    )


def _write(directory: Path, texts: dict[str, str]) -> tuple[Path, ...]:
    directory.mkdir(parents=True, exist_ok=True)
    return tuple(_replace(directory / name, text) for name, text in texts.items())


def _replace(path: Path, text: str) -> Path:
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    partial = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        partial.chmod(_MODE)
        return partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)

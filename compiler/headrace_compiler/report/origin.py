"""What a build stood on: lineage, hardware, limits."""

from collections.abc import Mapping

from headrace.bundle.manifest import Lineage
from headrace.bundle.measurement import Limits, Measurement
from headrace_compiler.report.document import definitions
from headrace_compiler.report.markup import Markup, tag
from headrace_compiler.report.reading import duration
from headrace_compiler.report.report import Report
from headrace_compiler.report.text import figure, plain, quantity


def origin(report: Report) -> Markup:
    """All that another machine needs to make the same, and to compare what it measures."""
    measurement = report.measurement
    return tag(
        "footer",
        tag("h2", "Lineage", id="lineage"),
        definitions(_lineage(report)),
        tag("h2", "Hardware"),
        definitions(_hardware(measurement)),
        tag("h2", "Limits"),
        definitions(_limits(measurement.limits)),
    )


def _lineage(report: Report) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    if report.manifest:
        found.append(("Content", report.measurement.content))
    made_by = report.made_by
    if made_by:
        found += _digests(made_by)
    found.append(("Commit", plain(report.commit, 200) or "no repository"))
    steps = made_by.steps if made_by else tuple(report.seconds)
    found.append(("Steps", _steps(steps, report.seconds)))
    return found


def _digests(lineage: Lineage) -> list[tuple[str, str]]:
    return [
        ("Recipe", lineage.recipe),
        ("Weights", lineage.weights),
        ("Samples", lineage.samples),
        ("Seed", str(lineage.seed)),
        ("Target", plain(lineage.target, 60)),
        ("Tools", _versions(lineage.tools)),
    ]


def _steps(steps: tuple[str, ...], seconds: Mapping[str, float]) -> str:
    """In the order of the plan, each with its time where it ran."""
    names = list(dict.fromkeys([*steps, *seconds]))
    told = [
        f"{plain(name, 100)} {duration(seconds[name])}" if name in seconds else plain(name, 100)
        for name in names
    ]
    whole = f"; {duration(sum(seconds.values()))} together" if len(seconds) > 1 else ""
    return f"{', '.join(told)}{whole}" if told else "none"


def _hardware(measurement: Measurement) -> list[tuple[str, str]]:
    machine = measurement.hardware
    return [
        ("Fingerprint", plain(machine.fingerprint, 200)),
        ("Architecture", plain(machine.architecture, 100)),
        ("Processor", plain(machine.processor, 200)),
        ("Instruction sets", ", ".join(plain(x, 40) for x in machine.instruction_sets) or "none"),
        ("Cores", f"{machine.cores:,}"),
        ("Memory", f"{machine.memory_mib:,} MiB"),
        ("Engines", _versions(machine.engines)),
        ("Execution provider", plain(measurement.provider, 100)),
    ]


def _limits(limits: Limits) -> list[tuple[str, str]]:
    memory, p99 = limits.memory_mib, limits.p99_ms
    return [
        ("Accuracy loss", f"at most {figure(limits.accuracy_loss)} of the metric"),
        ("Memory", "no limit" if memory is None else f"at most {quantity(memory, 'MiB')}"),
        ("p99 of one row", "no limit" if p99 is None else f"at most {quantity(p99, 'ms')}"),
    ]


def _versions(versions: Mapping[str, str]) -> str:
    told = [f"{plain(name, 60)} {plain(number, 60)}" for name, number in sorted(versions.items())]
    return ", ".join(told) or "none"

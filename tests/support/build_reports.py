"""Made-up reports of builds, for tests of how they are told."""

from collections.abc import Callable
from pathlib import Path

from measurements import DRAFTS, Draft, make_measurement
from outlines import HOSTILE

from headrace.bundle.manifest import MANIFEST, Lineage, Manifest
from headrace.bundle.measurement import Limits, Measurement
from headrace_compiler.report.report import Report

_GOOD = Path(__file__).parents[1] / "assets" / "bundles" / "good.bundle"
LINEAGE = Lineage(
    recipe="1" * 64,
    weights="2" * 64,
    samples="3" * 64,
    seed=7,
    target="cpu",
    tools={"torch": "2.13.0", "onnx": "1.23.2"},
    steps=("samples", "capture", "export", "package"),
)
PROBLEM = "No candidate keeps to the limits: p99 of one row at most 0.5 ms."


def make_report(measurement: Measurement, *, commit: str = "c0ffee-dirty") -> Report:
    """The report of a bundle that holds the variants that were chosen."""
    manifest = Manifest.model_validate_json((_GOOD / MANIFEST).read_bytes())
    variant = manifest.variants[0]
    names = measurement.selection.chosen or (measurement.candidates[0].name,)
    changes = {
        "name": "efficientnet-lite0",
        "version": "1.2",
        "description": "Classifies images.",
        "lineage": LINEAGE,
        "variants": tuple(variant.model_copy(update={"name": name}) for name in names),
    }
    seconds = {"samples": 0.12, "capture": 3.2, "export": 8.1, "package": 0.1}
    return Report(manifest.model_copy(update=changes), measurement, seconds, commit)


def make_failed(measurement: Measurement | None = None) -> Report:
    """The report of a build that no candidate passed."""
    limits = Limits(accuracy_loss=0.0005, p99_ms=0.5)
    found = measurement or make_measurement((DRAFTS[0], *DRAFTS[4:8]), limits=limits)
    return Report(
        None,
        found,
        {"samples": 0.12},
        "",
        problem=PROBLEM,
        name="efficientnet-lite0",
        version="1.2",
        lineage=LINEAGE,
    )


def many() -> Measurement:
    """A hundred candidates on six numbers of threads."""
    others = [
        Draft(
            f"int8-candidate-{number}",
            "int8",
            "openvino" if number % 2 else "onnxruntime",
            ms=3 + 0.3 * number,
            loss=0.0005 * (1 + number % 17),
            error=0.01 * (number + 1),
        )
        for number in range(99)
    ]
    return make_measurement((DRAFTS[0], *others), threads=(1, 2, 4, 8, 16, 32))


def hostile() -> Report:
    """A build in which every text that anyone may choose is an attack."""
    found = make_measurement(metric=HOSTILE)
    dropped = tuple(
        each.model_copy(update={"gate": HOSTILE, "reason": HOSTILE})
        for each in found.selection.dropped
    )
    candidates = tuple(
        each.model_copy(update={"placement": {HOSTILE: 3}, "fault": each.fault and HOSTILE})
        for each in found.candidates
    )
    hardware = {
        **dict.fromkeys(("architecture", "processor"), HOSTILE),
        "instruction_sets": (HOSTILE,),
        "engines": {HOSTILE: HOSTILE},
    }
    layers = [
        layer.model_copy(update={"node": HOSTILE, "operator": HOSTILE})
        for layer in found.sensitivity[0].layers
    ]
    broken = {"made": HOSTILE, "layers": tuple(layers)}
    attacked = found.model_copy(
        update={
            "provider": HOSTILE,
            "candidates": candidates,
            "selection": found.selection.model_copy(update={"dropped": dropped}),
            "hardware": found.hardware.model_copy(update=hardware),
            "sensitivity": (found.sensitivity[0].model_copy(update=broken),),
        }
    )
    lineage = {"target": HOSTILE, "tools": {HOSTILE: HOSTILE}, "steps": (HOSTILE,)}
    return Report(
        None,
        attacked,
        {HOSTILE: 1.0},
        HOSTILE,
        problem=HOSTILE,
        name=HOSTILE,
        version=HOSTILE,
        lineage=LINEAGE.model_copy(update=lineage),
    )


REPORTS: dict[str, Callable[[], Report]] = {
    "usual": lambda: make_report(make_measurement()),
    "no evaluation data": lambda: make_report(make_measurement(DRAFTS[:3], metric=None, layers=0)),
    "lower is better": lambda: make_report(make_measurement(metric="mean_error")),
    "one candidate": lambda: make_report(make_measurement(DRAFTS[:1], layers=0)),
    "one candidate, no evaluation data": lambda: make_report(
        make_measurement(DRAFTS[:1], metric=None, layers=0)
    ),
    "one batch, few rounds": lambda: make_report(make_measurement(batches=(1,), rounds=3)),
    "nothing timed": lambda: make_report(
        make_measurement((Draft("fp32", "fp32", ms=None),), metric=None, layers=0)
    ),
    "no bundle": make_failed,
    "hundred candidates": lambda: make_report(many()),
    "hostile": hostile,
}
"""Every kind of report there is."""

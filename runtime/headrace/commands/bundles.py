"""`inspect`, `diff`, `verify`: what is in a bundle, and whether it is what it says."""

import json
from pathlib import Path
from typing import Annotated

import typer

from headrace.bundle.golden import Deviation
from headrace.bundle.open import Bundle, open_bundle
from headrace.commands.profile import print_measurement
from headrace.commands.screen import AsJson, err, print_json, print_table
from headrace.engine.model import load_model
from headrace.engine.session import CPU
from headrace.errors import MissingError
from headrace.profile import read_measurements
from headrace.tensors import TensorSpec

_SHORT = 64  # a digest in full
BundlePath = Annotated[Path, typer.Argument(help="A bundle's directory.", metavar="BUNDLE")]


def register(app: typer.Typer) -> None:
    """Adds these commands to the program."""
    app.command("inspect")(inspect)
    app.command("diff")(diff)
    app.command("verify")(verify)


def inspect(path: BundlePath, *, as_json: AsJson = False) -> None:
    """Show what is in a bundle: tensors, variants and what was measured of them, lineage."""
    bundle = open_bundle(path)
    manifest = bundle.manifest
    measurements = read_measurements(bundle)
    if as_json:
        print_json(
            {
                "path": str(bundle.path),
                "digest": bundle.digest,
                "manifest": json.loads(manifest.to_json()),
                "measurements": [each.model_dump(mode="json") for each in measurements],
            }
        )
        return
    size = sum(entry.size for entry in manifest.files.values())
    targets = [kernel.target for kernel in manifest.kernels]
    print_table(
        bundle.label,
        ("", ""),
        [
            ("digest", bundle.digest),
            *([("description", manifest.description)] if manifest.description else []),
            ("size", f"{size / 1e6:.1f} MB in {len(manifest.files)} files"),
            *[("takes", _tensor(spec)) for spec in manifest.request_inputs],
            *[("answers", _tensor(spec)) for spec in manifest.answer_outputs],
            *([("prepares images", "in the graph")] if manifest.in_graph else []),
            *([("kernels", " ".join(targets))] if targets else []),
        ],
    )
    parities = {parity.variant: parity for parity in manifest.parity}
    print_table(
        "variants",
        ("variant", "precision", "engine", "largest error", "against", "at batch sizes"),
        [
            (
                variant.name,
                variant.precision,
                variant.engine,
                f"{parities[variant.name].max_absolute_error:.2g}",
                parities[variant.name].reference,
                " ".join(str(size) for size in parities[variant.name].batch_sizes),
            )
            for variant in manifest.variants
            if variant.name in parities
        ],
    )
    for each in measurements:
        print_measurement(each)
    _print_lineage(bundle)


def diff(
    a: Annotated[Path, typer.Argument(help="A bundle's directory.")],
    b: Annotated[Path, typer.Argument(help="Another bundle's directory.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Show what changed between two bundles. Exits with 1 if their content differs."""
    before, after = open_bundle(a), open_bundle(b)
    changes = compare(before, after)
    same = before.digest == after.digest
    if as_json:
        print_json({"same": same, "a": before.digest, "b": after.digest, "changes": changes})
    elif same:
        print_table("the content is the same", ("digest",), [(before.digest,)])
    else:
        rows = [(path, *(_short(value) for value in pair)) for path, pair in changes.items()]
        print_table("what changed", ("", str(a), str(b)), rows)
    if not same:
        raise typer.Exit(1)


def compare(before: Bundle, after: Bundle) -> dict[str, tuple[object, object]]:
    """The leaves of two manifests that differ, by path; None where one has no such leaf."""
    left, right = (
        _leaves("", bundle.manifest.model_dump(mode="json")) for bundle in (before, after)
    )
    return {
        path: (left.get(path), right.get(path))
        for path in sorted(left.keys() | right.keys())
        if left.get(path) != right.get(path)
    }


def verify(path: BundlePath, *, provider: str = CPU, as_json: AsJson = False) -> None:
    """Check every digest of a bundle, then replay its golden cases on this machine."""
    with err().status("checking digests"):
        bundle = open_bundle(path)
    with err().status("replaying golden cases"):
        deviations, absent = _replay(bundle, provider)
    worst = max(deviations, key=lambda deviation: deviation.excess)
    cases = len({deviation.case for deviation in deviations})
    if as_json:
        print_json(
            {
                "path": str(bundle.path),
                "digest": bundle.digest,
                "files": len(bundle.manifest.files) + 1,
                "golden_cases": cases,
                "not_replayed": absent,
                "worst": {"case": worst.case, "tensor": worst.tensor, "error": worst.error},
            }
        )
        return
    print_table(
        f"{bundle.label}: verified",
        ("check", "result"),
        [
            ("digests", f"{len(bundle.manifest.files) + 1} files as their manifest says"),
            ("golden cases", f"{cases} replayed on {provider}, by each variant"),
            *[(f"variant {name}", f"not replayed: {why}") for name, why in absent.items()],
            ("worst deviation", f"{worst.error:.2g} in {worst.tensor} of case {worst.case}"),
            ("digest", bundle.digest),
        ],
    )


def _print_lineage(bundle: Bundle) -> None:
    lineage, record = bundle.manifest.lineage, bundle.build_record()
    print_table(
        "lineage",
        ("", ""),
        [
            ("recipe", lineage.recipe),
            ("weights", lineage.weights),
            ("samples", lineage.samples),
            *[("calibration", each) for each in (lineage.calibration,) if each],
            *[("evaluation", each) for each in (lineage.evaluation,) if each],
            ("commit", (record.commit if record else "") or "none"),
            ("target, seed", f"{lineage.target}, {lineage.seed}"),
            ("steps", " → ".join(lineage.steps)),
            ("tools", ", ".join(f"{tool} {number}" for tool, number in lineage.tools.items())),
        ],
    )


def _replay(bundle: Bundle, provider: str) -> tuple[list[Deviation], dict[str, str]]:
    """What the replays of all variants found, and the variants whose engine is not here.

    Raises:
        MissingError: None of the variants can run here.
        BundleError: A golden case came out otherwise than at build.
    """
    found: list[Deviation] = []
    absent: dict[str, MissingError] = {}
    for variant in bundle.manifest.variants:
        try:
            found += load_model(bundle, variant=variant, provider=provider).deviations
        except MissingError as error:
            absent[variant.name] = error
    if not found:
        raise next(iter(absent.values()))
    return found, {name: error.message for name, error in absent.items()}


def _tensor(spec: TensorSpec) -> str:
    return f"{spec.name}: {spec.datatype} [{', '.join(str(axis) for axis in spec.shape)}]"


def _leaves(prefix: str, value: object) -> dict[str, object]:
    if isinstance(value, dict):
        parts = [_leaves(f"{prefix}.{key}" if prefix else key, part) for key, part in value.items()]
    elif isinstance(value, list) and any(isinstance(part, dict | list) for part in value):
        parts = [_leaves(f"{prefix}[{number}]", part) for number, part in enumerate(value)]
    else:
        return {prefix: value}
    return {path: leaf for part in parts for path, leaf in part.items()}


def _short(value: object) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= _SHORT else f"{text[: _SHORT - 3]}..."

"""Writes the bundle: content, and beside it what was measured and the report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from headrace.bundle.digest import hash_bytes
from headrace.bundle.golden import encode_cases
from headrace.bundle.manifest import (
    GOLDEN,
    KERNELS,
    REPORT,
    BuildRecord,
    KernelEntry,
    Lineage,
    Manifest,
    Variant,
)
from headrace.bundle.measurement import Measurement, Selection
from headrace.bundle.write import package_files, write_build_record, write_bundle
from headrace.errors import CheckError
from headrace.profile import measurement_name, write_measurement
from headrace_compiler.drafts import ORT, Draft
from headrace_compiler.evidence import Evidence
from headrace_compiler.job import Job
from headrace_compiler.lineage import git_commit, tool_versions
from headrace_compiler.report.render import render_report
from headrace_compiler.report.report import Report
from headrace_compiler.steps.golden import tolerance
from headrace_compiler.steps.prove import Proof
from headrace_compiler.steps.samples import packed
from headrace_compiler.steps.sketch import Sketch

NO_CONTENT = "0" * 64
"""Stands for the digest of a bundle that was not written."""


@dataclass(frozen=True)
class Package:
    """A bundle as it was written.

    Attributes:
        measurement: Beside the content; None where nothing was measured.
    """

    path: Path
    digest: str
    measurement: Measurement | None


@dataclass(frozen=True)
class Extras:
    """What stands in a bundle beside its variants and golden cases.

    Attributes:
        kernels: Pre- and postprocessing as native libraries, by target.
        named: Files that the preprocessing names, by their path in the bundle.
    """

    kernels: Mapping[str, bytes]
    named: Mapping[str, bytes]
    sketches: Sequence[Sketch]


def package(
    job: Job,
    evidence: Evidence,
    extras: Extras,
    seconds: Mapping[str, float],
) -> Package:
    """Writes the bundle, all of it or none, and what was found out about it.

    Args:
        seconds: Of each step before this one.

    Raises:
        CheckError: No candidate keeps the recipe's budget; the report says why.
        UsageError: There is a bundle of this name.
        OSError: The disk is full or not writable.
    """
    destination = job.destination
    commit = git_commit(job.folder)
    if evidence.selection is not None and not evidence.selection.choices:
        raise _nothing_kept(job, evidence, seconds, commit)
    manifest, files = _content(job, evidence, extras)
    path, digest = write_bundle(destination.directory, manifest, files, replace=destination.replace)
    fingerprint = job.bench.conditions.hardware.fingerprint
    write_build_record(
        path, BuildRecord(commit=commit, fingerprint=fingerprint, seconds=dict(seconds))
    )
    found = _measurement(job, evidence, digest)
    if found is not None:
        report = Report(manifest, found, seconds, commit)
        (path / REPORT).write_text(render_report(report), encoding="utf-8")
        if evidence.selection is not None or job.replay is not None:
            write_measurement(path / measurement_name(found.hardware, found.provider), found)
    return Package(path, digest, found)


def _nothing_kept(
    job: Job, evidence: Evidence, seconds: Mapping[str, float], commit: str
) -> CheckError:
    """The error of a build that no candidate passed, once its report is written."""
    recipe, directory = job.recipe, job.destination.directory
    found = _measurement(job, evidence, NO_CONTENT)
    if found is None:
        raise ValueError("nothing was measured, and nothing was kept")
    reasons = "; ".join(f"{each.variant}: {each.reason}" for each in found.selection.dropped)
    problem = f"no variant keeps the recipe's budget: {reasons}"
    report = Report(
        manifest=None,
        measurement=found,
        seconds=seconds,
        commit=commit,
        problem=problem,
        name=recipe.name,
        version=recipe.version,
        lineage=_lineage(job, evidence, kernels=False),
    )
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{recipe.name}-{recipe.version}.{REPORT}"
    path.write_text(render_report(report), encoding="utf-8")
    return CheckError("build.budget", problem, f"the report is {path}; widen the budget there")


def _content(
    job: Job,
    evidence: Evidence,
    extras: Extras,
) -> tuple[Manifest, dict[str, bytes]]:
    recipe, kept = job.recipe, evidence.kept
    variants = tuple(_variant(evidence, draft, evidence.proofs[draft.name]) for draft in kept)
    files = {
        **{draft.path: draft.graph.content for draft in kept},
        GOLDEN: encode_cases(evidence.model.cases),
        **{each.entry.path: each.content for each in extras.sketches},
        **{_kernel(target).path: library for target, library in extras.kernels.items()},
        **extras.named,
        **package_files(
            recipe.name,
            recipe.version,
            [each for each in variants if each.engine == ORT],
            job.target.provider,
        ),
    }
    return _manifest(job, evidence, variants, extras, files), files


def _measurement(job: Job, evidence: Evidence, digest: str) -> Measurement | None:
    """The measurement of a build, or the recorded one where that was replayed.

    Args:
        digest: Of the bundle's content.
    """
    if job.replay is not None:
        return job.replay if job.replay.content == digest else None
    if not evidence.candidates:
        return None
    conditions = job.bench.conditions
    return Measurement(
        content=digest,
        hardware=conditions.hardware,
        provider=conditions.provider,
        limits=job.recipe.budget.limits,
        candidates=evidence.candidates,
        selection=evidence.selection or Selection(choices=(), dropped=evidence.dropped),
        sensitivity=evidence.sensitivity,
    )


def _kernel(target: str) -> KernelEntry:
    suffix = "ptx" if target.startswith("sm_") else "so"
    return KernelEntry(target=target, path=f"{KERNELS}{target}.{suffix}")


def _variant(evidence: Evidence, draft: Draft, proof: Proof) -> Variant:
    parity = 0.0 if proof.parity is None else proof.parity.max_absolute_error
    # Exact drafts are held to all batches; what others err by depends on the inputs they are given.
    error = max(parity, proof.golden_error) if draft.precision == "fp32" else proof.golden_error
    return draft.variant(tolerance(evidence.model.cases, error, draft.precision))


def _manifest(
    job: Job,
    evidence: Evidence,
    variants: tuple[Variant, ...],
    extras: Extras,
    files: Mapping[str, bytes],
) -> Manifest:
    recipe = job.recipe
    proofs = [evidence.proofs[variant.name].parity for variant in variants]
    return Manifest(
        schema_version=2,
        name=recipe.name,
        version=recipe.version,
        description=recipe.description,
        inputs=evidence.model.graph.inputs,
        outputs=evidence.model.graph.outputs,
        preprocessing=None if job.in_graph else packed(recipe.preprocessing),
        in_graph=job.in_graph,
        postprocessing=recipe.postprocessing,
        variants=variants,
        parity=tuple(parity for parity in proofs if parity is not None),
        lineage=_lineage(job, evidence, kernels=bool(extras.kernels)),
        sketches=tuple(each.entry for each in extras.sketches),
        kernels=tuple(_kernel(target) for target in extras.kernels),
        files={path: hash_bytes(content) for path, content in files.items()},
    )


def _lineage(job: Job, evidence: Evidence, *, kernels: bool) -> Lineage:
    data = evidence.data
    native = ("kernels",) if kernels else ()
    made = tuple(dict.fromkeys(draft.made_by for draft in evidence.kept[1:]))
    return Lineage(
        recipe=job.origin.recipe,
        weights=evidence.model.source.weights,
        samples=evidence.model.samples.digest,
        calibration=None if data is None else data.calibration.digest,
        evaluation=None if data is None else data.evaluation.digest,
        seed=job.origin.seed,
        target=job.origin.target,
        tools=tool_versions(),
        steps=(
            "samples",
            "capture",
            "export",
            "simplify",
            *made,
            *(("fuse-preprocessing",) if job.in_graph else ()),
            "golden",
            *native,
            "sketch",
            "package",
        ),
    )

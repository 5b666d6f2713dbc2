"""Writes a bundle so that its directory appears whole or not at all."""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from headrace.bundle.digest import content_digest, hash_bytes
from headrace.bundle.manifest import (
    BUILD_RECORD,
    COMPONENT,
    MANIFEST,
    PACKAGE_MANIFEST,
    SCHEMA_VERSION,
    SUFFIX,
    BuildRecord,
    Manifest,
    Variant,
)
from headrace.errors import UsageError

_CPU = "CPUExecutionProvider"


def bundle_name(name: str, version: str) -> str:
    """The directory name of a bundle."""
    return f"{name}-{version}{SUFFIX}"


def package_files(
    name: str, version: str, variants: Sequence[Variant], provider: str = _CPU
) -> dict[str, bytes]:
    """The files that make the bundle an ONNX Runtime model package, schema 1.0.

    Args:
        variants: Those that ONNX Runtime runs.
        provider: The execution provider that they are for.

    Source: onnxruntime/core/session/model_package/README.md, ONNX Runtime 1.32.
    """
    manifest = {
        "schema_version": "1.0",
        "package_name": name,
        "package_version": version,
        "layout": "portable",
        "components": {"model": "model"},
        "additional_metadata": {"headrace": {"schema_version": SCHEMA_VERSION}},
    }
    component = {
        "variants": {
            variant.name: {
                "variant_directory": Path(variant.path).parent.name,
                "ep": provider,
                "device": "cpu" if provider == _CPU else "gpu",
                "executor_info": {"ort": {"model_file": Path(variant.path).name}},
            }
            for variant in variants
        }
    }
    return {PACKAGE_MANIFEST: _json(manifest), COMPONENT: _json(component)}


def write_bundle(
    directory: Path, manifest: Manifest, files: Mapping[str, bytes], *, replace: bool = False
) -> tuple[Path, str]:
    """Writes `NAME-VERSION.bundle` into a directory, all of it or none.

    Args:
        directory: Where the bundle is to stand; made if it is not there.
        manifest: With `files` describing exactly the files given.
        files: Content by path relative to the bundle, `headrace.json` not among them.
        replace: Whether a bundle of this name may be replaced.

    Returns:
        The path of the bundle and its digest.

    Raises:
        UsageError: There is a bundle of this name, and `replace` is False.
        OSError: The disk is full or not writable; nothing is left behind.
        ValueError: The manifest does not describe the files.
    """
    encoded = manifest.to_json()
    digest = content_digest(encoded, manifest.files)
    if {path: hash_bytes(content) for path, content in files.items()} != manifest.files:
        raise ValueError("the manifest does not describe the files")
    target = directory / bundle_name(manifest.name, manifest.version)
    if (target.exists() or target.is_symlink()) and not replace:
        raise UsageError(
            "bundle.exists",
            f"{target} is there already",
            "give the recipe a new version, or pass --force to replace the bundle",
        )
    directory.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=directory))
    try:
        _write_files(staging / "bundle", {**files, MANIFEST: encoded})
        _put(staging / "bundle", target, staging / "replaced")
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target, digest


def write_build_record(bundle: Path, record: BuildRecord) -> None:
    """Writes down beside a bundle's content where it was built.

    Raises:
        OSError: The disk is full or not writable.
    """
    partial = bundle.with_name(f".{bundle.name}.record")
    try:
        partial.write_text(record.model_dump_json(indent=1) + "\n")
        partial.rename(bundle / BUILD_RECORD)
    finally:
        partial.unlink(missing_ok=True)


def _put(made: Path, target: Path, replaced: Path) -> None:
    """Renames `made` to `target`; what stood there goes to `replaced`, and on failure back."""
    try:
        if target.exists() or target.is_symlink():
            target.rename(replaced)
        made.rename(target)
    except BaseException:
        if not target.exists() and (replaced.exists() or replaced.is_symlink()):
            replaced.rename(target)
        raise


def _write_files(root: Path, files: Mapping[str, bytes]) -> None:
    for relative, content in sorted(files.items()):
        path = root / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


def _json(content: object) -> bytes:
    return json.dumps(content, indent=1, sort_keys=True).encode() + b"\n"

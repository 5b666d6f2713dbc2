"""Writes the manifest and the bundle."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from headrace.bundle.digest import hash_bytes
from headrace.bundle.golden import encode_cases
from headrace.bundle.manifest import (
    GOLDEN,
    Lineage,
    Manifest,
    Parity,
    Variant,
)
from headrace.bundle.write import package_files, write_bundle
from headrace.errors import MissingError
from headrace_compiler.graph import Graph
from headrace_compiler.recipe import Recipe
from headrace_compiler.steps.golden import Golden
from headrace_compiler.steps.parity import VARIANT


@dataclass(frozen=True)
class Destination:
    """Where a bundle is to stand.

    Attributes:
        directory: Its parent.
        replace: Whether a bundle of this name may be replaced.
    """

    directory: Path
    replace: bool


@dataclass(frozen=True)
class Package:
    """A bundle as it was written."""

    path: Path
    digest: str


def package(
    recipe: Recipe,
    graph: Graph,
    parity: Parity,
    golden: Golden,
    lineage: Lineage,
    destination: Destination,
) -> Package:
    """Writes the bundle, all of it or none.

    Raises:
        UsageError: There is a bundle of this name.
        MissingError: The disk is full or not writable.
    """
    variant = Variant(
        name=VARIANT,
        precision="fp32",
        engine="onnxruntime",
        path=f"model/{VARIANT}/model.onnx",
        tolerance=golden.tolerance,
    )
    files = {
        variant.path: graph.content,
        GOLDEN: encode_cases(golden.cases),
        **package_files(recipe.name, recipe.version, (variant,)),
    }
    manifest = _manifest(recipe, graph, (variant,), parity, lineage, files)
    try:
        path, digest = write_bundle(
            destination.directory, manifest, files, replace=destination.replace
        )
    except OSError as error:
        raise MissingError(
            "build.write",
            f"the bundle cannot be written to {destination.directory}: {error.strerror or error}",
            "make room, or choose another directory with --out",
        ) from error
    return Package(path=path, digest=digest)


def _manifest(
    recipe: Recipe,
    graph: Graph,
    variants: Sequence[Variant],
    parity: Parity,
    lineage: Lineage,
    files: dict[str, bytes],
) -> Manifest:
    return Manifest(
        schema_version=1,
        name=recipe.name,
        version=recipe.version,
        description=recipe.description,
        inputs=graph.inputs,
        outputs=graph.outputs,
        preprocessing=recipe.preprocessing,
        postprocessing=recipe.postprocessing,
        variants=tuple(variants),
        parity=(parity,),
        lineage=lineage,
        files={path: hash_bytes(content) for path, content in files.items()},
    )

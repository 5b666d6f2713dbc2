"""What turns a request's raw inputs into tensors: the bundle's native library, or the reference."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from headrace.bundle.open import Bundle
from headrace.errors import MissingError
from headrace.hardware import detect_hardware
from headrace.preprocess.native import NativeImages, choose_target
from headrace.preprocess.reference import prepare
from headrace.preprocess.spec import ImagePreprocessing
from headrace.tensors import Array


class Preparer(Protocol):
    """Prepares batches of encoded images."""

    def prepare(self, contents: Sequence[bytes], out: Array | None = None) -> Array:
        """As `headrace.preprocess.reference.prepare`."""
        ...


@dataclass(frozen=True)
class ReferenceImages:
    """The NumPy reference."""

    spec: ImagePreprocessing

    def prepare(self, contents: Sequence[bytes], out: Array | None = None) -> Array:
        """See `Preparer`."""
        return prepare(self.spec, contents, out)


def open_preparer(
    bundle: Bundle, *, threads: int = 0, allow_reference: bool = False
) -> Preparer | None:
    """The quickest of a bundle's libraries that this processor runs.

    Args:
        threads: That work on one batch; 0 takes the cores.
        allow_reference: Whether the NumPy reference may stand in where none does.

    Returns:
        None where the bundle declares no preprocessing; the reference for bundles of schema
        version 1, which hold no libraries.

    Raises:
        MissingError: None of the libraries runs here, and the reference is not allowed.
        BundleError: The library was changed, or cannot be loaded.
    """
    spec, kernels = bundle.manifest.preprocessing, bundle.manifest.kernels
    if spec is None:
        return None
    if not kernels:
        return ReferenceImages(spec)
    hardware = detect_hardware()
    paths = {entry.target: entry.path for entry in kernels}
    target = choose_target(tuple(paths), hardware)
    if target is not None:
        library = bundle.read_content(paths[target])
        return NativeImages(library, spec, threads=threads or hardware.cores)
    if allow_reference:
        return ReferenceImages(spec)
    raise MissingError(
        "kernel.missing",
        f"none of the bundle's libraries ({', '.join(paths)}) runs on this"
        f" {hardware.architecture} processor",
        "compile the bundle for it, or pass --allow-reference to prepare images in NumPy, slowly",
    )

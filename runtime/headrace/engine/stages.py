"""What stands before and after the session: the bundle's native library, or the NumPy reference."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from headrace.bundle.open import Bundle
from headrace.errors import MissingError
from headrace.hardware import Hardware, detect_hardware
from headrace.native import choose_target
from headrace.postprocess.native import NativePostprocess
from headrace.postprocess.reference import postprocess
from headrace.preprocess.audio.native import NativeAudio
from headrace.preprocess.audio.spec import AudioPreprocessing
from headrace.preprocess.image.native import NativeImages
from headrace.preprocess.image.spec import ImagePreprocessing
from headrace.preprocess.reference import Prepare, open_reference
from headrace.preprocess.spec import Preprocessing
from headrace.preprocess.table.native import NativeTable
from headrace.preprocess.table.spec import TablePreprocessing
from headrace.preprocess.text.spec import TextPreprocessing
from headrace.tensors import Array


@dataclass(frozen=True)
class Stage:
    """One stage of a request.

    Attributes:
        run: Named tensors in and out.
        native: Whether the NumPy reference has no part in it.
    """

    run: Callable[[Mapping[str, Array]], Mapping[str, Array]]
    native: bool


@dataclass(frozen=True)
class Stages:
    """What a bundle declares beside its model; None where it declares nothing.

    Attributes:
        prepare: What clients send in, what the model takes out.
        finish: What the model gives in, the answer out.
    """

    prepare: Stage | None
    finish: Stage | None


NO_STAGES = Stages(None, None)


def open_stages(bundle: Bundle, *, threads: int = 0, allow_reference: bool = False) -> Stages:
    """The stages of a bundle, from the quickest of its libraries that this processor runs.

    Bundles that hold no libraries, as those of schema version 1, have the reference.

    Args:
        threads: That work on one batch; 0 takes the cores.
        allow_reference: Whether the NumPy reference may stand in where none does.

    Raises:
        MissingError: None of the libraries runs here, and the reference is not allowed; or an
            extra is not installed.
        BundleError: The library was changed, or cannot be loaded; or a tokenizer cannot be used.
    """
    before, after = bundle.manifest.preprocessing, bundle.manifest.postprocessing
    hardware = detect_hardware()
    library = _library(bundle, hardware, allow_reference=allow_reference)
    native = library is not None
    prepare = finish = None
    if before is not None:
        made = None if library is None else _native(library, before, threads or hardware.cores)
        by_library = native or isinstance(before, TextPreprocessing)
        prepare = Stage(made or open_reference(before, bundle.read_content), by_library)
    if after is not None:
        reference = partial(postprocess, after)
        finish = Stage(reference if library is None else NativePostprocess(library, after), native)
    return Stages(prepare, finish)


def _library(bundle: Bundle, hardware: Hardware, *, allow_reference: bool) -> bytes | None:
    paths = {entry.target: entry.path for entry in bundle.manifest.kernels}
    target = choose_target(tuple(paths), hardware)
    if target is not None:
        return bundle.read_content(paths[target])
    if allow_reference or not paths:
        return None
    raise MissingError(
        "kernel.missing",
        f"none of the bundle's libraries ({', '.join(paths)}) runs on this"
        f" {hardware.architecture} processor",
        "compile the bundle for it, or pass --allow-reference to work in NumPy, slowly",
    )


def _native(library: bytes, spec: Preprocessing, threads: int) -> Prepare | None:
    """The library's function for a spec; None where the kind has none."""
    match spec:
        case ImagePreprocessing():
            images = NativeImages(library, spec, threads=threads)
            return lambda raw: {spec.output: images.prepare(raw[spec.input].tolist())}
        case AudioPreprocessing():
            sounds = NativeAudio(library, spec, threads=threads)
            return lambda raw: {spec.output: sounds.prepare(raw[spec.input].tolist())}
        case TablePreprocessing():
            rows = NativeTable(library, spec)
            return lambda raw: {spec.output: rows.prepare(raw)}
        case TextPreprocessing():
            return None

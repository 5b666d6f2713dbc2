"""Which functions the library of a bundle holds, and the Numba source of each."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from headrace.native import Function
from headrace.postprocess.native import postprocess_function
from headrace.postprocess.spec import Postprocessing
from headrace.preprocess.audio.native import audio_function
from headrace.preprocess.audio.spec import AudioPreprocessing
from headrace.preprocess.image.native import image_function
from headrace.preprocess.image.spec import ImagePreprocessing
from headrace.preprocess.spec import Preprocessing
from headrace.preprocess.table.native import TABLE
from headrace.preprocess.table.spec import TablePreprocessing
from headrace.tensors import Frozen
from headrace_compiler.kernels.audio import audio_kernel
from headrace_compiler.kernels.finish import finish_kernel
from headrace_compiler.kernels.image import image_kernel
from headrace_compiler.kernels.sums import Inline, Kernel
from headrace_compiler.kernels.table import table_kernel


class Specs(Frozen):
    """What a bundle declares that native code does."""

    preprocessing: Preprocessing | None = None
    postprocessing: Postprocessing | None = None


@dataclass(frozen=True)
class Source:
    """One function of a library.

    Attributes:
        make: The function in Python, of what compiles a function into the ones that call it.
    """

    function: Function
    make: Callable[[Inline], Kernel]


def sources(specs: Specs) -> tuple[Source, ...]:
    """The functions of some specs; none where nothing is to be compiled."""
    return (*_preparing(specs.preprocessing), *_finishing(specs.postprocessing))


def _preparing(spec: Preprocessing | None) -> tuple[Source, ...]:
    match spec:
        case ImagePreprocessing():
            return (Source(image_function(spec), partial(image_kernel, spec)),)
        case AudioPreprocessing():
            return (Source(audio_function(spec), partial(audio_kernel, spec)),)
        case TablePreprocessing():
            return (Source(TABLE, table_kernel),)
        case _:
            return ()


def _finishing(spec: Postprocessing | None) -> tuple[Source, ...]:
    if spec is None:
        return ()
    return (Source(postprocess_function(spec), partial(finish_kernel, spec)),)

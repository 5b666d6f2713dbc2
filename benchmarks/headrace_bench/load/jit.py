"""What serving would be without native libraries: Numba compiles their source at each start.

Run as a program, it is `headrace`, in which nothing but the compilation of images' preprocessing
differs:

    python -m headrace_bench.load.jit serve BUNDLE --edge
"""

import ctypes
import os
from itertools import count
from typing import Any

from numba import cfunc, njit, types

from headrace.native import Argument, NativeFunction
from headrace.preprocess.image.native import NativeImages, image_function
from headrace.preprocess.image.spec import ImagePreprocessing
from headrace_compiler.kernels.image import image_kernel
from headrace_compiler.kernels.lower import OPTIONS, numba_type
from headrace_compiler.kernels.sums import Inline, Kernel


class JitImages(NativeImages):
    """As the native library, which it leaves alone, by a function that is compiled here."""

    def __init__(self, library: bytes, spec: ImagePreprocessing, *, threads: int = 1) -> None:
        super().__init__(library, spec, threads=threads)
        self._function = JitFunction(spec)


class JitFunction(NativeFunction):
    """The function of a spec, compiled in this process for its processor.

    It takes addresses, which Numba compiles a little quicker than arrays. Numba's cache on disk is
    used where NUMBA_CACHE_DIR names a folder for it.
    """

    def __init__(self, spec: ImagePreprocessing) -> None:
        arguments, cache = image_function(spec).arguments, bool(os.environ.get("NUMBA_CACHE_DIR"))
        signature = types.int64(*map(numba_type, arguments))
        compile_now: Any = cfunc(signature, cache=cache, **OPTIONS)
        self._compiled = compile_now(image_kernel(spec, _inline()))
        c_type = ctypes.CFUNCTYPE(ctypes.c_int64, *map(_c_type, arguments))
        self._call = c_type(self._compiled.address)

    def __call__(self, *arguments: int) -> None:
        """Calls it with numbers and addresses."""
        self._call(*arguments)


def _inline() -> Inline:
    """Compiles the functions that a kernel calls, under the same names in each process.

    Numba's own names are random, and a function whose parts have them is never found in its cache.
    """
    names = count()

    def inline(kernel: Kernel) -> Kernel:
        made: Any = njit(**OPTIONS)(kernel)
        made._set_uuid(f"headrace-{next(names)}")  # noqa: SLF001 - Numba has no other way
        found: Kernel = made
        return found

    return inline


def _c_type(argument: Argument) -> type[ctypes.c_int64 | ctypes.c_void_p]:
    return ctypes.c_int64 if argument == "int64" else ctypes.c_void_p


def main() -> None:
    """Runs the program, with `JitImages` where it makes `NativeImages`."""
    from headrace import cli  # noqa: PLC0415 - a first tensor is made without it
    from headrace.engine import stages  # noqa: PLC0415 - and without this

    vars(stages)["NativeImages"] = JitImages
    cli.main()


if __name__ == "__main__":
    main()

"""Prepares images with the native library that a bundle carries: nothing is compiled here.

A library holds one function, `headrace_prepare`, which trusts its caller: every size is checked
here, once a call, before a pointer is handed over. It is called through ctypes, which lets go of
the interpreter's lock meanwhile.
"""

import ctypes
import fcntl
import hashlib
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from headrace.errors import BundleError, InternalError, UsageError
from headrace.hardware import Hardware
from headrace.preprocess.decode import Pixels
from headrace.preprocess.geometry import Span, spans
from headrace.preprocess.reference import Floats, check_image, decode_row, empty_batch
from headrace.preprocess.spec import ImagePreprocessing
from headrace.tensors import NUMPY_DTYPES, Array

SYMBOL = "headrace_prepare"
_SHARED = 3 << 20
"""Bytes of an image from which on it is shared out: below, waking a thread takes as long."""
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL

_LOADED: dict[str, "ctypes._NamedFuncPointer"] = {}
_LOADING = threading.Lock()


@dataclass(frozen=True)
class KernelTarget:
    """A kind of processor that libraries are compiled for.

    Attributes:
        name: As the manifest has it.
        architecture: As `uname -m` says.
        processor: As LLVM names it: a level of the psABI, never the machine at hand.
        needs: Instruction sets, as Linux names them. Where these are, the level's others are too.
    """

    name: str
    architecture: str
    processor: str
    needs: frozenset[str]

    def fits(self, hardware: Hardware) -> bool:
        """Whether a machine can run it."""
        here = self.needs <= {*hardware.instruction_sets}
        return self.architecture == hardware.architecture and here


TARGETS = (
    KernelTarget(
        "x86_64-v4", "x86_64", "x86-64-v4", frozenset({"avx512f", "avx512bw", "avx512vl", "avx2"})
    ),
    KernelTarget("x86_64-v3", "x86_64", "x86-64-v3", frozenset({"avx2", "fma", "f16c"})),
    KernelTarget("x86_64-v2", "x86_64", "x86-64-v2", frozenset({"sse4_2"})),
    KernelTarget("aarch64", "aarch64", "generic", frozenset({"asimd"})),
)
"""The quickest first."""


def choose_target(names: Sequence[str], hardware: Hardware) -> str | None:
    """The quickest of some targets that runs on a machine, or None."""
    fitting = (target.name for target in TARGETS if target.fits(hardware))
    return next((name for name in fitting if name in names), None)


class NativeImages:
    """Decodes and prepares batches of encoded images.

    Args:
        library: The bytes of the shared library; the caller has checked their digest.
        spec: What the library was compiled from.
        threads: That work on one batch.

    Raises:
        BundleError: The bytes are no library with the function.
    """

    def __init__(self, library: bytes, spec: ImagePreprocessing, *, threads: int = 1) -> None:
        self._function = _load(library)
        self._spec = spec
        self._scratch = threading.local()
        self._pool = ThreadPoolExecutor(threads, "headrace-prepare") if threads > 1 else None
        rows = spec.size[0]
        self._whole = range(rows)
        self._parts = tuple(
            range(part * rows // threads, (part + 1) * rows // threads) for part in range(threads)
        )

    def prepare(self, contents: Sequence[bytes], out: Array | None = None) -> Array:
        """As `headrace.preprocess.reference.prepare`; images are shared out to the threads."""
        made = empty_batch(self._spec, len(contents), out)

        def fill(row: int) -> None:
            self._make(_dense(decode_row(self._spec, contents, row)), made[row], self._whole)

        if len(contents) == 1:
            self.prepare_image(decode_row(self._spec, contents, 0), made[0])
        elif self._pool is None:
            for row in range(len(contents)):
                fill(row)
        else:
            list(self._pool.map(fill, range(len(contents))))
        return made

    def prepare_image(self, image: Pixels, out: Array) -> None:
        """Resizes, crops or pads, normalizes and lays out one decoded image.

        A large one is shared out to the threads, by rows of the result.

        Args:
            image: uint8, shape (height, width, 3); copied if its rows are not dense.
            out: Of the spec's datatype, shape `spec.shape`, C-contiguous.

        Raises:
            UsageError: An array is another than that, or the image has no pixels.
        """
        check_image(image)
        _check_out(out, self._spec)
        image = _dense(image)
        if self._pool is None or image.size < _SHARED:
            self._make(image, out, self._whole)
        else:
            list(self._pool.map(partial(self._make, image, out), self._parts))

    def _make(self, image: Pixels, out: Array, made: range) -> None:
        """Makes some rows of the result. Everything was checked, but for sizes, which are here."""
        height, width, _ = image.shape
        down, across = spans(self._spec, height, width)
        rows = longest_window(self._spec, height, down)
        taps = longest_window(self._spec, width, across)
        columns = self._spec.size[1]
        line = line_length(width, taps, columns)
        floats, integers = self._room(line + rows + columns * taps, columns)
        returned, raised = ctypes.c_int64(), ctypes.c_void_p()
        status = self._function(
            ctypes.byref(returned),
            ctypes.byref(raised),
            image.ctypes.data,
            *(height, width, 3 * width),
            *(made.start, made.stop),
            *(down.full, down.first, down.begin, down.count),
            *(across.full, across.first, across.begin, across.count),
            floats.ctypes.data,
            floats[line:].ctypes.data,
            floats[line + rows :].ctypes.data,
            integers.ctypes.data,
            taps,
            out.ctypes.data,
        )
        if status or returned.value:
            raise InternalError(
                "preprocess.native", f"the kernel failed: {status}, {returned.value}"
            )

    def _room(self, floats: int, columns: int) -> tuple[Floats, npt.NDArray[np.int32]]:
        """Scratch of this thread, at least so large."""
        held: tuple[Floats, npt.NDArray[np.int32]] | None = getattr(self._scratch, "held", None)
        if held is None or len(held[0]) < floats:
            held = np.empty(floats, np.float32), np.empty(columns, np.int32)
            self._scratch.held = held
        return held


def _check_out(out: Array, spec: ImagePreprocessing) -> None:
    dtype = NUMPY_DTYPES[spec.cast.datatype]
    fits = out.dtype == dtype and out.shape == spec.shape
    if not fits or not out.flags.c_contiguous or not out.flags.writeable:
        shown = f"{dtype}{[*spec.shape]}"
        raise UsageError("preprocess.out", f"the result is {shown}, dense and writable")


def _dense(image: Pixels) -> Pixels:
    return image if image.flags.c_contiguous else np.ascontiguousarray(image)


def longest_window(spec: ImagePreprocessing, size: int, span: Span) -> int:
    """How many weights one position can need along an axis of `size` positions."""
    radius = 2 if spec.resize.filter == "bicubic" else 1
    stretch = max(1.0, size / span.full) if spec.resize.antialias else 1.0
    return int(2 * radius * stretch) + 3  # one for each end that rounding moves


def line_length(width: int, taps: int, columns: int) -> int:
    """How many float32 the kernel keeps of one row.

    They are two lines of the image, what windows reach beyond a line, and four numbers a column.
    """
    return 6 * width + 3 * taps + 4 + 4 * columns


def _load(library: bytes) -> "ctypes._NamedFuncPointer":
    """The function of a library; mapped from sealed memory, so that it is what was checked.

    The loader knows a library by the path it came from, and a number that is given back comes
    again: so that no library is ever taken for another, its descriptor stays open. Equal libraries
    are loaded once.
    """
    digest = hashlib.sha256(library).hexdigest()
    with _LOADING:
        if digest not in _LOADED:
            _LOADED[digest] = _map(library)
        return _LOADED[digest]


def _map(library: bytes) -> "ctypes._NamedFuncPointer":
    descriptor = os.memfd_create("headrace-kernel", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(library)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    try:
        mapped = ctypes.CDLL(f"/proc/self/fd/{descriptor}")
    except OSError as error:
        os.close(descriptor)
        raise _unusable(str(error)) from error
    try:
        function: ctypes._NamedFuncPointer = getattr(mapped, SYMBOL)
    except AttributeError as error:
        raise _unusable(str(error)) from error
    integer, pointer = ctypes.c_int64, ctypes.c_void_p
    function.restype = ctypes.c_int32
    function.argtypes = (
        *(ctypes.POINTER(integer), ctypes.POINTER(pointer)),
        *(pointer, *(integer,) * 13),
        *(pointer, pointer, pointer, pointer, integer, pointer),
    )
    return function


def _unusable(reason: str) -> BundleError:
    return BundleError("bundle.kernel", f"the preprocessing library cannot be loaded: {reason}")

"""Native libraries of a bundle: the processors they are compiled for, and how they are called.

A library holds functions that trust their caller: whoever calls one has checked every size, once a
call, before a pointer is handed over. ctypes lets go of the interpreter's lock meanwhile.
"""

import ctypes
import fcntl
import hashlib
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from headrace.errors import BundleError, InternalError
from headrace.hardware import Hardware

Argument = Literal["int64", "uint8*", "uint16*", "int32*", "int64*", "float32*", "float64*"]
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL

_LOADED: dict[str, ctypes.CDLL] = {}
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


@dataclass(frozen=True)
class Function:
    """A function of a library, as compiler and runtime agree on it.

    Attributes:
        symbol: Its name.
        arguments: `int64`, or what a pointer points to. What pointers point to does not overlap.
    """

    symbol: str
    arguments: tuple[Argument, ...]


class NativeFunction:
    """A function of a library that is mapped into this process.

    Args:
        library: The bytes of the shared library; the caller has checked their digest.

    Raises:
        BundleError: The bytes are no library with the function.
    """

    def __init__(self, library: bytes, function: Function) -> None:
        try:
            self._pointer = _load(library)[function.symbol]  # a new object each time
        except AttributeError as error:
            raise _unusable(str(error)) from error
        self._pointer.restype = ctypes.c_int32
        # Numba's convention: where to return, and where to say what was raised, come first.
        types = (
            ctypes.c_int64 if each == "int64" else ctypes.c_void_p for each in function.arguments
        )
        self._pointer.argtypes = (ctypes.c_void_p, ctypes.c_void_p, *types)
        self._symbol = function.symbol

    def __call__(self, *arguments: int) -> None:
        """Calls it with numbers and addresses.

        Raises:
            InternalError: It says that it failed.
        """
        returned, raised = ctypes.c_int64(), ctypes.c_void_p()
        status = self._pointer(ctypes.byref(returned), ctypes.byref(raised), *arguments)
        if status or returned.value:
            raise InternalError(
                "native.failed", f"{self._symbol} failed: {status}, {returned.value}"
            )


def _load(library: bytes) -> ctypes.CDLL:
    """A library, mapped from sealed memory, so that it is what was checked.

    The loader knows a library by the path it came from, and a number that is given back comes
    again: so that no library is ever taken for another, its descriptor stays open. Equal libraries
    are loaded once.
    """
    digest = hashlib.sha256(library).hexdigest()
    with _LOADING:
        if digest not in _LOADED:
            _LOADED[digest] = _map(library)
        return _LOADED[digest]


def _map(library: bytes) -> ctypes.CDLL:
    descriptor = os.memfd_create("headrace-kernel", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(library)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    try:
        return ctypes.CDLL(f"/proc/self/fd/{descriptor}")
    except OSError as error:
        os.close(descriptor)
        raise _unusable(str(error)) from error


def _unusable(reason: str) -> BundleError:
    return BundleError("bundle.kernel", f"the native library cannot be loaded: {reason}")

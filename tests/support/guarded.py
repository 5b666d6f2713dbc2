"""Memory that ends where it should, for tests of native code."""

import ctypes
import mmap
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Element = TypeVar("Element", bound=np.generic)


def guarded(shape: tuple[int, ...], dtype: Any, *, at_end: bool = True) -> npt.NDArray[Any]:  # noqa: ANN401 - whatever NumPy takes
    """An array between two pages that end the process when they are touched.

    What it holds is not zero.

    Args:
        at_end: Whether it touches the page behind it; otherwise the one before it.
    """
    page, size = mmap.PAGESIZE, int(np.prod(shape)) * np.dtype(dtype).itemsize
    pages = max(1, -(-size // page))
    memory = mmap.mmap(-1, (pages + 2) * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    for address in (start, start + (pages + 1) * page):
        assert protect(ctypes.c_void_p(address), page, 0) == 0
    offset = page + (pages * page - size if at_end else 0)
    made = np.frombuffer(memory, np.uint8, size, offset)
    made[:] = 0xA5
    array: npt.NDArray[Any] = made.view(dtype).reshape(shape)
    return array


def guarded_copy(array: npt.NDArray[Element], *, at_end: bool = True) -> npt.NDArray[Element]:
    """The same numbers between such pages."""
    made: npt.NDArray[Element] = guarded(array.shape, array.dtype, at_end=at_end)
    made[...] = array
    return made

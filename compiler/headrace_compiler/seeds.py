"""Seeds every generator that a recipe's functions may draw from."""

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds torch, NumPy and `random`, computes on one thread, and restores all of it.

    One thread, because the order in which float32 sums are added, and so their last bits,
    depends on how many there are.
    """
    python, threads = random.getstate(), torch.get_num_threads()
    numpy = np.random.get_state()  # noqa: NPY002 - recipes may use the legacy generator
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - as above
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            np.random.set_state(numpy)  # noqa: NPY002 - as above
            random.setstate(python)

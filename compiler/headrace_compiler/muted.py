"""Keeps quiet also what is said to everybody: the records of the root logger."""

import contextlib
import logging
from collections.abc import Iterator

from headrace_compiler.chatter import quiet


@contextlib.contextmanager
def muted() -> Iterator[None]:
    """Like `quiet`, for code that logs under no name of its own.

    Where the root logger has no handler, such code gives it one, which would stay; where it has
    one, it is the program's.
    """
    root = logging.getLogger()
    handlers = root.handlers
    root.handlers = [logging.NullHandler()]
    try:
        with quiet():
            yield
    finally:
        root.handlers = handlers

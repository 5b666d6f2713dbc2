"""Keeps what the frameworks print off the screen, and at hand for when they fail."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

_NOISY = ("torch", "onnx", "onnxscript", "onnx_ir", "onnxruntime")


@contextlib.contextmanager
def quiet() -> Iterator[io.StringIO]:
    """Catches prints, warnings and log records; an exception that passes gets them as a note.

    Yields:
        The text caught so far.
    """
    caught = io.StringIO()
    try:
        with (
            _logs_to(caught),
            warnings.catch_warnings(record=True) as noted,
            contextlib.redirect_stdout(caught),
            contextlib.redirect_stderr(caught),
        ):
            warnings.simplefilter("always")
            yield caught
    except BaseException as error:
        text = caught.getvalue() + "".join(f"{warning.message}\n" for warning in noted)
        if text:
            error.add_note(f"said on the way:\n{text}")
        raise


@contextlib.contextmanager
def _logs_to(stream: io.StringIO) -> Iterator[None]:
    """Sends the frameworks' log records to a stream.

    Their handlers hold the standard error of the moment at which they were imported, so
    redirecting it does not reach them.
    """
    loggers = [
        logging.getLogger(name)
        for name in (*_NOISY, *logging.root.manager.loggerDict)
        if name.split(".")[0] in _NOISY
    ]
    before = [(logger, logger.handlers, logger.propagate) for logger in loggers]
    handler = logging.StreamHandler(stream)
    for logger in loggers:
        # Its subclasses write elsewhere, to files or to whoever listens: they may go on.
        kept = [one for one in logger.handlers if type(one) is not logging.StreamHandler]
        top, spoke = logger.name in _NOISY, len(kept) < len(logger.handlers)
        logger.handlers = [*kept, handler] if top or spoke else kept
        logger.propagate = logger.propagate and not top
    try:
        yield
    finally:
        for logger, handlers, propagate in before:
            logger.handlers, logger.propagate = handlers, propagate

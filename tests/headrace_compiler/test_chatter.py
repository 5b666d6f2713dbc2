"""Keeping the frameworks' chatter off the screen."""

import logging
import sys
import warnings

import pytest

from headrace_compiler.chatter import quiet


def speak() -> None:
    """Says something in every way there is."""
    sys.stdout.write("printed\n")
    sys.stderr.write("complained\n")
    warnings.warn("warned", UserWarning, stacklevel=1)
    logging.getLogger("torch.onnx.deep").error("logged")


def test_chatter_stays_off_the_screen(capfd: pytest.CaptureFixture[str]) -> None:
    """Prints, warnings and the frameworks' log records are caught, and handlers restored."""
    logger = logging.getLogger("torch")
    before = (logger.handlers, logger.propagate)
    with quiet() as caught:
        speak()
    assert "printed\ncomplained\nlogged" in caught.getvalue()
    assert capfd.readouterr() == ("", "")
    assert (logger.handlers, logger.propagate) == before


def test_a_failure_brings_what_was_said() -> None:
    """An exception carries the chatter as a note."""

    def fail() -> None:
        with quiet():
            speak()
            raise ValueError("no")

    with pytest.raises(ValueError, match="no") as caught:
        fail()
    note = "\n".join(caught.value.__notes__)
    assert all(word in note for word in ("printed", "complained", "warned", "logged"))

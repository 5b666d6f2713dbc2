"""Keeping quiet what is said to everybody."""

import logging

import pytest

from headrace_compiler.muted import muted


def test_records_of_the_root_logger_are_kept_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    """Its handlers are those from before, also after an error, and none was added."""
    root = logging.getLogger()
    before = [*root.handlers]

    def fail() -> None:
        with muted():
            logging.warning("said to everybody")  # noqa: LOG015 - as the quantizers do
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert root.handlers == before
    assert capfd.readouterr() == ("", "")

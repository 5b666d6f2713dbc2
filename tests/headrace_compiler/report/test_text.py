"""What is written in reports: figures, units, words, and markup around them."""

import math

import pytest

from headrace_compiler.report.markup import Markup, tag
from headrace_compiler.report.text import figure, listed, quantity, spread


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.0, "0"),
        (0.0651, "0.0651"),
        (0.62, "0.620"),
        (13, "13"),
        (13.0, "13.0"),
        (130.4, "130"),
        (19512.2, "19,512"),
        (1e-5, "1.00e-05"),
        (4e12, "4.00e+12"),
        (math.inf, "∞"),
        (math.nan, "–"),  # noqa: RUF001 - what is printed
    ],
)
def test_figures_keep_three_digits(value: float, said: str) -> None:
    """A number is written with three digits that matter, whatever its size."""
    assert figure(value) == said


def test_units_and_intervals_are_written_with_the_figure() -> None:
    """Rates get a stroke, plain numbers nothing; an interval without an end is left out."""
    assert quantity(1500.0, "1/s") == "1,500/s"
    assert quantity(0.5, "1") == "0.500"
    assert quantity(0.5, "MB") == "0.500 MB"
    assert spread(None, 2.0) == spread(1.0, None) == ""
    assert spread(1.0, 2.0, "ms").startswith("(1.00")


def test_markup_escapes_whatever_is_no_markup() -> None:
    """Text and attributes are escaped once, elements never."""
    inner = tag("b", "<&>")
    assert tag("p", inner, "\"'<", title='"><i>') == (
        '<p title="&quot;&gt;&lt;i&gt;"><b>&lt;&amp;&gt;</b>&quot;&#x27;&lt;</p>'
    )
    assert Markup.joined(inner, "<") == "<b>&lt;&amp;&gt;</b>&lt;"


def test_words_are_listed_as_a_sentence_has_them() -> None:
    """None is nothing, one stands alone, the last of many follows `and`."""
    assert [listed(words) for words in ((), ("a",), ("a", "b"), ("a", "b", "c"))] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]

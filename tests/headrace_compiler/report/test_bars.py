"""The charts of reports: where things lie, what is drawn, and whether it can be seen."""

import math
import re
from collections.abc import Sequence
from importlib.resources import files

import pytest
from outlines import Outline

from headrace_compiler.report.bars import Bar, bar_chart, make_axis


def bars(*values: float, width: float = 0.0) -> list[Bar]:
    """Bars whose intervals go `width` of the value to both sides."""
    return [
        Bar(f"c{number}", value, value * (1 - width), value * (1 + width), "", own=number == 0)
        for number, value in enumerate(values)
    ]


def test_a_linear_axis_begins_at_zero_with_round_ticks() -> None:
    """Close values get a linear axis that holds every value and every usual interval."""
    axis = make_axis(bars(7.1, 17.2, width=0.1))
    assert not axis.logarithmic
    assert axis.ticks == (0.0, 5.0, 10.0, 15.0, 20.0)
    assert [axis.place(value) for value in (0.0, 10.0, 20.0)] == [0.0, 0.5, 1.0]
    assert axis.place(-1.0) == 0.0
    assert axis.place(math.inf) == 1.0


def test_an_axis_is_logarithmic_where_values_are_far_apart() -> None:
    """Then equal factors are equal lengths, and its ends are round numbers around the values."""
    axis = make_axis(bars(0.41, 39.0, width=0.05))
    assert axis.logarithmic
    assert (axis.low, axis.high) == (0.2, 50.0)
    assert set(axis.ticks) == {0.2, 1.0, 10.0, 50.0}
    assert axis.place(10.0) - axis.place(1.0) == pytest.approx(axis.place(2.0) - axis.place(0.2))


@pytest.mark.parametrize("values", [(), (0.0,), (0.0, 0.0, 5.0), (1e-9, 1e9), (3.0,)])
def test_an_axis_stands_for_any_values(values: Sequence[float]) -> None:
    """No values, zeros, and values very far apart have an axis with few ticks that rise."""
    axis = make_axis(bars(*values))
    assert axis.high > axis.low
    assert 2 <= len(axis.ticks) <= 6
    assert list(axis.ticks) == sorted(set(axis.ticks))
    assert all(0 <= axis.place(value) <= 1 for value in values)


def test_a_wild_interval_does_not_squeeze_the_values() -> None:
    """An interval's end counts for the axis up to twice the largest value."""
    wild = Bar("a", 1.0, 0.5, 1e9, "", own=False)
    assert make_axis([wild]).high <= 2.5
    assert "→" in bar_chart("title", [wild])


def test_charts_are_images_with_a_name() -> None:
    """A chart says what it shows, marks headrace, and shows every contestant."""
    chart = Outline(bar_chart("Latency of 3", bars(1.0, 2.0, 3.0, width=0.1)))
    assert chart.elements[0] == ("svg", chart.elements[0][1])
    assert chart.elements[0][1]["role"] == "img"
    assert chart.elements[1][0] == "title"
    assert chart.text.startswith("Latency of 3")
    kinds = [attributes.get("class") for name, attributes in chart.elements if name == "g"]
    assert kinds == ["row own", "row", "row"]
    assert chart.count("rect") == 3


def test_a_logarithmic_chart_has_points_and_no_bars() -> None:
    """A logarithmic axis has no zero from which a bar's length could be read."""
    chart = Outline(bar_chart("title", bars(1.0, 100.0, width=0.1)))
    assert (chart.count("rect"), chart.count("circle")) == (0, 2)


def test_ends_that_are_missing_draw_no_whisker() -> None:
    """A metric measured once has a bar alone."""
    chart = bar_chart("title", [Bar("a", 1.0, None, 2.0, "", own=False)])
    assert "whisker" not in chart


def colours(style: str) -> list[dict[str, str]]:
    """The custom properties of each theme of the style sheet: light, dark, print."""
    blocks = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    return [dict(re.findall(r"--(\w+): (#\w{6});", block)) for block in blocks]


def contrast(one: str, other: str) -> float:
    """The contrast of two colours, as WCAG 2.2 defines it."""

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [0, 1, 2], ids=["light", "dark", "print"])
def test_every_theme_has_enough_contrast(theme: int) -> None:
    """Text has 4.5 to 1 and marks have 3 to 1 against all they lie on, as WCAG AA asks."""
    style = files("headrace_compiler.report").joinpath("page.css").read_text(encoding="utf-8")
    found = colours(style)[theme]
    for name in ("ink", "soft", "own", "regressed", "improved", "too", "no"):
        for ground in ("paper", "card", "band"):
            assert contrast(found[name], found[ground]) >= 4.5, (name, ground)
    assert contrast(found["peer"], found["card"]) >= 3

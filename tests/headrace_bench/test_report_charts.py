"""The forest plot of a gate: where things lie, and what is drawn."""

import math

import pytest
from outlines import Outline

from headrace_bench.report.charts import Change, factor_place, factor_ticks, forest_plot, reach


def test_the_axis_of_a_forest_plot_holds_estimates_and_threshold() -> None:
    """It goes equally far to both sides, and unknown ends do not stretch it without limit."""
    change = Change("m", 1.1, 0.0, math.inf, "too noisy to say", "")
    far = reach([change], 0.05)
    assert 1.1 < far < 1.5
    assert factor_place(1.0, far) == 0.5
    assert factor_place(1.1, far) == pytest.approx(1 - factor_place(1 / 1.1, far))
    assert factor_place(0.0, far) == 0.0
    assert factor_place(math.inf, far) == 1.0
    assert factor_ticks(0.05, far)[0] == 1.05
    assert factor_ticks(0.05, 1e3) == (100.0,)
    assert reach([], 0.05) > 1.05


def test_a_forest_plot_shades_the_threshold_and_says_each_verdict() -> None:
    """Each metric has a point, an interval and its verdict."""
    changes = [
        Change("latency", 1.1, 1.05, 1.15, "regressed", ""),
        Change("memory", 0.9, 0.88, 0.92, "improved", ""),
    ]
    plot = Outline(forest_plot("title", changes, 0.05))
    assert plot.count("circle") == 2
    assert [a["class"] for name, a in plot.elements if name == "rect"] == ["band"]
    assert "regressed" in plot.text
    assert "improved" in plot.text

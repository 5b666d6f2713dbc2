"""A real Chromium opens the report of a build: wide and narrow, light and dark, on paper."""

from pathlib import Path

import pytest
from browsers import OVERLAPPING, STICKING_OUT, Browser, Opened
from build_reports import REPORTS, make_report
from measurements import make_measurement

from headrace_compiler.report.render import render_report

WIDTHS = (1920, 1280, 1000, 700, 360)
A4_WIDTH = 700  # CSS pixels between the margins
# The names that stand beside marks, as far as they are shown.
NAMES = """
[...document.querySelectorAll("svg .names text")].filter(text => text.getBoundingClientRect().width)
"""
# Names of marks that lie outside of their chart.
OUTSIDE = f"""
{NAMES}.filter(text => {{
  const name = text.getBoundingClientRect();
  const chart = text.closest("svg").getBoundingClientRect();
  return name.left < chart.left - 0.5 || name.right > chart.right + 0.5;
}}).map(text => text.textContent)
"""
# Tables that are wider than their room, and have nothing to scroll them with.
UNSCROLLED = """
[...document.querySelectorAll("table")].filter(table => {
  const room = table.parentElement;
  return table.scrollWidth > room.clientWidth + 1 && getComputedStyle(room).overflowX !== "auto";
}).length
"""


def write(directory: Path, kind: str) -> Path:
    """The file of a kind of report."""
    path = directory / "report.html"
    path.write_text(render_report(REPORTS[kind]()), encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", REPORTS)
def test_a_report_fits_its_screen_and_asks_for_nothing(
    browser: Browser, tmp_path: Path, kind: str
) -> None:
    """Nothing sticks out, no words overlap, nothing is requested, and the console stays empty."""
    path = write(tmp_path, kind)
    for width in WIDTHS:
        with Opened(browser, path, width, "light") as opened:
            assert opened.evaluate("innerWidth") == width
            assert opened.evaluate("document.documentElement.scrollWidth") <= width
            assert opened.evaluate(STICKING_OUT) == []
            assert opened.evaluate(OVERLAPPING) == []
            assert opened.evaluate(OUTSIDE) == []
            assert opened.evaluate(UNSCROLLED) == 0
            assert opened.evaluate("document.scripts.length") == 0
            assert opened.complaints() == []


@pytest.mark.parametrize("width", [1280, 360])
def test_light_and_dark_differ(browser: Browser, tmp_path: Path, width: int) -> None:
    """Each theme is drawn in its own colours: dark ink on light paper, or the other way round."""
    path = write(tmp_path, "usual")
    shots, grounds = [], []
    for theme in ("light", "dark"):
        with Opened(browser, path, width, theme) as opened:
            shots.append(opened.shot())
            found = opened.evaluate("getComputedStyle(document.body).backgroundColor")
            grounds.append(sum(int(part) for part in found[4:-1].split(",")))
    assert shots[0] != shots[1]
    assert grounds[0] > 600
    assert grounds[1] < 150


@pytest.mark.parametrize("width", [1920, 1280, 700, 360])
def test_the_choice_has_its_name_at_every_width(
    browser: Browser, tmp_path: Path, width: int
) -> None:
    """The chosen variant and fp32 are named beside their marks, once in each chart."""
    with Opened(browser, write(tmp_path, "usual"), width, "light") as opened:
        names = opened.evaluate(f"{NAMES}.map(text => text.textContent)")
    assert names.count("int8-mixed-openvino") == 2
    assert names.count("fp32") == 2


def test_a_reader_of_the_screen_hears_charts_and_tables(browser: Browser, tmp_path: Path) -> None:
    """Each chart has a name, and the tables stay tables where they are drawn as cards."""
    path = tmp_path / "report.html"
    path.write_text(render_report(make_report(make_measurement())), encoding="utf-8")
    for width in (1280, 360):
        with Opened(browser, path, width, "light") as opened:
            charts = opened.names("image")
            assert charts[0].startswith(
                "top1, % against median latency of 9 candidates on 1 thread"
            )
            assert len(charts) == 4
            assert all(charts)
            assert "Candidates" in opened.names("table")
            assert "bf16-openvino bf16, OpenVINO, fp32 computed as bf16" in opened.names(
                "rowheader"
            )


@pytest.mark.parametrize("kind", ["usual", "hundred candidates", "no bundle"])
def test_a_report_can_be_printed(browser: Browser, tmp_path: Path, kind: str) -> None:
    """Printing gives a PDF, in light colours whatever the theme, whose tables fit the paper."""
    path = write(tmp_path, kind)
    with Opened(browser, path, 1280, "dark") as opened:
        assert opened.printed().startswith(b"%PDF-")
        browser.ask("Emulation.setEmulatedMedia", media="print")
        assert opened.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    with Opened(browser, path, A4_WIDTH, "light") as opened:
        browser.ask("Emulation.setEmulatedMedia", media="print")
        wide = opened.evaluate(
            "[...document.querySelectorAll('main *')].filter(element => "
            "element.getBoundingClientRect().right > innerWidth + 0.5).length"
        )
        assert wide == 0

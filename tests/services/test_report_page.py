"""A real Chromium opens the pages of a run and of a gate: wide and narrow, light and dark."""

from collections.abc import Callable
from pathlib import Path

import pytest
from bench_reports import comparison, gate_report, measured, realistic_results, without_figures
from browsers import OVERLAPPING, STICKING_OUT, Browser, Opened
from outlines import HOSTILE

from headrace_bench.report.html import gate_page, page
from headrace_bench.result import Metric

WIDTHS = (1280, 360)
MORE_WIDTHS = (1920, 1280, 1040, 1000, 700, 360)
A4_WIDTH = 700  # CSS pixels between the margins
THEMES = ("light", "dark")


def hostile_page() -> str:
    """A run in which every text is an attack."""
    own = measured(HOSTILE, 1.0, 2.0, 3.0, case=HOSTILE, reason=HOSTILE)
    odd = Metric(name="y" * 100, value=1.0, unit="s", low=0.9, high=1.1)
    return page(
        (
            own.model_copy(update={"metrics": (*own.metrics, odd)}),
            measured("headrace", 50.0, 2.0, 3.0, case=HOSTILE, reference=(1.0, 2.0)),
            without_figures(HOSTILE, "failed", HOSTILE, case=HOSTILE),
            without_figures("headrace", "failed", HOSTILE, case="another"),
        )
    )


def hostile_gate() -> str:
    """A gate in which every text is an attack, and whose figures go to the ends."""
    wild = comparison("y" * 100, 1.0, 1e9, "regressed", note=HOSTILE)
    unknown = comparison("latency", 1.0, 1.0, "too noisy to say")
    unknown = unknown.model_copy(update={"low": 0.0, "high": 1e9})
    report = gate_report((wild, unknown))
    return gate_page(report.model_copy(update={"base": HOSTILE, "reason": HOSTILE}))


PAGES: dict[str, Callable[[], str]] = {
    "run": lambda: page(realistic_results()),
    "gate": lambda: gate_page(gate_report()),
    "hostile run": hostile_page,
    "hostile gate": hostile_gate,
    "empty run": lambda: page(()),
    "empty gate": lambda: gate_page(gate_report(())),
}


@pytest.fixture(params=PAGES)
def written(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The file of each page in turn."""
    path = tmp_path / "report.html"
    path.write_text(PAGES[request.param](), encoding="utf-8")
    return path


@pytest.mark.parametrize("width", MORE_WIDTHS)
def test_a_page_fits_its_screen_and_asks_for_nothing(
    browser: Browser, written: Path, width: int
) -> None:
    """Nothing sticks out, no words overlap, nothing is requested, and the console stays empty."""
    with Opened(browser, written, width, "light") as opened:
        assert opened.evaluate("innerWidth") == width
        assert opened.evaluate("document.documentElement.scrollWidth") <= width
        assert opened.evaluate(STICKING_OUT) == []
        assert opened.evaluate(OVERLAPPING) == []
        assert opened.evaluate("document.scripts.length") == 0
        assert opened.complaints() == []


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", ["run", "gate"])
def test_light_and_dark_differ(browser: Browser, tmp_path: Path, kind: str, width: int) -> None:
    """Each theme is drawn in its own colours: dark ink on light paper, or the other way round."""
    path = tmp_path / "report.html"
    path.write_text(PAGES[kind](), encoding="utf-8")
    shots, grounds = [], []
    for theme in THEMES:
        with Opened(browser, path, width, theme) as opened:
            shots.append(opened.shot())
            found = opened.evaluate("getComputedStyle(document.body).backgroundColor")
            grounds.append(sum(int(part) for part in found[4:-1].split(",")))
    assert shots[0] != shots[1]
    assert grounds[0] > 600
    assert grounds[1] < 150


@pytest.mark.parametrize("width", WIDTHS)
def test_a_reader_of_the_screen_hears_charts_and_tables(
    browser: Browser, tmp_path: Path, width: int
) -> None:
    """Each chart has a name, and the tables stay tables where they are drawn as cards."""
    path = tmp_path / "report.html"
    path.write_text(page(realistic_results()), encoding="utf-8")
    with Opened(browser, path, width, "light") as opened:
        charts = opened.names("image")
        assert "Median latency of 7 contestants; less is better" in " ".join(charts)
        assert all(charts)
        assert opened.names("table") == [
            "serving: tiny over HTTP",
            "serving: CNN, 600 KB image",
            "serving: EfficientNet-Lite0, batch 1, 2 threads",
        ]
        assert "kserve" in opened.names("rowheader")


def test_a_page_can_be_printed(browser: Browser, tmp_path: Path) -> None:
    """Printing gives a PDF, in light colours whatever the theme, whose tables fit the paper."""
    path = tmp_path / "report.html"
    path.write_text(page(realistic_results()), encoding="utf-8")
    with Opened(browser, path, 1280, "dark") as opened:
        assert opened.printed().startswith(b"%PDF-")
        browser.ask("Emulation.setEmulatedMedia", media="print")
        assert opened.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    with Opened(browser, path, A4_WIDTH, "light") as opened:
        browser.ask("Emulation.setEmulatedMedia", media="print")
        assert opened.evaluate(STICKING_OUT) == []
        assert opened.evaluate("document.querySelector('tbody th').offsetWidth") > 90

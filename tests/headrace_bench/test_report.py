"""What is said of a run and of a gate: on the terminal, as Markdown, as JUnit XML, as a page."""

import math
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from bench_reports import (
    comparison,
    gate_report,
    measured,
    realistic_results,
    without_figures,
)
from markdown_it import MarkdownIt
from outlines import HOSTILE, Outline, assert_whole

from headrace_bench.gate import GateReport
from headrace_bench.report.cells import ranked, summary, times, worse
from headrace_bench.report.html import gate_page, page
from headrace_bench.report.junit import gate_junit, junit
from headrace_bench.report.markdown import gate_markdown, markdown
from headrace_bench.report.table import print_gate, print_results
from headrace_bench.report.write import write_gate_report, write_report
from headrace_bench.result import CaseResult, Metric, Ratio


def hostile_results() -> tuple[CaseResult, ...]:
    """Contestants, cases, reasons, parameters and versions that attack who reads them."""
    attack = {HOSTILE: HOSTILE}
    results = (
        measured(HOSTILE, 1.0, 2.0, 3.0, case=HOSTILE, reason=HOSTILE),
        measured("headrace", 2.0, 2.0, 3.0, case=HOSTILE, reference=(1.0, 1.0)),
        without_figures("crashed", "failed", HOSTILE, case=HOSTILE),
        without_figures(HOSTILE, "missing", HOSTILE, case=HOSTILE),
    )
    return tuple(
        each.model_copy(
            update={"suite": HOSTILE, "versions": attack, "parameters": attack, "bundle": HOSTILE}
        )
        for each in results
    )


def hostile_gate() -> GateReport:
    """A gate whose names and notes attack who reads them."""
    report = gate_report((comparison(HOSTILE, 1.0, 2.0, "regressed", note=HOSTILE),))
    names = ("base", "head", "fingerprint", "processor", "reason")
    return report.model_copy(update={**dict.fromkeys(names, HOSTILE), "verdict": "regressed"})


def rendered(text: str) -> Outline:
    """Markdown as GitHub reads it: CommonMark with tables and raw HTML."""
    return Outline(MarkdownIt("commonmark").enable("table").render(text))


def cells(outline: Outline) -> list[int]:
    """How many cells each row of the tables has."""
    counts: list[int] = []
    for name, _ in outline.elements:
        if name == "tr":
            counts.append(0)
        elif name in {"td", "th"}:
            counts[-1] += 1
    return counts


def test_a_ratio_is_written_to_the_same_decimals_as_its_ends() -> None:
    """Near 1 three decimals, as thresholds are small; an end that is not known is infinite."""
    ratio = Ratio(metric="m", other="o", value=1.1, low=1.05, high=1.2)
    assert re.findall(r"[\d.∞]+", times(ratio)) == ["1.100", "1.050", "1.200"]
    far = ratio.model_copy(update={"value": 62.94, "low": 8.04, "high": 1e9})
    assert re.findall(r"[\d.∞]+", times(far)) == ["62.9", "8.0", "∞"]
    exact = comparison("size", 1.0, 1.0, "no difference shown", width=0, pairs=0)
    assert re.findall(r"[\d.∞]+", times(exact)) == ["1.000"]


def test_contestants_are_ranked_by_their_first_metric() -> None:
    """The best comes first, whichever way is better; those without figures come last."""
    results = realistic_results()[:9]
    names = [result.contestant for result in ranked(tuple(reversed(results)))]
    assert names[:3] == ["uvicorn, raw ASGI echo", "headrace", "fastapi"]
    assert set(names[-2:]) == {"triton", "kserve"}
    rates = [
        result.model_copy(
            update={"metrics": (Metric(name="rate", value=value, unit="1/s", better="higher"),)}
        )
        for result, value in zip(results[:2], (1.0, 2.0), strict=True)
    ]
    assert [result.contestant for result in ranked(rates)] == [names[0], "headrace"]


def test_worse_is_above_one_whichever_way_is_better() -> None:
    """A lower throughput is as much worse as a higher latency, ends in order."""
    slower = comparison("throughput", 2.0, 1.0, "regressed", higher=True, width=0.5)
    assert worse(slower) == pytest.approx((2.0, 4 / 3, 4.0))
    none = slower.model_copy(update={"low": 0.0})
    assert worse(none)[2] == math.inf


@pytest.mark.parametrize(
    "text",
    [
        page(realistic_results()),
        gate_page(gate_report()),
        page(hostile_results()),
        gate_page(hostile_gate()),
        page(()),
        gate_page(gate_report(())),
    ],
    ids=["run", "gate", "hostile run", "hostile gate", "empty run", "empty gate"],
)
def test_a_page_is_whole_and_asks_for_nothing(text: str) -> None:
    """It is well formed, has a strict policy, and holds no script and no address."""
    assert_whole(text)


def test_a_page_has_a_chart_and_a_table_for_each_case() -> None:
    """Everything that is drawn stands in a table too, and reasons stand beside their names."""
    outline = Outline(page(realistic_results()))
    assert outline.count("table") == 3
    assert outline.count("svg") == 9
    assert "failed: kserve was killed by signal 9: out of memory" in outline.text
    assert "onnxruntime 1.32.0" in outline.text
    assert "x86_64-2c-0123456789ab" in outline.text


def test_a_metric_unknown_to_the_report_is_drawn_and_written() -> None:
    """A suite with metrics of its own gets a chart of the first of them."""
    metric = Metric(name="time_to_first", value=1.5, unit="s", low=None, high=2.0)
    result = without_figures("headrace", "ok", "").model_copy(update={"metrics": (metric,)})
    outline = Outline(page((result,)))
    assert outline.count("svg") == 1
    assert "Time to first" in outline.text
    assert "time to first s" in outline.text


def test_figures_that_are_no_numbers_are_left_out() -> None:
    """What is not a number is written as a dash and not drawn."""
    metric = Metric(name="latency_p50", value=math.nan, unit="ms", low=math.nan, high=math.inf)
    result = measured("headrace", 1.0, 1.0, 1.0).model_copy(update={"metrics": (metric,)})
    text = page((result,))
    assert Outline(text).count("g") == 0
    assert not re.search(r"\bnan\b", text + markdown((result,)))


def test_markdown_says_how_a_run_went_first() -> None:
    """The first line has the outcome; each case has a table; versions are folded away."""
    text = markdown(realistic_results())
    first = "**headrace bench: 13 of 16 contestants measured, 1 failed, 1 missing, 1 disturbed**"
    assert text.splitlines()[0] == first
    outline = rendered(text)
    assert outline.count("table") == 3
    assert outline.count("details") == 1
    assert "triton: missing: no Triton binary" in outline.text
    assert "onnxruntime 1.32.0" in outline.text


def test_gate_markdown_says_the_verdict_first() -> None:
    """The first line has the verdict; what regressed stands out; the machine is folded away."""
    text = gate_markdown(gate_report())
    assert text.splitlines()[0] == "**headrace bench gate: regressed**"
    outline = rendered(text)
    assert cells(outline) == [6] * 8
    assert "latency 1.110" in outline.text
    assert "5 %" in outline.text
    assert "| **latency** |" in text


@pytest.mark.parametrize(
    "text", [markdown(hostile_results()), gate_markdown(hostile_gate())], ids=["run", "gate"]
)
def test_hostile_text_stays_text_in_markdown(text: str) -> None:
    """No element, link, mention or further cell comes of it, and it cannot leave its fold."""
    outline = rendered(text)
    allowed = {"p", "strong", "h4", "table", "thead", "tbody", "tr", "th", "td", "ul", "li"}
    allowed |= {"code", "details", "summary"}
    assert {name for name, _ in outline.elements} <= allowed
    assert len(set(cells(outline))) == 1
    assert outline.count("details") == outline.count("summary") == 1
    assert "<script>alert(1)</script>" in outline.text
    assert "@everyone" not in outline.text
    assert "\x1b" not in text
    assert max(len(line) for line in text.splitlines()) < 5000


def test_junit_has_a_test_for_each_contestant() -> None:
    """What failed is a failure, what is missing or was disturbed is skipped, figures are kept."""
    root = ET.fromstring(junit(realistic_results()))  # noqa: S314 - ours
    assert {name: root.get(name) for name in ("tests", "failures", "skipped", "errors")} == {
        "tests": "16",
        "failures": "1",
        "skipped": "2",
        "errors": "0",
    }
    tests = {(t.get("classname"), t.get("name")): t for t in root.iter("testcase")}
    assert len(tests) == 16
    failed = tests["serving.tiny over HTTP", "kserve"].find("failure")
    assert failed is not None
    assert failed.get("message") == "failed: kserve was killed by signal 9: out of memory"
    assert tests["serving.CNN, 600 KB image", "litserve"].find("skipped") is not None
    own = tests["serving.tiny over HTTP", "headrace"]
    held = {each.get("name"): each.get("value") for each in own.iter("property")}
    assert held["latency_p50 (ms)"] == "0.62"
    assert own.find("failure") is own.find("skipped") is None
    assert float(root.get("time", "")) == pytest.approx(3 * 64.2)


def test_gate_junit_fails_what_regressed() -> None:
    """A regression is a failure and what is too noisy is skipped; the rest passes."""
    root = ET.fromstring(gate_junit(gate_report()))  # noqa: S314 - ours
    assert (root.get("tests"), root.get("failures"), root.get("skipped")) == ("7", "2", "1")
    failed = [t.get("name") for t in root.iter("testcase") if t.find("failure") is not None]
    assert failed == ["latency", "throughput"]


def test_a_gate_that_compared_nothing_is_no_success() -> None:
    """A CI that counts tests sees one that was skipped."""
    root = ET.fromstring(gate_junit(gate_report(())))  # noqa: S314 - ours
    assert (root.get("tests"), root.get("failures"), root.get("skipped")) == ("1", "0", "1")


@pytest.mark.parametrize(
    "text", [junit(hostile_results()), gate_junit(hostile_gate())], ids=["run", "gate"]
)
def test_junit_is_xml_whatever_is_said(text: str) -> None:
    """What XML cannot hold is gone, and the rest is the text that was said."""
    root = ET.fromstring(text)  # noqa: S314 - ours
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f]", text)
    assert {element.tag for element in root.iter()} <= {
        *("testsuites", "testsuite", "testcase", "properties", "property"),
        *("failure", "skipped", "system-out"),
    }
    said = "".join(failure.text or "" for failure in root.iter("failure"))
    assert "<script>alert(1)</script>" in said
    assert "[31m" in said


def test_the_terminal_says_why_a_contestant_has_no_figures(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each case is a table with ratios; a reason is one line, and cannot steer the terminal."""
    print_results((*realistic_results(), *hostile_results()))
    said = capsys.readouterr().out
    assert "serving: tiny over HTTP (load 8, body binary, others kept 0.07 cores" in said
    lines = {line.split("  ")[1].strip(): line for line in said.splitlines() if "  " in line}
    assert "missing: no Triton binary for this architecture" in lines["triton"]
    assert "3.87" in lines["fastapi"] or "1.324" in lines["fastapi"]
    assert "\x1b" not in said
    assert "\\x1b[31m" in lines["crashed"]


def test_the_terminal_says_what_decided_a_gate(capsys: pytest.CaptureFixture[str]) -> None:
    """The verdict comes first, then the metrics, then what decided it and the machine."""
    print_gate(gate_report())
    said = capsys.readouterr().out
    assert said.startswith("regressed: working tree against v0.1.0")
    assert re.search(r"decided by +latency 1\.110", said)
    assert "x86_64-2c-0123456789ab" in said
    print_gate(hostile_gate())
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "results",
    [
        (measured("headrace", 1.0, 1.0, 1.0),),
        (measured("a", 1.0, 1.0, 1.0), measured("b", 2.0, 1.0, 1.0)),
        (without_figures("a", "failed", ""), without_figures("b", "missing", "")),
        (),
    ],
    ids=["one contestant", "no ratios", "all failed", "nothing"],
)
def test_a_run_with_little_to_say_is_reported(
    results: tuple[CaseResult, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every form of the report stands without ratios, without figures, without anything."""
    print_results(results)
    assert capsys.readouterr().out or not results
    summary_file, xml, html = write_report(tmp_path, results)
    assert summary(results) in summary_file.read_text(encoding="utf-8")
    assert ET.fromstring(xml.read_text()).get("tests") == str(len(results))  # noqa: S314 - ours
    outline = Outline(html.read_text(encoding="utf-8"))
    assert all(result.contestant in outline.text for result in results)


def test_reports_are_written_beside_the_lines(tmp_path: Path) -> None:
    """A directory is made, old files are replaced, and nothing half-written is left."""
    directory = tmp_path / "a" / "b"
    for _ in range(2):
        paths = write_report(directory, realistic_results())
    assert [path.name for path in paths] == ["summary.md", "junit.xml", "report.html"]
    assert sorted(directory.iterdir()) == sorted(paths)
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in paths)


def test_a_gate_can_be_read_back(tmp_path: Path) -> None:
    """The gate's JSON is the whole report."""
    paths = write_gate_report(tmp_path, gate_report())
    assert [path.name for path in paths] == ["summary.md", "junit.xml", "report.html", "gate.json"]
    assert GateReport.model_validate_json(paths[-1].read_bytes()) == gate_report()


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    """A report that cannot take its place is an error, and no part of it stays."""
    (tmp_path / "summary.md").mkdir()
    with pytest.raises(OSError, match=r"summary\.md"):
        write_report(tmp_path, realistic_results())
    assert [path.name for path in tmp_path.iterdir()] == ["summary.md"]

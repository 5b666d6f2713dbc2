"""A run as JUnit XML, which every CI reads: a contestant or a compared metric is a test."""

import re
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree as ET

from headrace_bench.gate import Comparison, GateReport
from headrace_bench.report.cells import gate_summary, remark, summary, times
from headrace_bench.result import CaseResult, contested

# XML 1.0, production 2: these may not stand in a document, not even as references.
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SKIPPED = frozenset({"missing", "disturbed"})


def junit(results: Sequence[CaseResult]) -> str:
    """A run: a suite for each case, a test for each contestant.

    What failed is a failure, what is missing or was disturbed is skipped. The seconds of a case are
    shared by its contestants in equal parts, since they were measured in turns.
    """
    root = ET.Element("testsuites", name="headrace bench")
    for (suite, case), contestants in contested(results).items():
        first = contestants[0]
        group = _suite(root, f"{suite}.{case}", first.started)
        _properties(
            group,
            {
                "fingerprint": first.fingerprint,
                "processor": first.processor,
                **({"bundle": first.bundle} if first.bundle else {}),
                **{f"parameter.{name}": value for name, value in first.parameters.items()},
            },
        )
        for result in contestants:
            _contestant(group, result, result.seconds / len(contestants))
        _count(group, first.seconds)
    return _document(root)


def gate_junit(report: GateReport) -> str:
    """A gate: a test for each metric; a regression is a failure, what is too noisy is skipped."""
    root = ET.Element("testsuites", name="headrace bench gate")
    group = _suite(root, "gate", None)
    _properties(
        group,
        {
            "base": report.base,
            "head": report.head,
            "verdict": report.verdict,
            "threshold": report.threshold,
            "confidence": report.confidence,
            "fingerprint": report.fingerprint,
            "processor": report.processor,
            **({} if report.other_cores is None else {"other_cores": report.other_cores}),
        },
    )
    for each in report.comparisons:
        _comparison(group, each, report.seconds / len(report.comparisons))
    if not report.comparisons:  # no test at all would pass for success
        case = _element(group, "testcase", classname="gate", name="verdict", time="0.000")
        said = f"{report.verdict}: {gate_summary(report) or summary(())}"
        _element(case, "skipped", message=said)
    _count(group, report.seconds)
    return _document(root)


def _contestant(group: ET.Element, result: CaseResult, seconds: float) -> None:
    case = _element(
        group,
        "testcase",
        classname=f"{result.suite}.{result.case}",
        name=result.contestant,
        time=f"{seconds:.3f}",
    )
    found: dict[str, str | float] = {"status": result.status}
    for metric in result.metrics:
        found[f"{metric.name} ({metric.unit})"] = metric.value
        if metric.low is not None and metric.high is not None:
            found[f"{metric.name} low ({metric.unit})"] = metric.low
            found[f"{metric.name} high ({metric.unit})"] = metric.high
    for ratio in result.ratios:
        found[f"{ratio.metric} / {ratio.other}"] = times(ratio)
    found |= {f"version.{name}": value for name, value in result.versions.items()}
    if result.other_cores is not None:
        found["other_cores"] = result.other_cores
    _properties(case, found)
    if result.status == "failed":
        _element(case, "failure", message=remark(result), type="failed").text = _xml(result.reason)
    elif result.status in _SKIPPED:
        _element(case, "skipped", message=remark(result))
    elif result.reason:
        _element(case, "system-out").text = _xml(result.reason)


def _comparison(group: ET.Element, each: Comparison, seconds: float) -> None:
    case = _element(group, "testcase", classname="gate", name=each.metric, time=f"{seconds:.3f}")
    values: dict[str, str | float] = {
        "unit": each.unit,
        "better": each.better,
        "base": each.base,
        "head": each.head,
        "ratio": each.ratio,
        "low": each.low,
        "high": each.high,
        "pairs": each.pairs,
        "verdict": each.verdict,
    }
    _properties(case, values)
    said = f"{each.verdict}: {each.metric} {times(each)}, {each.better} is better"
    if each.verdict == "regressed":
        _element(case, "failure", message=said, type="regressed").text = _xml(each.note)
    elif each.verdict == "too noisy to say":
        _element(case, "skipped", message=said)
    elif each.note:
        _element(case, "system-out").text = _xml(each.note)


def _suite(root: ET.Element, name: str, started: str | None) -> ET.Element:
    group = _element(root, "testsuite", name=name)
    if started:
        group.set("timestamp", _xml(started))
    return group


def _count(group: ET.Element, seconds: float) -> None:
    counted = {"tests": "testcase", "failures": "testcase/failure", "skipped": "testcase/skipped"}
    for name, path in counted.items():
        group.set(name, str(len(group.findall(path))))
    group.set("errors", "0")
    group.set("time", f"{seconds:.3f}")


def _properties(parent: ET.Element, values: Mapping[str, str | float]) -> None:
    if values:
        held = _element(parent, "properties")
        for name, value in values.items():
            _element(held, "property", name=name, value=str(value))


def _element(parent: ET.Element, name: str, /, **attributes: str) -> ET.Element:
    return ET.SubElement(parent, name, {key: _xml(value) for key, value in attributes.items()})


def _xml(text: str) -> str:
    """Text without what XML cannot hold."""
    return _FORBIDDEN.sub("", text)


def _document(root: ET.Element) -> str:
    for name in ("tests", "failures", "skipped", "errors"):
        root.set(name, str(sum(int(group.get(name, "0")) for group in root)))
    root.set("time", f"{sum(float(group.get('time', '0')) for group in root):.3f}")
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'

"""The report of a build: what it says first, what it shows, and that it is safe to open."""

import math
import re

import pytest
from build_reports import LINEAGE, PROBLEM, REPORTS, hostile, make_failed, make_report, many
from measurements import DRAFTS, HARDWARE, Draft, make_measurement
from outlines import Outline, assert_whole

from headrace.bundle.measurement import Choice, Measurement, Selection
from headrace_compiler.report.render import render_report
from headrace_compiler.report.verdict import verdict


def told(measurement: Measurement) -> Outline:
    """The page of a bundle with this measurement."""
    return Outline(render_report(make_report(measurement)))


def named(outline: Outline, kind: str) -> list[dict[str, str | None]]:
    """The attributes of the elements of a class."""
    return [a for _, a in outline.elements if kind in (a.get("class") or "").split()]


@pytest.mark.parametrize("kind", REPORTS)
def test_a_report_is_whole_and_asks_for_nothing(kind: str) -> None:
    """It is well formed, has a strict policy, and holds no script and no address."""
    assert_whole(render_report(REPORTS[kind]()))


def test_it_says_first_what_came_of_the_build() -> None:
    """One sentence has the choice, its time, how much faster it is, and what it loses."""
    said = verdict(make_measurement())
    assert len(said) == 1
    assert re.fullmatch(
        r"int8-mixed-openvino answers in 4\.\d+ ms on 1 thread and 2\.\d+ ms on 2 threads"
        r" at batch 1, 2\.3\d times as fast as fp32, and loses 0\.19 points of top1"
        r" \(at most 0\.29\)\.",
        said[0],
    )
    text = told(make_measurement()).text
    assert text.index("efficientnet-lite0 1.2") < text.index(said[0]) < text.index("Candidates")


def test_each_number_of_threads_may_have_its_own_choice() -> None:
    """Where the choice differs by threads, each has a sentence, and a table shows every point."""
    found = make_measurement()
    choices = tuple(
        Choice(
            point=choice.point,
            variant="int8-mixed-openvino" if choice.point.threads == 1 else "bf16-openvino",
        )
        for choice in found.selection.choices
    )
    selection = Selection(choices=choices, dropped=found.selection.dropped[:1])
    changed = found.model_copy(update={"selection": selection})
    first, second = verdict(changed)
    assert "int8-mixed-openvino answers in" in first
    assert "on 1 thread at batch 1" in first
    assert "bf16-openvino answers in" in second
    assert "on 2 threads at batch 1" in second
    outline = told(changed)
    assert "Variant chosen at each point" in outline.text
    assert "Chosen on 2 threads at batch 1, 2, 4, 8, 16 and 32." in outline.text


def test_the_picture_marks_the_choice_the_budget_and_what_is_outside() -> None:
    """The chosen mark has a ring, those outside a limit a class of their own, the budget a line."""
    outline = told(make_measurement())
    assert len(named(outline, "ring")) == 2  # one for each number of threads
    assert len(named(outline, "budget")) == 4  # a line and its name, for each
    marks = [name for name, a in outline.elements if name == "g" and a.get("class") == "outside"]
    assert len(marks) == 2 * 3  # int8-static, int8-nncf, int8-nncf-openvino
    assert named(outline, "frontier")
    assert "int8-mixed-openvino: 4." in outline.text  # what pointing at a mark says


def test_every_candidate_stands_in_the_table_with_its_reason() -> None:
    """What is kept comes first; what was dropped has its gate and the reason as a sentence."""
    found = make_measurement()
    outline = told(found)
    text = outline.text[outline.text.index("Times are those of batch 1") :]
    named = ("int8-mixed-openvino int8", "fp32 fp32, ONNX Runtime", "int8-dynamic int8")
    places = [text.index(each) for each in named]
    assert places == sorted(places)
    assert "bf16, OpenVINO, fp32 computed as bf16" in text
    assert "Dropped by the gate “accuracy”: it may lose 0.03" in text
    assert "Dropped by the gate “runs here”: the engine runs no node of it in fp16." in text
    for each in found.selection.dropped:
        assert each.reason in text
    assert "57 CPU" in text
    assert "4.90 MB" in text


def test_the_layers_that_were_put_back_are_told() -> None:
    """The twenty worst have a bar each, and those put back to float are named."""
    outline = told(make_measurement())
    assert len(named(outline, "bar")) == 20
    assert (
        "int8-static-mixed keeps 4 layers of it in float, of 26 that were ranked." in outline.text
    )
    assert "Put back to float: /features/features.0/conv/Conv, " in outline.text
    assert outline.text.count("put back to float") == 4
    assert not named(told(make_measurement(layers=0)), "bar")


def test_lineage_hardware_and_limits_are_told() -> None:
    """Digests, seed, steps with their times, every field of the hardware, and every limit."""
    text = told(make_measurement()).text
    for said in (LINEAGE.recipe, LINEAGE.weights, LINEAGE.samples, "torch 2.13.0", "c0ffee-dirty"):
        assert said in text
    assert "samples 120 ms, capture 3.20 s, export 8.10 s, package 100 ms; 11.5 s together" in text
    for said in (HARDWARE.fingerprint, HARDWARE.processor, *HARDWARE.instruction_sets):
        assert said in text
    assert "7,938 MiB" in text
    assert "at most 0.00500 of the metric" in text
    assert "no limit" in text


def test_sessions_and_callers_are_compared_with_one_alone() -> None:
    """A table has the throughput of each way of running several at once."""
    text = told(make_measurement()).text
    assert "2 sessions of 1 thread, a caller each" in text
    assert "one session of 1 thread, 2 callers" in text
    assert "1.60 times one alone" in text


def test_without_evaluation_data_the_error_is_shown() -> None:
    """The picture has the largest error, and the table no column of a metric."""
    text = told(make_measurement(DRAFTS[:3], metric=None, layers=0)).text
    assert "Error against latency" in text
    assert "There is no evaluation data: the largest error is shown instead." in text
    assert "top1" not in text
    assert "points" not in text


def test_one_candidate_alone_is_reported() -> None:
    """With nothing to compare, its times are shown, and the sentence says why it is chosen."""
    text = told(make_measurement(DRAFTS[:1], metric=None, layers=0)).text
    assert "fp32 answers in 9." in text
    assert "no other candidate is faster and keeps to the limits." in text
    assert "There is no evaluation data, and no error was measured." in text


def test_a_metric_of_which_less_is_better_says_so() -> None:
    """The budget lies above the fp32 graph, and the frontier goes down."""
    text = told(make_measurement(metric="mean_error")).text
    assert "mean_error (less is better)" in text
    assert "loses 0.0019 of mean_error" in text


def test_a_build_without_a_bundle_says_so_first() -> None:
    """The title and the problem come before all else, and no digest is shown."""
    failed = make_failed()
    outline = Outline(render_report(failed))
    text = outline.text
    body = text[text.index("headrace compile", text.index("headrace compile") + 1) :]
    assert body.startswith(f"headrace compileNo bundle: efficientnet-lite0 1.2{PROBLEM}")
    assert "No variant was chosen on this machine." in body
    assert failed.measurement.content not in text
    assert "Dropped by the gate “latency”: its p99 is" in text
    assert LINEAGE.recipe in text


def test_a_bundle_that_was_not_measured_says_so() -> None:
    """A target that is not this machine has no times, no picture and no curves."""
    outline = told(make_measurement((Draft("fp32", "fp32", ms=None),), metric=None, layers=0))
    assert "No time was measured on this machine." in outline.text
    assert outline.count("svg") == 0


def test_a_hundred_candidates_are_all_there() -> None:
    """Each is in the table, and the page stays small enough to open."""
    text = render_report(make_report(many()))
    for number in range(99):
        assert f">int8-candidate-{number} <small>" in text
    assert len(text) < 1_000_000


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf, 0.0, 5e-324, 1e300])
def test_figures_that_cannot_be_drawn_do_not_lose_the_report(odd: float) -> None:
    """A metric or an error of any value leaves a page that is whole."""
    found = make_measurement()
    strange = dict.fromkeys(("value", "low", "high", "loss", "loss_low", "loss_high"), odd)
    candidates = tuple(
        each.model_copy(
            update={
                "accuracy": each.accuracy and each.accuracy.model_copy(update=strange),
                "error": odd if 0 <= odd < math.inf else None,
            }
        )
        for each in found.candidates
    )
    layers = tuple(
        layer.model_copy(update={"loss": odd, "error": odd})
        for layer in found.sensitivity[0].layers
    )
    broken = found.sensitivity[0].model_copy(update={"layers": layers})
    for changed in (
        found.model_copy(update={"candidates": candidates, "sensitivity": (broken,)}),
        found.model_copy(update={"candidates": (found.candidates[0], *candidates[1:])}),
    ):
        page = render_report(make_report(changed))
        assert_whole(page)
        assert not re.search(r"[\">]nan|[\">]-?inf\b", page)


def test_hostile_text_stays_text() -> None:
    """No element comes of what a recipe, a graph or a machine is called."""
    text = render_report(hostile())
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    usual = {name for name, _ in told(make_measurement()).elements}
    assert {name for name, _ in Outline(text).elements} <= usual


def test_a_report_depends_on_nothing_but_what_it_is_given() -> None:
    """Two pages of one report are equal."""
    report = make_report(make_measurement())
    assert render_report(report) == render_report(report)

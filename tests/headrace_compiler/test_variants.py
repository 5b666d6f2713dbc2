"""From a recipe to measured variants: what is considered, kept, dropped and repeated."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from typer.testing import CliRunner

from headrace.bundle.digest import hash_file
from headrace.bundle.manifest import COMPONENT, MEASURED, REPORT, Manifest
from headrace.bundle.measurement import Choice, Point, Selection
from headrace.bundle.open import Bundle, open_bundle
from headrace.cli import build_app, exit_status
from headrace.engine.model import load_model
from headrace.errors import BundleError, CheckError, HeadraceError, UsageError
from headrace.hardware import detect_hardware
from headrace.profile import measurement_name, read_measurement, write_measurement
from headrace.timing import Effort
from headrace_compiler.build import Built, Caching, Silent, StepRecord, build

RECIPE = """
import numpy as np
import torch
from torch import nn

from headrace_compiler import *

NET


def draw(seed, count):
    generator = np.random.default_rng(seed)
    for _ in range(count):
        yield {"x": generator.standard_normal((1, 3, 24, 24)).astype(np.float32)}


def evaluation():
    return ((sample, None) for sample in draw(2, 32))


def broken(outputs, label):
    raise ValueError("no score")


recipe = Recipe(
    name="net",
    version="1",
    model=Net,
    inputs=[TensorSpec(name="x", datatype="FP32", shape=("batch", 3, 24, 24))],
    outputs=("y",),
    samples=lambda: draw(0, 4),
    calibration=lambda: draw(1, 16),
    CHANGES
)
"""
WIDE = '''class Net(nn.Module):
    """Wide enough that int8 pays on a processor that multiplies int8."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 64, 3, padding=1)
        self.second = nn.Conv2d(64, 64, 3, padding=1)
        self.last = nn.Linear(64, 10)

    def forward(self, x):
        x = torch.relu(self.second(torch.relu(self.first(x))))
        return self.last(x.mean((2, 3)))
'''
NARROW = '''class Net(nn.Module):
    """Takes longer to quantize eight numbers, thirty times, than to multiply them."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(1728, 8)
        self.steps = nn.ModuleList(nn.Linear(8, 8) for _ in range(30))
        self.last = nn.Linear(8, 2)

    def forward(self, x):
        x = self.first(x.flatten(1))
        for step in self.steps:
            x = x + 0.05 * torch.tanh(step(x))
        return self.last(x)
'''
JUDGED = 'evaluation=evaluation, metric="cosine",'


def write(folder: Path, changes: str = JUDGED, net: str = WIDE) -> Path:
    """The recipe with these further fields."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "recipe.py"
    path.write_text(RECIPE.replace("CHANGES", changes).replace("NET", net))
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the steps of this module's builds are kept."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def caching(home: Path) -> Caching:
    """A cache that all builds of this module share."""
    return Caching(home / "steps", 1 << 30)


@pytest.fixture(scope="module")
def built(home: Path, caching: Caching) -> Built:
    """A bundle with measured variants."""
    return build(write(home / "recipe"), out=home / "out", measure="quick", caching=caching)


def bundle_of(built: Built) -> Bundle:
    """The bundle, opened."""
    return open_bundle(built.path)


def test_many_candidates_are_considered_and_each_has_its_end(built: Built) -> None:
    """Every candidate is chosen at some point, or dropped with a gate and a sentence."""
    measured = built.measurement
    assert measured is not None
    names = {each.name for each in measured.candidates}
    assert names >= {"fp32", "fp32-openvino", "bf16-openvino", "int8", "int8-openvino"}
    assert names >= {"int8-nncf", "int8-nncf-openvino", "int8-dynamic"}
    assert any(name.startswith("int8-") and name.endswith(("minmax", "entropy")) for name in names)
    dropped = {each.variant: each for each in measured.selection.dropped}
    assert names == dropped.keys() | set(measured.selection.chosen)
    assert not dropped.keys() & set(measured.selection.chosen)
    for each in dropped.values():
        assert each.gate in {"speed", "siblings", "accuracy", "runs here"}
        assert len(each.reason) > 20


def test_what_is_measured_lies_beside_the_content(built: Built) -> None:
    """The measurement is of this machine and this content; the report is one file."""
    bundle = bundle_of(built)
    path = built.path / measurement_name(detect_hardware())
    assert read_measurement(path) == built.measurement
    assert read_measurement(path).content == bundle.digest
    assert MEASURED + path.name not in bundle.manifest.files
    report = (built.path / REPORT).read_text()
    assert report.startswith("<!doctype html>")
    for candidate in read_measurement(path).candidates:
        assert candidate.name in report


def test_content_is_the_fp32_graph_and_what_was_chosen(built: Built) -> None:
    """The most precise variant is always there, first; each has a tolerance of its own error."""
    manifest, measured = bundle_of(built).manifest, built.measurement
    assert measured is not None
    names = [variant.name for variant in manifest.variants]
    assert names[0] == "fp32"
    assert set(names) == {"fp32", *measured.selection.chosen}
    errors = {each.name: each.error for each in measured.candidates}
    for variant in manifest.variants:
        error = errors[variant.name]
        assert error is not None
        assert error < variant.tolerance.absolute < 6 * error + 1e-5
    listed = (built.path / COMPONENT).read_text()
    assert '"fp32"' in listed
    assert "openvino" not in listed


def test_every_variant_loads_and_replays(built: Built) -> None:
    """Each of the bundle's variants answers the golden cases within its tolerance."""
    bundle = bundle_of(built)
    for variant in bundle.manifest.variants:
        assert load_model(bundle, variant=variant, threads=1).deviations


def test_one_corrupted_weight_fails_the_replay(built: Built, tmp_path: Path) -> None:
    """In any variant: the tolerance is as narrow as the variant's own error allows."""
    bundle = bundle_of(built)
    for variant in bundle.manifest.variants:
        folder = tmp_path / f"{variant.name}.bundle"
        shutil.copytree(built.path, folder)
        path = folder / variant.path
        corrupt(path)
        manifest = Manifest.model_validate_json((folder / "headrace.json").read_bytes())
        files = {**manifest.files, variant.path: hash_file(path)}
        changed = manifest.model_copy(update={"files": files})
        (folder / "headrace.json").write_bytes(changed.to_json())
        with pytest.raises(BundleError) as caught:
            load_model(open_bundle(folder), variant=variant)
        assert caught.value.code == "bundle.golden-mismatch"


def corrupt(path: Path) -> None:
    """Flips the sign of the largest number in the last layer's weights."""
    model = onnx.load(path)
    weights = [each for each in model.graph.initializer if sorted(each.dims) == [10, 64]]
    array = numpy_helper.to_array(weights[0]).copy()
    place = np.unravel_index(np.abs(array.astype(np.float32)).argmax(), array.shape)
    array[place] = -array[place]
    weights[0].CopyFrom(numpy_helper.from_array(array, weights[0].name))
    onnx.save(model, path)


def test_a_replayed_selection_gives_the_same_content(built: Built, tmp_path: Path) -> None:
    """A rebuild that repeats the recorded selection measures nothing, and has the same digest."""
    again = build(
        write(tmp_path), out=tmp_path / "out", replay=built.path, measure="quick", caching=None
    )
    steps = {step.name for step in again.steps}
    assert again.digest == built.digest
    assert again.measurement == built.measurement
    assert not steps & {"race", "weigh", "curve", "evaluate-fp32"}


class Ear(Silent):
    """Notes which steps ran and which were kept."""

    def __init__(self, interrupted: str = "") -> None:
        self.ran: list[str] = []
        self._interrupted = interrupted

    def started(self, step: str) -> None:
        """Interrupts the build where it was asked to."""
        if step == self._interrupted:
            raise KeyboardInterrupt

    def finished(self, step: StepRecord) -> None:
        """Notes a step that was run."""
        if not step.cached:
            self.ran.append(step.name)


LIVE = {"samples", "capture", "reference", "parity", "golden", "data", "sketch"}


def test_a_changed_budget_reruns_only_what_depends_on_it(
    built: Built, tmp_path: Path, caching: Caching
) -> None:
    """Quantization, evaluation and timing are kept; the choice is made anew."""
    ear = Ear()
    wider = f"{JUDGED} budget=Budget(accuracy_loss=0.006),"
    again = build(
        write(tmp_path, wider), out=tmp_path, measure="quick", caching=caching, progress=ear
    )
    assert set(ear.ran) <= LIVE | {"package"}
    assert again.measurement is not None
    assert built.measurement is not None
    assert again.measurement.candidates == built.measurement.candidates
    assert again.measurement.limits.accuracy_loss == 0.006


def test_a_more_thorough_measurement_is_made_anew(
    built: Built, tmp_path: Path, caching: Caching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was timed quickly does not stand in for what is to be timed in full."""
    thorough = Effort(race=(1, 2), curve=(), rounds=(7, 7), block_s=0.001)
    monkeypatch.setattr("headrace_compiler.build.FULL", thorough)
    ear = Ear()
    again = build(write(tmp_path), out=tmp_path, measure="full", caching=caching, progress=ear)
    assert set(ear.ran) <= LIVE | {"race", "package"}
    assert "race" in ear.ran
    assert built.measurement is not None
    assert again.measurement is not None
    batches = {timing.point.batch for timing in again.measurement.candidates[0].timings}
    assert batches == {1, 2}


def test_an_interrupted_build_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """What was done before the interrupt is not done again."""
    path, caching = write(tmp_path / "recipe"), Caching(tmp_path / "steps", 1 << 30)
    first, second = Ear("prove"), Ear("prove")
    for ear in (first, second):
        with pytest.raises(KeyboardInterrupt):
            build(path, out=tmp_path, measure="quick", caching=caching, progress=ear)
    assert {"calibrate", "quantize-nncf", "quantize-nncf-openvino"} <= set(first.ran)
    assert set(second.ran) <= LIVE


def test_a_model_on_which_int8_is_slower_ships_without_it(tmp_path: Path) -> None:
    """It is accurate enough, and dropped for its time, with the figures."""
    made = build(write(tmp_path, net=NARROW), out=tmp_path, measure="quick")
    assert made.measurement is not None
    dropped = {each.variant: each for each in made.measurement.selection.dropped}
    assert "int8" not in {variant.name for variant in bundle_of(made).manifest.variants}
    assert dropped["int8"].gate == "speed"
    assert "not faster than" in dropped["int8"].reason


def test_a_recorded_variant_that_is_not_made_here_is_an_error(
    built: Built, tmp_path: Path, caching: Caching
) -> None:
    """What was recorded elsewhere is not packed unproven."""
    folder = tmp_path / "recorded.bundle"
    shutil.copytree(built.path, folder)
    path = folder / measurement_name(detect_hardware())
    recorded = read_measurement(path)
    int4 = recorded.candidates[0].model_copy(update={"name": "int4"})
    point = Point(batch=1, threads=1)
    selection = Selection(choices=(Choice(point=point, variant="int4"),), dropped=())
    changed = {"candidates": (*recorded.candidates, int4), "selection": selection}
    write_measurement(path, recorded.model_copy(update=changed))
    with pytest.raises(UsageError) as caught:
        build(write(tmp_path), out=tmp_path, replay=folder, caching=caching)
    assert caught.value.code == "replay.unknown"


def test_without_evaluation_data_precision_is_not_reduced(tmp_path: Path) -> None:
    """bf16 is dropped since nothing proves it accurate; nothing is quantized at all."""
    made = build(write(tmp_path, ""), out=tmp_path, measure="quick")
    assert made.measurement is not None
    dropped = {each.variant: each.reason for each in made.measurement.selection.dropped}
    reason = dropped["bf16-openvino"]
    assert "no evaluation data" in reason or "does not" in reason
    precisions = {variant.precision for variant in bundle_of(made).manifest.variants}
    assert precisions == {"fp32"}
    assert not any(each.precision == "int8" for each in made.measurement.candidates)


def test_a_budget_that_nothing_meets_leaves_a_report_and_no_bundle(
    tmp_path: Path, caching: Caching, built: Built
) -> None:
    """The build says no with status 1; why each candidate was refused is in the report."""
    assert built.measurement is not None
    strict = f"{JUDGED} budget=Budget(p99_ms=0.00001),"
    with pytest.raises(CheckError) as caught:
        build(write(tmp_path, strict), out=tmp_path / "out", measure="quick", caching=caching)
    assert caught.value.code == "build.budget"
    assert exit_status(caught.value) == 1
    assert "the objective is 1e-05 ms" in caught.value.message
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"net-1.{REPORT}"]
    assert "the objective is" in (tmp_path / "out" / f"net-1.{REPORT}").read_text()


@pytest.mark.parametrize(
    ("changes", "code", "status"),
    [
        ("evaluation=evaluation, metric=broken,", "metric.failed", 2),
        ("evaluation=lambda: ((s, None) for s in draw(1, 2)),", "data.overlap", 1),
        ("evaluation=lambda: [],", "data.empty", 2),
        ('evaluation=evaluation, metric="accuracy",', "recipe.invalid", 2),
        ('evaluation=evaluation, metric="top1", postprocessing=TopK(output="z"),', "recipe", 2),
    ],
)
def test_data_and_metrics_at_fault_are_errors(
    tmp_path: Path, caching: Caching, changes: str, code: str, status: int
) -> None:
    """Each ends the build with its own code, before anything is written."""
    with pytest.raises(HeadraceError) as caught:
        build(write(tmp_path, changes), out=tmp_path / "out", measure="quick", caching=caching)
    assert caught.value.code.startswith(code)
    assert exit_status(caught.value) == status
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("target", ["arm64", "cuda", "tensorrt"])
def test_a_target_that_is_not_here_is_built_unmeasured(
    tmp_path: Path, caching: Caching, target: str
) -> None:
    """Everything is packed but the profile; the report says that nothing was timed."""
    made = build(write(tmp_path), target=target, out=tmp_path, measure="quick", caching=caching)
    manifest = bundle_of(made).manifest
    assert manifest.lineage.target == target
    assert not (made.path / MEASURED).exists()
    precisions = {variant.precision for variant in manifest.variants}
    assert precisions >= {"fp32", "int8" if target == "arm64" else "fp16"}
    assert "No time was measured" in (made.path / REPORT).read_text()
    fp32 = load_model(bundle_of(made), variant=manifest.variants[0], threads=1)
    assert fp32.deviations


def test_an_unknown_target_is_an_error(tmp_path: Path) -> None:
    """It names those that there are."""
    with pytest.raises(UsageError) as caught:
        build(write(tmp_path), target="abacus", out=tmp_path)
    assert "cpu, arm64, cuda, tensorrt" in caught.value.hint


def test_the_program_shows_what_was_chosen_and_why(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tables for people; steps that were kept are marked as such."""
    monkeypatch.setenv("HEADRACE_HOME", str(home))
    arguments = ["compile", str(write(tmp_path)), "--out", str(tmp_path), "--measure", "quick"]
    for _ in range(2):
        done = CliRunner().invoke(build_app(), [*arguments, "--force"], catch_exceptions=False)
        assert done.exit_code == 0
    assert "chosen" in done.stdout
    assert "dropped" in done.stdout
    assert "kept quantize-nncf" in done.stderr

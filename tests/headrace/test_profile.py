"""Measuring a bundle on this machine, and choosing by what was measured."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from bundles import WEIGHT, linear_bundle, linear_model, two_variants

from headrace.bundle.measurement import Limits, Measurement
from headrace.bundle.open import Bundle, open_bundle
from headrace.choice import choose_variant
from headrace.engine.session import CPU
from headrace.errors import BundleError, CheckError, InternalError, UsageError
from headrace.footprint import measure_footprint, write_inputs
from headrace.hardware import Hardware, detect_hardware
from headrace.profile import (
    Conditions,
    find_measurement,
    measure_bundle,
    measurement_name,
    remembered,
    write_measurement,
)
from headrace.selection import select
from headrace.timing import Effort

BRIEF = Effort(race=(1, 2), curve=(1, 2, 4), rounds=(6, 6), block_s=0.001)
HERE = detect_hardware()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle of a slow fp32 variant and a quick one."""
    return open_bundle(two_variants(tmp_path_factory.mktemp("two")))


@pytest.fixture(scope="module")
def measured(bundle: Bundle) -> Measurement:
    """What this machine measures of it."""
    return measure_bundle(bundle, Conditions(HERE, BRIEF))


def test_every_variant_is_replayed_timed_and_weighed(bundle: Bundle, measured: Measurement) -> None:
    """Each has its golden error, nodes by provider, times, load and memory; the quick one wins."""
    assert measured.content == bundle.digest
    assert [each.name for each in measured.candidates] == ["fp32", "int8"]
    for each in measured.candidates:
        assert each.error is not None
        assert each.error < 1e-5
        assert list(each.placement) == [CPU]
        assert each.load_seconds is not None
        assert each.load_seconds > 0
        assert each.memory_mib is not None
        assert each.memory_mib > 0
        points = {timing.point for timing in each.timings if timing.point.sessions == 1}
        assert {point.batch for point in points} >= {1, 2, 4}
        assert {point.threads for point in points} >= {1, HERE.cores}
    assert measured.selection.chosen == ("int8",)
    assert [each.variant for each in measured.selection.dropped] == ["fp32"]


def test_a_measurement_survives_its_file(measured: Measurement, tmp_path: Path) -> None:
    """What is read is what was written; nothing else is left beside it."""
    path = tmp_path / "measured" / "here.json"
    write_measurement(path, measured)
    assert Measurement.model_validate_json(path.read_bytes()) == measured
    assert list(path.parent.iterdir()) == [path]


def test_the_choice_follows_the_measurement_beside_the_bundle(
    tmp_path: Path, measured: Measurement
) -> None:
    """With the times of the two variants exchanged, the same bundle runs the other one."""
    bundle = open_bundle(two_variants(tmp_path))
    path = bundle.path / measurement_name(HERE)
    write_measurement(path, measured)
    assert choose_variant(bundle, HERE).variant.name == "int8"
    slow, quick = measured.candidates
    swapped = [
        slow.model_copy(update={"timings": quick.timings}),
        quick.model_copy(update={"timings": slow.timings}),
    ]
    changed = {
        "candidates": tuple(swapped),
        "selection": select(swapped, measured.limits, proven=True),
    }
    write_measurement(path, measured.model_copy(update=changed))
    chosen = choose_variant(bundle, HERE)
    assert (chosen.variant.name, chosen.reason) == ("fp32", "as measured")
    assert open_bundle(bundle.path).digest == bundle.digest


def test_where_no_measurement_fits_one_is_made_and_kept(bundle: Bundle, tmp_path: Path) -> None:
    """On another machine the runtime says that it measures, and does so once."""
    first = choose_variant(bundle, HERE, home=tmp_path)
    assert first.measured_now
    assert first.variant.name == "int8"
    assert "no measurement fits" in first.reason
    assert remembered(tmp_path, bundle, HERE).is_file()
    assert not choose_variant(bundle, HERE, home=tmp_path).measured_now
    assert not (bundle.path / "measured").exists()


def test_another_machines_measurement_does_not_fit(
    bundle: Bundle, tmp_path: Path, measured: Measurement
) -> None:
    """Neither does that of another provider or of other content."""
    other = HERE.model_copy(update={"processor": "another"})
    path = remembered(tmp_path, bundle, HERE)
    for change in ({"provider": "CUDAExecutionProvider"}, {"content": "0" * 64}):
        write_measurement(path, measured.model_copy(update=change))
        assert find_measurement(bundle, HERE, CPU, tmp_path) is None
    write_measurement(path, measured)
    assert find_measurement(bundle, other, CPU, tmp_path) is None
    assert find_measurement(bundle, HERE, CPU, tmp_path) == measured


def test_a_measurement_is_as_readable_as_the_bundle(bundle: Bundle, tmp_path: Path) -> None:
    """Whoever serves a bundle need not be who measured it; the home is the owner's alone."""
    home = tmp_path / "home"
    choose_variant(bundle, HERE, home=home)
    written = remembered(home, bundle, HERE)
    (tmp_path / "plain").touch()
    assert written.stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert home.stat().st_mode & 0o077 == 0


def test_inputs_of_any_name_are_weighed(tmp_path: Path) -> None:
    """Names that NumPy's own arguments have are names like others."""
    path = tmp_path / "request.npz"
    write_inputs(path, {"file": np.ones(2), "allow_pickle": np.zeros(1), "x.y": np.ones(3)})
    with np.load(path, allow_pickle=False) as archive:
        assert archive["names"].tolist() == ["file", "allow_pickle", "x.y"]
        assert archive["arr_2"].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    "content", ["", "{}", '{"schema_version": 2}', "[" * 100_000], ids=range(4)
)
def test_a_broken_measurement_is_an_error(tmp_path: Path, content: str) -> None:
    """It is not taken for a missing one, and not measured over in silence."""
    bundle = open_bundle(two_variants(tmp_path))
    path = bundle.path / measurement_name(HERE)
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(BundleError) as caught:
        choose_variant(bundle, HERE)
    assert caught.value.code == "bundle.measurement"


def test_a_variant_asked_for_by_name_is_not_overruled(bundle: Bundle) -> None:
    """And one that is not there is an error that names those that are."""
    assert choose_variant(bundle, HERE, wanted="fp32").variant.name == "fp32"
    with pytest.raises(UsageError) as caught:
        choose_variant(bundle, HERE, wanted="int4")
    assert "fp32, int8" in caught.value.hint


def test_the_only_variant_needs_no_measurement(tmp_path: Path) -> None:
    """A bundle with one variant has nothing to choose."""
    assert choose_variant(open_bundle(linear_bundle(tmp_path)), HERE).reason == "the only one"


def test_a_variant_that_answers_otherwise_here_is_dropped(tmp_path: Path) -> None:
    """One changed weight, and the golden replay refuses the variant, however quick it is."""
    changed = WEIGHT.copy()
    changed[1, 2] += 0.5
    bundle = open_bundle(two_variants(tmp_path, quick=linear_model(changed)))
    found = measure_bundle(bundle, Conditions(HERE, BRIEF))
    assert found.selection.chosen == ("fp32",)
    assert found.selection.dropped[0].gate == "runs here"
    assert "golden case" in found.selection.dropped[0].reason


def test_no_variant_inside_the_limits_is_an_error(tmp_path: Path, measured: Measurement) -> None:
    """The error holds every reason; nothing is run instead."""
    bundle = open_bundle(two_variants(tmp_path))
    tight = Limits(p99_ms=1e-6)
    selection = select(measured.candidates, tight, proven=True)
    write_measurement(
        bundle.path / measurement_name(HERE),
        measured.model_copy(update={"limits": tight, "selection": selection}),
    )
    with pytest.raises(CheckError) as caught:
        choose_variant(bundle, HERE)
    assert caught.value.code == "variant.none"
    assert "fp32: its p99" in caught.value.message


def test_a_footprint_is_that_of_a_fresh_process(bundle: Bundle, tmp_path: Path) -> None:
    """A process that fails is an error with its last words."""
    request = tmp_path / "request.npz"
    write_inputs(request, {"x": np.ones((1, 3), np.float32)})
    variant = bundle.manifest.variants[1]
    found = measure_footprint(bundle.model_path(variant), variant, request, provider=CPU, threads=1)
    assert 0 < found.load_seconds < 60
    assert 0 < found.memory_mib < 1000
    broken = tmp_path / "model.onnx"
    broken.write_bytes(b"no graph")
    with pytest.raises(InternalError, match="does not load by itself"):
        measure_footprint(broken, variant, request, provider=CPU, threads=1)


def run(arguments: list[str], home: Path) -> subprocess.CompletedProcess[str]:
    """The program."""
    return subprocess.run(
        [str(Path(sys.executable).with_name("headrace")), *arguments],
        capture_output=True,
        check=False,
        text=True,
        env={"HEADRACE_HOME": str(home), "PATH": "/usr/bin:/bin"},
    )


def document(done: subprocess.CompletedProcess[str]) -> Mapping[str, object]:
    """What the program said."""
    assert done.returncode == 0, done.stderr
    found: Mapping[str, object] = json.loads(done.stdout)
    return found


def test_the_program_adds_a_measurement_to_a_bundle(tmp_path: Path) -> None:
    """`headrace profile` writes one file, leaves the digest as it was, and `predict` follows it."""
    path = two_variants(tmp_path)
    before = open_bundle(path).digest
    told = document(run(["profile", str(path), "--quick", "--json"], tmp_path))
    added = path / measurement_name(HERE)
    assert told["path"] == str(added)
    assert Measurement.model_validate_json(added.read_bytes()).content == before
    assert open_bundle(path).digest == before
    table = run(["profile", str(path), "--quick"], tmp_path)
    assert "not faster than" in table.stdout
    assert table.returncode == 0


def test_hardware_without_measurements_is_another_fingerprint(measured: Measurement) -> None:
    """An engine's new version makes another fingerprint, so that old measurements do not fit."""
    engines = {**HERE.engines, "onnxruntime": "0.0.1"}
    changed = Hardware.model_validate({**HERE.model_dump(), "engines": engines})
    assert measurement_name(changed) != measurement_name(HERE)
    assert measured.hardware == HERE

"""What prepares a bundle's raw inputs: a library that fits, or a sentence that none does."""

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from bundles import LABELS, PREPROCESSING, image_bundle, png

import headrace.engine.stages
from headrace.bundle.open import open_bundle
from headrace.engine.model import load_model
from headrace.engine.stages import Stage, open_stages
from headrace.errors import BundleError, MissingError
from headrace.hardware import detect_hardware
from headrace.postprocess.spec import TopK
from headrace.preprocess.image.reference import prepare
from headrace.tensors import Array
from headrace_compiler.kernels.lower import compile_kernels
from headrace_compiler.kernels.sources import Specs


@pytest.fixture(scope="module")
def libraries() -> Mapping[str, bytes]:
    """Of the bundles here."""
    finish = TopK(output="logits", k=2, labels=LABELS)
    return compile_kernels(Specs(preprocessing=PREPROCESSING, postprocessing=finish))


@pytest.fixture
def bundle(tmp_path: Path, libraries: Mapping[str, bytes]) -> Path:
    """A bundle with a library for each target."""
    return image_bundle(tmp_path, kernels=libraries)


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor for which there is no library."""
    other = detect_hardware().model_copy(update={"architecture": "riscv64"})
    monkeypatch.setattr(headrace.engine.stages, "detect_hardware", lambda: other)


def prepared(stage: Stage | None, images: Sequence[bytes]) -> Array:
    """The one tensor that is made of some images."""
    assert stage is not None
    (made,) = stage.run({"image": np.array(images, dtype=object)}).values()
    return made


def test_a_library_that_fits_prepares_the_images(bundle: Path) -> None:
    """It gives what the reference gives, and no row counts as prepared by the reference."""
    model = load_model(open_bundle(bundle))
    images = [png(seed, 20 + seed, 30) for seed in range(3)]
    answer = model.answer({"image": np.array(images, dtype=object)})
    assert not answer.reference
    assert model.stages.prepare is not None
    assert model.stages.prepare.native
    found, wanted = prepared(model.stages.prepare, images), prepare(PREPROCESSING, images)
    assert np.abs(found.astype(float) - wanted.astype(float)).max() <= 1e-6 * 255 / 60


@pytest.mark.usefixtures("foreign")
def test_without_a_library_that_fits_the_reference_needs_leave(bundle: Path) -> None:
    """It is an error that says how; with leave, the rows are counted."""
    opened = open_bundle(bundle)
    with pytest.raises(MissingError) as caught:
        open_stages(opened)
    assert caught.value.code == "kernel.missing"
    assert "riscv64" in caught.value.message
    assert "--allow-reference" in caught.value.hint
    model = load_model(opened, allow_reference=True)
    assert model.stages.prepare is not None
    assert not model.stages.prepare.native
    assert model.answer({"image": np.array([png()], dtype=object)}).reference
    ready = np.zeros((1, 3, 6, 6), np.float32)
    assert model.answer({"pixels": ready}).reference  # it finishes what others prepared


def test_a_bundle_of_before_has_the_reference_and_it_counts(tmp_path: Path) -> None:
    """Version 1 had no libraries."""
    model = load_model(open_bundle(image_bundle(tmp_path)))
    assert model.answer({"image": np.array([png()], dtype=object)}).reference


def test_a_library_that_was_changed_is_not_mapped(bundle: Path) -> None:
    """Though it was whole when the bundle was opened."""
    opened = open_bundle(bundle)
    for entry in opened.manifest.kernels:
        path = bundle / entry.path
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(BundleError, match=r"\.so was changed"):
        open_stages(opened)


def test_many_threads_share_one_library(bundle: Path) -> None:
    """Each has scratch of its own."""
    stage = open_stages(open_bundle(bundle), threads=3).prepare
    images = [[png(seed, 10 + seed, 50 - seed)] * (1 + seed % 3) for seed in range(30)]
    wanted = [prepare(PREPROCESSING, each) for each in images]
    found: list[object] = [None] * len(images)

    def work(part: int) -> None:
        for place in range(part, len(images), 4):
            found[place] = prepared(stage, images[place])

    workers = [threading.Thread(target=work, args=(part,)) for part in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for made, expected in zip(found, wanted, strict=True):
        apart = np.asarray(made, np.float64) - np.asarray(expected, np.float64)
        assert np.abs(apart).max() <= 1e-5

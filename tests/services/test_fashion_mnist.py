"""The examples on Fashion-MNIST, which Debian carries: trained, compiled, and scored."""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from headrace.bundle.open import open_bundle
from headrace.engine.model import Model, load_model
from headrace.errors import MissingError
from headrace_compiler.build import build
from headrace_compiler.datasets import draw_data
from headrace_compiler.loading import importable, load_recipe

FOLDER = Path(__file__).parents[2] / "examples" / "fashion_mnist"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The fp32 bundle of the example, not measured."""
    out = tmp_path_factory.mktemp("bundle")
    return load_model(open_bundle(build(FOLDER / "recipe.py", out=out, measure="none").path))


@pytest.fixture
def fashion() -> Iterator[ModuleType]:
    """The module beside the recipes, forgotten afterwards."""
    with importable(FOLDER):
        yield import_module("fashion")


def test_most_test_images_are_classified(model: Model, fashion: ModuleType) -> None:
    """The network that the recipe trains is right on .87 of the 10,000 test images at least."""
    right = [
        model.session.run(sample)["logits"].argmax(axis=1) == label
        for sample, label in fashion.evaluation()
    ]
    assert sum(map(len, right)) == 10_000
    assert np.concatenate(right).mean() > 0.87


def test_an_answer_names_the_garment(model: Model, fashion: ModuleType) -> None:
    """An answer holds the three likeliest labels, of which one is nearly always right."""
    sample, label = next(iter(fashion.evaluation()))
    outputs = model.answer(sample).outputs
    assert outputs["labels"].shape == (fashion.ROWS, 3)
    wanted = np.array([fashion.LABELS[number].encode() for number in label])
    assert (outputs["labels"] == wanted[:, None]).any(axis=1).mean() > 0.9


@pytest.mark.parametrize("name", ["recipe.py", "strict.py"])
def test_calibration_is_neither_learnt_from_nor_scored(
    tmp_path: Path, fashion: ModuleType, name: str
) -> None:
    """512 training images that the network does not see; none of them is a test image."""
    with importable(FOLDER):
        recipe = load_recipe(FOLDER / name)
        data = draw_data(recipe, FOLDER, tmp_path)
    assert data is not None
    assert len(data.calibration.marks) == fashion.CALIBRATION
    assert sum(len(sample["pixels"]) for sample in data.evaluation) == 10_000
    assert len(fashion.load("train")[0]) > fashion.TRAINED + fashion.CALIBRATION
    assert (data.evaluation.labels[0] is None) == (name == "strict.py")


def test_missing_data_are_named(
    tmp_path: Path, fashion: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the data set the error says which package of Debian holds it."""
    monkeypatch.setattr(fashion, "DATA", tmp_path)
    with pytest.raises(MissingError) as caught:
        fashion.load("train")
    assert "Fashion-MNIST is not installed" in caught.value.message
    assert caught.value.hint == "apt-get install dataset-fashion-mnist"

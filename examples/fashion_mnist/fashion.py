"""Fashion-MNIST: its files, a network, its training, and what a recipe needs of it.

The data are those of Debian's package `dataset-fashion-mnist`: 60,000 training images and 10,000
test images of 28 x 28 grey pixels, in ten classes.
"""

# ruff: noqa: TID251 - the network is a torch module

import gzip
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from headrace.errors import MissingError
from headrace.tensors import Array
from headrace_compiler import TensorSpec

DATA = Path("/usr/share/datasets/fashion-mnist")
LABELS = (
    *("T-shirt/top", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
)
INPUTS = (TensorSpec(name="pixels", datatype="FP32", shape=("batch", 1, 28, 28)),)
OUTPUTS = ("logits",)

TRAINED = 20_000
"""Images of the training set that are learnt from, in one pass of half a minute."""
CALIBRATION = 512
"""Images of the training set that are not learnt from."""
SAMPLES = 16
ROWS = 50
"""Of one evaluation sample."""
BATCH = 64
MEAN, DEVIATION = 72.94, 90.02
"""Of the training set's pixels."""


class Classifier(nn.Module):
    """Four convolutions of 32 and 64 channels, and two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *_convolution(1, 32),
            *_convolution(32, 32),
            nn.MaxPool2d(2),
            *_convolution(32, 64),
            *_convolution(64, 64),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64 * 7 * 7, 128),
            nn.ReLU(),
            nn.Linear(128, len(LABELS)),
        )

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """float32 (batch, 1, 28, 28) on the 0..255 scale to logits (batch, 10)."""
        logits: torch.Tensor = self.layers((pixels - MEAN) / DEVIATION)
        return logits


def train() -> nn.Module:
    """A network that has seen every one of its images once: about .89 of the test images right."""
    images, labels = load("train")
    network: nn.Module = Classifier()
    # A fifth quicker on a CPU; torch's stub leaves this argument out.
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(network.parameters())
    steps = TRAINED // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps)
    for rows in torch.randperm(TRAINED).numpy()[: steps * BATCH].reshape(steps, BATCH):
        answers = network(torch.from_numpy(pixels(images[rows])))
        loss = cross_entropy(answers, torch.from_numpy(labels[rows].astype(np.int64)))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch publishes no type for it
        optimizer.step()
        schedule.step()
    return network


def samples() -> Iterator[dict[str, Array]]:
    """One image of the training set a sample."""
    images, _ = load("train")
    return ({"pixels": pixels(image[np.newaxis])} for image in images[:SAMPLES])


def calibration() -> Iterator[dict[str, Array]]:
    """Images of the training set that are not learnt from, 16 a sample."""
    images, _ = load("train")
    return ({"pixels": pixels(some)} for some in np.split(images[-CALIBRATION:], CALIBRATION // 16))


def evaluation() -> Iterator[tuple[dict[str, Array], Array]]:
    """The 10,000 images of the test set with their classes."""
    images, labels = load("t10k")
    for begin in range(0, len(images), ROWS):
        rows = slice(begin, begin + ROWS)
        yield {"pixels": pixels(images[rows])}, labels[rows].astype(np.int64)


def agreement() -> Iterator[tuple[dict[str, Array], None]]:
    """The test images on which a variant should give the logits that the fp32 graph gives."""
    return ((sample, None) for sample, _ in evaluation())


def pixels(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """uint8 (batch, 28, 28) as the network takes it."""
    return images[:, np.newaxis].astype(np.float32)


def load(part: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """The images (count, 28, 28) and classes (count,) of `train` or `t10k`.

    Raises:
        MissingError: The data set is not installed.
    """
    return _read(f"{part}-images-idx3-ubyte.gz"), _read(f"{part}-labels-idx1-ubyte.gz")


def _read(name: str) -> npt.NDArray[np.uint8]:
    """An IDX file of bytes: two zeros, the type, the rank, big-endian sizes, the values."""
    path = DATA / name
    if not path.is_file():
        raise MissingError(
            "data.fashion-mnist",
            f"the data set Fashion-MNIST is not installed: there is no {path}",
            "apt-get install dataset-fashion-mnist",
        )
    with gzip.open(path) as file:
        content = file.read()
    rank = content[3]
    shape = np.frombuffer(content, ">u4", count=rank, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)


def _convolution(channels: int, made: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(channels, made, 3, padding=1, bias=False), nn.BatchNorm2d(made), nn.ReLU()

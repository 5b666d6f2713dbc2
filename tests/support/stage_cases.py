"""Stages of every kind that has a kernel, and what is sent through them."""

import math
from collections.abc import Mapping
from io import BytesIO

import numpy as np
import numpy.typing as npt
from image_specs import IMAGENET, picture
from PIL import Image
from recordings import noise, wave_file

from headrace.postprocess.spec import (
    Detections,
    L2Normalize,
    Postprocessing,
    SigmoidThreshold,
    Softmax,
    TopK,
)
from headrace.preprocess.audio.decode import Encoding
from headrace.preprocess.audio.spec import AudioPreprocessing, Clip, LogMel, Resample, Waveform
from headrace.preprocess.image.spec import (
    Cast,
    CenterCrop,
    Colour,
    ImagePreprocessing,
    Layout,
    Letterbox,
    Resize,
)
from headrace.preprocess.spec import Preprocessing, Value
from headrace.preprocess.table.spec import Hash, Number, OneHot, TablePreprocessing
from headrace.tensors import Array, Datatype
from headrace_compiler.kernels.sources import Specs

SPECS = {
    "bilinear": Specs(
        preprocessing=ImagePreprocessing(
            input="image",
            output="x",
            resize=Resize(shorter=24),
            crop=CenterCrop(height=21, width=16),
            normalize=IMAGENET,
        ),
        postprocessing=Softmax(output="y"),
    ),
    "letterbox": Specs(
        preprocessing=ImagePreprocessing(
            input="image",
            output="x",
            colour=Colour(channels="BGR"),
            resize=Letterbox(height=20, width=23, filter="bicubic"),
            normalize=IMAGENET,
            cast=Cast(datatype="FP16"),
        ),
        postprocessing=TopK(output="y", k=7),
    ),
    "nearest": Specs(
        preprocessing=ImagePreprocessing(
            input="image",
            output="x",
            colour=Colour(channels="L"),
            resize=Resize(shorter=19, filter="nearest", antialias=False),
            crop=CenterCrop(height=17, width=19),
            layout=Layout(order="HWC"),
            cast=Cast(datatype="UINT8"),
        ),
        postprocessing=Detections(
            boxes="b", scores="s", format="cxcywh", activation="sigmoid", most=40, candidates=300
        ),
    ),
    "waveform": Specs(
        preprocessing=AudioPreprocessing(
            input="recording",
            output="x",
            resample=Resample(rate=16000),
            clip=Clip(samples=1100),
            features=Waveform(standardize=True),
        ),
        postprocessing=L2Normalize(output="y"),
    ),
    "log-mel": Specs(
        preprocessing=AudioPreprocessing(
            input="recording",
            output="x",
            resample=Resample(rate=16000),
            clip=Clip(samples=4800),
            features=LogMel(
                n_fft=400, length=400, hop=160, mels=80, high=8000.0, dynamic_range=8.0
            ),
        ),
        postprocessing=SigmoidThreshold(output="y", threshold=0.3),
    ),
    "table": Specs(
        preprocessing=TablePreprocessing(
            columns=(
                Number(name="n", impute=-0.5, mean=0.1, std=7.0),
                OneHot(name="text", categories=("", "a", "ab", "ü"), unknown="other"),
                Hash(name="hash", buckets=9),
                OneHot(name="whole", categories=(3, -1, 2**63 - 1)),
                Number(name="m", impute=3.0, std=-0.3),
            ),
            output="x",
        ),
        postprocessing=Detections(boxes="b", scores="s", most=5, candidates=16),
    ),
    "strict": Specs(
        preprocessing=TablePreprocessing(
            columns=(
                Number(name="n", std=1e-3),
                OneHot(name="text", categories=("", "a", "ab", "ü"), unknown="error"),
                OneHot(name="whole", categories=(3, -1, 5), unknown="error"),
                Hash(name="hash", buckets=2, signed=False),
            ),
            output="x",
        )
    ),
}
SIZES = ((1, 1), (97, 131), (5, 900), (900, 2), (64, 64), (1000, 1100))
"""Of images, in pixels; the last is large enough to be shared out to threads."""
RECORDINGS: tuple[tuple[int, int, int, Encoding], ...] = (
    (3000, 1, 16000, "s16"),
    (9000, 2, 44100, "s24"),
    (700, 3, 8000, "u8"),
    (4801, 1, 11025, "f32"),
    (1, 1, 48000, "s32"),
    (0, 1, 16000, "s16"),
)
"""Frames, channels, rate in Hz, and encoding."""
VALUES: Mapping[Datatype, tuple[Value, ...]] = {
    "FP64": (0.25, -7.5, 3e5, 1e-30, math.nan),
    "BYTES": (b"a", b"ab", "ü".encode(), b"", b"longer than any category"),
    "INT64": (3, -1, 5, 2**63 - 1),
}


def raw_rows(spec: Preprocessing | None) -> list[dict[str, Value]]:
    """What clients send."""
    match spec:
        case ImagePreprocessing():
            return [{spec.input: _png(*size)} for size in SIZES]
        case AudioPreprocessing():
            return [
                {spec.input: wave_file(noise(frames, channels), rate, encoding)}
                for frames, channels, rate, encoding in RECORDINGS
            ]
        case TablePreprocessing():
            random = np.random.default_rng(1)
            choices = [(column.name, VALUES[column.datatype]) for column in spec.columns]
            return [
                {name: values[random.integers(len(values))] for name, values in choices}
                for _ in range(40)
            ]
        case _:
            return []


def model_outputs(spec: Postprocessing | None) -> list[dict[str, Array]]:
    """What models give: ordinary numbers, many ties, and a row that holds NaN."""
    if spec is None:
        return []
    sizes = (7, 16, 69, 1000)
    if isinstance(spec, Detections):
        made = [{"b": _numbers(2, n, 4), "s": _numbers(2, n, 3)} for n in (0, 1, *sizes)]
    else:
        made = [{"y": _numbers(3, n)} for n in sizes]
    ties = {name: np.rint(array) for name, array in made[-1].items()}
    broken = {name: array.copy() for name, array in ties.items()}
    broken[spec.reads[-1]][1, 5] = np.nan
    return [*made, ties, broken]


def _numbers(*shape: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(shape).normal(1, 3, shape).astype(np.float32)


def _png(height: int, width: int) -> bytes:
    buffer = BytesIO()
    Image.fromarray(picture(height, width)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()

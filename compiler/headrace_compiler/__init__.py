"""Turns a recipe into a bundle: capture, export, prove, package.

What a recipe needs is imported from here; none of it imports torch or onnx.
"""

from headrace.bundle.manifest import Tolerance
from headrace.postprocess.spec import Detections, L2Normalize, SigmoidThreshold, Softmax, TopK
from headrace.preprocess.audio.spec import (
    AudioPreprocessing,
    Clip,
    Frames,
    LogMel,
    Resample,
    Waveform,
)
from headrace.preprocess.audio.spec import Decode as DecodeAudio
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
from headrace.preprocess.table.spec import Hash, Number, OneHot, TablePreprocessing
from headrace.preprocess.text.spec import TextPreprocessing
from headrace.tensors import TensorSpec
from headrace_compiler.recipe import Budget, Recipe

__all__ = [
    "AudioPreprocessing",
    "Budget",
    "Cast",
    "CenterCrop",
    "Clip",
    "Colour",
    "Decode",
    "DecodeAudio",
    "Detections",
    "Frames",
    "Hash",
    "ImagePreprocessing",
    "L2Normalize",
    "Layout",
    "Letterbox",
    "LogMel",
    "Normalize",
    "Number",
    "OneHot",
    "Recipe",
    "Resample",
    "Resize",
    "SigmoidThreshold",
    "Softmax",
    "Stretch",
    "TablePreprocessing",
    "TensorSpec",
    "TextPreprocessing",
    "Tolerance",
    "TopK",
    "Waveform",
]

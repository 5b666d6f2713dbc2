"""Turns a recipe into a bundle: capture, export, prove, package.

What a recipe needs is imported from here; none of it imports torch or onnx.
"""

from headrace.bundle.manifest import Tolerance
from headrace.postprocess.spec import Softmax, TopK
from headrace.preprocess.spec import (
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
from headrace.tensors import TensorSpec
from headrace_compiler.recipe import Budget, Recipe

__all__ = [
    "Budget",
    "Cast",
    "CenterCrop",
    "Colour",
    "Decode",
    "ImagePreprocessing",
    "Layout",
    "Letterbox",
    "Normalize",
    "Recipe",
    "Resize",
    "Softmax",
    "Stretch",
    "TensorSpec",
    "Tolerance",
    "TopK",
]

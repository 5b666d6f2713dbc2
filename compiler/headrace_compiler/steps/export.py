"""Makes an ONNX graph of what was captured, under the declared names."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir
import torch
from torch.export import ExportedProgram

from headrace.bundle.manifest import check_processing
from headrace.engine.session import OrtSession
from headrace.errors import BundleError, UsageError
from headrace.tensors import TensorSpec
from headrace_compiler.boundary import Translated
from headrace_compiler.chatter import quiet
from headrace_compiler.export_faults import conversion_fault
from headrace_compiler.graph import (
    Graph,
    encode,
    input_specs,
    name_axes,
    output_specs,
    rename,
    strip,
)
from headrace_compiler.onnx_source import LARGEST
from headrace_compiler.recipe import Recipe
from headrace_compiler.source import Source
from headrace_compiler.torch_source import program_digest

OPSET = 20
"""What the exporter translates to without a conversion, and every engine reads."""


@dataclass(frozen=True)
class Exportable:
    """What a graph is made of.

    Attributes:
        folder: Of the recipe, to name the line at fault.
    """

    recipe: Recipe
    folder: Path
    source: Source

    @property
    def digest(self) -> str:
        """Of what decides the graph: the declaration, and the captured program with its weights."""
        declared = self.recipe.model_dump_json(
            include={"inputs", "preprocessing", "postprocessing"}, warnings=False
        )
        ranks = [(name, array.ndim) for name, array in self.source.outputs.items()]
        parts = (declared, self.source.inputs, ranks, program_digest(self.source.captured))
        return hashlib.sha256(repr(parts).encode()).hexdigest()


def export(given: Exportable) -> Graph:
    """Makes the graph and checks it against the declaration.

    Raises:
        UsageError: An operator has no counterpart in ONNX, or the graph's inputs, outputs or
            axes are not those declared, or do not fit pre- and postprocessing.
    """
    recipe, source = given.recipe, given.source
    model = _convert(source.captured, given.folder)
    strip(model)
    rename(model, source.inputs, tuple(source.outputs))
    inputs = input_specs(model, recipe.inputs)
    name_axes(model, inputs)
    ranks = {name: array.ndim for name, array in source.outputs.items()}
    outputs = output_specs(model, recipe.dynamic_axes, ranks, batched=recipe.batched)
    _check_processing(recipe, inputs, outputs)
    content = encode(model)
    if source.reference == "graph":
        _check_loads(content)
    return Graph(content=content, inputs=inputs, outputs=outputs)


def _convert(captured: ExportedProgram | bytes, folder: Path) -> ir.Model:
    if isinstance(captured, bytes):
        given: ir.Model = ir.from_proto(onnx.ModelProto.FromString(captured))
        return given
    weights = [*captured.state_dict.values(), *captured.constants.values()]
    tensors = [weight for weight in weights if isinstance(weight, torch.Tensor)]
    if sum(tensor.nbytes for tensor in tensors) > LARGEST:
        raise UsageError("model.too-large", "the model holds more than 2 GiB of weights")
    with Translated(lambda error: conversion_fault(error, folder)), quiet():
        program = torch.onnx.export(
            captured, dynamo=True, opset_version=OPSET, optimize=False, verbose=False
        )
    if program is None:
        raise RuntimeError("the exporter returned no program")
    model: ir.Model = program.model
    return model


def _check_processing(
    recipe: Recipe, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]
) -> None:
    try:
        check_processing(inputs, outputs, recipe.preprocessing, recipe.postprocessing)
    except ValueError as error:
        raise UsageError(
            "recipe.processing", f"the recipe does not fit the model: {error}"
        ) from error


def _check_loads(content: bytes) -> None:
    """Checks that the declared sizes do not contradict what an ONNX file holds.

    Shapes are inferred through every branch of it, also through one that is never taken at these
    sizes, and would fail there.
    """
    try:
        OrtSession(content, threads=1)
    except BundleError as error:
        raise UsageError(
            "model.sizes",
            f"with the axes as the recipe declares them, {error.message}",
            "where the file leaves an axis open, declare it by a name instead of a size",
        ) from error

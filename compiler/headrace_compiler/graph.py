"""An ONNX graph whose names and axes are those that the recipe declares."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes.common import (
    ClearMetadataAndDocStringPass,
    NameFixPass,
    OutputFixPass,
    RemoveInitializersFromInputsPass,
)

from headrace.errors import UsageError
from headrace.tensors import BATCH, Datatype, TensorSpec
from headrace_compiler.export_faults import specialised_fault

_DATATYPES: Mapping[ir.DataType, Datatype] = {
    ir.DataType.BOOL: "BOOL",
    ir.DataType.UINT8: "UINT8",
    ir.DataType.UINT16: "UINT16",
    ir.DataType.UINT32: "UINT32",
    ir.DataType.UINT64: "UINT64",
    ir.DataType.INT8: "INT8",
    ir.DataType.INT16: "INT16",
    ir.DataType.INT32: "INT32",
    ir.DataType.INT64: "INT64",
    ir.DataType.FLOAT16: "FP16",
    ir.DataType.FLOAT: "FP32",
    ir.DataType.DOUBLE: "FP64",
}
_SYMBOL = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True)
class Graph:
    """A graph and its signature.

    Attributes:
        content: The ONNX file, without external data; equal models give equal bytes.
        inputs: In the declared order.
        outputs: In the order in which the model returns them.
    """

    content: bytes
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def batched(self) -> bool:
        """True if every input and output has the batch axis first."""
        return all(spec.shape[:1] == (BATCH,) for spec in (*self.inputs, *self.outputs))


def rename(model: ir.Model, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Gives a graph's inputs and outputs their public names, in place.

    Where a value inside bears a public name already, it is the one that gives way.

    Raises:
        UsageError: An output has the name of an input.
    """
    for name in outputs:
        if name in inputs:
            raise UsageError(
                "recipe.outputs",
                f"the model returns '{name}', and that is the name of an input",
                "give the outputs other names in the recipe: outputs=(...)",
            )
    # An input or a weight that is handed out as it is gets a node of its own, and so a name.
    OutputFixPass()(model)
    for value, name in zip(model.graph.inputs, inputs, strict=True):
        value.name = name
    for value, name in zip(model.graph.outputs, outputs, strict=True):
        value.name = name
    NameFixPass()(model)


def strip(model: ir.Model) -> None:
    """Takes out what tells where and from which lines a graph was made, in place."""
    ClearMetadataAndDocStringPass()(model)
    RemoveInitializersFromInputsPass()(model)
    model.doc_string = None


def encode(model: ir.Model) -> bytes:
    """The one spelling of a graph."""
    return bytes(ir.to_proto(model).SerializeToString(deterministic=True))


def name_axes(model: ir.Model, declared: Sequence[TensorSpec]) -> None:
    """Gives a graph's axes their declared names, in place.

    Raises:
        UsageError: An input has another datatype or rank, or a declared dynamic axis is fixed.
    """
    specs = {spec.name: spec for spec in declared}
    names: dict[str, str] = {}
    for value in model.graph.inputs:
        spec = specs[str(value.name)]
        found = _check_input(value, spec)
        for place, (axis, dimension) in enumerate(zip(spec.shape, found, strict=True)):
            _match(spec, place, axis, dimension, names)
        value.shape = ir.Shape(spec.shape)
    for value in _values(model):
        if value.shape is not None and not value.is_graph_input():
            value.shape = ir.Shape([_renamed(dimension, names) for dimension in value.shape])


def input_specs(model: ir.Model, declared: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """The declared inputs, once the graph is known to hold them all."""
    held = {value.name for value in model.graph.inputs}
    gone = [spec.name for spec in declared if spec.name not in held]
    if gone:
        raise UsageError("recipe.inputs", f"the model does not have the declared input '{gone[0]}'")
    return tuple(declared)


def output_specs(
    model: ir.Model, axes: Iterable[str], ranks: Mapping[str, int], *, batched: bool
) -> tuple[TensorSpec, ...]:
    """What a graph gives, and sets the names of its axes.

    Args:
        axes: The names that the inputs bind; any other dynamic axis gets a name of its own.
        ranks: Of the outputs, as the reference gave them, for graphs that do not say.
        batched: Whether the first axis must be the batch.

    Raises:
        UsageError: An output has no datatype of the protocol, or loses the batch axis.
    """
    return tuple(
        _output_spec(value, frozenset(axes), ranks[str(value.name)], batched=batched)
        for value in model.graph.outputs
    )


def _output_spec(value: ir.Value, axes: frozenset[str], rank: int, *, batched: bool) -> TensorSpec:
    name = str(value.name)
    if value.dtype is None or value.dtype not in _DATATYPES:
        raise UsageError("model.dtype", f"output '{name}' is {value.dtype}, which cannot be served")
    found = list(value.shape) if value.shape is not None else [ir.SymbolicDim(None)] * rank
    shape: list[int | str] = []
    for place, dimension in enumerate(found):
        own = re.sub(r"\W", "_", f"{name}_axis{place}")
        known = str(dimension) in axes
        shape.append(dimension if isinstance(dimension, int) else str(dimension) if known else own)
    if batched:
        shape[0] = _first(name, found[0])
    value.shape = ir.Shape(shape)
    return TensorSpec(name=name, datatype=_DATATYPES[value.dtype], shape=tuple(shape))


def _first(name: str, dimension: int | ir.SymbolicDim) -> str:
    """The batch axis of an output.

    Whatever symbol the exporter derived for it, it is the batch: the reference gives one row for
    one, and parity tries that at several sizes.
    """
    if isinstance(dimension, int):
        raise UsageError(
            "model.specialised",
            f"the first axis of output '{name}' is fixed to {dimension}, and must be '{BATCH}'",
            "take sizes from the input's shape instead of writing numbers",
        )
    return BATCH


def _check_input(value: ir.Value, spec: TensorSpec) -> Sequence[int | ir.SymbolicDim]:
    datatype = _DATATYPES.get(value.dtype) if value.dtype is not None else None
    if datatype != spec.datatype:
        raise UsageError(
            "recipe.inputs",
            f"input '{spec.name}' is declared {spec.datatype}, and the model takes {datatype}",
        )
    found = [ir.SymbolicDim(None)] * len(spec.shape) if value.shape is None else [*value.shape]
    if len(found) != len(spec.shape):
        raise UsageError(
            "recipe.inputs",
            f"input '{spec.name}' is declared with {len(spec.shape)} axes,"
            f" and the model takes {len(found)}",
        )
    return found


def _match(
    spec: TensorSpec,
    place: int,
    axis: int | str,
    dimension: int | ir.SymbolicDim,
    names: dict[str, str],
) -> None:
    if isinstance(dimension, int):
        if isinstance(axis, str):
            raise specialised_fault(spec, place, dimension)
        if axis != dimension:
            raise UsageError(
                "recipe.inputs",
                f"axis {place} of input '{spec.name}' is declared {axis},"
                f" and the model takes {dimension}",
            )
    elif isinstance(axis, str) and dimension.value is not None:
        symbol = str(dimension)
        if names.setdefault(symbol, axis) != axis:
            raise UsageError(
                "model.equal-axes",
                f"the model takes axes '{names[symbol]}' and '{axis}' of one size only",
                "declare them under one name",
            )


def _renamed(dimension: int | ir.SymbolicDim, names: Mapping[str, str]) -> int | str | None:
    if isinstance(dimension, int) or dimension.value is None:
        return dimension if isinstance(dimension, int) else None
    return _SYMBOL.sub(lambda found: names.get(found[0], found[0]), str(dimension))


def _values(model: ir.Model) -> Iterator[ir.Value]:
    for graph in model.graphs():
        yield from graph.inputs
        for node in graph:
            yield from node.outputs

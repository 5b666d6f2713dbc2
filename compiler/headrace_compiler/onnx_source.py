"""Models that come as an ONNX graph."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import onnx
from onnx.external_data_helper import uses_external_data

from headrace.engine.session import CPU, load_onnxruntime
from headrace.errors import UsageError
from headrace.tensors import Array
from headrace_compiler.boundary import Translated, first_line
from headrace_compiler.recipe import Recipe
from headrace_compiler.source import Source, digest_weights, name_outputs

LARGEST = 2**31 - 2**20
"""Bytes of weights that one ONNX file without external data can hold, with room for the graph."""


def capture_graph(recipe: Recipe, path: Path, example: Mapping[str, Array]) -> Source:
    """Reads an ONNX file and runs it on the example; external data must lie beside the file.

    Raises:
        UsageError: It cannot be read or run, or has other inputs or outputs than declared.
    """
    model = _read(path)
    held = {tensor.name for tensor in model.graph.initializer}
    inputs = tuple(value.name for value in model.graph.input if value.name not in held)
    declared = tuple(spec.name for spec in recipe.inputs)
    if set(inputs) != set(declared):
        raise UsageError(
            "recipe.inputs",
            f"the recipe declares inputs {', '.join(declared)},"
            f" and {path.name} takes {', '.join(inputs)}",
        )
    outputs = tuple(value.name for value in model.graph.output)
    if set(name_outputs(recipe.outputs, outputs)) != set(outputs):
        raise UsageError(
            "recipe.outputs",
            f"the recipe declares outputs {', '.join(recipe.outputs)},"
            f" and {path.name} has {', '.join(outputs)}",
        )
    content = model.SerializeToString(deterministic=True)
    run = _Unoptimised(content, path.name).run
    return Source(
        reference="graph",
        run=run,
        captured=content,
        inputs=inputs,
        outputs=run(example),
        weights=digest_weights(
            (name, str(tensor.data_type), tuple(tensor.dims), _content(tensor))
            for name, tensor in _tensors(model)
        ),
    )


def _read(path: Path) -> onnx.ModelProto:
    def fault(error: BaseException) -> UsageError:
        return UsageError("model.file", f"{path.name} cannot be read: {first_line(error)}")

    if not path.is_file():
        raise UsageError("model.file", f"there is no model {path}")
    with Translated(fault):
        model = onnx.load(path, load_external_data=False)
        outside = [tensor for _, tensor in _tensors(model) if uses_external_data(tensor)]
        _check_beside(outside, path)
        onnx.load_external_data_for_model(model, str(path.parent))
        onnx.checker.check_model(model)
    if sum(len(tensor.raw_data) for _, tensor in _tensors(model)) > LARGEST:
        raise UsageError("model.too-large", f"{path.name} holds more than 2 GiB of weights")
    return model


def _tensors(model: onnx.ModelProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """Every weight and constant of a model, also of its functions and branches, with its name.

    Equal names in two branches are told apart by the nodes that hold the branches.
    """
    yield from _tensors_within(model.graph, "")
    for function in model.functions:
        yield from _tensors_within(function, f"{function.domain}.{function.name}/")


def _tensors_within(
    part: onnx.GraphProto | onnx.FunctionProto, above: str
) -> Iterator[tuple[str, onnx.TensorProto]]:
    if isinstance(part, onnx.GraphProto):
        yield from ((above + tensor.name, tensor) for tensor in part.initializer)
    for node in part.node:
        for attribute in node.attribute:
            place = f"{above}{node.name or ' '.join(node.output)}/{attribute.name}/"
            if attribute.HasField("t"):
                yield place, attribute.t
            yield from ((f"{place}{number}", each) for number, each in enumerate(attribute.tensors))
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors_within(inner, place)


def _check_beside(outside: list[onnx.TensorProto], path: Path) -> None:
    places = {
        entry.value
        for tensor in outside
        for entry in tensor.external_data
        if entry.key == "location"
    }
    for place in sorted(places):
        if Path(place).name != place or not (path.parent / place).is_file():
            raise UsageError(
                "model.external-data",
                f"{path.name} keeps weights in '{place}', which is no file beside it",
            )


def _content(tensor: onnx.TensorProto) -> bytes:
    if tensor.HasField("raw_data"):
        return tensor.raw_data
    return onnx.numpy_helper.to_array(tensor).tobytes()


class _Unoptimised:
    """A graph in ONNX Runtime with every optimisation off: the reference for what we make of it.

    Raises:
        UsageError: ONNX Runtime cannot load or run the graph.
    """

    def __init__(self, content: bytes, name: str) -> None:
        ort = load_onnxruntime()
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        self._name = name
        with Translated(self._fault):
            self._session = ort.InferenceSession(content, options, providers=[CPU])
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Prepared tensors by name in, every output by name out."""
        with Translated(self._fault):
            arrays = self._session.run(self._outputs, dict(inputs))
        return dict(zip(self._outputs, arrays, strict=True))

    def _fault(self, error: BaseException) -> UsageError:
        return UsageError("model.run", f"{self._name} does not run: {first_line(error)}")

"""Models that torch runs: an eager module, and a program saved by `torch.export`."""

import hashlib
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule

from headrace.errors import UsageError
from headrace.tensors import Array, TensorSpec
from headrace_compiler.boundary import Translated, at, first_line, user_line
from headrace_compiler.chatter import quiet
from headrace_compiler.export_faults import export_fault
from headrace_compiler.recipe import Recipe
from headrace_compiler.seeds import seeded
from headrace_compiler.source import Run, Source, digest_weights, name_outputs


def capture_module(recipe: Recipe, folder: Path, example: Mapping[str, Array]) -> Source:
    """Instantiates the recipe's module, runs it on the example, and captures it.

    Raises:
        UsageError: The module cannot be made, run or exported; the message names the line.
    """
    module = _instantiate(recipe, folder)
    parameters = tuple(inspect.signature(module.forward).parameters)
    by_name = {spec.name for spec in recipe.inputs} <= set(parameters)
    specs = recipe.inputs
    if by_name:
        specs = tuple(sorted(specs, key=lambda spec: parameters.index(spec.name)))
    run, outputs = _reference(module, recipe, example, folder, by_name=by_name)
    return Source(
        reference="eager",
        run=run,
        captured=_export(module, specs, example, folder, by_name=by_name),
        inputs=tuple(spec.name for spec in specs),
        outputs=outputs,
        weights=_digest(module.state_dict()),
    )


def capture_program(recipe: Recipe, path: Path, example: Mapping[str, Array]) -> Source:
    """Reads a `.pt2` file and runs its program on the example.

    Raises:
        UsageError: It cannot be read or run, or takes other inputs than the recipe declares.
    """

    def fault(error: BaseException) -> UsageError:
        return UsageError("model.file", f"{path.name} cannot be read: {first_line(error)}")

    if not path.is_file():
        raise UsageError("model.file", f"there is no model {path}")
    with Translated(fault), quiet():
        program = torch.export.load(path)
        module = program.module()
    arguments = _arguments(program)
    names = tuple(spec.name for spec in recipe.inputs)
    if len(arguments) != len(names):
        raise UsageError(
            "recipe.inputs",
            f"the recipe declares {len(names)} inputs ({', '.join(names)}),"
            f" and {path.name} takes {len(arguments)} ({', '.join(arguments)})",
        )
    by_name = set(names) == set(arguments)
    run, outputs = _reference(module, recipe, example, path.parent, by_name=by_name)
    return Source(
        reference="program",
        run=run,
        captured=program,
        inputs=arguments if by_name else names,
        outputs=outputs,
        weights=_digest({**program.state_dict, **program.tensor_constants}),
    )


def _instantiate(recipe: Recipe, folder: Path) -> nn.Module:
    def fault(error: BaseException) -> UsageError:
        where = at(user_line(error, folder), folder)
        return UsageError("model.failed", f"the model cannot be made: {first_line(error)}{where}")

    if isinstance(recipe.model, str | Path | nn.Module):
        raise UsageError(
            "recipe.model",
            "model is a module, and must be a function that returns one",
            "write model=lambda: module, or better, make the module inside the function",
        )
    with Translated(fault), quiet(), seeded(recipe.seed):
        module = recipe.model()
    if not isinstance(module, nn.Module):
        raise UsageError(
            "recipe.model", f"model() returns a {type(module).__name__}, not a torch.nn.Module"
        )
    return module.eval()


def _arguments(program: ExportedProgram) -> tuple[str, ...]:
    return tuple(str(name) for name in program.graph_signature.user_inputs)


def _reference(
    module: nn.Module, recipe: Recipe, example: Mapping[str, Array], folder: Path, *, by_name: bool
) -> tuple[Run, dict[str, Array]]:
    """The module as a function of arrays, and what it gives for the example."""

    def call(inputs: Mapping[str, Array]) -> dict[str, Array]:
        def fault(error: BaseException) -> UsageError:
            shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in inputs.items())
            where = at(user_line(error, folder), folder)
            return UsageError(
                "model.run", f"the model fails on {shapes}: {first_line(error)}{where}"
            )

        tensors = {name: torch.from_numpy(array.copy()) for name, array in inputs.items()}
        with Translated(fault), quiet(), seeded(recipe.seed), torch.inference_mode():
            return _flatten(module(**tensors) if by_name else module(*tensors.values()))

    found = call(example)
    names = name_outputs(recipe.outputs, tuple(found))

    def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
        return dict(zip(names, call(inputs).values(), strict=True))

    return run, dict(zip(names, found.values(), strict=True))


def _flatten(result: object) -> dict[str, Array]:
    """What a module returned, by name: a tensor, a flat sequence, or a flat mapping."""
    if isinstance(result, Mapping):
        named = {str(name): value for name, value in result.items()}
    elif isinstance(result, list | tuple):
        named = {f"output{number}": value for number, value in enumerate(result)}
    else:
        named = {"output0": result}
    for name, value in named.items():
        if not isinstance(value, torch.Tensor):
            raise TypeError(
                f"{name} is a {type(value).__name__}; a model returns a tensor, or a flat tuple"
                " or dictionary of tensors"
            )
    return {name: np.asarray(tensor.detach().cpu().numpy()) for name, tensor in named.items()}


def _export(
    module: nn.Module,
    specs: Sequence[TensorSpec],
    example: Mapping[str, Array],
    folder: Path,
    *,
    by_name: bool,
) -> ExportedProgram:
    tensors = {spec.name: torch.from_numpy(example[spec.name]) for spec in specs}
    shapes = {spec.name: _dynamic(spec) for spec in specs}

    def export() -> ExportedProgram:
        with quiet(), torch.no_grad():
            if by_name:
                return torch.export.export(module, (), tensors, dynamic_shapes=shapes, strict=False)
            axes = _positional(module, list(shapes.values()))
            return torch.export.export(
                module, tuple(tensors.values()), dynamic_shapes=axes, strict=False
            )

    with Translated(lambda error: export_fault(error, folder, specs, export)):
        return export()


def _positional(module: nn.Module, axes: list[dict[int, object]]) -> tuple[object, ...]:
    """The axes as `torch.export` wants them: those of `*args` in one nested tuple."""
    kinds = [parameter.kind for parameter in inspect.signature(module.forward).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL not in kinds:
        return tuple(axes)
    plain = kinds.index(inspect.Parameter.VAR_POSITIONAL)
    return (*axes[:plain], tuple(axes[plain:]))


def _dynamic(spec: TensorSpec) -> dict[int, object]:
    """`Dim.DYNAMIC` where an axis is named, and `Dim.STATIC` elsewhere.

    Of the modes that `torch.export` has, only `DYNAMIC` refuses a model that fixes the axis
    without asking the user for the bounds of one that does not.
    """
    return {
        place: Dim.DYNAMIC if isinstance(axis, str) else Dim.STATIC
        for place, axis in enumerate(spec.shape)
    }


def program_digest(captured: ExportedProgram | bytes) -> str:
    """sha256 over a captured program: its operations, the shapes it takes, and its weights."""
    if isinstance(captured, bytes):
        return hashlib.sha256(captured).hexdigest()
    takes = [
        f"{node.name} {node.meta.get('val')}"
        for node in captured.graph.nodes
        if node.op == "placeholder"
    ]
    weights = _digest({**captured.state_dict, **captured.constants})
    modules = captured.graph_module.named_modules()  # branches and loops have graphs of their own
    parts = (
        [f"{name} {part.graph}" for name, part in modules if isinstance(part, GraphModule)],
        takes,
        str(captured.range_constraints),
        str(captured.graph_signature),
        weights,
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _digest(state: Mapping[str, object]) -> str:
    tensors = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    return digest_weights(
        (name, str(tensor.dtype), tuple(tensor.shape), _content(tensor))
        for name, tensor in tensors.items()
    )


def _content(tensor: torch.Tensor) -> bytes:
    """The bytes of a tensor of any dtype, also of those that NumPy does not have."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()

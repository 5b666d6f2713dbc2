"""Eager PyTorch: the recipe's own module, in headrace's own environment."""

# ruff: noqa: PLC0415 - a peer's file is read without what it stands on

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace_bench.peers import model_workload

if TYPE_CHECKING:
    import torch

    from headrace_bench.measure import Workload
    from headrace_bench.peers import Array, Arrays

NAME = "eager"
SUITES = ("compile",)
REQUIREMENTS = ()


def open_model(
    *, recipe: str, inputs: str, expected: str, rows: int, threads: int, tolerance: float
) -> "Workload":
    """The module as the recipe makes it, in inference mode."""
    return open_module(
        lambda module: module,
        recipe=recipe,
        inputs=inputs,
        expected=expected,
        rows=rows,
        threads=threads,
        tolerance=tolerance,
    )


def open_module(
    change: Callable[["torch.nn.Module"], Callable[..., object]],
    *,
    recipe: str,
    inputs: str,
    expected: str,
    rows: int,
    threads: int,
    tolerance: float,
) -> "Workload":
    """The recipe's module, changed into another function of the same tensors."""
    import torch

    from headrace_compiler.loading import importable, load_recipe
    from headrace_compiler.seeds import seeded

    torch.set_num_threads(threads)

    def load(feeds: "Arrays", _: Sequence[str]) -> Callable[[], Sequence["Array"]]:
        path = Path(recipe).resolve()
        with importable(path.parent):
            declared = load_recipe(path)
            if isinstance(declared.model, str | Path):
                raise SystemExit(f"{path.name} names a file, and no function that makes a module")
            with seeded(declared.seed):
                module = declared.model()
        if not isinstance(module, torch.nn.Module):
            raise SystemExit(f"{path.name} makes a {type(module).__name__}, and no module")
        function = change(module.eval())
        order = [spec.name for spec in declared.inputs]

        def run() -> Sequence["Array"]:
            with torch.inference_mode():
                return _arrays(function(*(torch.from_numpy(feeds[name]) for name in order)))

        return run

    return model_workload(load, inputs=inputs, expected=expected, rows=rows, tolerance=tolerance)


def _arrays(result: object) -> Sequence["Array"]:
    """The tensors that a module returned, in their order."""
    tensors: Iterable[Any]
    if isinstance(result, Mapping):
        tensors = result.values()
    else:
        tensors = result if isinstance(result, list | tuple) else (result,)
    return [tensor.numpy() for tensor in tensors]

"""torch.compile with frozen weights: the recipe's own module, in headrace's own environment."""

# ruff: noqa: PLC0415 - a peer's file is read without what it stands on

from collections.abc import Callable
from typing import TYPE_CHECKING

from headrace_bench.peers.eager import open_module

if TYPE_CHECKING:
    import torch

    from headrace_bench.measure import Workload

NAME = "torch-compile"
SUITES = ("compile",)
REQUIREMENTS = ()
# torch.compile(options={"freezing": True}) changes nothing: the weights are already inputs by then.
ENVIRONMENT = {"TORCHINDUCTOR_FREEZING": "1"}


def open_model(
    *, recipe: str, inputs: str, expected: str, rows: int, threads: int, tolerance: float
) -> "Workload":
    """The module compiled by Inductor for these shapes, which takes a C++ compiler."""

    def change(module: "torch.nn.Module") -> Callable[..., object]:
        import torch

        compiled: Callable[..., object] = torch.compile(module, fullgraph=True, dynamic=False)
        return compiled

    return open_module(
        change,
        recipe=recipe,
        inputs=inputs,
        expected=expected,
        rows=rows,
        threads=threads,
        tolerance=tolerance,
    )

"""OpenVINO on the same file and threads, at the precision that is asked for."""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Literal

from headrace_bench.peers import model_workload

if TYPE_CHECKING:
    from headrace_bench.measure import Workload
    from headrace_bench.peers import Array, Arrays

NAME = "openvino"
SUITES = ("compile",)
REQUIREMENTS = ("numpy==2.4.6", "openvino==2026.4.1")


def open_model(
    *,
    model: str,
    inputs: str,
    expected: str,
    rows: int,
    threads: int,
    tolerance: float,
    precision: Literal["f32", "bf16"] = "f32",
) -> "Workload":
    """A compiled model, its shapes fixed, on one stream of the CPU.

    The precision is always said, because by default OpenVINO takes bf16 where the processor has it.
    """
    openvino = import_module("openvino")

    def load(feeds: "Arrays", names: Sequence[str]) -> Callable[[], Sequence["Array"]]:
        core = openvino.Core()
        graph = core.read_model(model)
        graph.reshape({name: list(array.shape) for name, array in feeds.items()})
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": precision,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        }
        compiled = core.compile_model(graph, "CPU", settings)
        ports = [compiled.output(name) for name in names]

        def run() -> Sequence["Array"]:
            results = compiled(feeds, share_inputs=True, share_outputs=True)
            return [results[port] for port in ports]

        return run

    return model_workload(load, inputs=inputs, expected=expected, rows=rows, tolerance=tolerance)

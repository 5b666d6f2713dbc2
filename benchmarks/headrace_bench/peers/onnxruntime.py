"""Raw ONNX Runtime: a session with its default settings, on the same file and threads."""

# ruff: noqa: PLC0415 - a peer's file is also read where its packages are not installed

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from headrace_bench.peers import model_workload

if TYPE_CHECKING:
    from headrace_bench.measure import Workload
    from headrace_bench.peers import Array, Arrays

NAME = "onnxruntime"
SUITES = ("compile",)
REQUIREMENTS = ("numpy==2.4.6", "onnxruntime==1.32.0")


def open_model(
    *, model: str, inputs: str, expected: str, rows: int, threads: int, tolerance: float
) -> "Workload":
    """A session on the CPU."""
    import onnxruntime

    def load(feeds: "Arrays", names: Sequence[str]) -> Callable[[], Sequence["Array"]]:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

        def run() -> Sequence["Array"]:
            found: Sequence[Array] = session.run(names, feeds)
            return found

        return run

    return model_workload(load, inputs=inputs, expected=expected, rows=rows, tolerance=tolerance)

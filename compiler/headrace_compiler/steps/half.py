"""Half precision, for accelerators that compute in it."""

import onnx

from headrace.errors import CheckError
from headrace_compiler.boundary import Translated, first_line
from headrace_compiler.finish import finish
from headrace_compiler.graph import Graph
from headrace_compiler.muted import muted


def half(graph: Graph) -> Graph:
    """The graph with float16 weights and arithmetic; its inputs and outputs stay as they were.

    Weights beyond what float16 holds are clipped to its largest number, about 65504, and what is
    not zero does not become it.

    Raises:
        CheckError: The graph cannot be converted.
    """
    model = onnx.ModelProto.FromString(graph.content)
    with Translated(_fault), muted():
        from onnxruntime.transformers.float16 import (  # noqa: PLC0415 - heavy
            convert_float_to_float16,
        )

        made = convert_float_to_float16(model, keep_io_types=True)
    return finish(made, graph)


def _fault(error: BaseException) -> CheckError:
    return CheckError("graph.half", f"the graph cannot be made float16: {first_line(error)}")

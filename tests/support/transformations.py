"""What tests of transformations of graphs ask of them."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from headrace.engine.session import OrtSession
from headrace.tensors import Array
from headrace_compiler.graph import Graph

_ELSEWHERE = """
import json, sys
from pathlib import Path
import numpy as np
from headrace.tensors import TensorSpec
from headrace_compiler.graph import Graph
{imports}

def read(folder):
    specs = json.loads((folder / "specs.json").read_text())
    inputs, outputs = (
        tuple(TensorSpec.model_validate_json(text) for text in specs[key])
        for key in ("inputs", "outputs")
    )
    return Graph((folder / "model.onnx").read_bytes(), inputs, outputs)

folder = Path(sys.argv[1])
graph = read(folder)
made = {expression}
(folder / "made.onnx").write_bytes(made.content)
"""


def answers(graph: Graph, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """What ONNX Runtime computes."""
    return OrtSession(graph.content, threads=1).run(inputs)


def operators(graph: Graph) -> Counter[str]:
    """How often each operator stands in a graph."""
    return Counter(node.op_type for node in onnx.load_from_string(graph.content).graph.node)


def optimized(graph: Graph, folder: Path) -> Counter[str]:
    """The operators that ONNX Runtime makes of a graph when it loads it."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    ort.InferenceSession(graph.content, options, providers=["CPUExecutionProvider"])
    model = onnx.load(folder / "optimized.onnx")
    return Counter(node.op_type for node in model.graph.node)


def distance(first: Array, second: Array) -> float:
    """The largest difference of any element of two arrays."""
    one, other = (array.astype(np.float64) for array in (first, second))
    return float(np.abs(one - other).max())


def similarity(first: Array, second: Array) -> float:
    """The cosine of two arrays."""
    one, other = (np.ravel(array).astype(np.float64) for array in (first, second))
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))


def elsewhere(
    graph: Graph, imports: str, expression: str, folder: Path, **environment: str
) -> bytes:
    """The bytes that a step makes of `graph` in another process, of another home.

    Args:
        imports: Lines that the expression needs; it knows `np` and `graph`.
        folder: An empty one.
        environment: More variables of the process.
    """
    specs = {
        key: [spec.model_dump_json() for spec in getattr(graph, key)]
        for key in ("inputs", "outputs")
    }
    (folder / "specs.json").write_text(json.dumps(specs))
    (folder / "model.onnx").write_bytes(graph.content)
    script = _ELSEWHERE.format(imports=imports, expression=expression)
    subprocess.run(
        [sys.executable, "-c", script, str(folder)],
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "7", **environment},
        timeout=120,
    )
    return (folder / "made.onnx").read_bytes()

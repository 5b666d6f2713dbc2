"""Graphs for tests of engines."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from bundles import WEIGHT, linear_model, onnx_bytes
from onnx import TensorProto, helper, load_model_from_string

from headrace.tensors import Array


def wide_model(weight: npt.NDArray[np.float32]) -> bytes:
    """The graph `y = relu(x @ weight)`, whose weight is large enough to lie outside the graph."""
    return onnx_bytes(
        [
            helper.make_node("MatMul", ["x", "weight"], ["z"]),
            helper.make_node("Relu", ["z"], ["y"]),
        ],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", weight.shape[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", weight.shape[1]])],
        {"weight": weight},
    )


def external_model(location: str) -> bytes:
    """The linear graph, whose weight is said to lie in another file."""
    model = load_model_from_string(linear_model())
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return bytes(model.SerializeToString())


def write_external(directory: Path, location: str) -> Path:
    """That graph as a file, beside which the weight lies as `weight.bin`; so it does above it."""
    directory.mkdir(parents=True)
    for folder in (directory, directory.parent):
        (folder / "weight.bin").write_bytes(WEIGHT.tobytes())
    path = directory / "model.onnx"
    path.write_bytes(external_model(location))
    return path


def identity_model(datatype: int) -> bytes:
    """The graph that gives its input twice over: (n) to (2n), of any datatype of ONNX."""
    return onnx_bytes(
        [helper.make_node("Concat", ["x", "x"], ["y"], axis=0)],
        [helper.make_tensor_value_info("x", datatype, ["n"])],
        [helper.make_tensor_value_info("y", datatype, ["m"])],
        {},
    )


def text_encoder() -> bytes:
    """Ids and mask, INT64 (batch, sequence), to the mean of the kept ids' vectors (batch, 4)."""
    kinds = {"ids": TensorProto.INT64, "mask": TensorProto.INT64}
    return onnx_bytes(
        [
            helper.make_node("Gather", ["words", "ids"], ["found"]),
            helper.make_node("Cast", ["mask"], ["weights"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["weights", "last"], ["column"]),
            helper.make_node("Mul", ["found", "column"], ["kept"]),
            helper.make_node("ReduceSum", ["kept", "middle"], ["total"], keepdims=0),
            helper.make_node("ReduceSum", ["column", "middle"], ["count"], keepdims=0),
            helper.make_node("Div", ["total", "count"], ["vectors"]),
        ],
        [helper.make_tensor_value_info(n, k, ["batch", "sequence"]) for n, k in kinds.items()],
        [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["batch", 4])],
        {
            "words": _WORDS,
            "last": np.array([-1], np.int64),
            "middle": np.array([1], np.int64),
        },
    )


_WORDS = np.random.default_rng(11).normal(size=(30, 4)).astype(np.float32)


def encode_text(ids: Array, mask: Array) -> npt.NDArray[np.float32]:
    """What `text_encoder` computes."""
    kept = _WORDS[ids] * mask[..., None]
    return np.asarray(kept.sum(1) / mask.sum(1)[:, None], np.float32)

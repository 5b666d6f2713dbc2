"""Small bundles, written as the compiler writes them, for tests of what opens and runs them."""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from headrace.bundle.digest import hash_bytes
from headrace.bundle.golden import GoldenCase, encode_cases
from headrace.bundle.manifest import (
    GOLDEN,
    KERNELS,
    KernelEntry,
    Lineage,
    Manifest,
    Parity,
    Tolerance,
    Variant,
)
from headrace.bundle.write import package_files, write_bundle
from headrace.postprocess.spec import TopK
from headrace.preprocess.image.reference import prepare
from headrace.preprocess.image.spec import CenterCrop, ImagePreprocessing, Normalize, Resize
from headrace.tensors import TensorSpec

ASSETS = Path(__file__).parents[1] / "assets" / "bundles"
GOOD = ASSETS / "good.bundle"
MODEL = "model/fp32/model.onnx"
WEIGHT = np.arange(12, dtype=np.float32).reshape(3, 4) / np.float32(8)
LABELS = ("ash", "böok", "cat", "dog")
PREPROCESSING = ImagePreprocessing(
    input="image",
    output="pixels",
    resize=Resize(shorter=8),
    crop=CenterCrop(height=6, width=6),
    normalize=Normalize(mean=(120.0, 115.0, 100.0), std=(60.0, 60.0, 60.0)),
)
_NONE = "0" * 64
_TOLERANCE = Tolerance(absolute=1e-4, relative=1e-5)


def onnx_bytes(
    nodes: list[Any], inputs: list[Any], outputs: list[Any], initializers: Mapping[str, Any]
) -> bytes:
    """A serialized graph of opset 20."""
    tensors = [numpy_helper.from_array(array, name) for name, array in initializers.items()]
    graph = helper.make_graph(nodes, "test", inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString(deterministic=True))


def linear_model(weight: npt.NDArray[np.float32] = WEIGHT) -> bytes:
    """The graph `y = x @ weight`: FP32 (batch, 3) to (batch, 4)."""
    return onnx_bytes(
        [helper.make_node("MatMul", ["x", "weight"], ["y"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        {"weight": weight},
    )


def image_model(weight: npt.NDArray[np.float32] = WEIGHT) -> bytes:
    """The graph of each channel's mean times `weight`: FP32 (batch, 3, 6, 6) to (batch, 4)."""
    return onnx_bytes(
        [
            helper.make_node("ReduceMean", ["pixels", "axes"], ["means"], keepdims=0),
            helper.make_node("MatMul", ["means", "weight"], ["logits"]),
        ],
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 3, 6, 6])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])],
        {"weight": weight, "axes": np.array([2, 3], np.int64)},
    )


def png(seed: int = 0, height: int = 20, width: int = 30) -> bytes:
    """A PNG of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def parts(
    model: bytes, golden: bytes, **changes: object
) -> tuple[dict[str, bytes], dict[str, object]]:
    """The files of a bundle, and the fields of its manifest, changed as asked."""
    variant = Variant(
        name="fp32", precision="fp32", engine="onnxruntime", path=MODEL, tolerance=_TOLERANCE
    )
    files = {**package_files("linear", "1", (variant,)), GOLDEN: golden, MODEL: model}
    lineage = Lineage(
        recipe=_NONE, weights=_NONE, samples=_NONE, seed=0, target="cpu", tools={}, steps=()
    )
    parity = Parity(variant="fp32", reference="graph", batch_sizes=(1,), max_absolute_error=0.0)
    fields: dict[str, object] = {
        "schema_version": 1,
        "name": "linear",
        "version": "1",
        "inputs": (TensorSpec(name="x", datatype="FP32", shape=("batch", 3)),),
        "outputs": (TensorSpec(name="y", datatype="FP32", shape=("batch", 4)),),
        "variants": (variant,),
        "parity": (parity,),
        "lineage": lineage,
        "files": {path: hash_bytes(content) for path, content in files.items()},
    }
    return files, {**fields, **changes}


def linear_case(rows: int = 2) -> GoldenCase:
    """A golden case of `linear_model`."""
    x = np.random.default_rng(rows).normal(size=(rows, 3)).astype(np.float32)
    return GoldenCase(raw={}, inputs={"x": x}, outputs={"y": x @ WEIGHT})


def linear_bundle(
    directory: Path,
    *,
    model: bytes | None = None,
    golden: bytes | None = None,
    replace: bool = False,
    **changes: object,
) -> Path:
    """A bundle of `linear_model`, or of another graph, golden file or manifest field."""
    files, fields = parts(
        linear_model() if model is None else model,
        encode_cases([linear_case(1), linear_case(2)]) if golden is None else golden,
        **changes,
    )
    path, _ = write_bundle(directory, Manifest.model_validate(fields), files, replace=replace)
    return path


def image_bundle(
    directory: Path,
    *,
    golden: bytes | None = None,
    kernels: Mapping[str, bytes] | None = None,
) -> Path:
    """A bundle of `image_model` with preprocessing and a labelled top 2.

    Args:
        kernels: Native libraries by target; a bundle of schema version 1 if there are none.
    """
    raw = png(7)
    pixels = prepare(PREPROCESSING, [raw])
    logits = pixels.mean(axis=(2, 3)) @ WEIGHT
    case = GoldenCase(raw={"image": raw}, inputs={"pixels": pixels}, outputs={"logits": logits})
    golden = encode_cases([case]) if golden is None else golden
    entries = tuple(
        KernelEntry(target=target, path=f"{KERNELS}{target}.so") for target in kernels or ()
    )
    files, fields = parts(
        image_model(),
        golden,
        name="image",
        inputs=(TensorSpec(name="pixels", datatype="FP32", shape=("batch", 3, 6, 6)),),
        outputs=(TensorSpec(name="logits", datatype="FP32", shape=("batch", 4)),),
        preprocessing=PREPROCESSING,
        postprocessing=TopK(output="logits", k=2, labels=LABELS),
        schema_version=2 if entries else 1,
        kernels=entries,
    )
    files |= {f"{KERNELS}{target}.so": library for target, library in (kernels or {}).items()}
    fields["files"] = {path: hash_bytes(content) for path, content in files.items()}
    path, _ = write_bundle(directory, Manifest.model_validate(fields), files)
    return path


def slow_model(layers: int = 400) -> bytes:
    """What `linear_model` computes, with many products by the identity before it."""
    nodes = [
        helper.make_node("MatMul", [f"x{number}" if number else "x", "one"], [f"x{number + 1}"])
        for number in range(layers)
    ]
    return onnx_bytes(
        [*nodes, helper.make_node("MatMul", [f"x{layers}", "weight"], ["y"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        {"weight": WEIGHT, "one": np.eye(3, dtype=np.float32)},
    )


def two_variants(directory: Path, quick: bytes | None = None) -> Path:
    """A bundle whose variant `fp32` is slow, beside a quick one that calls itself `int8`."""
    quick = linear_model() if quick is None else quick
    int8 = Variant(
        name="int8",
        precision="int8",
        engine="onnxruntime",
        path="model/int8/model.onnx",
        tolerance=_TOLERANCE,
    )
    golden = encode_cases([linear_case(1), linear_case(2)])
    files, fields = parts(slow_model(), golden, schema_version=2)
    fp32: Any = fields["variants"]
    variants = (*fp32, int8)
    files |= {int8.path: quick, **package_files("linear", "1", variants)}
    changed = {
        **fields,
        "variants": variants,
        "files": {path: hash_bytes(content) for path, content in files.items()},
    }
    path, _ = write_bundle(directory, Manifest.model_validate(changed), files)
    return path

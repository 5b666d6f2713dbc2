"""Small bundles for the edges: of any ONNX graph, with or without image processing."""

import zlib
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from PIL import Image

from headrace.bundle.digest import hash_bytes
from headrace.bundle.golden import GoldenCase, encode_cases
from headrace.bundle.manifest import GOLDEN, Lineage, Manifest, Parity, Tolerance, Variant
from headrace.bundle.open import Bundle
from headrace.bundle.write import package_files, write_bundle
from headrace.engine.model import MAX_ROWS, Model
from headrace.engine.session import OrtSession
from headrace.postprocess.spec import TopK
from headrace.preprocess.image.reference import prepare
from headrace.preprocess.image.spec import CenterCrop, Decode, ImagePreprocessing, Normalize, Resize
from headrace.tensors import NUMPY_DTYPES, Array, Datatype, TensorSpec

MODEL = "model/fp32/model.onnx"
IMAGES = ImagePreprocessing(
    input="image",
    output="pixels",
    decode=Decode(max_pixels=100_000),
    resize=Resize(shorter=8),
    crop=CenterCrop(height=8, width=8),
    normalize=Normalize(mean=(127.0, 127.0, 127.0), std=(64.0, 64.0, 64.0)),
)
LABELS = ("red", "green", "blue", "grün & weiß")
RANKING = TopK(output="logits", k=3, labels=LABELS)
_WEIGHT = np.array([[3, 0, 0, 1], [0, 3, 0, 1], [0, 0, 3, 1]], np.float32)
_ONNX_TYPES = {
    datatype: onnx.TensorProto.STRING if datatype == "BYTES" else helper.np_dtype_to_tensor_dtype(d)
    for datatype, d in NUMPY_DTYPES.items()
}


def tensor_value(
    name: str, datatype: Datatype, shape: tuple[int | str, ...]
) -> onnx.ValueInfoProto:
    """A graph's input or output."""
    return helper.make_tensor_value_info(name, _ONNX_TYPES[datatype], list(shape))


def identity_graph(datatype: Datatype) -> bytes:
    """The graph `y = x` of one datatype, of shape (batch, length)."""
    shape = ("batch", "length")
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "identity",
        [tensor_value("x", datatype, shape)],
        [tensor_value("y", datatype, shape)],
    )
    return _serialize(graph)


def identity_manifest(datatype: Datatype, name: str, files: Mapping[str, bytes]) -> Manifest:
    """The manifest of an identity bundle."""
    return _manifest(
        name,
        (TensorSpec(name="x", datatype=datatype, shape=("batch", "length")),),
        (TensorSpec(name="y", datatype=datatype, shape=("batch", "length")),),
        files,
    )


def write_identity(directory: Path, datatype: Datatype, name: str) -> Path:
    """An identity bundle; BYTES has none, since golden cases hold numbers."""
    sample = np.ones((2, 3), NUMPY_DTYPES[datatype])
    case = GoldenCase(raw={}, inputs={"x": sample}, outputs={"y": sample})
    files = _files(name, identity_graph(datatype), case)
    return write_bundle(directory, identity_manifest(datatype, name, files), files)[0]


def bytes_identity() -> Model:
    """`y = x` of BYTES, loaded as no bundle can be: golden cases hold numbers alone."""
    graph = identity_graph("BYTES")
    files = _files("bytes", graph, GoldenCase(raw={}, inputs={}, outputs={}))
    manifest = identity_manifest("BYTES", "bytes", files)
    return Model(
        bundle=Bundle(path=Path("/nowhere"), manifest=manifest, digest=""),
        variant=manifest.variants[0],
        session=OrtSession(graph, threads=1),
        max_rows=MAX_ROWS,
        deviations=(),
        row_seconds=1.0,
        load_seconds=0.0,
    )


def write_linear(directory: Path, name: str = "linear", version: str = "1") -> Path:
    """`y = x @ eye(3)`, so that every row of an answer is its own request's."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weight"], ["y"])],
        "linear",
        [tensor_value("x", "FP32", ("batch", 3))],
        [tensor_value("y", "FP32", ("batch", 3))],
        [numpy_helper.from_array(np.eye(3, dtype=np.float32), "weight")],
    )
    return _write_rows(directory, name, graph, version)


def write_slow(directory: Path, turns: int = 500_000) -> Path:
    """`y = x`, by way of a loop of so many turns: a model whose load and answers take a while."""
    turn = helper.make_graph(
        [
            helper.make_node("Identity", ["go_in"], ["go_out"]),
            helper.make_node("Neg", ["v_in"], ["v_out"]),
        ],
        "turn",
        [
            tensor_value("number", "INT64", ()),
            tensor_value("go_in", "BOOL", ()),
            tensor_value("v_in", "FP32", ("batch", 3)),
        ],
        [tensor_value("go_out", "BOOL", ()), tensor_value("v_out", "FP32", ("batch", 3))],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["turns", "go", "x"], ["y"], body=turn)],
        "slow",
        [tensor_value("x", "FP32", ("batch", 3))],
        [tensor_value("y", "FP32", ("batch", 3))],
        [
            numpy_helper.from_array(np.array(turns // 2 * 2, np.int64), "turns"),
            numpy_helper.from_array(np.array(True), "go"),  # noqa: FBT003 - a scalar of BOOL
        ],
    )
    return _write_rows(directory, "slow", graph)


def write_images(directory: Path, name: str = "colours") -> Path:
    """A bundle that takes images and ranks four classes by the mean colour."""
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["pixels", "axes"], ["mean"], keepdims=0),
            helper.make_node("MatMul", ["mean", "weight"], ["logits"]),
        ],
        "colours",
        [tensor_value("pixels", "FP32", ("batch", 3, 8, 8))],
        [tensor_value("logits", "FP32", ("batch", 4))],
        [
            numpy_helper.from_array(np.array([2, 3], np.int64), "axes"),
            numpy_helper.from_array(_WEIGHT, "weight"),
        ],
    )
    raw = png((200, 30, 30))
    pixels = prepare(IMAGES, [raw])
    logits: Array = pixels.mean(axis=(2, 3), dtype=np.float32) @ _WEIGHT
    case = GoldenCase(raw={"image": raw}, inputs={"pixels": pixels}, outputs={"logits": logits})
    files = _files(name, _serialize(graph), case)
    manifest = _manifest(
        name,
        (TensorSpec(name="pixels", datatype="FP32", shape=("batch", 3, 8, 8)),),
        (TensorSpec(name="logits", datatype="FP32", shape=("batch", 4)),),
        files,
        preprocessing=IMAGES,
        postprocessing=RANKING,
    )
    return write_bundle(directory, manifest, files)[0]


def png(colour: tuple[int, int, int], size: tuple[int, int] = (12, 10)) -> bytes:
    """A PNG of one colour."""
    buffer = BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def png_bomb(width: int = 60_000, height: int = 60_000) -> bytes:
    """A small PNG whose header declares a huge image."""
    content = bytearray(png((0, 0, 0)))
    content[16:24] = width.to_bytes(4) + height.to_bytes(4)
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4)
    return bytes(content)


def _write_rows(directory: Path, name: str, graph: onnx.GraphProto, version: str = "1") -> Path:
    sample = np.array([[1, 2, 3]], np.float32)
    case = GoldenCase(raw={}, inputs={"x": sample}, outputs={"y": sample})
    files = _files(name, _serialize(graph), case, version)
    inputs = (TensorSpec(name="x", datatype="FP32", shape=("batch", 3)),)
    outputs = (TensorSpec(name="y", datatype="FP32", shape=("batch", 3)),)
    manifest = _manifest(name, inputs, outputs, files, version=version)
    return write_bundle(directory, manifest, files)[0]


def _serialize(graph: onnx.GraphProto) -> bytes:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def _variants() -> tuple[Variant, ...]:
    near = Tolerance(absolute=1e-4, relative=1e-5)
    return (
        Variant(name="fp32", precision="fp32", engine="onnxruntime", path=MODEL, tolerance=near),
    )


def _files(name: str, model: bytes, case: GoldenCase, version: str = "1") -> dict[str, bytes]:
    return {
        **package_files(name, version, _variants()),
        GOLDEN: encode_cases([case]),
        MODEL: model,
    }


def _manifest(
    name: str,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    files: Mapping[str, bytes],
    *,
    version: str = "1",
    preprocessing: ImagePreprocessing | None = None,
    postprocessing: TopK | None = None,
) -> Manifest:
    none = "0" * 64
    return Manifest(
        schema_version=1,
        name=name,
        version=version,
        inputs=inputs,
        outputs=outputs,
        preprocessing=preprocessing,
        postprocessing=postprocessing,
        variants=_variants(),
        parity=(
            Parity(variant="fp32", reference="graph", batch_sizes=(1,), max_absolute_error=0.0),
        ),
        lineage=Lineage(
            recipe=none, weights=none, samples=none, seed=0, target="cpu", tools={}, steps=()
        ),
        files={path: hash_bytes(content) for path, content in files.items()},
    )

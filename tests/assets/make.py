"""Makes the bundles in this folder: one good, and one for each fault, named after it.

    python tests/assets/make.py

They are committed: a later headrace must open the good one and refuse the others for the same
reason. Run this again only to add a fault; equal inputs give equal bytes.
"""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from headrace.bundle.digest import hash_bytes
from headrace.bundle.golden import GoldenCase, encode_cases
from headrace.bundle.manifest import (
    GOLDEN,
    Lineage,
    Manifest,
    Parity,
    Tolerance,
    Variant,
)
from headrace.bundle.write import package_files, write_bundle
from headrace.tensors import TensorSpec

HERE = Path(__file__).parent / "bundles"
MODEL = "model/fp32/model.onnx"
WEIGHT = np.arange(12, dtype=np.float32).reshape(3, 4) / 8
NONE = "0" * 64


def linear(weight: np.ndarray[Any, Any], external: str = "") -> bytes:
    """The graph `y = x @ weight`; its weight in an external file if one is named."""
    tensor = numpy_helper.from_array(weight, "weight")
    if external:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {
            "location": external,
            "offset": "0",
            "length": str(weight.nbytes),
        }.items():
            tensor.external_data.add(key=key, value=value)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weight"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [tensor],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString(deterministic=True))


def make(name: str, model: bytes) -> Path:
    """Writes a bundle of a graph; its golden cases are those of the good weight."""
    inputs = np.array([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]], np.float32)
    case = GoldenCase(raw={}, inputs={"x": inputs}, outputs={"y": inputs @ WEIGHT})
    tolerance = Tolerance(absolute=1e-5, relative=1e-5)
    variants = (
        Variant(
            name="fp32", precision="fp32", engine="onnxruntime", path=MODEL, tolerance=tolerance
        ),
    )
    files = {
        **package_files("linear", "1", variants),
        GOLDEN: encode_cases([case]),
        MODEL: model,
    }
    manifest = Manifest(
        schema_version=1,
        name="linear",
        version="1",
        inputs=(TensorSpec(name="x", datatype="FP32", shape=("batch", 3)),),
        outputs=(TensorSpec(name="y", datatype="FP32", shape=("batch", 4)),),
        variants=variants,
        parity=(
            Parity(
                variant="fp32", reference="graph", batch_sizes=(1, 2, 3), max_absolute_error=0.0
            ),
        ),
        lineage=Lineage(
            recipe=NONE,
            weights=NONE,
            samples=NONE,
            seed=0,
            target="cpu",
            tools={},
            steps=(),
        ),
        files={path: hash_bytes(content) for path, content in files.items()},
    )
    path, _ = write_bundle(HERE / "new", manifest, files)
    target = HERE / f"{name}.bundle"
    shutil.rmtree(target, ignore_errors=True)
    path.rename(target)
    (HERE / "new").rmdir()
    return target


def edit_manifest(bundle: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes a bundle's manifest and leaves everything else."""
    file = bundle / "headrace.json"
    content = json.loads(file.read_bytes())
    change(content)
    file.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


def main() -> None:
    """Makes every bundle."""
    HERE.mkdir(exist_ok=True)
    good = linear(WEIGHT)
    make("good", good)

    model = make("tampered", good) / MODEL
    content = bytearray(model.read_bytes())
    at = content.index(struct.pack("<f", float(WEIGHT[2, 3])))
    content[at : at + 4] = struct.pack("<f", 9.0)
    model.write_bytes(content)

    model = make("truncated", good) / MODEL
    model.write_bytes(model.read_bytes()[:-7])

    (make("missing", good) / GOLDEN).unlink()
    (make("extra", good) / "model" / "notes.txt").write_text("not in the manifest\n")
    (make("no-manifest", good) / "headrace.json").unlink()
    (make("not-json", good) / "headrace.json").write_text('{"schema_version": 1,')

    model = make("symlinked", good) / MODEL
    model.unlink()
    model.symlink_to("../../../good.bundle/model/fp32/model.onnx")

    entry = {"sha256": NONE, "size": 0}
    edit_manifest(make("escaping", good), lambda m: m["files"].update({"../good.bundle": entry}))
    edit_manifest(make("wrong-schema", good), lambda m: m.update(schema_version=99))
    edit_manifest(make("unknown-key", good), lambda m: m.update(colour="green"))
    edit_manifest(make("wrong-type", good), lambda m: m.update(version=1))

    # These are what they say they are; what they say is wrong.
    make("golden-mismatch", linear(WEIGHT + np.float32(0.01)))
    make("broken-graph", good[: len(good) // 2])
    make("external-data-escaping", linear(WEIGHT, external="../../../weights.bin"))
    (HERE / "weights.bin").write_bytes(WEIGHT.tobytes())


if __name__ == "__main__":
    main()

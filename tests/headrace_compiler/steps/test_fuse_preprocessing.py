"""Putting image preprocessing into graphs."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from image_specs import picture
from networks import pictures_graph, pixels
from transformations import distance, elsewhere, operators

from headrace.engine.openvino import OpenVinoSession
from headrace.engine.session import OrtSession, Session
from headrace.errors import UsageError
from headrace.preprocess.image.reference import prepare_image
from headrace.preprocess.image.spec import (
    CenterCrop,
    ImagePreprocessing,
    Normalize,
    Resize,
)
from headrace.tensors import TensorSpec
from headrace_compiler.graph import Graph
from headrace_compiler.steps.calibrate import calibrate
from headrace_compiler.steps.fuse_preprocessing import fuse_preprocessing
from headrace_compiler.steps.prepare import prepare
from headrace_compiler.steps.quantize_static import quantize_static

SPEC = ImagePreprocessing(
    input="image",
    output="pixels",
    resize=Resize(shorter=20),
    crop=CenterCrop(height=16, width=16),
    normalize=Normalize(mean=(123.7, 116.3, 103.5), std=(58.4, 57.1, 57.4)),
)
SIZES = ((1, 90, 61), (3, 20, 33), (2, 1, 1), (1, 16, 300))


@functools.cache
def quantized() -> Graph:
    """The network of pictures in int8."""
    graph = prepare(pictures_graph())
    ranges = calibrate(graph, [pixels(32, seed) for seed in range(2)])["minmax"]
    return quantize_static(graph, ranges, activations="uint8", reduce_range=False)


@pytest.mark.parametrize("engine", [OrtSession, OpenVinoSession])
@pytest.mark.parametrize("made_by", [pictures_graph, quantized])
def test_answers_are_those_of_reference_and_graph(
    engine: Callable[..., Session], made_by: Callable[[], Graph]
) -> None:
    """In float and in int8, on both engines, for batches of images of any one size."""
    graph = made_by()
    made = fuse_preprocessing(graph, SPEC)
    behind, whole = engine(graph.content, threads=1), engine(made.content, threads=1)
    for rows, height, width in SIZES:
        images = np.stack([picture(height, width, seed) for seed in range(rows)])
        ready = np.stack([prepare_image(image, SPEC) for image in images])
        wanted = behind.run({"pixels": ready})["scores"]
        found = whole.run({"image": images})["scores"]
        assert distance(found, wanted) < (1e-4 if made_by is pictures_graph else 0.2)


def test_the_graph_takes_decoded_images() -> None:
    """One tensor of bytes, whose height and width a request chooses; outputs are as they were."""
    graph = pictures_graph()
    made = fuse_preprocessing(graph, SPEC)
    shape = ("batch", "height", "width", 3)
    assert made.inputs == (TensorSpec(name="image", datatype="UINT8", shape=shape),)
    assert made.outputs == graph.outputs
    assert made.batched
    (image,) = onnx.load_from_string(made.content).graph.input
    assert image.name == "image"
    assert operators(made)["Resize"] == 0


@pytest.mark.parametrize("made_by", [pictures_graph, quantized])
def test_the_rest_of_the_graph_stays(made_by: Callable[[], Graph]) -> None:
    """The same nodes and weights under the same names, behind the new ones."""
    graph = made_by()
    before = onnx.load_from_string(graph.content).graph
    after = onnx.load_from_string(fuse_preprocessing(graph, SPEC).content).graph
    kept = [node for node in after.node if not node.name.startswith("preprocess/")]
    assert [node.op_type for node in kept] == [node.op_type for node in before.node]
    for old, new in zip(before.node, kept, strict=True):
        assert (old.name, old.output, old.attribute) == (new.name, new.output, new.attribute)
        assert [name for name in old.input if name != "pixels"] == [
            name for name in new.input if not name.startswith("preprocess/")
        ]
    weights = {each.name: each for each in after.initializer}
    assert all(weights[each.name] == each for each in before.initializer)


def test_fusing_is_deterministic(tmp_path: Path) -> None:
    """The same graph and spec give the same bytes, in this process and in another."""
    graph = pictures_graph()
    made = fuse_preprocessing(graph, SPEC)
    assert made == fuse_preprocessing(graph, SPEC)
    imports = (
        "from headrace_compiler.steps.fuse_preprocessing import fuse_preprocessing\n"
        "from headrace.preprocess.image.spec import ImagePreprocessing\n"
        f"spec = ImagePreprocessing.model_validate_json({SPEC.model_dump_json()!r})"
    )
    assert elsewhere(graph, imports, "fuse_preprocessing(graph, spec)", tmp_path) == made.content


def renamed(**names: str) -> Graph:
    """The network of pictures with other names: of its first node, its first weight, its output."""
    graph = pictures_graph()
    model = ir.from_proto(onnx.load_from_string(graph.content))
    if "node" in names:
        first = next(iter(model.graph))
        first.name = first.outputs[0].name = names["node"]
    if "weight" in names:
        next(iter(model.graph.initializers.values())).name = names["weight"]
    outputs = graph.outputs
    if "output" in names:
        model.graph.outputs[0].name = names["output"]
        outputs = (outputs[0].model_copy(update={"name": names["output"]}),)
    return Graph(ir.to_proto(model).SerializeToString(), graph.inputs, outputs)


def test_names_that_are_taken_are_not_taken_again() -> None:
    """A weight of the images' name gives way, and new names begin as no other does."""
    images = picture(40, 50)[np.newaxis]
    wanted = OrtSession(fuse_preprocessing(pictures_graph(), SPEC).content, threads=1).run(
        {"image": images}
    )
    for graph in (
        renamed(weight="image"),
        renamed(weight="preprocess/constant_0"),
        renamed(node="preprocess/Shape_0"),
    ):
        made = fuse_preprocessing(graph, SPEC)
        model = onnx.load_from_string(made.content).graph
        names = [node.name for node in model.node]
        values = [name for node in model.node for name in node.output]
        values += [each.name for each in (*model.input, *model.initializer)]
        assert len(set(names)) == len(names)
        assert len(set(values)) == len(values)
        found = OrtSession(made.content, threads=1).run({"image": images})
        assert distance(found["scores"], wanted["scores"]) == 0


def test_an_output_of_the_images_name_is_an_error() -> None:
    """Clients could not tell the two."""
    with pytest.raises(UsageError, match="'image'") as caught:
        fuse_preprocessing(renamed(output="image"), SPEC)
    assert caught.value.code == "recipe.outputs"


def test_older_opsets_are_refused() -> None:
    """Their operators take axes otherwise."""
    graph = pictures_graph()
    model = onnx.load_from_string(graph.content)
    model.opset_import[0].version = 17
    old = Graph(model.SerializeToString(), graph.inputs, graph.outputs)
    with pytest.raises(UsageError) as caught:
        fuse_preprocessing(old, SPEC)
    assert caught.value.code == "fuse.opset"


def test_a_model_may_hand_out_its_input() -> None:
    """Then it hands out the prepared pixels."""
    graph = pictures_graph()
    model = ir.from_proto(onnx.load_from_string(graph.content))
    model.graph.outputs.append(model.graph.inputs[0])
    spec = graph.inputs[0].model_copy(update={"name": "shown"})
    both = Graph(ir.to_proto(model).SerializeToString(), graph.inputs, (*graph.outputs, spec))
    image = picture(40, 50)
    found = OrtSession(fuse_preprocessing(both, SPEC).content, threads=1).run(
        {"image": image[np.newaxis]}
    )
    assert distance(found["shown"][0], prepare_image(image, SPEC)) < 1e-5

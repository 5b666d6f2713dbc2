"""Image preprocessing as standard operators: what the reference computes, on both engines."""

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_specs import OF_PILLOW, SPECS, error, error_of_pillow, picture
from onnx_ir.tape import Tape

from headrace.engine.openvino import OpenVinoSession
from headrace.engine.session import OrtSession, Session
from headrace.preprocess.image.reference import prepare_image
from headrace.preprocess.image.spec import (
    CenterCrop,
    ImagePreprocessing,
    Layout,
    Resize,
)
from headrace.tensors import NUMPY_DTYPES
from headrace_compiler.kernels.onnx_image import OPSET, image_input, prepare_images
from headrace_compiler.kernels.onnx_terms import Writer

ENGINES: Mapping[str, Callable[..., Session]] = {
    "onnxruntime": OrtSession,
    "openvino": OpenVinoSession,
}


def alone(spec: ImagePreprocessing) -> bytes:
    """A graph of nothing else."""
    given = image_input(spec)
    image = ir.Value(
        name=given.name, type=ir.TensorType(ir.DataType.UINT8), shape=ir.Shape(given.shape)
    )
    graph = ir.Graph([image], [], nodes=[], opset_imports={"": OPSET}, name="images")
    made = prepare_images(Writer(Tape(graph), "preprocess"), image, spec)
    made.name = spec.output
    graph.outputs.append(made)
    return bytes(ir.to_proto(ir.Model(graph, ir_version=10)).SerializeToString())


@pytest.fixture(scope="module")
def sessions() -> Mapping[tuple[str, str], Session]:
    """Every spec on each engine, for images of any size."""
    graphs = {name: alone(spec) for name, spec in SPECS.items()}
    return {
        (name, engine): opened(graphs[name], threads=1)
        for name in SPECS
        for engine, opened in ENGINES.items()
    }


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 9))
def test_graphs_compute_what_the_reference_does(
    sessions: Mapping[tuple[str, str], Session], height: int, width: int, seed: int
) -> None:
    """To 1e-6, for every spec and engine, in any size and shape of image, in one session."""
    image = picture(height, width, seed)
    for (name, _), session in sessions.items():
        found = session.run({"image": image[np.newaxis]})["pixels"]
        assert found.dtype == NUMPY_DTYPES[SPECS[name].cast.datatype]
        assert found.shape == (1, *SPECS[name].shape)
        assert error(found[0], name, image) <= 1e-6


@pytest.mark.parametrize(
    ("height", "width"),
    [(1, 1), (1, 4000), (4000, 1), (2, 3), (720, 1280), (24, 24), (3, 9000), (65_535, 2)],
)
def test_odd_images_are_prepared_too(
    sessions: Mapping[tuple[str, str], Session], height: int, width: int
) -> None:
    """One pixel, one row, one column, and aspect ratios up to the most extreme."""
    image = picture(height, width)
    for (name, _), session in sessions.items():
        assert error(session.run({"image": image[np.newaxis]})["pixels"][0], name, image) <= 1e-6


@pytest.mark.parametrize("filtered", ["nearest", "bilinear", "bicubic"])
def test_the_largest_numbers_stay_whole(
    filtered: Literal["nearest", "bilinear", "bicubic"],
) -> None:
    """OpenVINO has 32 bits: what is cut of an image that a resize makes a billion wide is right."""
    spec = ImagePreprocessing(
        input="image",
        output="pixels",
        resize=Resize(shorter=16_384, filter=filtered, antialias=filtered == "bilinear"),
        crop=CenterCrop(height=3, width=4),
        layout=Layout(order="HWC"),
    )
    for opened in ENGINES.values():
        session = opened(alone(spec), threads=1)
        for size in ((1, 65_535), (65_535, 1), (65_535, 2), (3, 40_001)):
            image = picture(*size)
            found = session.run({"image": image[np.newaxis]})["pixels"][0]
            assert np.abs(found - prepare_image(image, spec)).max() <= 255e-6


@pytest.mark.parametrize("name", OF_PILLOW)
@pytest.mark.parametrize("side", [1, 5, 13, 25, 200, 333])
def test_pillow_agrees_within_its_own_rounding(
    sessions: Mapping[tuple[str, str], Session], name: str, side: int
) -> None:
    """One step of 255 at most: Pillow rounds, and clamps what bicubic throws, after each axis."""
    image = np.random.default_rng(side).integers(40, 216, (side, side, 3), np.uint8)
    for engine in ENGINES:
        found = sessions[name, engine].run({"image": image[np.newaxis]})["pixels"][0]
        assert error_of_pillow(found, name, image) <= 1


def test_images_of_a_batch_are_prepared_each_by_itself(
    sessions: Mapping[tuple[str, str], Session],
) -> None:
    """Batches of several sizes, one after the other."""
    for rows, height, width in ((2, 31, 45), (5, 9, 7), (1, 31, 45), (3, 45, 31)):
        images = [picture(height, width, seed) for seed in range(rows)]
        for (name, _), session in sessions.items():
            found = session.run({"image": np.stack(images)})["pixels"]
            assert len(found) == rows
            for image, made in zip(images, found, strict=True):
                assert error(made, name, image) <= 1e-6


@pytest.mark.parametrize("name", SPECS)
def test_images_of_an_expected_size_are_prepared_as_others_are(name: str) -> None:
    """OpenVINO compiles the graph for that size, and finds all positions and weights then."""
    image = picture(97, 131)
    session = OpenVinoSession(alone(SPECS[name]), threads=1)
    session.expect({"image": image[np.newaxis]})
    assert error(session.run({"image": image[np.newaxis]})["pixels"][0], name, image) <= 1e-6


@pytest.mark.parametrize("name", SPECS)
def test_graphs_are_of_standard_operators(name: str) -> None:
    """They pass ONNX's own checks, and their inferred shape is the spec's; equal each time."""
    content = alone(SPECS[name])
    assert content == alone(SPECS[name])
    onnx.checker.check_model(content, full_check=True)
    model = onnx.load_from_string(content)
    assert {node.domain for node in model.graph.node} == {""}
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    del model.graph.value_info[:]
    model.graph.output[0].type.tensor_type.ClearField("shape")
    made = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    dimensions = made.graph.output[0].type.tensor_type.shape.dim
    assert [each.dim_value for each in dimensions][1:] == [*SPECS[name].shape]

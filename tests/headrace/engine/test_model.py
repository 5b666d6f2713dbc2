"""A loaded model: what it takes, what it answers, and that its callers do not mix."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from bundles import (
    GOOD,
    LABELS,
    PREPROCESSING,
    WEIGHT,
    image_bundle,
    linear_bundle,
    onnx_bytes,
    png,
)
from onnx import TensorProto, helper

from headrace.bundle.golden import GoldenCase, encode_cases
from headrace.bundle.open import open_bundle
from headrace.engine.model import MAX_ROWS, Model, load_model
from headrace.engine.session import CPU
from headrace.errors import (
    HeadraceError,
    InvalidRequestError,
    MissingError,
    TooLargeError,
    UsageError,
)
from headrace.postprocess.reference import postprocess
from headrace.preprocess.image.reference import prepare
from headrace.tensors import Array, TensorSpec

ROW = np.zeros((1, 3), np.float32)


@pytest.fixture(scope="module")
def linear() -> Model:
    """The model of the good bundle."""
    return load_model(open_bundle(GOOD), threads=1, max_rows=8)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model of images, with a labelled top 2."""
    bundle = open_bundle(image_bundle(tmp_path_factory.mktemp("image")))
    return load_model(bundle, threads=1, max_rows=8)


def _images(*contents: bytes) -> Array:
    array = np.empty(len(contents), object)
    array[:] = contents
    return array


def test_loading_tells_what_it_measured(linear: Model) -> None:
    """A loaded model knows its golden deviations and the time of a row."""
    assert [deviation.tensor for deviation in linear.deviations] == ["output 'y'"]
    assert all(deviation.excess <= 0 for deviation in linear.deviations)
    assert 0 < linear.row_seconds < linear.load_seconds
    assert linear.variant.name == "fp32"
    assert linear.manifest.name == "linear"


def test_provider_that_is_not_there_is_not_replaced() -> None:
    """Loading on an absent provider is an error that names those that are there."""
    with pytest.raises(MissingError, match=CPU) as caught:
        load_model(open_bundle(GOOD), provider="NoSuchProvider")
    assert caught.value.code == "provider.missing"


def test_default_limit_on_rows() -> None:
    """A model takes the documented number of rows unless told otherwise."""
    assert load_model(open_bundle(GOOD)).max_rows == MAX_ROWS == 256


@pytest.mark.parametrize("rows", [1, 2, 8])
def test_answer_has_a_row_for_each(linear: Model, rows: int) -> None:
    """Every row of a request is answered, and the time of each stage is told."""
    x = np.random.default_rng(rows).normal(size=(rows, 3)).astype(np.float32)
    answer = linear.answer({"x": x})
    np.testing.assert_allclose(
        answer.outputs["y"].astype(np.float32), x @ WEIGHT, rtol=1e-5, atol=1e-6
    )
    assert answer.rows == rows
    assert answer.seconds.keys() == {"preprocess", "session", "postprocess"}
    assert all(value >= 0 for value in answer.seconds.values())


@pytest.mark.parametrize(
    ("inputs", "kind", "code", "words"),
    [
        ({}, InvalidRequestError, "request.inputs", "input 'x' is missing; this model takes 'x'"),
        ({"z": ROW}, InvalidRequestError, "request.inputs", "unknown input 'z'"),
        ({"x": ROW, "z": ROW}, InvalidRequestError, "request.inputs", "unknown input 'z'"),
        (
            {"x": ROW.astype(np.float64)},
            InvalidRequestError,
            "request.datatype",
            "input 'x' takes FP32, and got FP64",
        ),
        ({"x": _images(b"x")}, InvalidRequestError, "request.datatype", "got BYTES"),
        (
            {"x": np.zeros((1, 4), np.float32)},
            InvalidRequestError,
            "request.shape",
            "input 'x' takes shape [batch, 3], and got [1, 4]",
        ),
        ({"x": np.zeros(3, np.float32)}, InvalidRequestError, "request.shape", "got [3]"),
        (
            {"x": np.zeros((0, 3), np.float32)},
            InvalidRequestError,
            "request.empty",
            "the request has no rows",
        ),
        (
            {"x": np.zeros((9, 3), np.float32)},
            TooLargeError,
            "request.rows",
            "has 9 rows; this server takes 8",
        ),
        ({"x": np.zeros((1, 3), np.complex64)}, UsageError, "tensor.dtype", "complex64"),
    ],
    ids=range(10),
)
def test_input_that_does_not_fit_is_refused(
    linear: Model, inputs: dict[str, Array], kind: type[HeadraceError], code: str, words: str
) -> None:
    """Names, datatypes, shapes and rows are checked before the engine sees them."""
    with pytest.raises(kind) as caught:
        linear.answer(inputs)
    assert caught.value.code == code
    assert words in caught.value.message


def test_axes_of_one_name_have_one_size(tmp_path: Path) -> None:
    """A dynamic axis that several inputs share has one size within a request."""
    floats = TensorProto.FLOAT
    a = np.ones((1, 2), np.float32)
    case = GoldenCase(raw={}, inputs={"a": a, "b": a}, outputs={"y": a + a})
    spec = TensorSpec(name="y", datatype="FP32", shape=("batch", "n"))
    model = load_model(
        open_bundle(
            linear_bundle(
                tmp_path,
                model=onnx_bytes(
                    [helper.make_node("Add", ["a", "b"], ["y"])],
                    [helper.make_tensor_value_info(n, floats, ["batch", "n"]) for n in "ab"],
                    [helper.make_tensor_value_info("y", floats, ["batch", "n"])],
                    {},
                ),
                golden=encode_cases([case]),
                inputs=tuple(spec.model_copy(update={"name": name}) for name in "ab"),
                outputs=(spec,),
            )
        )
    )
    assert model.answer({"a": np.ones((3, 5), np.float32), "b": np.ones((3, 5), np.float32)}).rows
    for shape in ((3, 4), (2, 5)):
        with pytest.raises(InvalidRequestError, match="with ") as caught:
            model.answer({"a": np.ones((3, 5), np.float32), "b": np.ones(shape, np.float32)})
        assert caught.value.code == "request.shape"


def test_raw_images_and_ready_tensors_give_one_answer(image: Model) -> None:
    """A client that prepares its images itself gets what it would have got for the images."""
    contents = [png(seed) for seed in range(3)]
    raw = image.answer({"image": _images(*contents)})
    ready = image.answer({"pixels": prepare(PREPROCESSING, contents)})
    assert raw.rows == ready.rows == 3
    assert raw.outputs.keys() == ready.outputs.keys() == {"scores", "indices", "labels"}
    for name, array in raw.outputs.items():
        np.testing.assert_array_equal(array, ready.outputs[name])


def test_answer_is_what_the_bundle_declares(image: Model) -> None:
    """The answer has the declared tensors, and is the postprocessing of the model's own output."""
    contents = [png(seed) for seed in range(4)]
    outputs = image.answer({"image": _images(*contents)}).outputs
    for spec in image.manifest.answer_outputs:
        assert outputs[spec.name].shape == (4, 2)
    logits = prepare(PREPROCESSING, contents).mean(axis=(2, 3)) @ WEIGHT
    assert image.manifest.postprocessing is not None
    expected = postprocess(image.manifest.postprocessing, {"logits": logits})
    np.testing.assert_array_equal(outputs["indices"], expected["indices"])
    scores = outputs["scores"].astype(np.float32)
    np.testing.assert_allclose(scores, expected["scores"].astype(np.float32), rtol=1e-4)
    names = [[LABELS[index].encode() for index in row] for row in outputs["indices"].tolist()]
    assert outputs["labels"].tolist() == names


@pytest.mark.parametrize(
    ("inputs", "kind", "code", "words"),
    [
        ({}, InvalidRequestError, "request.inputs", "either 'image' (encoded images) or 'pixels'"),
        (
            {"image": _images(png()), "pixels": np.zeros((1, 3, 6, 6), np.float32)},
            InvalidRequestError,
            "request.inputs",
            "unknown input 'pixels'",
        ),
        ({"image": _images(b"no image")}, InvalidRequestError, "request.image", ""),
        ({"image": _images(png(), b"")}, InvalidRequestError, "request.image", "image 1 of"),
        ({"image": _images()}, InvalidRequestError, "request.empty", ""),
        ({"image": _images(*[png()] * 9)}, TooLargeError, "request.rows", ""),
        ({"image": _images(png()).reshape(1, 1)}, InvalidRequestError, "request.shape", "[batch]"),
        ({"image": np.zeros(1, np.uint8)}, InvalidRequestError, "request.datatype", "takes BYTES"),
    ],
    ids=range(8),
)
def test_images_that_do_not_fit_are_refused(
    image: Model, inputs: dict[str, Array], kind: type[HeadraceError], code: str, words: str
) -> None:
    """A request sends images or ready tensors, as many as it may, and each must decode."""
    with pytest.raises(kind) as caught:
        image.answer(inputs)
    assert caught.value.code == code
    assert words in caught.value.message


def test_many_threads_each_get_their_own_rows(linear: Model) -> None:
    """Eight callers at once get the answers to their own requests."""

    def call(seed: int) -> bool:
        random = np.random.default_rng(seed)
        for _ in range(50):
            x = random.normal(size=(int(random.integers(1, 9)), 3)).astype(np.float32)
            answer = linear.answer({"x": x})
            if not np.allclose(answer.outputs["y"], x @ WEIGHT, rtol=1e-5, atol=1e-5):
                return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(call, range(8)))


def test_many_threads_each_get_their_own_images(image: Model) -> None:
    """Preprocessing and postprocessing mix no callers either."""
    contents = [png(seed) for seed in range(8)]
    alone = [image.answer({"image": _images(content)}).outputs for content in contents]

    def call(number: int) -> bool:
        for _ in range(20):
            outputs = image.answer({"image": _images(contents[number])}).outputs
            if any((outputs[name] != array).any() for name, array in alone[number].items()):
                return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(call, range(8)))

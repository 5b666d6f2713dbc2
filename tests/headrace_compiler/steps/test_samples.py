"""Drawing samples."""

import io
import random
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headrace.errors import UsageError
from headrace_compiler import (
    CenterCrop,
    ImagePreprocessing,
    Normalize,
    Recipe,
    Resize,
    TensorSpec,
)
from headrace_compiler.recipe import Sample
from headrace_compiler.steps.samples import DRAWN, draw_samples

HERE = Path(__file__).parent


def recipe(samples: Callable[[], Iterable[Sample]], *, image: bool = False) -> Recipe:
    """A recipe with these samples: of two inputs, or of one image."""
    row = TensorSpec(name="x", datatype="FP32", shape=("batch", 2))
    ids = TensorSpec(name="n", datatype="INT64", shape=("batch", "length"))
    pixels = TensorSpec(name="pixels", datatype="FP32", shape=("batch", 3, 8, 8))
    preprocessing = ImagePreprocessing(
        input="image",
        output="pixels",
        resize=Resize(shorter=8),
        crop=CenterCrop(height=8, width=8),
        normalize=Normalize(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
    )
    return Recipe(
        name="r",
        version="1",
        model=object,
        inputs=(pixels,) if image else (row, ids),
        preprocessing=preprocessing if image else None,
        samples=samples,
    )


def refusal(samples: Callable[[], Iterable[object]], *, image: bool = False) -> UsageError:
    """The error that drawing these samples raises."""
    with pytest.raises(UsageError) as caught:
        draw_samples(recipe(samples, image=image), HERE)  # type: ignore[arg-type]
    return caught.value


def good() -> dict[str, np.ndarray]:
    """A sample that fits."""
    return {"n": np.zeros((1, 3), np.int64), "x": np.zeros((1, 2), np.float32)}


def test_samples_come_in_the_declared_order_and_are_bounded() -> None:
    """Inputs are ordered as declared, and an endless generator is cut off."""

    def endless() -> Iterable[Sample]:
        while True:
            yield good()

    samples = draw_samples(recipe(endless), HERE)
    assert len(samples.inputs) == DRAWN
    assert list(samples.inputs[0]) == ["x", "n"]


def test_a_reused_buffer_is_copied() -> None:
    """A generator may fill one array again and again."""

    def reusing() -> Iterable[Sample]:
        sample = good()
        for number in range(3):
            sample["x"][:] = number
            yield sample

    samples = draw_samples(recipe(reusing), HERE)
    assert [sample["x"][0, 0] for sample in samples.inputs] == [0, 1, 2]


def test_random_samples_are_seeded() -> None:
    """A samples() that draws from global generators gives the same data, and leaves no trace."""

    def draw() -> Iterable[Sample]:
        noise = np.random.rand(1, 2)  # noqa: NPY002 - as old recipes do
        yield {**good(), "x": noise.astype(np.float32) + random.random()}  # noqa: S311 - no secret

    python, numpy = random.getstate(), str(np.random.get_state())  # noqa: NPY002 - as above
    first, second = (draw_samples(recipe(draw), HERE) for _ in range(2))
    assert first.digest == second.digest
    assert (python, numpy) == (random.getstate(), str(np.random.get_state()))  # noqa: NPY002 - as above


def test_the_digest_covers_names_shapes_and_values() -> None:
    """Samples that differ in a value have another digest."""
    other = {**good(), "x": np.ones((1, 2), np.float32)}
    given: list[list[Sample]] = [[good()], [other]]
    digests = {draw_samples(recipe(samples.copy), HERE).digest for samples in given}
    assert len(digests) == 2


@pytest.mark.parametrize(
    ("sample", "code"),
    [
        ([1, 2], "samples.kind"),
        ({"x": np.zeros((1, 2), np.float32)}, "samples.names"),
        ({**good(), "y": np.zeros(1)}, "samples.names"),
        ({**good(), "x": [[0.0, 0.0]]}, "samples.kind"),
        ({**good(), "x": np.zeros((1, 2))}, "samples.shape"),
        ({**good(), "x": np.zeros((1, 3), np.float32)}, "samples.shape"),
        ({**good(), "x": np.zeros((2, 2), np.float32)}, "samples.shape"),
        ({"x": np.zeros((0, 2), np.float32), "n": np.zeros((0, 3), np.int64)}, "samples.shape"),
        ({**good(), "x": np.full((1, 2), np.nan, np.float32)}, "samples.not-finite"),
        ({**good(), "x": np.zeros((1, 2), np.complex64)}, "tensor.dtype"),
    ],
)
def test_a_sample_that_does_not_fit_is_refused(sample: object, code: str) -> None:
    """Names, kinds, datatypes, shapes and finiteness are checked against the declaration."""
    assert refusal(lambda: [good(), sample]).code == code


def test_there_must_be_a_sample() -> None:
    """An empty iterable is refused."""
    assert refusal(list).code == "samples.empty"


def test_a_failing_function_is_named_with_its_line() -> None:
    """An exception of samples() names its type and the line."""
    error = refusal(lambda: [1 // 0])
    assert error.code == "samples.failed"
    assert "ZeroDivisionError" in error.message
    assert "test_samples.py" in error.message


def test_images_are_prepared_and_kept() -> None:
    """With preprocessing a sample is the bytes of one image, kept beside its prepared tensor."""
    stream = io.BytesIO()
    Image.new("RGB", (9, 12), (255, 0, 0)).save(stream, "PNG")
    samples = draw_samples(recipe(lambda: [{"image": stream.getvalue()}], image=True), HERE)
    assert samples.raw == ({"image": stream.getvalue()},)
    assert samples.inputs[0]["pixels"].shape == (1, 3, 8, 8)
    assert samples.inputs[0]["pixels"][0, :, 0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    ("sample", "code"),
    [
        ({"image": b"not an image"}, "samples.unusable"),
        ({"image": b""}, "samples.unusable"),
        ({"pixels": np.zeros((1, 3, 8, 8), np.float32)}, "samples.names"),
        ({"image": np.zeros((1, 3, 8, 8), np.float32)}, "samples.kind"),
    ],
)
def test_what_is_no_image_is_refused(sample: Sample, code: str) -> None:
    """With preprocessing, broken images and ready tensors are refused by their number."""
    error = refusal(lambda: [sample], image=True)
    assert error.code == code
    assert "sample 0" in error.message

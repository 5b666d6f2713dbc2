"""The NumPy reference of preprocessing, held against Pillow."""

import tracemalloc
from io import BytesIO
from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from headrace.errors import InvalidRequestError, TooLargeError, UsageError
from headrace.preprocess.image.geometry import fitted_size, resized_size
from headrace.preprocess.image.reference import prepare, prepare_image
from headrace.preprocess.image.spec import (
    Cast,
    CenterCrop,
    Colour,
    Decode,
    ImagePreprocessing,
    Layout,
    Letterbox,
    Normalize,
    Resize,
    Stretch,
)

Filter = Literal["bilinear", "bicubic"]
Pixels = npt.NDArray[np.uint8]
RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
ROUNDING = {"bilinear": 1.01, "bicubic": 1.13}
"""How far Pillow's two roundings to integers may move a value: half a step, as much again times
the sum of the second pass's absolute weights (1 or 1.25), and its fixed-point weights' own."""
SHAPES = [(1, 2000), (2000, 1), (1, 16384), (9000, 2), (3, 9001), (1, 1), (200, 201), (999, 341)]


def _spec(
    shorter: int,
    height: int,
    width: int,
    name: Filter = "bilinear",
    order: Literal["CHW", "HWC"] = "HWC",
) -> ImagePreprocessing:
    return ImagePreprocessing(
        input="image",
        output="pixels",
        resize=Resize(shorter=shorter, filter=name),
        crop=CenterCrop(height=height, width=width),
        normalize=Normalize(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
        layout=Layout(order=order),
    )


def _image(height: int, width: int, seed: int = 0, contrast: str = "full") -> Pixels:
    """Noise; only black and white, which overshoots the most; or too weak to overshoot at all."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    if contrast == "weak":
        return noise // 2 + 64
    return np.where(noise > 127, 255, 0).astype(np.uint8) if contrast == "binary" else noise


def _floats(image: Pixels, spec: ImagePreprocessing) -> npt.NDArray[np.float32]:
    """What the reference makes, which is float32 here."""
    made = prepare_image(image, spec)
    assert made.dtype == np.float32
    return made.astype(np.float32, copy=False)


def _resized(image: Pixels, spec: ImagePreprocessing) -> tuple[int, int]:
    assert isinstance(spec.resize, Resize)
    return resized_size(image.shape[0], image.shape[1], spec.resize.shorter)


def _pillow(image: Pixels, spec: ImagePreprocessing) -> npt.NDArray[np.float32]:
    """Pillow's resize in its float mode, which neither rounds nor clamps; then clamped, and cut."""
    height, width = _resized(image, spec)
    planes = [Image.fromarray(image[..., channel].astype(np.float32)) for channel in range(3)]
    method = RESAMPLING[spec.resize.filter]
    resized = [np.asarray(plane.resize((width, height), method)) for plane in planes]
    return _crop(np.stack(resized, axis=-1), spec).clip(0, 255).astype(np.float32)


def _pillow_rounded(image: Pixels, spec: ImagePreprocessing) -> npt.NDArray[np.float32]:
    """Pillow's resize of an 8-bit image, as it stands in most training code; then cut."""
    height, width = _resized(image, spec)
    resized = Image.fromarray(image).resize((width, height), RESAMPLING[spec.resize.filter])
    return _crop(np.asarray(resized), spec).astype(np.float32)


def _crop(image: npt.NDArray[np.generic], spec: ImagePreprocessing) -> npt.NDArray[np.generic]:
    height, width = spec.size
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


@st.composite
def _specs(draw: st.DrawFn) -> ImagePreprocessing:
    shorter = draw(st.integers(1, 70))
    height, width = draw(st.integers(1, shorter)), draw(st.integers(1, shorter))
    return _spec(shorter, height, width, draw(st.sampled_from(["bilinear", "bicubic"])))


sides = st.one_of(st.integers(1, 90), st.sampled_from([1, 2, 255, 256, 257]))
contrasts = st.sampled_from(["full", "binary", "weak"])


@given(sides, sides, _specs(), contrasts)
def test_unrounded_pillow_agrees(
    height: int, width: int, spec: ImagePreprocessing, contrast: str
) -> None:
    """On any image and size, up or down, Pillow's float mode gives the same to a thousandth."""
    image = _image(height, width, contrast=contrast)
    assert np.abs(_floats(image, spec) - _pillow(image, spec)).max() < 1e-3


@given(sides, sides, _specs(), contrasts)
def test_eight_bit_pillow_is_at_most_its_rounding_away(
    height: int, width: int, spec: ImagePreprocessing, contrast: str
) -> None:
    """Pillow's usual mode differs by its own rounding alone.

    Where bicubic overshoots it also clamps between its two passes, whose order depends on the
    shape; so bicubic is compared on images that do not overshoot.
    """
    bicubic = spec.resize.filter == "bicubic"
    image = _image(height, width, contrast="weak" if bicubic else contrast)
    difference = _floats(image, spec) - _pillow_rounded(image, spec)
    assert np.abs(difference).max() <= ROUNDING[spec.resize.filter]


@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_extreme_shapes_agree_with_pillow(height: int, width: int, name: Filter) -> None:
    """Lines, single pixels and odd photographs come out as Pillow's."""
    spec, image = _spec(17, 16, 15, name), _image(height, width)
    assert np.abs(_floats(image, spec) - _pillow(image, spec)).max() < 1e-3


def test_only_the_crop_is_computed() -> None:
    """A line that would become a billion pixels costs what its middle costs, and equals it."""
    line = _image(1, 16384)
    spec = _spec(256, 224, 224, "bicubic")
    tracemalloc.start()
    try:
        result = _floats(line, spec)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4e6
    middle = _floats(line[:, 8192 - 8 : 8192 + 8], spec)
    assert np.abs(result - middle).max() < 1e-3


def test_the_crop_is_the_middle_of_the_resize() -> None:
    """Of an odd remainder the extra row or column is left at the end."""
    image = _image(61, 97)
    spec = _spec(40, 33, 36)
    whole = np.asarray(Image.fromarray(image).resize((64, 40), Image.Resampling.BILINEAR))
    difference = _floats(image, spec) - whole[3:36, 14:50].astype(np.float32)
    assert np.abs(difference).max() <= ROUNDING["bilinear"]


def test_an_unchanged_size_changes_nothing() -> None:
    """A resize to the size that the image has is exact, with both filters."""
    image = _image(30, 41)
    for name in ("bilinear", "bicubic"):
        result = _floats(image, _spec(30, 30, 30, name))
        np.testing.assert_array_equal(result, image[:, 5:35].astype(np.float32))


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (100, 200, (50, 100)),
        (200, 100, (100, 50)),
        (7, 7, (50, 50)),
        (4, 5, (50, 63)),  # 62.5 rounds up, where Python's round would give 62
        (100, 101, (50, 51)),  # 50.5
        (1, 16384, (50, 819_200)),
    ],
)
def test_the_longer_side_keeps_the_aspect_ratio(
    height: int, width: int, expected: tuple[int, int]
) -> None:
    """The shorter side is as asked, and the longer one is rounded, halves up."""
    assert resized_size(height, width, 50) == expected


@given(st.integers(1, 2**26), st.integers(1, 2**26), st.integers(1, 16384))
def test_the_longer_side_is_never_the_shorter(height: int, width: int, shorter: int) -> None:
    """Whatever the ratio, both sides are at least as long as the crop may be."""
    resized = resized_size(height, width, shorter)
    assert min(resized) == shorter
    assert (resized[0] > resized[1]) <= (height > width)


def test_values_are_normalized_by_channel() -> None:
    """Each channel has its own mean and deviation, subtracted and divided in float32."""
    base = _spec(20, 20, 20)
    spec = base.model_copy(
        update={"normalize": Normalize(mean=(1.0, 127.0, 200.5), std=(2.0, 128.0, -0.5))}
    )
    image = _image(33, 27)
    expected = _floats(image, base) - np.array([1.0, 127.0, 200.5], np.float32)
    expected /= np.array([2.0, 128.0, -0.5], np.float32)
    np.testing.assert_array_equal(_floats(image, spec), expected)


def test_the_layout_orders_the_axes() -> None:
    """CHW is HWC with its channels first, in memory too."""
    image = _image(50, 40)
    planar = _floats(image, _spec(20, 10, 15, order="CHW"))
    assert planar.shape == (3, 10, 15)
    assert planar.flags.c_contiguous
    np.testing.assert_array_equal(planar.transpose(1, 2, 0), _floats(image, _spec(20, 10, 15)))


def test_bicubic_overshoot_is_clamped() -> None:
    """An edge between black and white stays within what an image can hold."""
    image = np.zeros((8, 8, 3), np.uint8)
    image[:, 4:] = 255
    result = _floats(image, _spec(64, 64, 64, "bicubic"))
    assert result.min() == 0.0
    assert result.max() == 255.0


def test_strides_do_not_matter() -> None:
    """Flipped, sliced, transposed and read-only views give what their copies give."""
    image = _image(80, 60)
    image.flags.writeable = False
    spec = _spec(25, 24, 23)
    for view in (image[::-1], image[:, ::-2], image.transpose(1, 0, 2), image[..., ::-1]):
        np.testing.assert_array_equal(_floats(view, spec), _floats(view.copy(), spec))


def test_equal_input_gives_equal_bits() -> None:
    """Two runs agree in every bit, and so do an image and the image inside a batch."""
    image = _image(301, 407)
    spec = _spec(128, 112, 112, "bicubic", "CHW")
    assert _floats(image, spec).tobytes() == _floats(image, spec).tobytes()


def test_a_large_photograph_takes_little_memory() -> None:
    """Twelve megapixels never stand in memory as float32, which would take 144 MB."""
    image = np.zeros((3000, 4000, 3), np.uint8)
    tracemalloc.start()
    try:
        _floats(image, _spec(256, 224, 224))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16e6


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_other_arrays_are_refused(image: Pixels) -> None:
    """Only uint8 RGB with pixels in it is an image here."""
    with pytest.raises(UsageError) as caught:
        _floats(image, _spec(4, 4, 4))
    assert caught.value.code == "preprocess.image"


def _png(image: Pixels) -> bytes:
    file = BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def test_a_batch_is_its_images_in_order() -> None:
    """Each row is what its image gives alone; grey images are taken as RGB."""
    spec = _spec(20, 16, 18, order="CHW")
    grey = _image(25, 31)[..., 0]
    result = prepare(spec, [_png(_image(40, 30)), _png(grey)])
    assert result.dtype == np.float32
    assert result.shape == (2, 3, 16, 18)
    np.testing.assert_array_equal(result[0], _floats(_image(40, 30), spec))
    np.testing.assert_array_equal(result[1, 0], result[1, 2])
    np.testing.assert_array_equal(
        result[1], _floats(np.repeat(grey[..., np.newaxis], 3, axis=2), spec)
    )


def test_an_empty_batch_is_empty() -> None:
    """No images in, no rows out."""
    assert prepare(_spec(4, 4, 4), []).shape == (0, 4, 4, 3)


def test_the_result_goes_where_it_is_asked_to() -> None:
    """A given array, or a part of one, is filled and returned; nothing else is touched."""
    spec = _spec(8, 8, 8)
    large = np.full((4, 8, 8, 3), -1, np.float32)
    part = large[1:3]
    content = [_png(_image(8, 8, seed)) for seed in (1, 2)]
    assert prepare(spec, content, part) is part
    np.testing.assert_array_equal(large[1:3], prepare(spec, content))
    assert (large[[0, 3]] == -1).all()


@pytest.mark.parametrize("out", [np.empty((2, 8, 8, 3), np.float32), np.empty((1, 8, 8, 3))])
def test_a_result_that_does_not_fit_is_refused(out: npt.NDArray[np.float32]) -> None:
    """Another shape or dtype is an error rather than a broadcast or a cast."""
    with pytest.raises(UsageError) as caught:
        prepare(_spec(8, 8, 8), [_png(_image(8, 8))], out)
    assert caught.value.code == "preprocess.out"


def test_a_bad_image_in_a_batch_is_named() -> None:
    """The error of one image keeps its class and code, and says which one it was."""
    spec = _spec(8, 8, 8)
    good = _png(_image(8, 8))
    with pytest.raises(
        InvalidRequestError, match=r"^image 1 of 'image', counted from 0: "
    ) as caught:
        prepare(spec, [good, b"no"])
    assert caught.value.code == "request.image"
    small = spec.model_copy(update={"decode": Decode(max_pixels=63)})
    with pytest.raises(TooLargeError, match=r"^image 0") as large:
        prepare(small, [good, good])
    assert large.value.code == "request.image-pixels"
    with pytest.raises(InvalidRequestError, match=r"^2 bytes"):
        prepare(spec, [b"no"])


def _other(resize: Stretch | Letterbox, **more: object) -> ImagePreprocessing:
    given = {"input": "image", "output": "pixels", "layout": Layout(order="HWC"), **more}
    return ImagePreprocessing.model_validate({**given, "resize": resize})


@given(sides, sides, st.integers(1, 60), st.integers(1, 60))
def test_plain_bilinear_is_torchs(height: int, width: int, tall: int, wide: int) -> None:
    """Without antialiasing, what `torch.nn.functional.interpolate` gives, up or down.

    It computes its positions in float32.
    """
    image = _image(height, width)
    planes = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None]
    wanted = torch.nn.functional.interpolate(planes, (tall, wide), mode="bilinear")
    found = _floats(image, _other(Stretch(height=tall, width=wide, antialias=False)))
    assert np.abs(found - wanted[0].permute(1, 2, 0).numpy()).max() < 0.02


@given(sides, sides, st.integers(1, 60), st.integers(1, 60))
def test_a_letterbox_is_the_stretch_to_what_fits_in_a_frame(
    height: int, width: int, tall: int, wide: int
) -> None:
    """The largest image of the same shape, in the middle; the rest has the colour asked for."""
    image = _image(height, width)
    framed = _floats(image, _other(Letterbox(height=tall, width=wide, fill=7)))
    rows, columns = fitted_size(height, width, tall, wide)
    assert rows == tall or columns == wide
    assert abs(rows - min(tall, height * wide / width)) <= max(0.5, 1 - height * wide / width)
    assert abs(columns - min(wide, width * tall / height)) <= max(0.5, 1 - width * tall / height)
    top, left = (tall - rows) // 2, (wide - columns) // 2
    inner = _floats(image, _other(Stretch(height=rows, width=columns)))
    np.testing.assert_array_equal(framed[top : top + rows, left : left + columns], inner)
    framed[top : top + rows, left : left + columns] = 7
    assert (framed == 7).all()


def test_channels_are_reversed_or_weighed() -> None:
    """BGR is RGB backwards; luma is Pillow's to its rounding."""
    image = _image(9, 8)
    plain = _floats(image, _other(Stretch(height=9, width=8)))
    mirrored = _floats(image, _other(Stretch(height=9, width=8), colour=Colour(channels="BGR")))
    luma = _floats(image, _other(Stretch(height=9, width=8), colour=Colour(channels="L")))
    np.testing.assert_array_equal(plain, image.astype(np.float32))
    np.testing.assert_array_equal(mirrored, plain[..., ::-1])
    assert (
        np.abs(luma[..., 0] - np.asarray(Image.fromarray(image).convert("L"), float)).max() < 0.51
    )


def test_results_are_cast() -> None:
    """To bytes, halves up and clamped; to half precision, and infinity beyond it."""
    image = np.array([[[0, 100, 255]]], np.uint8)
    size = Stretch(height=1, width=1)
    shift = Normalize(mean=(0.5, 0.5, -10.0), std=(1.0, 1.0, 1.0))
    rounded = prepare_image(image, _other(size, normalize=shift, cast=Cast(datatype="UINT8")))
    assert rounded.dtype == np.uint8
    assert rounded.ravel().tolist() == [0, 100, 255]
    small = Normalize(mean=(0.0, 0.0, 0.0), std=(1.0, 3.0, 1e-3))
    halved = prepare_image(image, _other(size, normalize=small, cast=Cast(datatype="FP16")))
    assert halved.dtype == np.float16
    assert halved.ravel().tolist() == [0, np.float16(100 / 3), np.inf]


@pytest.mark.parametrize(
    ("resize", "more", "complaint"),
    [
        (Resize(shorter=9), {}, "give a crop"),
        (Resize(shorter=9), {"crop": CenterCrop(height=10, width=1)}, "crop is larger"),
        (Stretch(height=1, width=1), {"crop": CenterCrop(height=1, width=1)}, "leave the crop out"),
        (
            Stretch(height=1, width=1),
            {
                "colour": Colour(channels="L"),
                "normalize": Normalize(mean=(1.0,) * 3, std=(1.0,) * 3),
            },
            "for 1 channels",
        ),
    ],
)
def test_operations_that_do_not_fit_are_refused(
    resize: Resize | Stretch | Letterbox, more: dict[str, object], complaint: str
) -> None:
    """A spec that says nothing certain is no spec."""
    with pytest.raises(ValidationError, match=complaint):
        ImagePreprocessing.model_validate({"input": "a", "output": "b", "resize": resize, **more})


def test_nearest_cannot_be_antialiased() -> None:
    """Its one pixel has no support that could grow."""
    with pytest.raises(ValidationError, match="antialias=False"):
        Stretch(height=1, width=1, filter="nearest")


def test_a_photograph_is_upright_and_decoded_small_where_the_spec_says_so() -> None:
    """A turned JPEG comes out as its upright twin; one decoded small, near the whole one."""
    y, x = np.mgrid[:600, :800]
    image = np.stack([x / 4, y / 4, (x + y) / 6], -1).astype(np.uint8)
    turned, plain, told = BytesIO(), BytesIO(), Image.Exif()
    told[0x0112] = 6
    Image.fromarray(image).save(plain, "JPEG", quality=95)
    Image.fromarray(np.rot90(image).copy()).save(turned, "JPEG", quality=95, exif=told)
    contents = [plain.getvalue(), turned.getvalue()]
    for size in (Stretch(height=60, width=70), Letterbox(height=64, width=90)):
        found = prepare(_other(size, decode=Decode(upright=True)), contents)
        assert np.abs(found[0].astype(float) - found[1]).max() < 4
        small = prepare(_other(size, decode=Decode(upright=True, reduced=True)), contents)
        assert 0 < np.abs(found.astype(float) - small).max() < 4

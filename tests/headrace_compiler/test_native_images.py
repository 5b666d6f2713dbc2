"""The native image kernels: what the reference computes, and nothing beyond their memory."""

import ctypes
import mmap
import subprocess
import sys
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import headrace.preprocess.native
from headrace.errors import BundleError, InvalidRequestError, TooLargeError, UsageError
from headrace.hardware import Hardware, detect_hardware
from headrace.preprocess.native import TARGETS, NativeImages, choose_target
from headrace.preprocess.reference import prepare, prepare_image
from headrace.preprocess.spec import (
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
from headrace.tensors import NUMPY_DTYPES, Array
from headrace_compiler.kernels.lower import compile_kernels

Pixels = npt.NDArray[np.uint8]
HERE = detect_hardware()
IMAGENET = Normalize(mean=(123.7, 116.3, 103.5), std=(58.4, 57.1, 57.4))


def spec(
    resize: Resize | Stretch | Letterbox,
    *,
    crop: tuple[int, int] | None = None,
    normalize: Normalize | None = IMAGENET,
    channels: Literal["RGB", "BGR", "L"] = "RGB",
    order: Literal["CHW", "HWC"] = "CHW",
    datatype: Literal["FP32", "FP16", "UINT8"] = "FP32",
) -> ImagePreprocessing:
    """A pipeline."""
    return ImagePreprocessing(
        input="image",
        output="pixels",
        decode=Decode(max_pixels=100_000),
        resize=resize,
        crop=None if crop is None else CenterCrop(height=crop[0], width=crop[1]),
        normalize=normalize,
        colour=Colour(channels=channels),
        layout=Layout(order=order),
        cast=Cast(datatype=datatype),
    )


UNIT = Normalize(mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, -255.0))
SPECS = {
    "bilinear": spec(Resize(shorter=24), crop=(21, 16)),
    "bicubic": spec(
        Resize(shorter=17, filter="bicubic"), crop=(17, 17), normalize=UNIT, order="HWC"
    ),
    "one-pixel": spec(Resize(shorter=1), crop=(1, 1)),
    "stretch": spec(Stretch(height=9, width=31, filter="bicubic"), channels="BGR"),
    "letterbox": spec(Letterbox(height=20, width=23)),
    "letterbox-hwc": spec(
        Letterbox(height=21, width=16, filter="nearest", antialias=False, fill=7),
        order="HWC",
        normalize=UNIT,
    ),
    "nearest": spec(Stretch(height=13, width=11, filter="nearest", antialias=False)),
    "plain-bilinear": spec(Stretch(height=13, width=40, antialias=False)),
    "plain-bicubic": spec(Stretch(height=40, width=13, filter="bicubic", antialias=False)),
    "luma": spec(
        Letterbox(height=19, width=12), channels="L", normalize=Normalize(mean=(9.0,), std=(255.0,))
    ),
    "bare": spec(Stretch(height=8, width=8), normalize=None),
    "half": spec(Stretch(height=15, width=15), datatype="FP16"),
    "bytes": spec(Letterbox(height=18, width=18), normalize=None, datatype="UINT8", order="HWC"),
    "bytes-luma": spec(Stretch(height=7, width=9), normalize=None, datatype="UINT8", channels="L"),
}
"""Each choice of the vocabulary at least once."""


HALVES = """
import numpy as np
from numba import njit
from headrace_compiler.kernels.image import _to_half

convert = _to_half(njit)
every = np.arange(0, 2**32, 65521, np.uint64).astype(np.uint32)
near = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32).view(np.uint32)
bits = np.concatenate([every, near, near + 1, near - 1, near ^ 0x1000, (near ^ 0x1000) + 1])
with np.errstate(all="ignore"):
    wanted = bits.view(np.float32).astype(np.float16)
found = np.array([convert(value) for value in bits.view(np.float32)], np.uint16).view(np.float16)
known = ~np.isnan(wanted)
assert np.isnan(found[~known]).all()
assert (found[known].view(np.uint16) == wanted[known].view(np.uint16)).all()
print("equal")
"""


@pytest.fixture(scope="module")
def libraries() -> Mapping[str, Mapping[str, bytes]]:
    """The libraries of each spec, by target."""
    return {name: compile_kernels(each) for name, each in SPECS.items()}


@pytest.fixture(scope="module")
def kernels(
    libraries: Mapping[str, Mapping[str, bytes]],
) -> Mapping[tuple[str, str], NativeImages]:
    """Every library that runs here, by spec and target."""
    return {
        (name, target.name): NativeImages(libraries[name][target.name], each, threads=2)
        for name, each in SPECS.items()
        for target in TARGETS
        if target.fits(HERE)
    }


def picture(height: int, width: int, seed: int = 0) -> Pixels:
    """Noise, with the extremes among it."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    pixels[0, 0], pixels[-1, -1] = 0, 255
    return pixels


def native(kernel: NativeImages, image: Pixels, name: str) -> Array:
    """What a kernel makes of one image, into memory that held something else."""
    dtype = NUMPY_DTYPES[SPECS[name].cast.datatype]
    out = np.frombuffer(b"\x7f" * int(np.prod(SPECS[name].shape)) * dtype.itemsize, dtype).copy()
    out = out.reshape(SPECS[name].shape)
    kernel.prepare_image(image, out)
    return out


def error(found: Array, name: str, image: Pixels) -> float:
    """The largest difference from the reference, on the 0..1 scale of pixels.

    What is rounded to fewer bits may be off by one unit where the value stood in the middle; that
    unit is taken off.
    """
    spec = SPECS[name]
    wanted = prepare_image(image, spec)
    difference = np.abs(found.astype(np.float64) - wanted.astype(np.float64))
    if spec.cast.datatype == "UINT8":
        difference = np.maximum(difference - 1, 0)
    elif spec.cast.datatype == "FP16":
        unit = np.abs(np.spacing(np.asarray(wanted, np.float16))).astype(np.float64)
        difference = np.maximum(difference - unit, 0)
    std = (1.0,) * spec.channels if spec.normalize is None else spec.normalize.std
    axis = (-1, 1, 1) if spec.layout.order == "CHW" else (-1,)
    return float((difference * np.abs(np.array(std)).reshape(axis) / 255).max())


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 9))
def test_kernels_compute_what_the_reference_does(
    kernels: Mapping[tuple[str, str], NativeImages], height: int, width: int, seed: int
) -> None:
    """To 1e-6, for every spec and processor level, in any size and shape of image."""
    image = picture(height, width, seed)
    for (name, _), kernel in kernels.items():
        assert error(native(kernel, image, name), name, image) <= 1e-6


@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (1, 4000), (4000, 1), (2, 3), (720, 1280), (24, 24), (3, 9000)]
)
def test_odd_images_are_prepared_too(
    kernels: Mapping[tuple[str, str], NativeImages], height: int, width: int
) -> None:
    """One pixel, one row, one column, and extreme aspect ratios."""
    image = picture(height, width)
    for (name, _), kernel in kernels.items():
        assert error(native(kernel, image, name), name, image) <= 1e-6


def test_every_level_gives_the_same_on_one_machine(
    kernels: Mapping[tuple[str, str], NativeImages],
) -> None:
    """A level changes the speed; sums keep their order, and only their rounding may differ."""
    image = picture(97, 131)
    for name in SPECS:
        found = [native(kernel, image, name) for (of, _), kernel in kernels.items() if of == name]
        for other in found[1:]:
            unit = 1 if other.dtype == np.uint8 else 1e-3 if other.dtype == np.float16 else 1e-4
            assert np.allclose(found[0].astype(float), other.astype(float), rtol=unit, atol=unit)


@pytest.mark.parametrize(
    ("name", "resample", "size", "crop"),
    [
        ("bilinear", Image.Resampling.BILINEAR, (24, 24), (21, 16)),
        ("bicubic", Image.Resampling.BICUBIC, (17, 17), (17, 17)),
        ("stretch", Image.Resampling.BICUBIC, (9, 31), (9, 31)),
        ("nearest", Image.Resampling.NEAREST, (13, 11), (13, 11)),
    ],
)
@pytest.mark.parametrize("side", [1, 5, 13, 25, 200, 333])
def test_pillow_agrees_within_its_own_rounding(
    kernels: Mapping[tuple[str, str], NativeImages],
    name: str,
    resample: Image.Resampling,
    size: tuple[int, int],
    crop: tuple[int, int],
    side: int,
) -> None:
    """One step of 255 at most: Pillow rounds, and clamps what bicubic throws, after each axis."""
    chosen = SPECS[name]
    image = np.random.default_rng(side).integers(40, 216, (side, side, 3), np.uint8)
    resized = np.asarray(Image.fromarray(image).resize(size[::-1], resample), np.float64)
    top, left = (size[0] - crop[0]) // 2, (size[1] - crop[1]) // 2
    wanted = resized[top : top + crop[0], left : left + crop[1]]
    assert chosen.normalize is not None
    for (made, _), kernel in kernels.items():
        if made == name:
            found = native(kernel, image, name).astype(np.float64)
            if chosen.layout.order == "CHW":
                found = found.transpose(1, 2, 0)
            pixels = found * np.array(chosen.normalize.std) + np.array(chosen.normalize.mean)
            pixels = pixels[..., ::-1] if chosen.colour.channels == "BGR" else pixels
            assert np.abs(np.floor(pixels + 0.5) - wanted).max() <= 1


def test_numbers_of_half_precision_are_numpys(tmp_path: Path) -> None:
    """Every kind of float32 is rounded as NumPy rounds it: ties, subnormals, overflow, NaN."""
    done = subprocess.run(
        [sys.executable, "-c", HALVES], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.stdout == "equal\n", done.stderr


def test_images_of_any_strides_are_prepared(
    kernels: Mapping[tuple[str, str], NativeImages],
) -> None:
    """Turned, mirrored and cut out of a larger one."""
    large = picture(90, 70)
    for view in (large[::-1], large[:, ::-1], large.transpose(1, 0, 2), large[5:80:3, 7:60:2]):
        for (name, _), kernel in kernels.items():
            assert error(native(kernel, view, name), name, view) <= 1e-6


def encoded(image: Pixels) -> bytes:
    """As a PNG file."""
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def test_batches_are_decoded_and_prepared_in_order(
    kernels: Mapping[tuple[str, str], NativeImages],
) -> None:
    """Several threads fill one batch; grey images and those with alpha are among it."""
    wanted_spec = SPECS["bilinear"]
    grey = np.random.default_rng(1).integers(0, 256, (40, 30), np.uint8)
    alpha = np.random.default_rng(2).integers(0, 256, (40, 30, 4), np.uint8)
    contents = [
        *(encoded(picture(30 + n, 60 - n, n)) for n in range(9)),
        encoded(grey),
        encoded(alpha),
    ]
    wanted = prepare(wanted_spec, contents)
    for (name, _), kernel in kernels.items():
        if name == "bilinear":
            out = np.empty_like(wanted)
            assert kernel.prepare(contents, out) is out
            assert np.allclose(out, wanted, rtol=0, atol=1e-6 * 255 / 57)


def test_a_large_image_is_shared_out_to_the_threads(
    kernels: Mapping[tuple[str, str], NativeImages], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By rows of the result, frames included; nothing changes by it."""
    image = picture(61, 47)
    alone = {key: native(kernel, image, key[0]) for key, kernel in kernels.items()}
    monkeypatch.setattr(headrace.preprocess.native, "_SHARED", 1)
    for key, kernel in kernels.items():
        np.testing.assert_array_equal(native(kernel, image, key[0]), alone[key])


def test_what_is_no_image_is_the_clients_fault(
    kernels: Mapping[tuple[str, str], NativeImages],
) -> None:
    """A truncated file, no image at all, and one of more pixels than are allowed."""
    kernel = next(each for (name, _), each in kernels.items() if name == "bicubic")
    whole = encoded(picture(50, 50))
    for content in (b"", b"no image", whole[: len(whole) // 2]):
        with pytest.raises(InvalidRequestError):
            kernel.prepare([content])
    with pytest.raises(TooLargeError):
        kernel.prepare([encoded(picture(1, 100_001))])
    with pytest.raises(InvalidRequestError, match="image 1 of 'image'"):
        kernel.prepare([whole, b"no image"])


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((0, 5, 3), np.uint8),
        np.zeros((5, 5), np.uint8),
        np.zeros((5, 5, 4), np.uint8),
        np.zeros((5, 5, 3), np.float32),
    ],
)
def test_other_arrays_never_reach_the_kernel(
    kernels: Mapping[tuple[str, str], NativeImages], image: npt.NDArray[np.generic]
) -> None:
    """Sizes and types are checked before a pointer is handed over."""
    kernel = kernels["bilinear", choose_target([target.name for target in TARGETS], HERE) or ""]
    out = np.zeros(SPECS["bilinear"].shape, np.float32)
    with pytest.raises(UsageError):
        kernel.prepare_image(image, out)  # type: ignore[arg-type]
    frozen = out.copy()
    frozen.flags.writeable = False
    for wrong in (out[:, ::2], out.astype(np.float64), out.transpose(0, 2, 1), frozen):
        with pytest.raises(UsageError):
            kernel.prepare_image(picture(9, 9), wrong)


class Guarded:
    """Memory that ends where it should: one page before it and one behind may not be touched."""

    def __init__(self, size: int, *, at_end: bool) -> None:
        page = mmap.PAGESIZE
        pages = max(1, -(-size // page))
        self._map = mmap.mmap(-1, (pages + 2) * page)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        protect = ctypes.CDLL(None, use_errno=True).mprotect
        for address in (start, start + (pages + 1) * page):
            assert protect(ctypes.c_void_p(address), page, 0) == 0
        offset = page + (pages * page - size if at_end else 0)
        self.bytes = np.frombuffer(self._map, np.uint8, size, offset)


@settings(max_examples=80, deadline=None)
@given(
    st.one_of(st.integers(1, 40), st.integers(1, 2000)),
    st.one_of(st.integers(1, 40), st.integers(1, 2000)),
    st.booleans(),
)
def test_kernels_stay_inside_their_memory(
    kernels: Mapping[tuple[str, str], NativeImages],
    height: int,
    width: int,
    at_end: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """Image and result lie between pages that end the process when they are touched."""
    source = Guarded(height * width * 3, at_end=at_end)
    image = source.bytes.reshape(height, width, 3)
    for (name, _), kernel in kernels.items():
        shape = SPECS[name].shape
        dtype = NUMPY_DTYPES[SPECS[name].cast.datatype]
        room = Guarded(int(np.prod(shape)) * dtype.itemsize, at_end=at_end)
        out = room.bytes.view(dtype).reshape(shape)
        kernel.prepare_image(image, out)
        assert error(out, name, image) <= 1e-6


def test_scratch_is_as_large_as_the_kernel_needs(
    kernels: Mapping[tuple[str, str], NativeImages], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows and lines are written into scratch that ends at such a page, too."""
    kept: list[Guarded] = []

    def room(_: NativeImages, floats: int, columns: int) -> tuple[npt.NDArray[np.generic], ...]:
        kept[:] = [Guarded(floats * 4, at_end=True), Guarded(columns * 4, at_end=True)]
        return kept[0].bytes.view(np.float32), kept[1].bytes.view(np.int32)

    monkeypatch.setattr(NativeImages, "_room", room)
    for height, width in (
        (1, 1),
        (1, 3000),
        (3000, 1),
        (37, 41),
        (24, 17),
        (999, 1001),
        (16, 2000),
    ):
        image = picture(height, width)
        for (name, _), kernel in kernels.items():
            assert error(native(kernel, image, name), name, image) <= 1e-6


def test_a_library_needs_nothing_and_shows_one_function(
    libraries: Mapping[str, Mapping[str, bytes]],
) -> None:
    """A few kilobytes each; equal in every build."""
    again = compile_kernels(SPECS["bilinear"])
    assert again == libraries["bilinear"]
    for library in again.values():
        assert library[:4] == b"\x7fELF"
        assert len(library) < 40_000
        assert b"headrace_prepare" in library
        assert b"Numba" not in library
        assert b"libc" not in library


def test_the_quickest_level_that_runs_is_chosen() -> None:
    """By what the processor has; nothing, where none runs."""
    names = [target.name for target in TARGETS]

    def machine(architecture: str, *sets: str) -> Hardware:
        return HERE.model_copy(
            update={"architecture": architecture, "instruction_sets": tuple(sorted(sets))}
        )

    assert choose_target(names, machine("x86_64", "sse4_2")) == "x86_64-v2"
    assert choose_target(names, machine("x86_64", "sse4_2", "avx2", "fma", "f16c")) == "x86_64-v3"
    assert choose_target(names, machine("aarch64", "asimd")) == "aarch64"
    assert choose_target(names, machine("riscv64")) is None
    assert choose_target(["aarch64"], HERE.model_copy(update={"architecture": "x86_64"})) is None


def test_what_is_no_library_is_not_mapped() -> None:
    """A file that is no shared library, or one without the function, is the bundle's fault."""
    for content in (b"", b"\x7fELF", b"no library" * 99):
        with pytest.raises(BundleError) as caught:
            NativeImages(content, SPECS["bilinear"])
        assert caught.value.code == "bundle.kernel"

"""The native image kernels: what the reference computes, and nothing beyond their memory."""

import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from guarded import guarded
from hypothesis import given, settings
from hypothesis import strategies as st
from image_specs import OF_PILLOW, SPECS, Pixels, error, error_of_pillow, picture
from PIL import Image

import headrace.preprocess.image.native
from headrace.errors import BundleError, InvalidRequestError, TooLargeError, UsageError
from headrace.hardware import Hardware, detect_hardware
from headrace.native import TARGETS, choose_target
from headrace.preprocess.image.native import NativeImages
from headrace.preprocess.image.reference import prepare
from headrace.tensors import NUMPY_DTYPES, Array
from headrace_compiler.kernels.lower import compile_kernels
from headrace_compiler.kernels.sources import Specs

HERE = detect_hardware()
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
    with ThreadPoolExecutor(2) as pool:
        made = pool.map(lambda each: compile_kernels(Specs(preprocessing=each)), SPECS.values())
        return dict(zip(SPECS, made, strict=True))


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


def native(kernel: NativeImages, image: Pixels, name: str) -> Array:
    """What a kernel makes of one image, into memory that held something else."""
    dtype = NUMPY_DTYPES[SPECS[name].cast.datatype]
    out = np.frombuffer(b"\x7f" * int(np.prod(SPECS[name].shape)) * dtype.itemsize, dtype).copy()
    out = out.reshape(SPECS[name].shape)
    kernel.prepare_image(image, out)
    return out


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


@pytest.mark.parametrize("name", OF_PILLOW)
@pytest.mark.parametrize("side", [1, 5, 13, 25, 200, 333])
def test_pillow_agrees_within_its_own_rounding(
    kernels: Mapping[tuple[str, str], NativeImages], name: str, side: int
) -> None:
    """One step of 255 at most: Pillow rounds, and clamps what bicubic throws, after each axis."""
    image = np.random.default_rng(side).integers(40, 216, (side, side, 3), np.uint8)
    for (made, _), kernel in kernels.items():
        if made == name:
            assert error_of_pillow(native(kernel, image, name), name, image) <= 1


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
    monkeypatch.setattr(headrace.preprocess.image.native, "_SHARED", 1)
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
    image = guarded((height, width, 3), np.uint8, at_end=at_end)
    image[...] = picture(height, width)
    for (name, _), kernel in kernels.items():
        shape = SPECS[name].shape
        dtype = NUMPY_DTYPES[SPECS[name].cast.datatype]
        out = guarded(shape, dtype, at_end=at_end)
        kernel.prepare_image(image, out)
        assert error(out, name, image) <= 1e-6


def test_scratch_is_as_large_as_the_kernel_needs(
    kernels: Mapping[tuple[str, str], NativeImages], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows and lines are written into scratch that ends at such a page, too."""

    def room(_: NativeImages, floats: int, columns: int) -> tuple[npt.NDArray[np.generic], ...]:
        return guarded((floats,), np.float32), guarded((columns,), np.int32)

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
    again = compile_kernels(Specs(preprocessing=SPECS["bilinear"]))
    assert again == libraries["bilinear"]
    for library in again.values():
        assert library[:4] == b"\x7fELF"
        assert len(library) < 40_000
        assert b"headrace_prepare_image" in library
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

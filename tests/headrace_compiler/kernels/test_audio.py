"""The native audio kernels: what the reference computes, and nothing beyond their memory."""

import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace

import numpy as np
import numpy.typing as npt
import pytest
from guarded import guarded, guarded_copy
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import noise, wave_file

from headrace.errors import BundleError, InvalidRequestError, TooLargeError, UsageError
from headrace.hardware import detect_hardware
from headrace.native import TARGETS
from headrace.preprocess.audio.decode import WIDTHS, Encoding, read_wave
from headrace.preprocess.audio.native import NativeAudio, work_length
from headrace.preprocess.audio.reference import prepare
from headrace.preprocess.audio.spec import (
    AudioPreprocessing,
    Clip,
    Decode,
    Frames,
    LogMel,
    Resample,
    Waveform,
)
from headrace.preprocess.audio.tables import Tables, resampling
from headrace.tensors import Array
from headrace_compiler.kernels.lower import compile_kernels
from headrace_compiler.kernels.sources import Specs

HERE = detect_hardware()
Kernels = Mapping[tuple[str, str], NativeAudio]


def spec(
    features: Waveform | Frames | LogMel, samples: int, rate: int = 16000
) -> AudioPreprocessing:
    """A pipeline."""
    return AudioPreprocessing(
        input="recording",
        output="values",
        decode=Decode(max_seconds=3.0),
        resample=Resample(rate=rate),
        clip=Clip(samples=samples),
        features=features,
    )


SPECS = {
    "waveform": spec(Waveform(), 1100),
    "standardized": spec(Waveform(standardize=True), 700, 8000),
    "frames": spec(Frames(length=25, hop=10, window="hamming"), 400),
    "plain-frames": spec(
        Frames(length=33, hop=50, window="rectangular", centre=False, drop_last=True), 1000, 22050
    ),
    "whisper": spec(
        LogMel(
            n_fft=400, length=400, hop=160, mels=80, high=8000.0, scale="slaney", area=True,
            log="log10", dynamic_range=8.0, mean=-4.0, std=4.0, drop_last=True,
        ),
        4800,
    ),
    "speech": spec(
        LogMel(
            n_fft=512, length=400, hop=160, window="hamming", centre=False, mels=23, low=20.0,
            high=7600.0, floor=1.2e-12, mean=-2 * math.log(32768), layout="frames-mels",
        ),
        3000,
    ),
    "magnitude": spec(
        LogMel(n_fft=90, length=81, hop=50, mels=9, high=4000.0, power=1, log="db"), 900, 8000
    ),
    "least": spec(
        LogMel(n_fft=3, length=1, hop=3, mels=1, high=5512.5, layout="frames-mels"), 65, 11025
    ),
}  # fmt: skip
"""Each choice of the vocabulary at least once, and frames that fill no sixteen, or more."""


@pytest.fixture(scope="module")
def libraries() -> Mapping[str, Mapping[str, bytes]]:
    """The libraries of each spec, by target."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        made = pool.map(lambda each: compile_kernels(Specs(preprocessing=each)), SPECS.values())
        return dict(zip(SPECS, made, strict=True))


@pytest.fixture(scope="module")
def kernels(libraries: Mapping[str, Mapping[str, bytes]]) -> Kernels:
    """Every library that runs here, by spec and target."""
    return {
        (name, target.name): NativeAudio(libraries[name][target.name], each, threads=2)
        for name, each in SPECS.items()
        for target in TARGETS
        if target.fits(HERE)
    }


def agree(found: Array, wanted: Array) -> bool:
    """Whether all values are equal to 1e-6 of the range."""
    difference = np.abs(found.astype(np.float64) - wanted.astype(np.float64))
    return float(difference.max()) <= 1e-6 * max(1.0, float(np.abs(wanted).max()))


def check(kernels: Kernels, contents: Sequence[bytes]) -> None:
    """Every kernel makes of recordings what the reference does, in memory that was not empty."""
    wanted = {name: prepare(each, contents) for name, each in SPECS.items()}
    for (name, level), kernel in kernels.items():
        out = np.full_like(wanted[name], np.nan)
        assert kernel.prepare(contents, out) is out
        assert agree(out, wanted[name]), (name, level)


@settings(max_examples=60, deadline=None)
@given(
    st.one_of(st.integers(0, 20), st.integers(0, 3000)),
    st.sampled_from([1000, 8000, 11025, 12345, 16000, 22050, 44100, 48000, 96000]),
    st.one_of(st.integers(1, 2), st.integers(1, 64)),
    st.sampled_from(tuple(WIDTHS)),
    st.integers(0, 9),
)
def test_kernels_compute_what_the_reference_does(
    kernels: Kernels,
    frames: int,
    rate: int,
    channels: int,
    encoding: Encoding,
    seed: int,
) -> None:
    """To 1e-6, for every spec and processor level, in any length, rate and encoding."""
    frames = min(frames, 3 * rate)
    check(kernels, [wave_file(noise(frames, channels, seed), rate, encoding)])


@pytest.mark.parametrize("frames", [0, 1, 2, 15, 16, 17, 700, 4799, 4800, 4801, 9000])
def test_lengths_about_those_of_clips_and_blocks_are_prepared(
    kernels: Kernels, frames: int
) -> None:
    """Nothing, one sample, and a clip's length, at rates that are equal and are not."""
    for rate in (8000, 16000, 22050, 44100):
        check(kernels, [wave_file(0.3 * noise(frames, seed=rate)[:, 0], rate)])


@pytest.mark.parametrize(("rate", "frames"), [(15_999, 9000), (383_999, 90_000), (1009, 700)])
def test_rates_that_share_no_factor_are_resampled(kernels: Kernels, rate: int, frames: int) -> None:
    """Whose weights are many, and windows long."""
    check(kernels, [wave_file(noise(frames), rate, "s24")])


def test_loud_and_silent_frames_stand_next_to_each_other(kernels: Kernels) -> None:
    """Two of them share a transform; in floats of a scale that nobody uses, too."""
    silent = np.zeros(5000)
    click, burst, loud = silent.copy(), silent.copy(), silent.copy()
    click[2400], burst[800:1000] = 1.0, np.sin(np.arange(200.0))
    loud[:] = 2.0**31 * np.sin(0.1 * np.arange(5000.0) ** 1.3)
    for samples in (silent, click, burst, loud):
        check(kernels, [wave_file(samples, 16000, "f32")])


def test_batches_are_prepared_in_order(kernels: Kernels) -> None:
    """Several threads fill one batch, of recordings of every kind."""
    rates = (8000, 16000, 44100)
    contents = [
        wave_file(noise(700 * n, 1 + n % 3, n), rates[n % 3], tuple(WIDTHS)[n % 5])
        for n in range(11)
    ]
    check(kernels, contents)
    for (name, _), kernel in kernels.items():
        assert kernel.prepare([]).shape == (0, *SPECS[name].shape)
        assert kernel.prepare(contents[:2]).dtype == np.float32


def test_every_level_gives_the_same_on_one_machine(kernels: Kernels) -> None:
    """A level changes the speed; sums keep their order, and only their rounding may differ."""
    content = wave_file(noise(9000, 2), 44100)
    for name in SPECS:
        first, *others = (
            kernel.prepare([content]) for (of, _), kernel in kernels.items() if of == name
        )
        assert all(agree(other, first) for other in others)


def test_what_is_no_recording_is_the_clients_fault(kernels: Kernels) -> None:
    """No file at all, a truncated one, one that is too long, and one of what are no numbers."""
    whole = wave_file(noise(100))
    broken = wave_file(np.full(100, np.nan), encoding="f32")
    for kernel in kernels.values():
        for content in (b"", b"no recording", whole[:-1], broken):
            with pytest.raises(InvalidRequestError):
                kernel.prepare([content])
        with pytest.raises(TooLargeError):
            kernel.prepare([wave_file(np.zeros(3001), 1000)])
        with pytest.raises(InvalidRequestError, match="recording 1 of 'recording'"):
            kernel.prepare([whole, broken])


def test_results_go_into_memory_that_fits_alone(kernels: Kernels) -> None:
    """Shape, type and strides are checked before a pointer is handed over."""
    content = wave_file(noise(100))
    (name, _), kernel = next(iter(kernels.items()))
    out = np.zeros((1, *SPECS[name].shape), np.float32)
    frozen = out.copy()
    frozen.flags.writeable = False
    for wrong in (out[:, ::2], out[:, :-1], out.astype(np.float64), out[0], frozen):
        with pytest.raises(UsageError):
            kernel.prepare([content], wrong)


class GuardedAudio(NativeAudio):
    """Whose scratch and tables lie between such pages, and hold what is no number at first."""

    def guard(self, *, at_end: bool) -> None:
        """Lays the tables anew, at one of the two ends."""
        self._at_end = at_end
        tables = {each.name: getattr(self._tables, each.name) for each in fields(Tables)}
        copies = {name: guarded_copy(array, at_end=at_end) for name, array in tables.items()}
        self._tables = Tables(**copies)

    def _room(self, floats: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        signal, work = np.full(floats, np.nan), np.full(work_length(self._spec), np.nan)
        return guarded_copy(signal, at_end=self._at_end), guarded_copy(work, at_end=self._at_end)


@pytest.fixture(scope="module")
def guards(libraries: Mapping[str, Mapping[str, bytes]]) -> Mapping[tuple[str, str], GuardedAudio]:
    """As `kernels`, guarded."""
    return {
        (name, target.name): GuardedAudio(libraries[name][target.name], each)
        for name, each in SPECS.items()
        for target in TARGETS
        if target.fits(HERE)
    }


@settings(max_examples=40, deadline=None)
@given(
    st.one_of(st.integers(0, 40), st.integers(0, 3000)),
    st.sampled_from([1000, 8000, 12345, 16000, 44100, 380_000]),
    st.integers(1, 3),
    st.sampled_from(tuple(WIDTHS)),
    st.booleans(),
)
def test_kernels_stay_inside_their_memory(
    guards: Mapping[tuple[str, str], GuardedAudio],
    frames: int,
    rate: int,
    channels: int,
    encoding: Encoding,
    at_end: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """Samples, weights, tables, scratch and result lie between pages that end the process."""
    content = wave_file(noise(frames, channels), rate, encoding)
    recording = read_wave(content, 3.0)
    for (name, _), kernel in guards.items():
        each = SPECS[name]
        how = resampling(each, recording.rate, recording.frames)
        used = how.used * channels * WIDTHS[encoding]  # not one byte behind what is used
        data = guarded_copy(recording.data[:used], at_end=at_end)
        weights = guarded_copy(how.weights, at_end=at_end)
        out = guarded(each.shape, np.float32, at_end=at_end)
        kernel.guard(at_end=at_end)
        kernel._make(
            replace(recording, data=data),
            replace(how, weights=weights),
            out,
        )
        assert agree(out, prepare(each, [content])[0])


def test_a_library_needs_nothing_and_shows_one_function(
    libraries: Mapping[str, Mapping[str, bytes]],
) -> None:
    """A few kilobytes each; equal in every build."""
    assert compile_kernels(Specs(preprocessing=SPECS["frames"])) == libraries["frames"]
    for library in (each for made in libraries.values() for each in made.values()):
        assert library[:4] == b"\x7fELF"
        assert len(library) < 40_000
        assert b"headrace_prepare_audio" in library
        assert b"Numba" not in library
        assert b"libc" not in library


def test_what_is_no_library_is_not_mapped() -> None:
    """The bundle's fault."""
    with pytest.raises(BundleError) as caught:
        NativeAudio(b"no library", SPECS["waveform"])
    assert caught.value.code == "bundle.kernel"

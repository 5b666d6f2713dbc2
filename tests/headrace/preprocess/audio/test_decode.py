"""WAV files: what is in them is read exactly, and what is no such file is refused."""

import struct
import wave
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import chunk, form, noise, riff, wave_file

from headrace.errors import InvalidRequestError, TooLargeError
from headrace.preprocess.audio.decode import WIDTHS, Encoding, mono_samples, read_wave

ENCODINGS = tuple(WIDTHS)
STEPS = {"u8": 2.0**-7, "s16": 2.0**-15, "s24": 2.0**-23, "s32": 2.0**-31, "f32": 2.0**-23}
"""Of an encoding: the distance of two samples next to each other near one."""


@pytest.mark.parametrize("extensible", [False, True])
@pytest.mark.parametrize("channels", [1, 2, 5, 64])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding_is_read_and_mixed_down(
    encoding: Encoding,
    channels: int,
    extensible: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """To the step of its samples, with a plain header and with an extensible one."""
    samples = noise(99, channels)
    found = read_wave(wave_file(samples, 12345, encoding, extensible=extensible), 1.0)
    assert (found.encoding, found.rate, found.channels, found.frames) == (
        encoding,
        12345,
        channels,
        99,
    )
    mono = mono_samples(found, 99)
    assert np.abs(mono - samples.mean(axis=1)).max() <= STEPS[encoding]
    np.testing.assert_array_equal(mono_samples(found, 7), mono[:7])


def test_the_extremes_of_whole_numbers_are_minus_one_and_almost_one() -> None:
    """Zero is zero, in each of them."""
    for encoding, step in STEPS.items():
        content = wave_file(np.array([-1.0, 0.0, 1.0]), encoding=encoding)  # type: ignore[arg-type]
        highest = 1.0 if encoding == "f32" else 1.0 - step
        np.testing.assert_array_equal(
            mono_samples(read_wave(content, 1.0), 3), [-1.0, 0.0, highest]
        )


def test_what_another_program_wrote_is_read() -> None:
    """Python's own writer of WAV files is one."""
    buffer = BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(44100)
        file.writeframes(np.array([[1, 3], [-5, 7]], "<i2").tobytes())
    found = read_wave(buffer.getvalue(), 1.0)
    np.testing.assert_array_equal(mono_samples(found, 2) * 2**15, [2.0, 1.0])


def test_other_chunks_and_what_follows_the_file_are_passed_over() -> None:
    """Chunks of odd length are followed by a byte that does not count."""
    data = chunk(b"data", b"\x01\x02\x03")
    content = riff(chunk(b"LIST", b"odd"), form("u8"), chunk(b"fact", b"\0" * 4), data) + b"trailer"
    found = read_wave(content, 1.0)
    assert found.frames == 3
    assert found.data.tobytes() == b"\x01\x02\x03"


def test_an_empty_recording_has_no_samples() -> None:
    """It is a recording all the same."""
    found = read_wave(wave_file(np.empty(0), encoding="f32"), 1.0)
    found.check_samples(0)
    assert found.frames == 0
    assert mono_samples(found, 0).shape == (0,)


def described(**changes: int) -> bytes:
    """A format chunk, some of whose fields are others than they should be."""
    fields = {"tag": 1, "channels": 1, "rate": 16000, "bytes": 32000, "block": 2, "bits": 16}
    return chunk(b"fmt ", struct.pack("<HHIIHH", *{**fields, **changes}.values()))


DATA = chunk(b"data", b"\0" * 8)
EXTENSIBLE = form(extensible=True)
HOSTILE = {
    "nothing": b"",
    "no file": b"no recording",
    "ten bytes": b"RIFF\x04\0\0\0WA",
    "big-endian": b"RIFX" + riff(form(), DATA)[4:],
    "64 bits": b"RF64" + riff(form(), DATA)[4:],
    "another": riff(form(), DATA).replace(b"WAVE", b"AVI "),
    "no chunks": riff(),
    "no data": riff(form()),
    "no format": riff(DATA),
    "data first": riff(DATA, form()),
    "half a chunk": riff(form(), b"dat"),
    "file size": riff(form(), DATA).replace(riff(form(), DATA)[4:8], b"\xff\xff\xff\xff", 1),
    "file size of zero": b"RIFF\0\0\0\0" + riff(form(), DATA)[8:],
    "data size": riff(form(), b"data\xff\xff\xff\xff" + b"\0" * 8),
    "data size by one": riff(form("u8"), b"data\x09\0\0\0" + b"\0" * 8),
    "chunk size": riff(b"LIST\xff\xff\xff\x7f", form(), DATA),
    "format size": riff(b"fmt \x0f\0\0\0" + b"\1" * 16, DATA),
    "zero rate": riff(described(rate=0), DATA),
    "low rate": riff(described(rate=999), DATA),
    "high rate": riff(described(rate=384_001), DATA),
    "endless rate": riff(described(rate=2**32 - 1), DATA),
    "no channels": riff(described(channels=0, block=0), DATA),
    "65 channels": riff(described(channels=65, block=130), DATA),
    "many channels": riff(described(channels=2**15, block=0), DATA),
    "block of zero": riff(described(block=0), DATA),
    "block of one": riff(described(block=1), DATA),
    "large block": riff(described(block=4), DATA),
    "no bits": riff(described(bits=0), DATA),
    "12 bits": riff(described(bits=12), DATA),
    "64-bit floats": riff(described(tag=3, bits=64, block=8), DATA),
    "16-bit floats": riff(described(tag=3), DATA),
    "A-law": riff(described(tag=6, bits=8, block=1), DATA),
    "MP3": riff(described(tag=0x55, bits=0, block=1), DATA),
    "extensible, no more": riff(described(tag=0xFFFE), DATA),
    "another extension": riff(EXTENSIBLE.replace(b"\x38\x9b\x71", b"\x38\x9b\x72"), DATA),
    "an extensible one within": riff(
        EXTENSIBLE.replace(b"\1\0\0\0\0\0\x10", b"\xfe\xff" + b"\0" * 5)
    ),
    "within a sample": riff(form(), chunk(b"data", b"\0" * 7)),
    "within a frame": riff(form(channels=3), DATA),
    "many chunks": riff(*[chunk(b"LIST", b"")] * 100_000, form(), DATA),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_wave_file_is_the_clients_fault(name: str) -> None:
    """Sizes that lie, fields that contradict each other, formats that nobody agreed on."""
    with pytest.raises(InvalidRequestError) as caught:
        read_wave(HOSTILE[name], 60.0)
    assert caught.value.code == "request.audio"


def test_a_truncated_file_is_refused_wherever_it_ends() -> None:
    """Within its header or within its samples."""
    whole = wave_file(noise(9))
    for end in range(len(whole)):
        with pytest.raises(InvalidRequestError):
            read_wave(whole[:end], 1.0)


def test_a_recording_that_lasts_too_long_is_refused() -> None:
    """By its header; one that lasts just as long is not."""
    content = wave_file(np.zeros(1501), 1000)
    assert read_wave(content, 1.501).frames == 1501
    with pytest.raises(TooLargeError) as caught:
        read_wave(content, 1.5)
    assert caught.value.code == "request.audio-seconds"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_samples_that_are_no_numbers_are_refused(value: float) -> None:
    """Where they are used; of whole numbers there are none."""
    samples = np.zeros((10, 2))
    samples[6, 1] = value
    found = read_wave(wave_file(samples, encoding="f32"), 1.0)
    found.check_samples(6)
    with pytest.raises(InvalidRequestError, match="finite"):
        found.check_samples(7)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(ENCODINGS),
    st.lists(st.tuples(st.integers(0, 79), st.integers(0, 255)), min_size=1, max_size=6),
    st.integers(0, 120),
)
def test_any_bytes_are_a_recording_or_refused(
    encoding: Encoding, changes: list[tuple[int, int]], end: int
) -> None:
    """Nothing else is ever raised, and what is read lies within the bytes."""
    content = bytearray(wave_file(noise(6, 2), encoding=encoding, extensible=True))
    for place, value in changes:
        content[place] = value
    try:
        found = read_wave(bytes(content[: max(end, 12)]), 1.0)
        found.check_samples(found.frames)
    except (InvalidRequestError, TooLargeError):
        return
    assert len(found.data) == found.frames * found.channels * WIDTHS[found.encoding]
    assert np.isfinite(mono_samples(found, found.frames)).all()

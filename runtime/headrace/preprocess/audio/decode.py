"""WAV files to samples; whatever else the bytes are is refused with a sentence.

The bytes come from strangers: every size that a header tells is held against the bytes that are
there, and the only errors that leave this module are those of `headrace.errors`.
"""

import struct
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from headrace.errors import InvalidRequestError, TooLargeError
from headrace.preprocess.audio.spec import HIGHEST_RATE, LOWEST_RATE

Encoding = Literal["u8", "s16", "s24", "s32", "f32"]
Doubles = npt.NDArray[np.float64]
WIDTHS: dict[Encoding, int] = {"u8": 1, "s16": 2, "s24": 3, "s32": 4, "f32": 4}
"""Bytes a sample."""

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE  # mmreg.h
_ENCODINGS: dict[tuple[int, int], Encoding] = {
    (_PCM, 8): "u8",
    (_PCM, 16): "s16",
    (_PCM, 24): "s24",
    (_PCM, 32): "s32",
    (_FLOAT, 32): "f32",
}
"""By format tag and bits a sample."""
_GUID = bytes.fromhex("000000001000800000aa00389b71")
"""What follows the format tag in the subformat of an extensible header."""
_MOST_CHANNELS = 64
_MOST_CHUNKS = 1000  # each costs time and as little as eight bytes of file
_LOUDEST = 2.0**32
"""Of float samples: beyond what any scale uses, and far from where float32 ends."""


@dataclass(frozen=True)
class Recording:
    """A WAV file whose header was checked.

    Attributes:
        encoding: Of its samples, little-endian.
        rate: In Hz.
        channels: Interleaved.
        frames: Samples a channel; possibly none.
        data: uint8, shape (frames * channels * bytes a sample,), read-only.
    """

    encoding: Encoding
    rate: int
    channels: int
    frames: int
    data: npt.NDArray[np.uint8]

    def check_samples(self, used: int) -> None:
        """Checks the samples of the first `used` frames, which are floats.

        Raises:
            InvalidRequestError: `request.audio`: some are no numbers, or absurdly large.
        """
        if self.encoding != "f32" or not used:
            return
        floats = self.data[: 4 * used * self.channels].view("<f4")
        with np.errstate(invalid="ignore"):
            bounded = floats.min() >= -_LOUDEST and floats.max() <= _LOUDEST
        if not bounded:  # what is no number compares as neither
            raise _refused("holds samples that are no finite numbers, or larger than 2**32")


def read_wave(content: bytes, max_seconds: float) -> Recording:
    """Reads the header of a WAV file, of PCM or float samples.

    Args:
        content: The file.
        max_seconds: The longest that is taken.

    Raises:
        InvalidRequestError: `request.audio`: the bytes are no WAV file of such samples, or its
            header contradicts itself or the bytes that are there.
        TooLargeError: `request.audio-seconds`: it is longer than `max_seconds`.

    Source: Microsoft and IBM, Multimedia Programming Interface and Data Specifications 1.0;
    `WAVEFORMATEXTENSIBLE` of mmreg.h.
    """
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        shown = f"{len(content)} bytes" if content else "an empty value"
        raise InvalidRequestError(
            "request.audio",
            f"{shown} came where a recording was expected, and they are no WAV file",
            "send the bytes of a WAV file of PCM or 32-bit float samples",
        )
    form, data = _chunks(content)
    encoding, channels, rate = _format(form)
    frames, rest = divmod(len(data), channels * WIDTHS[encoding])
    if rest:
        raise _refused("ends within a sample")
    if frames > max_seconds * rate:
        raise TooLargeError(
            "request.audio-seconds",
            f"the recording lasts {frames / rate:.6g} s, and at most {max_seconds:g} s are taken",
        )
    return Recording(encoding, rate, channels, frames, data)


def _chunks(content: bytes) -> tuple[bytes, npt.NDArray[np.uint8]]:
    """The content of the format chunk, and that of the data chunk behind it."""
    (size,) = struct.unpack_from("<I", content, 4)
    end, at, form = 8 + size, 12, None
    if end > len(content):
        raise _refused(f"declares {end} bytes, and {len(content)} came: it is truncated")
    for _ in range(_MOST_CHUNKS):
        if at + 8 > end:
            raise _refused("has no data chunk behind a format chunk")
        name, size = struct.unpack_from("<4sI", content, at)
        at += 8
        if at + size > end:
            raise _refused(f"has a chunk of {size} bytes where {end - at} are left")
        if name == b"fmt " and form is None:
            form = content[at : at + min(size, 40)]
        elif name == b"data" and form is not None:
            return form, np.frombuffer(content, np.uint8, size, at)
        at += size + size % 2  # chunks begin at even bytes
    raise _refused(f"has more than {_MOST_CHUNKS} chunks before its samples")


def _format(form: bytes) -> tuple[Encoding, int, int]:
    """The encoding, the number of channels and the rate that a format chunk tells."""
    if len(form) < 16:
        raise _refused("has a format chunk of less than 16 bytes")
    tag, channels, rate, _, block, bits = struct.unpack_from("<HHIIHH", form)
    if tag == _EXTENSIBLE:
        if len(form) < 40 or form[26:40] != _GUID:
            raise _refused("has an extensible header whose format is not known")
        (tag,) = struct.unpack_from("<H", form, 24)
    if (tag, bits) not in _ENCODINGS:
        raise _refused(
            f"holds {bits}-bit samples of format {tag}, and PCM of 8, 16, 24 or 32 bits or 32-bit"
            " floats are taken"
        )
    encoding = _ENCODINGS[tag, bits]
    if not 1 <= channels <= _MOST_CHANNELS:
        raise _refused(f"declares {channels} channels, and 1 to {_MOST_CHANNELS} are taken")
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise _refused(f"declares {rate} Hz, and {LOWEST_RATE} to {HIGHEST_RATE} Hz are taken")
    if block != channels * WIDTHS[encoding]:
        raise _refused(f"declares {block} bytes for {channels} samples of {bits} bits")
    return encoding, channels, rate


def _refused(fault: str) -> InvalidRequestError:
    return InvalidRequestError("request.audio", f"the WAV file {fault}")


def mono_samples(recording: Recording, used: int) -> Doubles:
    """The mean of the channels of the first `used` frames, on the scale -1..1, shape (used,)."""
    data = recording.data[: used * recording.channels * WIDTHS[recording.encoding]]
    samples = _scaled(recording.encoding, data).reshape(used, recording.channels)
    mono: Doubles = samples.sum(axis=1) / recording.channels
    return mono


def _scaled(encoding: Encoding, data: npt.NDArray[np.uint8]) -> Doubles:
    match encoding:
        case "u8":
            return (data.astype(np.float64) - 128.0) / 128.0
        case "s16":
            return data.view("<i2") / 2.0**15
        case "s24":
            wide = np.zeros((len(data) // 3, 4), np.uint8)
            wide[:, 1:] = data.reshape(-1, 3)
            return wide.reshape(-1).view("<i4") / 2.0**31
        case "s32":
            return data.view("<i4") / 2.0**31
        case "f32":
            return data.view("<f4").astype(np.float64)

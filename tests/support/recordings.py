"""WAV files as tests need them: of every encoding, and broken ones."""

import struct

import numpy as np
import numpy.typing as npt

from headrace.preprocess.audio.decode import WIDTHS, Encoding

GUID = bytes.fromhex("000000001000800000aa00389b71")
SCALES = {"u8": 2.0**7, "s16": 2.0**15, "s24": 2.0**23, "s32": 2.0**31, "f32": 1.0}


def chunk(name: bytes, content: bytes) -> bytes:
    """A chunk, filled to an even length."""
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def riff(*chunks: bytes) -> bytes:
    """A file of chunks."""
    content = b"WAVE" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(content)) + content


def form(
    encoding: Encoding = "s16", channels: int = 1, rate: int = 16000, *, extensible: bool = False
) -> bytes:
    """A format chunk."""
    tag, width = 3 if encoding == "f32" else 1, WIDTHS[encoding]
    block = width * channels % 2**16
    shown = 0xFFFE if extensible else tag
    fields = (shown, channels, rate, rate * block % 2**32, block, 8 * width)
    content = struct.pack("<HHIIHH", *fields)
    if extensible:
        content += struct.pack("<HHIH", 22, 8 * width, 0, tag) + GUID
    return chunk(b"fmt ", content)


def encoded(samples: npt.NDArray[np.float64], encoding: Encoding) -> bytes:
    """Samples on the scale -1..1 in an encoding, rounded and clamped to what it can say."""
    if encoding == "f32":
        return samples.astype("<f4").tobytes()
    scale = SCALES[encoding]
    whole = np.clip(np.rint(samples * scale), -scale, scale - 1).astype(np.int64)
    match encoding:
        case "u8":
            return (whole + 128).astype(np.uint8).tobytes()
        case "s16":
            return whole.astype("<i2").tobytes()
        case "s24":
            return whole.astype("<i4").view(np.uint8).reshape(*whole.shape, 4)[..., :3].tobytes()
        case "s32":
            return whole.astype("<i4").tobytes()


def wave_file(
    samples: npt.NDArray[np.float64],
    rate: int = 16000,
    encoding: Encoding = "s16",
    *,
    extensible: bool = False,
) -> bytes:
    """A WAV file of samples on the scale -1..1, shape (frames,) or (frames, channels)."""
    channels = samples.shape[1] if samples.ndim == 2 else 1
    data = chunk(b"data", encoded(samples, encoding))
    return riff(form(encoding, channels, rate, extensible=extensible), data)


def noise(frames: int, channels: int = 1, seed: int = 0) -> npt.NDArray[np.float64]:
    """Noise with the extremes and a stretch of silence among it, shape (frames, channels)."""
    samples = np.random.default_rng(seed).uniform(-1, 1, (frames, channels))
    samples[frames // 3 : frames // 2] = 0.0
    samples[:1], samples[-1:] = -1.0, 1.0
    return samples

"""What a spec of audio means, in NumPy: the reference that every faster form is held to.

It computes in float64 and rounds to float32 once, at the end. Sums are taken without BLAS, so that
equal input gives equal bits.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from headrace.errors import InvalidRequestError, TooLargeError
from headrace.preprocess.audio.decode import Recording, mono_samples, read_wave
from headrace.preprocess.audio.spec import AudioPreprocessing, Frames, LogMel, Waveform
from headrace.preprocess.audio.tables import (
    Doubles,
    Resampling,
    mel_bands,
    periodic_window,
    resampling,
)

Floats = npt.NDArray[np.float32]
_BLOCK = 1 << 18
"""Elements of an intermediate block: 2 MiB of float64."""


def prepare(spec: AudioPreprocessing, contents: Sequence[bytes]) -> Floats:
    """Decodes and prepares a batch of WAV files.

    Args:
        spec: The pipeline.
        contents: One file a row.

    Returns:
        float32, shape (len(contents), *spec.shape).

    Raises:
        InvalidRequestError: One of them is no recording that can be decoded.
        TooLargeError: One of them lasts longer than the spec allows.
    """
    made = np.empty((len(contents), *spec.shape), np.float32)
    for row in range(len(contents)):
        made[row] = _features(spec, *decode_row(spec, contents, row))
    return made


def decode_row(
    spec: AudioPreprocessing, contents: Sequence[bytes], row: int
) -> tuple[Recording, Resampling]:
    """Reads one file of a batch; an error says which it is, where there are several.

    The samples that the spec does not use are not looked at.

    Returns:
        The recording, and how the clip is made of it.

    Raises:
        InvalidRequestError: It is no recording that can be decoded.
        TooLargeError: It lasts longer than the spec allows.
    """
    try:
        recording = read_wave(contents[row], spec.decode.max_seconds)
        how = resampling(spec, recording.rate, recording.frames)
        recording.check_samples(how.used)
    except (InvalidRequestError, TooLargeError) as error:
        if len(contents) == 1:
            raise
        message = f"recording {row} of '{spec.input}', counted from 0: {error.message}"
        raise type(error)(error.code, message, error.hint) from error
    return recording, how


def _features(spec: AudioPreprocessing, recording: Recording, how: Resampling) -> Doubles:
    """Resamples, clips and makes features of one recording: float64, shape `spec.shape`."""
    clip = np.zeros(spec.clip.samples)
    clip[: how.made] = _resampled(mono_samples(recording, how.used), how)
    match spec.features:
        case Waveform():
            return _waveform(clip, how.made, spec.features)
        case Frames():
            window = periodic_window(spec.features.window, spec.features.length)
            return _frames(clip, spec.features) * window
        case LogMel():
            return _log_mel(clip, spec.features, spec.resample.rate)


def _resampled(mono: Doubles, how: Resampling) -> Doubles:
    if not how.taps:
        return mono
    padded = np.pad(mono, (how.before, how.taps))
    made = np.empty(how.made)
    step = max(1, _BLOCK // how.taps)
    for start in range(0, how.made, step):
        place = np.arange(start, min(start + step, how.made))
        sources = (place * how.orig // how.new)[:, np.newaxis] + np.arange(how.taps)
        made[place] = (padded[sources] * how.weights[place % how.new]).sum(axis=1)
    return made


def _waveform(clip: Doubles, made: int, features: Waveform) -> Doubles:
    if features.standardize and made:
        own = clip[:made]
        own -= own.mean()
        own /= np.sqrt((own * own).mean() + features.epsilon)
    return clip


def _frames(clip: Doubles, features: Frames | LogMel) -> Doubles:
    """A view of a clip as frames without a window, shape (frames, length)."""
    lead, count = features.lead, features.frames(len(clip))
    padded = np.pad(clip, (lead, features.length - lead), "reflect") if features.centre else clip
    windows: Doubles = np.lib.stride_tricks.sliding_window_view(padded, features.length)
    return windows[:: features.hop][:count]


def _log_mel(clip: Doubles, features: LogMel, rate: int) -> Doubles:
    bands, shares = mel_bands(features, rate)
    ends = np.cumsum(bands[:, 1])
    framed, window = _frames(clip, features), periodic_window(features.window, features.length)
    energies = np.empty((len(framed), features.mels))
    step = max(1, _BLOCK // features.n_fft)
    for start in range(0, len(framed), step):
        block = slice(start, start + step)
        spectrum = np.abs(np.fft.rfft(framed[block] * window, features.n_fft)) ** features.power
        for mel, ((first, count), end) in enumerate(zip(bands, ends, strict=True)):
            part = spectrum[:, first : first + count] * shares[end - count : end]
            energies[block, mel] = part.sum(axis=1)
    logs = log_scale(features) * np.log(np.maximum(energies, features.floor))
    if features.dynamic_range is not None:
        logs = np.maximum(logs, logs.max() - features.dynamic_range)
    made: Doubles = (logs - features.mean) / features.std
    return made.T if features.layout == "mels-frames" else made


def log_scale(features: LogMel) -> float:
    """What a natural logarithm is multiplied with."""
    decades = {"ln": np.log(10.0), "log10": 1.0, "db": 20.0 / features.power}
    return float(decades[features.log] / np.log(10.0))

"""The numbers that audio is prepared with: windows, filters and twiddles, all float64.

The reference and the native kernels take them from here, so that they cannot differ in them.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from headrace.preprocess.audio.spec import AudioPreprocessing, LogMel, Waveform

Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_ZEROS, _ROLLOFF = 6, 0.99  # torchaudio's lowpass_filter_width and rolloff
_LANES = 8  # windows are as long as whole vectors
_WHOLE = 1 << 20
"""Weights of a rate that are computed at once and kept: 8 MiB, some 50 ms. Rates that share few
factors with the wanted one need up to 4.7 million; of those only what a recording uses is made."""
_BLOCK = 1 << 16  # weights that are computed at a time


@dataclass(frozen=True)
class Resampling:
    """How a recording of some rate becomes the samples of a clip.

    Sample j of the result is `weights[j % new] @ source[j * orig // new - before:][:taps]`, in
    which what lies outside of the recording counts as zero.

    Attributes:
        orig: Its rate, over the greatest common divisor of the two.
        new: The wanted rate over the same.
        made: Samples of the result that a recording reaches; the clip's rest is zeros.
        used: Frames of the recording that they are made of.
        before: How many sources lie before the one at or before a sample.
        weights: Shape (at least min(new, made), taps), the taps a multiple of eight; shape (0, 0)
            where the rates are equal and samples are taken as they are.
    """

    orig: int
    new: int
    made: int
    used: int
    before: int
    weights: Doubles

    @property
    def taps(self) -> int:
        """Weights a sample."""
        return int(self.weights.shape[1])


def resampling(spec: AudioPreprocessing, rate: int, frames: int) -> Resampling:
    """How a recording of a rate and a length becomes the samples of the spec's clip."""
    common = math.gcd(rate, spec.resample.rate)
    orig, new = rate // common, spec.resample.rate // common
    made = min(spec.clip.samples, -(-frames * new // orig))
    if orig == new:
        return Resampling(1, 1, made, made, 0, np.empty((0, 0)))
    width = _half_width(orig, new)
    used = min(frames, (made - 1) * orig // new + width + 1) if made else 0
    if new * 2 * width <= _WHOLE:
        weights = _all_weights(orig, new)
    else:
        weights = sinc_weights(orig, new, min(new, made))
    return Resampling(orig, new, made, used, width - 1, weights)


def _half_width(orig: int, new: int) -> int:
    """Samples of a recording on either side of a position that a window reaches."""
    return math.ceil(_ZEROS * orig / (min(orig, new) * _ROLLOFF))


@lru_cache(maxsize=8)
def _all_weights(orig: int, new: int) -> Doubles:
    weights = sinc_weights(orig, new, new)
    weights.flags.writeable = False
    return weights


def sinc_weights(orig: int, new: int, phases: int) -> Doubles:
    """The weights of the first `phases` samples of the result, shape (phases, taps).

    Source: `_get_sinc_resample_kernel` of torchaudio.functional, after J. O. Smith, "Digital Audio
    Resampling". There each phase stands among zeros; here only its own window.
    """
    width = _half_width(orig, new)
    weights = np.empty((phases, -(-2 * width // _LANES) * _LANES))
    step = max(1, _BLOCK // weights.shape[1])
    for start in range(0, phases, step):
        block = weights[start : start + step]
        block[...] = _windowed_sinc(orig, new, start + np.arange(len(block)), block.shape[1])
    return weights


def _windowed_sinc(orig: int, new: int, phases: Integers, taps: int) -> Doubles:
    first = phases * orig // new - _half_width(orig, new) + 1
    sources = first[:, np.newaxis] + np.arange(taps)
    base = min(orig, new) * _ROLLOFF
    distance = base * (sources / orig - phases[:, np.newaxis] / new)
    window = np.cos(distance * (np.pi / (2 * _ZEROS))) ** 2
    weights: Doubles = np.sinc(distance) * window * (base / orig)
    weights[np.abs(distance) >= _ZEROS] = 0.0
    return weights


@dataclass(frozen=True)
class Tables:
    """The numbers of a spec's features; those that it does not need are empty.

    Attributes:
        window: Shape (length,).
        radices: Of the stages of the Fourier transform; their product is `n_fft`.
        twiddles: Of these stages, one after another; see `twiddle_factors`.
        bands: Shape (mels, 2): the first bin of a filter, and how many it has.
        shares: The weights of these bins, one filter after another.
    """

    window: Doubles
    radices: Integers
    twiddles: Doubles
    bands: Integers
    shares: Doubles


def feature_tables(spec: AudioPreprocessing) -> Tables:
    """The numbers of a spec's features."""
    features, none, nothing = spec.features, np.empty(0), np.empty(0, np.int64)
    if isinstance(features, Waveform):
        return Tables(none, nothing, none, nothing, none)
    window = periodic_window(features.window, features.length)
    if not isinstance(features, LogMel):
        return Tables(window, nothing, none, nothing, none)
    stages = fft_radices(features.n_fft)
    bands, shares = mel_bands(features, spec.resample.rate)
    twiddles = twiddle_factors(stages)
    return Tables(window, np.array(stages, np.int64), twiddles, bands, shares)


def periodic_window(kind: Literal["hann", "hamming", "rectangular"], length: int) -> Doubles:
    """Shape (length,); what would come next is its first value again."""
    if kind == "rectangular":
        return np.ones(length)
    constant = 0.5 if kind == "hann" else 0.54
    turn = 2 * np.pi * np.arange(length) / length
    window: Doubles = constant - (1 - constant) * np.cos(turn)
    return window


def fft_radices(n: int) -> tuple[int, ...]:
    """The radices of a Fourier transform of n = 2**a 3**b 5**c: fives, fours, threes, a two."""
    stages = []
    for radix in (5, 4, 3, 2):
        while n % radix == 0:
            stages.append(radix)
            n //= radix
    return tuple(stages)


def twiddle_factors(radices: tuple[int, ...]) -> Doubles:
    """What the results of each stage's butterflies are multiplied with.

    A stage of radix r on transforms of m * r points has, for p below m and j from 1 below r, the
    real and the imaginary part of exp(-2 pi i j p / (m r)), in this order.
    """
    n, stages = math.prod(radices), []
    for radix in radices:
        turns = np.arange(n // radix)[:, np.newaxis] * np.arange(1, radix) / n
        stages.append(np.exp(-2j * np.pi * turns).ravel().view(np.float64))
        n //= radix
    return np.concatenate(stages)


def mel_bands(features: LogMel, rate: int) -> tuple[Integers, Doubles]:
    """The triangular filters without their zeros: `bands` and `shares` of `Tables`.

    Source: `librosa.filters.mel`, which is also torchaudio's `melscale_fbanks`.
    """
    low, high = _to_mel(np.array([features.low, features.high]), features.scale)
    points = np.linspace(float(low), float(high), features.mels + 2)
    edges = _from_mel(points, features.scale)
    bins = np.arange(features.n_fft // 2 + 1) * (rate / features.n_fft)
    bands, shares = np.zeros((features.mels, 2), np.int64), []
    for mel, (left, middle, right) in enumerate(zip(edges, edges[1:], edges[2:], strict=False)):
        inside = np.flatnonzero((bins > left) & (bins < right))
        hertz = bins[inside]
        share = np.minimum((hertz - left) / (middle - left), (right - hertz) / (right - middle))
        shares.append(share * (2 / (right - left)) if features.area else share)
        bands[mel] = inside[0] if len(inside) else 0, len(inside)
    return bands, np.concatenate(shares)


_LINEAR, _BEND, _STEP = 200 / 3, 1000.0, math.log(6.4) / 27
"""Slaney's scale: Hz a mel up to the bend, and the logarithm of a step above it."""


def _to_mel(hertz: Doubles, scale: Literal["htk", "slaney"]) -> Doubles:
    if scale == "htk":
        mel: Doubles = 2595.0 * np.log10(1.0 + hertz / 700.0)
        return mel
    above = np.log(np.maximum(hertz, _BEND) / _BEND) / _STEP
    return np.where(hertz < _BEND, hertz / _LINEAR, _BEND / _LINEAR + above)


def _from_mel(mel: Doubles, scale: Literal["htk", "slaney"]) -> Doubles:
    if scale == "htk":
        hertz: Doubles = 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
        return hertz
    above = _BEND * np.exp(_STEP * np.maximum(mel - _BEND / _LINEAR, 0.0))
    return np.where(mel < _BEND / _LINEAR, mel * _LINEAR, above)

"""The fused audio kernel: decode, mix down, resample, frame, Fourier transform, filters and log.

The samples of the clip are made once, with what is reflected at its ends. Then sixteen frames at a
time go through everything: windowed into eight complex signals, whose real and imaginary parts are
two frames next to each other; transformed; told apart and squared; summed into filters; and the
logarithms written. What is kept of them fits the processor's caches.

What stands here is Numba source: functions of pointers and numbers, in which the constants of the
spec are folded. The caller has checked every size; see `headrace.preprocess.audio.native`.
"""

# ruff: noqa: ANN001, ANN202, PLR0913, PLR0917, PLC0415 - loops over pointers, of one signature;
# what imports Numba is imported in the process that lowers
# mypy: disallow_untyped_defs=False

import numpy as np

from headrace.preprocess.audio.native import GROUP, signal_length
from headrace.preprocess.audio.reference import log_scale
from headrace.preprocess.audio.spec import AudioPreprocessing, Frames, LogMel, Waveform
from headrace.preprocess.audio.tables import fft_radices
from headrace_compiler.kernels.audio_samples import resample_of
from headrace_compiler.kernels.fft import fft_of
from headrace_compiler.kernels.sums import Inline, Kernel


def audio_kernel(spec: AudioPreprocessing, inline: Inline) -> Kernel:
    """The kernel of one spec.

    Its arguments, in the order of `headrace.preprocess.audio.native`: `source`, the bytes of the
    samples; `encoding`, the place of theirs in `ENCODINGS` there; `channels`; the numbers of
    `headrace.preprocess.audio.tables.Resampling` and its `weights`; the arrays of
    `headrace.preprocess.audio.tables.Tables`; `signal` and `work`, float64, as long as is said
    there; and `out`, the result.
    """
    samples, line = spec.clip.samples, signal_length(spec)
    lead, tail = _reflected(spec)
    last = lead + samples - 1
    resample, features = resample_of(inline), _features(spec, inline)

    def kernel(
        source, encoding, channels, used, made, orig, new, before, taps, weights,
        window, radices, twiddles, bands, shares, signal, work, out,
    ):  # fmt: skip
        for i in range(line):
            signal[i] = 0.0
        resample(
            source, encoding, channels, used, made, orig, new, before, taps, weights,
            signal, lead, line,
        )  # fmt: skip
        for i in range(1, lead + 1):
            signal[lead - i] = signal[lead + i]
        for i in range(1, tail + 1):
            signal[last + i] = signal[last - i]
        features(signal, made, window, radices, twiddles, bands, shares, work, out)
        return 0

    return kernel


def _reflected(spec: AudioPreprocessing) -> tuple[int, int]:
    """How many samples before and behind the clip its frames may reach, and find reflected."""
    features = spec.features
    if isinstance(features, Waveform) or not features.centre:
        return 0, 0
    return features.lead, features.length - features.lead


def _features(spec: AudioPreprocessing, inline: Inline) -> Kernel:
    match spec.features:
        case Waveform():
            return _waveform(spec.features, spec.clip.samples, inline)
        case Frames():
            return _frames(spec.features, spec.clip.samples, inline)
        case LogMel():
            return _log_mel(spec.features, spec.clip.samples, inline)


def _waveform(features: Waveform, samples: int, inline: Inline) -> Kernel:
    from headrace_compiler.kernels.audio_lanes import root

    summed, squared = _summed(inline, squared=False), _summed(inline, squared=True)
    standardize, epsilon = features.standardize, features.epsilon

    @inline
    def waveform(signal, made, window, radices, twiddles, bands, shares, work, out):  # noqa: ARG001
        mean, factor = 0.0, 1.0
        if standardize and made > 0:
            mean = summed(signal, made, 0.0) / made
            factor = 1.0 / root(squared(signal, made, mean) / made + epsilon)
        for i in range(made):
            out[i] = np.float32((signal[i] - mean) * factor)
        for i in range(made, samples):
            out[i] = np.float32(0)

    return waveform


def _summed(inline: Inline, *, squared: bool) -> Kernel:
    """The sum of `count` numbers less `mean`, or of their squares."""
    from headrace_compiler.kernels.audio_lanes import load, total, zeros

    @inline
    def term(value):
        return value * value if squared else value

    @inline
    def summed(signal, count, mean):
        lanes, whole = zeros(), count - count % 8
        for i in range(0, whole, 8):
            lanes += term(load(signal, i) - mean)
        rest = total(lanes)
        for i in range(whole, count):
            rest += term(signal[i] - mean)
        return rest

    return summed


def _frames(features: Frames, samples: int, inline: Inline) -> Kernel:
    count, length, hop = features.frames(samples), features.length, features.hop

    @inline
    def frames(signal, made, window, radices, twiddles, bands, shares, work, out):  # noqa: ARG001
        for frame in range(count):
            for i in range(length):
                out[frame * length + i] = np.float32(signal[frame * hop + i] * window[i])

    return frames


def _log_mel(features: LogMel, samples: int, inline: Inline) -> Kernel:
    spectrum, filters = _spectrum(features, inline), _filters(features, inline)
    logs, write = _logs(features, inline), _write(features, samples, inline)
    count, hop, mels = features.frames(samples), features.hop, features.mels
    energies = 32 * features.n_fft
    begin, reached = features.lead, features.length if features.centre else 0
    ranged = features.dynamic_range is not None
    depth = (features.dynamic_range or 0.0) / features.std
    values = count * mels

    @inline
    def log_mel(signal, made, window, radices, twiddles, bands, shares, work, out):
        # Behind the last sample all is silence, unless what is reflected there is not.
        silent = begin + (made if made + reached < samples else samples + reached)
        loudest = -np.inf
        for frame in range(0, count, GROUP):
            if frame * hop >= silent:
                for i in range(energies, energies + GROUP * mels):
                    work[i] = 0.0
            else:
                power = spectrum(signal, frame * hop, window, radices, twiddles, work)
                filters(work, power, bands, shares)
            logs(work)
            loudest = max(loudest, write(work, frame, out))
        if ranged:
            least = np.float32(loudest - depth)
            for i in range(values):
                out[i] = max(out[i], least)

    return log_mel


def _spectrum(features: LogMel, inline: Inline) -> Kernel:
    """The magnitude of sixteen frames to its power; returns where in `work` it lies.

    Bin k has sixteen numbers from `16 * k` on: those of the even frames, then of the odd ones.
    """
    from headrace_compiler.kernels.audio_lanes import gather, load, root, store, zeros

    n, length, hop = features.n_fft, features.length, features.hop
    used = fft_radices(n)
    stages, fft, magnitude = len(used), fft_of(used, inline), features.power == 1

    @inline
    def spectrum(signal, start, window, radices, twiddles, work):
        for i in range(length):
            store(work, 16 * i, gather(signal, start + i, 2 * hop) * window[i])
            store(work, 16 * i + 8, gather(signal, start + hop + i, 2 * hop) * window[i])
        for i in range(16 * length, 16 * n, 8):
            store(work, i, zeros())
        found = fft(work, n, radices, stages, twiddles)
        power = 16 * n - found
        for k in range(n // 2 + 1):
            a, b = found + 16 * k, found + 16 * (n - k if k else 0)
            ar, ai, br, bi = load(work, a), load(work, a + 8), load(work, b), load(work, b + 8)
            er, ei, fr, fi = ar + br, ai - bi, ai + bi, br - ar
            even, odd = (er * er + ei * ei) * 0.25, (fr * fr + fi * fi) * 0.25
            if magnitude:
                even, odd = root(even), root(odd)
            store(work, power + 16 * k, even)
            store(work, power + 16 * k + 8, odd)
        return power

    return spectrum


def _filters(features: LogMel, inline: Inline) -> Kernel:
    """Sums sixteen spectra from `work[power]` on into filters."""
    from headrace_compiler.kernels.audio_lanes import load, store, zeros

    mels, energies = features.mels, 32 * features.n_fft

    @inline
    def filters(work, power, bands, shares):
        share = 0
        for mel in range(mels):
            even, odd, at = zeros(), zeros(), power + 16 * bands[2 * mel]
            for _ in range(bands[2 * mel + 1]):
                weight = shares[share]
                even += load(work, at) * weight
                odd += load(work, at + 8) * weight
                share, at = share + 1, at + 16
            store(work, energies + 16 * mel, even)
            store(work, energies + 16 * mel + 8, odd)

    return filters


def _logs(features: LogMel, inline: Inline) -> Kernel:
    """Turns the energies of sixteen frames into the values of the result."""
    log, floor = _log(inline), features.floor
    factor, shift = log_scale(features) / features.std, -features.mean / features.std
    begin, end = 32 * features.n_fft, 32 * features.n_fft + GROUP * features.mels

    @inline
    def logs(work):
        for i in range(begin, end):
            work[i] = log(max(work[i], floor)) * factor + shift

    return logs


def _write(features: LogMel, samples: int, inline: Inline) -> Kernel:
    """Writes the values of up to sixteen frames; returns the largest."""
    count, mels, energies = features.frames(samples), features.mels, 32 * features.n_fft
    rows = features.layout == "mels-frames"
    over_mel, over_frame = (count, 1) if rows else (1, mels)

    @inline
    def write(work, frame, out):
        loudest = -np.inf
        for mel in range(mels):
            at = mel * over_mel + frame * over_frame
            for i in range(min(GROUP, count - frame)):
                value = work[energies + 16 * mel + i // 2 + i % 2 * 8]
                loudest = max(loudest, value)
                out[at + i * over_frame] = np.float32(value)
        return loudest

    return write


_ONE = 1023 << 52  # the bits of 1.0
_ROOT_HALF = 0x3FE6A09E667F3BCD  # the bits of the square root of one half
_WHOLE = 0x4330000000000000  # the bits of 2**52: a whole number below it stands in the last ones


def _log(inline: Inline) -> Kernel:
    """The natural logarithm of a normal, positive number, to 1e-13 of itself.

    The number is 2**e m, with m between the square roots of 1/2 and 2; log(m) is 2 atanh(s), where
    s = (m - 1) / (m + 1) is below .172, of which eight terms of the series are taken. Whole numbers
    become floats by their bits, since AVX2 has no instruction for it.
    """
    log2 = float(np.log(2.0))
    terms = tuple(2.0 / (2 * k + 1) for k in range(8))
    t0, t1, t2, t3, t4, t5, t6, t7 = terms

    @inline
    def log(value):
        bits = np.float64(value).view(np.int64)
        moved = (bits + (_ONE - _ROOT_HALF)) >> 52
        exponent = np.int64(moved | _WHOLE).view(np.float64) - (2.0**52 + 1023)
        m = np.int64(bits - ((moved - 1023) << 52)).view(np.float64)
        s = (m - 1.0) / (m + 1.0)
        x = s * s
        y = x * x
        low = (t0 + t1 * x) + (t2 + t3 * x) * y
        high = (t4 + t5 * x) + (t6 + t7 * x) * y
        return exponent * log2 + s * (low + high * (y * y))

    return log

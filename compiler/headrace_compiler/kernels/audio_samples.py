"""From the bytes of a recording to the samples of a clip: mono, resampled.

Numba source, as in `headrace_compiler.kernels.image`.
"""

# ruff: noqa: ANN001, ANN202, PLR0913, PLR0917, PLC0415 - loops over pointers, of one signature;
# what imports Numba is imported in the process that lowers
# mypy: disallow_untyped_defs=False

import numpy as np

from headrace.preprocess.audio.native import OUTPUTS
from headrace_compiler.kernels.sums import Inline, Kernel


def resample_of(inline: Inline) -> Kernel:
    """Writes `made` samples to `signal[to]`, which holds zeros; `signal[line]` is for its own use.

    The other numbers are those of `headrace.preprocess.audio.tables.Resampling`. Where there are no
    taps, samples are taken as they are.
    """
    mono, dots = _mono(inline), _dots(inline)

    @inline
    def resample(
        source, encoding, channels, used, made, orig, new, before, taps, weights, signal, to, line
    ):
        for begin in range(0, made, OUTPUTS):
            end = min(begin + OUTPUTS, made)
            first, last, place = begin, end, to + begin
            if taps > 0:
                first = begin * orig // new - before
                last, place = (end - 1) * orig // new - before + taps, line
                for i in range(line, line + last - first):
                    signal[i] = 0.0
            low, high = max(first, 0), min(last, used)
            mono(source, encoding, channels, low, high - low, signal, place + low - first)
            if taps > 0:
                dots(signal, line, begin, end, orig, new, taps, weights, to)

    return resample


def _dots(inline: Inline) -> Kernel:
    """The samples from `begin` to before `end`, of a line of sources that begins with theirs."""
    from headrace_compiler.kernels.audio_lanes import load, total, zeros

    @inline
    def dots(signal, line, begin, end, orig, new, taps, weights, to):
        whole, rest, phase = orig // new, orig % new, begin % new
        at, part = line, begin * orig % new
        for sample in range(begin, end):
            summed = zeros()
            for tap in range(0, taps, 8):
                summed += load(signal, at + tap) * load(weights, phase * taps + tap)
            signal[to + sample] = total(summed)
            at, part, phase = at + whole, part + rest, phase + 1
            if part >= new:
                at, part = at + 1, part - new
            if phase == new:
                phase = 0

    return dots


def _mono(inline: Inline) -> Kernel:
    """Adds the mean of the channels of some frames, on the scale -1..1.

    `encoding` is a place in `headrace.preprocess.audio.native.ENCODINGS`.
    """
    u8, s16, s24, s32, f32 = (_mean(read, inline) for read in _readers(inline))

    @inline
    def mono(source, encoding, channels, first, count, out, to):
        if encoding == 0:
            u8(source, channels, first, count, 1, out, to)
        elif encoding == 1:
            s16(source, channels, first, count, 2, out, to)
        elif encoding == 2:
            s24(source, channels, first, count, 3, out, to)
        elif encoding == 3:
            s32(source, channels, first, count, 4, out, to)
        else:
            f32(source, channels, first, count, 4, out, to)

    return mono


def _mean(read: Kernel, inline: Inline) -> Kernel:
    """Adds one channel after the other to what holds zeros: so many frames are added at once."""

    @inline
    def mean(source, channels, first, count, width, out, to):
        for channel in range(channels):
            at, step = (first * channels + channel) * width, channels * width
            for i in range(count):
                out[to + i] += read(source, at + i * step)
        if channels > 1:
            for i in range(count):
                out[to + i] /= channels

    return mean


def _readers(inline: Inline) -> tuple[Kernel, ...]:
    """What reads a sample of each encoding, in the order of `ENCODINGS`: little-endian bytes."""

    @inline
    def u8(source, at):
        return (np.float64(source[at]) - 128.0) * 2.0**-7

    @inline
    def s16(source, at):
        value = np.uint16(source[at]) | np.uint16(source[at + 1]) << np.uint16(8)
        return np.float64(np.uint16(value).view(np.int16)) * 2.0**-15

    @inline
    def s24(source, at):
        low = np.uint32(source[at]) << np.uint32(8) | np.uint32(source[at + 1]) << np.uint32(16)
        value = np.uint32(low | np.uint32(source[at + 2]) << np.uint32(24))
        return np.float64(value.view(np.int32)) * 2.0**-31

    @inline
    def word(source, at):
        low = np.uint32(source[at]) | np.uint32(source[at + 1]) << np.uint32(8)
        high = np.uint32(source[at + 2]) | np.uint32(source[at + 3]) << np.uint32(8)
        return np.uint32(low | high << np.uint32(16))

    @inline
    def s32(source, at):
        return np.float64(np.uint32(word(source, at)).view(np.int32)) * 2.0**-31

    @inline
    def f32(source, at):
        return np.float64(np.uint32(word(source, at)).view(np.float32))

    return u8, s16, s24, s32, f32

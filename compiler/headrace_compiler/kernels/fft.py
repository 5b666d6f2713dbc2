"""Fourier transforms of eight complex signals at once: a mixed-radix Stockham FFT in float64.

Element e of the eight signals is kept as sixteen numbers from `16 * e` on: their real parts, then
their imaginary parts. So every operation of a butterfly is one on a vector, whatever the radix,
and the result comes in its natural order. Numba source, as in `headrace_compiler.kernels.image`.

Source: the decimation in frequency of P. N. Swarztrauber, "FFT algorithms for vector computers",
1984; the butterflies of three and five of S. Winograd, "On computing the discrete Fourier
transform", 1978.
"""

# ruff: noqa: ANN001, ANN202, PLC0415 - loops over pointers;
# what imports Numba is imported in the process that lowers
# mypy: disallow_untyped_defs=False

import math
from collections.abc import Collection

from headrace_compiler.kernels.sums import Inline, Kernel


def fft_of(radices_used: Collection[int], inline: Inline) -> Kernel:
    """Transforms what lies in `work`, and returns where the result lies: at 0 or at `16 * n`.

    Its arguments: `work`, float64, room for 32 * n; `n`; `radices`, `stages` of them, whose
    product is n, all among those used; and `twiddles`, of
    `headrace.preprocess.audio.tables.twiddle_factors`.
    """
    five, four, three, two = (radix in radices_used for radix in (5, 4, 3, 2))
    stage2, stage3 = _stage2(inline), _stage3(inline)
    stage4, stage5 = _stage4(inline), _stage5(inline)

    @inline
    def fft(work, n, radices, stages, twiddles):
        source, to = 0, 16 * n
        groups, size, at = n, 1, 0
        for stage in range(stages):
            radix = radices[stage]
            groups //= radix
            # What is not used is known to Numba, which leaves it out.
            if five and radix == 5:
                stage5(work, source, to, groups, size, twiddles, at)
            if four and radix == 4:
                stage4(work, source, to, groups, size, twiddles, at)
            if three and radix == 3:
                stage3(work, source, to, groups, size, twiddles, at)
            if two and radix == 2:
                stage2(work, source, to, groups, size, twiddles, at)
            at += 2 * (radix - 1) * groups
            size *= radix
            source, to = to, source
        return source

    return fft


def _stage2(inline: Inline) -> Kernel:
    from headrace_compiler.kernels.audio_lanes import load, store, store_turned

    @inline
    def stage2(work, source, to, groups, size, twiddles, at):
        apart, step = 16 * groups * size, 16 * size
        for group in range(groups):
            turn = at + 2 * group
            for i in range(16 * size * group, 16 * size * (group + 1), 16):
                a, b = source + i, source + i + apart
                ar, ai, br, bi = load(work, a), load(work, a + 8), load(work, b), load(work, b + 8)
                o = to + i + step * group
                store(work, o, ar + br)
                store(work, o + 8, ai + bi)
                store_turned(work, o + step, ar - br, ai - bi, twiddles, turn)

    return stage2


def _stage3(inline: Inline) -> Kernel:
    from headrace_compiler.kernels.audio_lanes import load, store, store_turned

    half, sine = 0.5, math.sin(2 * math.pi / 3)

    @inline
    def stage3(work, source, to, groups, size, twiddles, at):
        apart, step = 16 * groups * size, 16 * size
        for group in range(groups):
            turn = at + 4 * group
            for i in range(16 * size * group, 16 * size * (group + 1), 16):
                a, b, c = source + i, source + i + apart, source + i + 2 * apart
                ar, ai, br, bi = load(work, a), load(work, a + 8), load(work, b), load(work, b + 8)
                cr, ci = load(work, c), load(work, c + 8)
                sr, si = br + cr, bi + ci
                dr, di = (br - cr) * sine, (bi - ci) * sine
                mr, mi = ar - sr * half, ai - si * half
                o = to + i + 2 * step * group
                store(work, o, ar + sr)
                store(work, o + 8, ai + si)
                store_turned(work, o + step, mr + di, mi - dr, twiddles, turn)
                store_turned(work, o + 2 * step, mr - di, mi + dr, twiddles, turn + 2)

    return stage3


def _stage4(inline: Inline) -> Kernel:
    from headrace_compiler.kernels.audio_lanes import load, store, store_turned

    @inline
    def stage4(work, source, to, groups, size, twiddles, at):
        apart, step = 16 * groups * size, 16 * size
        for group in range(groups):
            turn = at + 6 * group
            for i in range(16 * size * group, 16 * size * (group + 1), 16):
                a, b = source + i, source + i + apart
                c, d = a + 2 * apart, b + 2 * apart
                ar, ai, br, bi = load(work, a), load(work, a + 8), load(work, b), load(work, b + 8)
                cr, ci, dr, di = load(work, c), load(work, c + 8), load(work, d), load(work, d + 8)
                er, ei, fr, fi = ar + cr, ai + ci, ar - cr, ai - ci
                gr, gi, hr, hi = br + dr, bi + di, br - dr, bi - di
                o = to + i + 3 * step * group
                store(work, o, er + gr)
                store(work, o + 8, ei + gi)
                store_turned(work, o + step, fr + hi, fi - hr, twiddles, turn)
                store_turned(work, o + 2 * step, er - gr, ei - gi, twiddles, turn + 2)
                store_turned(work, o + 3 * step, fr - hi, fi + hr, twiddles, turn + 4)

    return stage4


def _stage5(inline: Inline) -> Kernel:
    from headrace_compiler.kernels.audio_lanes import load, store, store_turned

    cos1, cos2 = math.cos(2 * math.pi / 5), math.cos(4 * math.pi / 5)
    sin1, sin2 = math.sin(2 * math.pi / 5), math.sin(4 * math.pi / 5)

    @inline
    def stage5(work, source, to, groups, size, twiddles, at):
        apart, step = 16 * groups * size, 16 * size
        for group in range(groups):
            turn = at + 8 * group
            for i in range(16 * size * group, 16 * size * (group + 1), 16):
                a, b = source + i, source + i + apart
                c, d, e = a + 2 * apart, b + 2 * apart, a + 4 * apart
                ar, ai, br, bi = load(work, a), load(work, a + 8), load(work, b), load(work, b + 8)
                cr, ci, dr, di = load(work, c), load(work, c + 8), load(work, d), load(work, d + 8)
                er, ei = load(work, e), load(work, e + 8)
                pr, pi, qr, qi = br + er, bi + ei, cr + dr, ci + di
                ur, ui, vr, vi = br - er, bi - ei, cr - dr, ci - di
                mr, mi = ar + pr * cos1 + qr * cos2, ai + pi * cos1 + qi * cos2
                nr, ni = ar + pr * cos2 + qr * cos1, ai + pi * cos2 + qi * cos1
                sr, si = ur * sin1 + vr * sin2, ui * sin1 + vi * sin2
                tr, ti = ur * sin2 - vr * sin1, ui * sin2 - vi * sin1
                o = to + i + 4 * step * group
                store(work, o, ar + pr + qr)
                store(work, o + 8, ai + pi + qi)
                store_turned(work, o + step, mr + si, mi - sr, twiddles, turn)
                store_turned(work, o + 2 * step, nr + ti, ni - tr, twiddles, turn + 2)
                store_turned(work, o + 3 * step, nr - ti, ni + tr, twiddles, turn + 4)
                store_turned(work, o + 4 * step, mr - si, mi + sr, twiddles, turn + 6)

    return stage5

"""Prepares recordings with the native library that a bundle carries: nothing is compiled here."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from headrace.native import Argument, Function, NativeFunction
from headrace.preprocess.audio.decode import Encoding, Recording
from headrace.preprocess.audio.reference import decode_row
from headrace.preprocess.audio.spec import AudioPreprocessing, LogMel, Waveform
from headrace.preprocess.audio.tables import Doubles, Resampling, feature_tables
from headrace.tensors import Array, room_for

ENCODINGS: tuple[Encoding, ...] = ("u8", "s16", "s24", "s32", "f32")
"""The kernel knows each by its place."""
GROUP = 16
"""Frames that the kernel makes at a time: eight vectors' real and imaginary parts."""
OUTPUTS = 512
"""Samples that the kernel resamples at a time."""


def audio_function(spec: AudioPreprocessing) -> Function:  # noqa: ARG001 - one for all specs
    """The function of a spec; `headrace_compiler.kernels.audio` tells its arguments."""
    tables: tuple[Argument, ...] = ("float64*", "int64*", "float64*", "int64*", "float64*")
    room: tuple[Argument, ...] = ("float64*", "float64*", "float32*")
    arguments: tuple[Argument, ...] = ("uint8*", *("int64",) * 8, "float64*", *tables, *room)
    return Function("headrace_prepare_audio", arguments)


class NativeAudio:
    """Decodes and prepares batches of WAV files.

    Args:
        library: The bytes of the shared library; the caller has checked their digest.
        spec: What the library was compiled from.
        threads: That work on one batch.

    Raises:
        BundleError: The bytes are no library with the function.
    """

    def __init__(self, library: bytes, spec: AudioPreprocessing, *, threads: int = 1) -> None:
        self._function = NativeFunction(library, audio_function(spec))
        self._spec = spec
        self._tables = feature_tables(spec)
        self._scratch = threading.local()
        self._pool = ThreadPoolExecutor(threads, "headrace-prepare") if threads > 1 else None

    def prepare(self, contents: Sequence[bytes], out: Array | None = None) -> Array:
        """As the reference's `prepare`; recordings are shared out to the threads.

        Args:
            contents: One file a row.
            out: Where to write, if not into a new array: float32, shape (len(contents),
                *spec.shape), C-contiguous.

        Raises:
            InvalidRequestError: One of them is no recording that can be decoded.
            TooLargeError: One of them lasts longer than the spec allows.
            UsageError: `out` has another shape or dtype.
        """
        made = room_for((len(contents), *self._spec.shape), np.dtype(np.float32), out)

        def fill(row: int) -> None:
            self._make(*decode_row(self._spec, contents, row), made[row])

        if self._pool is None or len(contents) == 1:
            for row in range(len(contents)):
                fill(row)
        else:
            list(self._pool.map(fill, range(len(contents))))
        return made

    def _make(self, recording: Recording, how: Resampling, out: Array) -> None:
        """Prepares one recording. Everything was checked; only sizes of scratch come here."""
        tables = self._tables
        signal, work = self._room(signal_length(self._spec) + line_length(how))
        self._function(
            recording.data.ctypes.data,
            ENCODINGS.index(recording.encoding),
            recording.channels,
            *(how.used, how.made, how.orig, how.new, how.before, how.taps),
            how.weights.ctypes.data,
            tables.window.ctypes.data,
            tables.radices.ctypes.data,
            tables.twiddles.ctypes.data,
            tables.bands.ctypes.data,
            tables.shares.ctypes.data,
            signal.ctypes.data,
            work.ctypes.data,
            out.ctypes.data,
        )

    def _room(self, floats: int) -> tuple[Doubles, Doubles]:
        """Scratch of this thread, the first at least so large."""
        held: tuple[Doubles, Doubles] | None = getattr(self._scratch, "held", None)
        if held is None or len(held[0]) < floats:
            held = np.empty(floats), np.empty(work_length(self._spec))
            self._scratch.held = held
        return held


def signal_length(spec: AudioPreprocessing) -> int:
    """How many float64 the kernel keeps of a clip: its samples, and what frames reach beyond."""
    features, samples = spec.features, spec.clip.samples
    if isinstance(features, Waveform):
        return samples
    groups = -(-features.frames(samples) // GROUP)
    reached = (groups * GROUP - 1) * features.hop + features.length
    return max(samples + features.length, reached)


def line_length(how: Resampling) -> int:
    """How many float64 it keeps of a recording that it resamples."""
    return (OUTPUTS - 1) * how.orig // how.new + 1 + how.taps if how.taps else 0


def work_length(spec: AudioPreprocessing) -> int:
    """How many float64 it transforms in: two buffers of complex vectors, and the filters' sums."""
    features = spec.features
    return 32 * features.n_fft + GROUP * features.mels if isinstance(features, LogMel) else 0

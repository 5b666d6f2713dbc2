"""What preprocessing of audio a bundle declares: recordings become one tensor of the model.

The spec is data. The reference (`headrace.preprocess.audio.reference`) says what it means, slowly.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from headrace.tensors import BATCH, Frozen, TensorName, TensorSpec

LOWEST_RATE, HIGHEST_RATE = 1000, 384_000
"""In Hz; of recordings, and of what they are resampled to."""
LARGEST_FFT = 8192
_MOST_VALUES = 2**24  # of one prepared recording

Rate = Annotated[int, Field(ge=LOWEST_RATE, le=HIGHEST_RATE)]
Hertz = Annotated[float, Field(ge=0.0, le=HIGHEST_RATE / 2)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]


class Decode(Frozen):
    """A WAV file to mono samples on the scale -1..1, the mean of its channels.

    Unsigned 8-bit, signed 16-, 24- and 32-bit and 32-bit float samples are taken, in up to 64
    channels, at rates from 1000 to 384000 Hz. Floats are taken as they are.

    Attributes:
        max_seconds: Longer recordings are refused by their header.
    """

    op: Literal["decode"] = "decode"
    max_seconds: Annotated[float, Field(gt=0.0, le=3600.0)] = 60.0


class Resample(Frozen):
    """Resamples to `rate`, in Hz, by a sinc of six zeros a side under a Hann window.

    Frequencies up to .99 of the lower Nyquist frequency are meant to pass. A recording of n
    samples becomes `ceil(n * rate / its own)` of them.

    Source: torchaudio.functional.resample, of lowpass_filter_width=6, rolloff=0.99 and
    resampling_method="sinc_interp_hann".
    """

    op: Literal["resample"] = "resample"
    rate: Rate


class Clip(Frozen):
    """Exactly `samples` samples: longer recordings keep their start, shorter ones end in zeros."""

    op: Literal["clip"] = "clip"
    samples: Annotated[int, Field(ge=1, le=2**23)]


class Waveform(Frozen):
    """The samples themselves, shape (samples,).

    Attributes:
        standardize: `(x - mean) / sqrt(variance + epsilon)`, of the recording's own samples that
            the clip keeps; the zeros that fill the clip stay zeros.
        epsilon: Keeps silence from being blown up. The default is that of Wav2Vec2's extractor.
    """

    op: Literal["waveform"] = "waveform"
    standardize: bool = False
    epsilon: Positive = 1e-7

    def shape(self, samples: int) -> tuple[int, ...]:
        """Of what becomes of a clip."""
        return (samples,)


class _Framing(Frozen):
    """Overlapping frames, each multiplied by a window.

    Attributes:
        length: Samples a frame.
        hop: From one frame to the next.
        window: Periodic, as for a short-time Fourier transform.
        centre: Frame t has its middle at sample t * hop, and what it reaches beyond the clip is
            reflected; there are `1 + samples // hop`. Otherwise it begins there, and only frames
            that fit are made.
        drop_last: Leave the last frame out, as Whisper does.
    """

    length: Annotated[int, Field(ge=1, le=LARGEST_FFT)]
    hop: Annotated[int, Field(ge=1, le=2**16)]
    window: Literal["hann", "hamming", "rectangular"] = "hann"
    centre: bool = True
    drop_last: bool = False

    @property
    def lead(self) -> int:
        """How many samples before the clip the first frame begins."""
        return self.length // 2 if self.centre else 0

    def frames(self, samples: int) -> int:
        """How many frames there are of a clip."""
        fitting = samples if self.centre else samples - self.length
        return fitting // self.hop + (0 if self.drop_last else 1)

    def check(self, samples: int) -> None:
        """Checks that a clip has frames.

        Raises:
            ValueError: It is too short.
        """
        least = self.length // 2 + self.length % 2 + 1 if self.centre else self.length
        if samples < least or self.frames(samples) < 1:
            raise ValueError(f"a clip of {samples} samples is too short for such frames")


class Frames(_Framing):
    """Windowed frames, shape (frames, length)."""

    op: Literal["frames"] = "frames"

    def shape(self, samples: int) -> tuple[int, ...]:
        """Of what becomes of a clip."""
        return (self.frames(samples), self.length)


class LogMel(_Framing):
    """The log-mel spectrogram: `(log(max(mel @ |rfft(frame)| ** power, floor)) - mean) / std`.

    Each frame is filled with zeros to `n_fft`. Where `length` is shorter than an even `n_fft`,
    this is what `torch.stft(center=True)` and librosa give, which centre the window there: the
    magnitude of a spectrum does not know of shifts.

    Attributes:
        n_fft: A product of 2, 3 and 5, at least `length`.
        mels: How many triangular filters, linear in Hz, equally spaced on the scale.
        low: Where the first begins, in Hz.
        high: Where the last ends, in Hz, at most half the rate.
        scale: `htk` is 2595 log10(1 + f / 700); `slaney` is linear up to 1 kHz and logarithmic
            above.
        area: Divide each filter by half its width in Hz, as Slaney's toolbox and librosa do.
        log: `db` is 10 log10 of a power, 20 log10 of a magnitude.
        floor: The least that is taken the logarithm of. In float64 a spectrum knows little that
            lies 1e-14 below the loudest magnitude of its frame.
        dynamic_range: Nothing lies further than this below the clip's loudest value, in units of
            the logarithm, before mean and std. Whisper's is 8.
    """

    op: Literal["log_mel"] = "log_mel"
    n_fft: Annotated[int, Field(ge=2, le=LARGEST_FFT)]
    mels: Annotated[int, Field(ge=1, le=512)]
    low: Hertz = 0.0
    high: Hertz
    scale: Literal["htk", "slaney"] = "htk"
    area: bool = False
    power: Literal[1, 2] = 2
    log: Literal["ln", "log10", "db"] = "ln"
    floor: Annotated[float, Field(ge=1e-20, le=1.0)] = 1e-10
    dynamic_range: Positive | None = None
    mean: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    std: Positive = 1.0
    layout: Literal["mels-frames", "frames-mels"] = "mels-frames"

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        rest = self.n_fft
        for radix in (2, 3, 5):
            while rest % radix == 0:
                rest //= radix
        if rest != 1:
            raise ValueError(f"n_fft must be a product of 2, 3 and 5, and {self.n_fft} is not")
        if self.length > self.n_fft:
            raise ValueError("a frame is longer than n_fft")
        if self.low >= self.high:
            raise ValueError("low must be below high")
        return self

    def shape(self, samples: int) -> tuple[int, ...]:
        """Of what becomes of a clip."""
        frames = self.frames(samples)
        return (self.mels, frames) if self.layout == "mels-frames" else (frames, self.mels)


class AudioPreprocessing(Frozen):
    """One audio pipeline, whose operations stand in this order.

    Attributes:
        input: The name under which clients send WAV files: datatype BYTES, shape (batch,).
        output: The model input that the pipeline fills: FP32, shape (batch, *shape).
    """

    kind: Literal["audio"] = "audio"
    input: TensorName
    output: Annotated[str, Field(max_length=128)]
    decode: Decode = Decode()
    resample: Resample
    clip: Clip
    features: Annotated[Waveform | Frames | LogMel, Field(discriminator="op")]

    @model_validator(mode="after")
    def _operations_fit(self) -> Self:
        if not isinstance(self.features, Waveform):
            self.features.check(self.clip.samples)
            first, second = self.features.shape(self.clip.samples)
            if first * second > _MOST_VALUES:
                raise ValueError(f"{first} x {second} values of one recording are too many")
        if isinstance(self.features, LogMel) and self.features.high > self.resample.rate / 2:
            raise ValueError("high lies above half the rate")
        if self.input == self.output:
            raise ValueError("the raw input needs a name other than the model's own")
        return self

    @property
    def takes(self) -> tuple[TensorSpec, ...]:
        """What clients send."""
        return (TensorSpec(name=self.input, datatype="BYTES", shape=(BATCH,)),)

    @property
    def makes(self) -> tuple[TensorSpec, ...]:
        """The model inputs that are filled."""
        return (TensorSpec(name=self.output, datatype="FP32", shape=(BATCH, *self.shape)),)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one prepared recording, without the batch axis."""
        return self.features.shape(self.clip.samples)

"""The reference of audio: what the formulas say, computed another way."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from recordings import noise, wave_file

from headrace.errors import InvalidRequestError, TooLargeError
from headrace.preprocess.audio.reference import prepare
from headrace.preprocess.audio.spec import (
    AudioPreprocessing,
    Clip,
    Decode,
    Frames,
    LogMel,
    Resample,
    Waveform,
)
from headrace.preprocess.audio.tables import resampling, sinc_weights

Doubles = npt.NDArray[np.float64]


def pipeline(
    features: Waveform | Frames | LogMel, samples: int, rate: int = 16000
) -> AudioPreprocessing:
    """A pipeline."""
    return AudioPreprocessing(
        input="recording",
        output="values",
        decode=Decode(max_seconds=2.0),
        resample=Resample(rate=rate),
        clip=Clip(samples=samples),
        features=features,
    )


def samples_of(content: Doubles, rate: int, wanted: int, samples: int) -> Doubles:
    """The clip that becomes of a recording of float samples."""
    spec = pipeline(Waveform(), samples, wanted)
    made: Doubles = prepare(spec, [wave_file(content, rate, "f32")])[0].astype(np.float64)
    return made


def windowed_sinc(x: float) -> float:
    """Under a Hann window that ends at the sixth zero."""
    return math.cos(math.pi * x / 12) ** 2 * (math.sin(math.pi * x) / (math.pi * x) if x else 1.0)


def sinc_sum(source: Doubles, orig: int, new: int) -> Doubles:
    """What torchaudio's resampling is, sample by sample, over all of the source."""
    cutoff = 0.99 * min(orig, new)
    made = []
    for place in range(math.ceil(len(source) * new / orig)):
        t = [cutoff * (k / orig - place / new) for k in range(len(source))]
        weights = [windowed_sinc(x) if abs(x) < 6 else 0.0 for x in t]
        made.append(cutoff / orig * math.fsum(np.array(weights) * source))
    return np.array(made)


@pytest.mark.parametrize("frames", [1, 2, 50, 333])
@pytest.mark.parametrize(
    ("rate", "wanted"),
    [(44100, 16000), (8000, 16000), (16000, 11025), (15999, 16000), (48000, 1000), (1000, 1001)],
)
def test_resampling_is_the_sum_of_sincs(rate: int, wanted: int, frames: int) -> None:
    """Of the whole recording, whose outside is silent; what is made of it ends where it does."""
    source = noise(frames)[:, 0].astype(np.float32).astype(np.float64)
    expected = sinc_sum(source, rate, wanted)
    found = samples_of(source, rate, wanted, len(expected) + 5)
    assert np.abs(found[: len(expected)] - expected).max() < 2e-7
    assert not found[len(expected) :].any()


def test_a_tone_keeps_its_frequency_and_amplitude() -> None:
    """440 Hz from 44.1 to 16 kHz: what is left when the tone is taken out is small."""
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(44100) / 44100 + 0.3)
    found = samples_of(tone, 44100, 16000, 16000)[200:-200]
    turn = 2 * np.pi * 440 * np.arange(200, 15800) / 16000
    wave = np.array([np.sin(turn), np.cos(turn)]).T
    fitted, *_ = np.linalg.lstsq(wave, found)
    assert math.hypot(*fitted) == pytest.approx(0.5, abs=1e-3)
    assert math.atan2(fitted[1], fitted[0]) == pytest.approx(0.3, abs=1e-3)
    assert np.abs(found - wave @ fitted).max() < 1e-3


def test_frequencies_that_cannot_be_kept_do_not_come_back() -> None:
    """12 kHz is beyond what 16 kHz can say: it is not heard as 4 kHz."""
    tone = np.sin(2 * np.pi * 12000 * np.arange(44100) / 44100)
    assert np.abs(samples_of(tone, 44100, 16000, 16000)[200:-200]).max() < 3e-3


def test_equal_rates_leave_samples_as_they_are() -> None:
    """Bit by bit; longer recordings keep their start, shorter ones are filled with zeros."""
    content = noise(50)[:, 0].astype(np.float32).astype(np.float64)
    for samples in (30, 50, 80):
        wanted = np.zeros(samples)
        wanted[: min(50, samples)] = content[:samples]
        np.testing.assert_array_equal(samples_of(content, 16000, 16000, samples), wanted)


def test_only_weights_that_are_used_are_made_of_odd_rates() -> None:
    """Of rates that share no factor with the wanted one there could be 37 megabytes."""
    spec = pipeline(Waveform(), 16000)
    made = resampling(spec, 383_999, 1000).weights
    assert len(made) == math.ceil(1000 * 16000 / 383_999)
    np.testing.assert_array_equal(made, sinc_weights(383_999, 16000, 42))
    assert resampling(spec, 44100, 10).weights is resampling(spec, 44100, 99).weights


def test_samples_that_do_not_reach_the_clip_are_not_read() -> None:
    """There may be what is no number; just before them there may not."""
    content = np.zeros(1000)
    spec = pipeline(Waveform(), 100)
    used = resampling(spec, 44100, 1000).used
    assert used == math.floor(99 * 44100 / 16000) + 17 + 1
    content[used] = np.nan
    assert not prepare(spec, [wave_file(content, 44100, "f32")]).any()
    content[used - 1] = np.nan
    with pytest.raises(InvalidRequestError):
        prepare(spec, [wave_file(content, 44100, "f32")])


def test_waveforms_are_standardized_over_the_recording_alone() -> None:
    """As Wav2Vec2's extractor does: what fills the clip is zero before and after."""
    content = (0.25 + 0.1 * noise(100)[:, 0]).astype(np.float32)
    spec = pipeline(Waveform(standardize=True), 150)
    found = prepare(spec, [wave_file(content.astype(np.float64), encoding="f32")])[0]
    exact = content.astype(np.float64)
    wanted = (exact - exact.mean()) / np.sqrt(exact.var() + 1e-7)
    np.testing.assert_allclose(found[:100], wanted, rtol=0, atol=1e-6)
    assert not found[100:].any()
    silent = prepare(spec, [wave_file(np.zeros(0)), wave_file(np.full(9, 0.5))])
    assert not silent.any()


def test_frames_are_cut_windowed_and_reflected() -> None:
    """Each has its middle at a multiple of the hop."""
    content = np.arange(1.0, 11.0) / 16
    frames = Frames(length=4, hop=3, window="rectangular")
    found = prepare(pipeline(frames, 10), [wave_file(content)])[0] * 16
    np.testing.assert_array_equal(found, [[3, 2, 1, 2], [2, 3, 4, 5], [5, 6, 7, 8], [8, 9, 10, 9]])
    plain = Frames(length=4, hop=3, window="rectangular", centre=False)
    found = prepare(pipeline(plain, 10), [wave_file(content)])[0] * 16
    np.testing.assert_array_equal(found, [[1, 2, 3, 4], [4, 5, 6, 7], [7, 8, 9, 10]])
    hann = prepare(pipeline(Frames(length=4, hop=3), 10), [wave_file(content)])[0] * 16
    np.testing.assert_allclose(hann[1], [0, 1.5, 4, 2.5], atol=1e-6)


def mel_of(hertz: float, scale: str) -> float:
    """A frequency on a mel scale."""
    if scale == "htk":
        return 2595 * math.log10(1 + hertz / 700)
    return hertz * 3 / 200 if hertz < 1000 else 15 + 27 * math.log(hertz / 1000) / math.log(6.4)


def hertz_of(mel: float, scale: str) -> float:
    """The frequency of a mel."""
    if scale == "htk":
        return 700 * (10 ** (mel / 2595) - 1)
    return mel * 200 / 3 if mel < 15 else 1000 * math.exp(math.log(6.4) / 27 * (mel - 15))


def filters_of(features: LogMel, rate: int) -> Doubles:
    """The triangles, whole, shape (mels, bins)."""
    low, high = mel_of(features.low, features.scale), mel_of(features.high, features.scale)
    step = (high - low) / (features.mels + 1)
    made = np.zeros((features.mels, features.n_fft // 2 + 1))
    for mel in range(features.mels):
        left, middle, right = (hertz_of(low + (mel + k) * step, features.scale) for k in range(3))
        for k in range(made.shape[1]):
            hertz = k * rate / features.n_fft
            rise, fall = (hertz - left) / (middle - left), (right - hertz) / (right - middle)
            area = 2 / (right - left) if features.area else 1.0
            made[mel, k] = area * max(0.0, min(rise, fall))
    return made


def log_mel_of(clip: Doubles, features: LogMel, rate: int) -> Doubles:
    """Log-mel features by the discrete Fourier transform as a matrix."""
    n, length, frames = features.n_fft, features.length, features.frames(len(clip))
    constant = {"hann": 0.5, "hamming": 0.54, "rectangular": 1.0}[features.window]
    place = np.arange(length)
    window = constant - (1 - constant) * np.cos(2 * np.pi * place / length)
    around = np.concatenate([clip[:0:-1], clip, clip[-2::-1]])
    start = len(clip) - 1 - (length // 2 if features.centre else 0)
    framed = np.array([around[start + t * features.hop :][:length] * window for t in range(frames)])
    matrix = np.exp(-2j * np.pi * np.outer(place, np.arange(n // 2 + 1)) / n)
    energies = np.abs(framed @ matrix) ** features.power @ filters_of(features, rate).T
    kept = np.maximum(energies, features.floor)
    logs = {"ln": np.log(kept), "log10": np.log10(kept), "db": 20 / features.power * np.log10(kept)}
    found: Doubles = logs[features.log]
    if features.dynamic_range is not None:
        found = np.maximum(found, found.max() - features.dynamic_range)
    found = (found - features.mean) / features.std
    return found.T if features.layout == "mels-frames" else found


WHISPER = LogMel(
    n_fft=400, length=400, hop=160, mels=80, high=8000.0, scale="slaney", area=True,
    log="log10", dynamic_range=8.0, mean=-4.0, std=4.0, drop_last=True,
)  # fmt: skip
SPEECH = LogMel(
    n_fft=512, length=400, hop=160, window="hamming", centre=False, mels=23, low=20.0, high=7600.0,
    floor=1.2e-16, mean=-2 * math.log(32768), layout="frames-mels",
)  # fmt: skip
LOG_MELS = {
    "whisper": WHISPER,
    "speech": SPEECH,
    "magnitude": LogMel(n_fft=90, length=81, hop=50, mels=9, high=4000.0, power=1, log="db"),
    "odd": LogMel(n_fft=75, length=75, hop=7, mels=12, low=100.0, high=7000.0, scale="slaney"),
    "power": LogMel(
        n_fft=64, length=33, hop=90, window="rectangular", mels=5, high=8000.0, log="db", area=True
    ),
}


@pytest.mark.parametrize("name", LOG_MELS)
def test_log_mel_is_what_the_formula_says(name: str) -> None:
    """By a Fourier transform that is a matrix, and filters that are whole."""
    features = LOG_MELS[name]
    content = (0.9 * noise(2400)[:, 0]).astype(np.float32).astype(np.float64)
    for samples in (2000, 3000):
        clip = np.zeros(samples)
        clip[: min(samples, 2400)] = content[:samples]
        wanted = log_mel_of(clip, features, 16000)
        found = prepare(pipeline(features, samples), [wave_file(content, encoding="f32")])[0]
        assert found.shape == wanted.shape
        assert np.abs(found - wanted).max() <= 1e-6 * np.abs(wanted).max()


def test_errors_say_which_recording_it_was() -> None:
    """Where there are several; how long one may last is the spec's."""
    spec = pipeline(Waveform(), 10)
    good, long = wave_file(np.zeros(10)), wave_file(np.zeros(32_001))
    with pytest.raises(InvalidRequestError, match=r"^recording 1 of 'recording', counted from 0"):
        prepare(spec, [good, b""])
    with pytest.raises(TooLargeError, match=r"^the recording lasts 2.00006 s"):
        prepare(spec, [long])

"""Sounds between which a detector of voices has to tell: vowels, and noise.

No package carries a recording of speech, so it is made from a source and a filter: pulses of a
gliding pitch go through the resonances of a vowel (Fant, Acoustic Theory of Speech Production,
1960; the formants are those of men in Peterson and Barney, 1952).
"""

import numpy as np
import numpy.typing as npt
from scipy.signal import lfilter

Sound = npt.NDArray[np.float64]

VOWELS = ((730, 1090, 2440), (270, 2290, 3010), (570, 840, 2410), (530, 1840, 2480))
"""The first three formants of a, i, o and e, in hertz."""
BANDWIDTHS = (80, 100, 140)
TURN_S, SYLLABLE_S = 0.6, 0.2


def conversation(generator: np.random.Generator, seconds: float, rate: int) -> Sound:
    """Turns of voice and of nothing, in some noise; (seconds * rate,) within -1..1."""
    count = int(seconds * rate)
    turns = [
        talk(generator, TURN_S, rate) if number % 2 else np.zeros(int(TURN_S * rate))
        for number in range(int(seconds / TURN_S) + 1)
    ]
    voice = np.concatenate(turns)[:count]
    noise = generator.standard_normal(count) * 10 ** generator.uniform(-3.5, -2.5)
    return np.clip(voice + noise, -1, 1)


def talk(generator: np.random.Generator, seconds: float, rate: int) -> Sound:
    """Vowels, one a syllable, each swelling and fading."""
    pitch = generator.uniform(90, 220)
    return np.concatenate(
        [
            _vowel(
                VOWELS[generator.integers(len(VOWELS))], pitch, generator.uniform(0.85, 1.2), rate
            )
            for _ in range(round(seconds / SYLLABLE_S))
        ]
    )


def _vowel(formants: tuple[int, ...], pitch: float, glide: float, rate: int) -> Sound:
    count = int(SYLLABLE_S * rate)
    turns = np.cumsum(np.geomspace(pitch, pitch * glide, count)) / rate
    pulses = np.diff(np.floor(turns), prepend=0.0)
    sound: Sound = lfilter([1.0], [1.0, -0.95], pulses)  # the glottis: 6 dB an octave
    for centre, width in zip(formants, BANDWIDTHS, strict=True):
        radius, angle = np.exp(-np.pi * width / rate), 2 * np.pi * centre / rate
        sound = lfilter([1 - radius], [1.0, -2 * radius * np.cos(angle), radius**2], sound)
    envelope = np.sin(np.pi * np.arange(count) / count) ** 0.5
    loud: Sound = 0.5 * envelope * sound / np.abs(sound).max()
    return loud

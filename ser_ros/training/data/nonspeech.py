"""Generated sounds without a voice, for which a model should be uncertain.

Each family takes a generator, a number of samples and a sample rate, and returns float samples of
any level. None follows a recording; ranges are wide rather than realistic.
"""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

LEVEL_DB = (-50.0, -12.0)
"""Root mean square relative to full scale, like that of near and far speech."""

Family = Callable[[Generator, int, int], np.ndarray]


def generate(rng: Generator, n_samples: int, sample_rate: int) -> np.ndarray:
    """Float32 (n_samples,) within full scale: up to three sounds of different families, mixed."""
    count = 1 + rng.binomial(2, 0.3)
    mixture = np.zeros(n_samples)
    for index in rng.choice(len(FAMILIES), count, replace=False):
        sound = FAMILIES[index](rng, n_samples, sample_rate)
        mixture += _scaled(sound, 10 ** (rng.uniform(-15, 0) / 20))
    return _at_a_level(rng, mixture)


def generate_one(family: Family, rng: Generator, n_samples: int, sample_rate: int) -> np.ndarray:
    """Float32 (n_samples,) within full scale: one sound of this family."""
    return _at_a_level(rng, family(rng, n_samples, sample_rate))


def _at_a_level(rng: Generator, sound: np.ndarray) -> np.ndarray:
    return _scaled(sound, 10 ** (rng.uniform(*LEVEL_DB) / 20), peak=1.0).astype(np.float32)


def _scaled(sound: np.ndarray, level: float, peak: float = np.inf) -> np.ndarray:
    """The sound with this root mean square, or less if its peak would be above `peak`."""
    highest = np.abs(sound).max()
    if highest == 0:
        return sound
    sound = sound / highest
    return sound * min(level / np.sqrt(np.mean(sound**2)), peak)


def coloured_noise(rng: Generator, n: int, rate: int) -> np.ndarray:
    """White, pink, brown and all colours between: wind, water, ventilation."""
    slope = rng.uniform(0, 2)
    return _noise(rng, n, rate, lambda frequency: (frequency + 20.0) ** (-slope / 2))


def band_noise(rng: Generator, n: int, rate: int) -> np.ndarray:
    """A band of noise that swells and fades: rustling, traffic, surf."""
    centre = _log_uniform(rng, 100, 0.4 * rate)
    octaves = rng.uniform(0.2, 2)
    noise = _noise(rng, n, rate, lambda f: np.exp(-((np.log2((f + 1) / centre) / octaves) ** 2)))
    return noise * _swelling(rng, n, rate, rng.uniform(0.1, 4))


def hum(rng: Generator, n: int, rate: int) -> np.ndarray:
    """Mains and transformers: a steady tone with harmonics."""
    frequency = rng.choice((50.0, 60.0, 100.0, 120.0)) * rng.uniform(0.995, 1.005)
    return _tone(np.full(n, frequency), _harmonics(rng, rng.integers(2, 30)), rate)


def engine(rng: Generator, n: int, rate: int) -> np.ndarray:
    """Motors and fans: noise and a buzz, both with the period of a rotation of varying speed."""
    frequency = _log_uniform(rng, 8, 150) * (1 + 0.1 * _wandering(rng, n, rate, 0.5))
    rotation = _tone(frequency, np.ones(1), rate)
    cutoff = _log_uniform(rng, 200, 4_000)
    noise = _noise(rng, n, rate, lambda f: 1 / (1 + (f / cutoff) ** 2))
    noise = noise / np.abs(noise).max() * (1 + rng.uniform(0, 1) * rotation)
    return noise + rng.uniform(0, 0.5) * _tone(frequency, _harmonics(rng, 15), rate)


def music(rng: Generator, n: int, rate: int) -> np.ndarray:
    """Melodies and chords of a scale, plucked or held, in one to four parts."""
    scale = np.array(_SCALES[rng.integers(len(_SCALES))])
    root = _log_uniform(rng, 55, 440)
    beat = rng.uniform(0.12, 0.7) * rate
    sound = np.zeros(n)
    for _ in range(rng.integers(1, 5)):
        amplitudes = _harmonics(rng, rng.integers(1, 9))
        decay = _log_uniform(rng, 0.05, 2) * rate
        attack = rng.uniform(0.002, 0.08) * rate
        octave = 2.0 ** rng.integers(0, 3)
        onset = -rng.uniform(0, beat)
        while onset < n:
            duration = beat * rng.choice((0.5, 1, 1, 2, 4))
            start, end = max(0, round(onset)), min(n, round(onset + duration))
            onset += duration
            if end <= start or rng.random() < 0.15:  # a rest
                continue
            frequency = root * octave * 2.0 ** (rng.choice(scale) / 12)
            time = np.arange(end - start)
            envelope = np.exp(-time / decay) * np.minimum(1, time / attack)
            envelope *= np.minimum(1, (end - start - time) / (0.01 * rate))
            note = _tone(np.full(end - start, frequency), amplitudes, rate)
            sound[start:end] += rng.uniform(0.3, 1) * envelope * note
    return sound


_SCALES = ((0, 2, 4, 5, 7, 9, 11, 12), (0, 2, 3, 5, 7, 8, 10, 12), (0, 3, 5, 7, 10, 12), (0, 4, 7))
"""Major, minor, pentatonic, a chord; in semitones."""


def impacts(rng: Generator, n: int, rate: int) -> np.ndarray:
    """Clicks, knocks, drums and dishes, in a rhythm or at random."""
    gap = _log_uniform(rng, 0.06, 1.0) * rate
    irregular = rng.random() < 0.5
    kinds = [_impact(rng, rate) for _ in range(rng.integers(1, 4))]
    sound = np.zeros(n + max(map(len, kinds)))
    onset = rng.uniform(0, min(gap, n / 2))
    while onset < n:
        impact = kinds[rng.integers(len(kinds))]
        sound[int(onset) : int(onset) + len(impact)] += rng.uniform(0.2, 1) * impact
        onset += gap * (rng.exponential() + 0.05 if irregular else 1)
    return sound[:n]


def _impact(rng: Generator, rate: int) -> np.ndarray:
    """A burst of noise and up to five resonances, all decaying; their pitch may fall."""
    decay = _log_uniform(rng, 0.002, 0.2)
    time = np.arange(round(5 * decay * rate)) / rate
    fall = 1 + rng.uniform(0, 1) * np.exp(-time / (0.3 * decay))
    sound = rng.uniform(0, 1) * rng.standard_normal(len(time)) * np.exp(-time / (0.3 * decay))
    for _ in range(rng.integers(0, 6)):
        frequency = _log_uniform(rng, 60, 0.4 * rate)
        sound += _tone(frequency * fall, np.ones(1), rate) * np.exp(-time / decay)
    return sound / (np.abs(sound).max() + 1e-9)


def siren(rng: Generator, n: int, rate: int) -> np.ndarray:
    """A tone that sweeps or is switched on and off, as of alarms, birds and machines."""
    turn = 2 * np.pi * _log_uniform(rng, 0.2, 8) * np.arange(n) / rate + rng.uniform(0, 2 * np.pi)
    shapes = (np.sin, lambda t: (t / np.pi) % 2 - 1, lambda t: np.sign(np.sin(t)))
    sweep = shapes[rng.integers(len(shapes))](turn)
    frequency = _log_uniform(rng, 150, 0.2 * rate) * 2 ** (rng.uniform(0, 1) * sweep)
    sound = _tone(frequency, _harmonics(rng, rng.integers(1, 6)), rate)
    return sound * (np.sin(2 * turn) > -0.5) if rng.random() < 0.3 else sound


def babble(rng: Generator, n: int, rate: int) -> np.ndarray:
    """Many voices at once, without words: noise in the bands of formants, at a syllable rate."""
    sound = np.zeros(n)
    for _ in range(rng.integers(2, 7)):
        formants = _log_uniform(rng, 250, 900), _log_uniform(rng, 900, 2_500), 3_000.0
        voice = _noise(
            rng,
            n,
            rate,
            lambda f, peaks=formants: sum(
                np.exp(-(((f - peak) / 200) ** 2)) / k for k, peak in enumerate(peaks, 1)
            ),
        )
        sound += voice * _swelling(rng, n, rate, rng.uniform(3, 7)) ** 2
    return sound


FAMILIES = (coloured_noise, band_noise, hum, engine, music, impacts, babble)
"""Families that `generate` mixes."""

HELD_OUT = (siren,)
"""Families never used in training: they show how a model rejects unknown sounds."""


def _log_uniform(rng: Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _harmonics(rng: Generator, count: int) -> np.ndarray:
    """Amplitudes of a tone's harmonics, which decrease with their number."""
    slope = rng.uniform(0.5, 2)
    return rng.uniform(0.2, 1, count) / np.arange(1, count + 1) ** slope


def _tone(frequency: np.ndarray, amplitudes: np.ndarray, rate: int) -> np.ndarray:
    """(n,) hertz → (n,) samples; harmonics above half the sample rate are left out."""
    highest = max(1, int(0.5 * rate / frequency.max()))
    phase = (2 * np.pi * (np.cumsum(frequency) / rate % 1)).astype(np.float32)
    turn = np.cos(phase) + 1j * np.sin(phase)
    return np.imag(turn * np.polyval(amplitudes[:highest][::-1].astype(np.float32), turn))


def _noise(
    rng: Generator, n: int, rate: int, gain: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """(n,) Gaussian noise whose amplitude spectrum is `gain` of the frequencies in Hz."""
    size = 1 << n.bit_length()
    spectrum = rng.standard_normal(size + 2, np.float32).view(np.complex64)
    frequencies = np.fft.rfftfreq(size, 1 / rate)
    return np.fft.irfft(spectrum * gain(frequencies).astype(np.float32), size)[:n]


def _wandering(rng: Generator, n: int, rate: int, frequency: float) -> np.ndarray:
    """(n,) random values between -1 and 1 that turn about `frequency` times a second."""
    points = rng.uniform(-1, 1, 3 + int(2 * frequency * n / rate))
    return np.interp(np.linspace(0, len(points) - 1, n), np.arange(len(points)), points)


def _swelling(rng: Generator, n: int, rate: int, frequency: float) -> np.ndarray:
    """(n,) random values between 0 and 1, see `_wandering`."""
    return (1 + _wandering(rng, n, rate, frequency)) / 2

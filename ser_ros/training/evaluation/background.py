"""Speech that is not addressed to the robot: a television in the room, many people at once.

Each function makes it of recordings, as a `prediction.Degrade`.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path

import numpy as np
from scipy.signal import butter, fftconvolve, sosfilt

from ser_ros import SerError
from ser_ros.audio import SAMPLE_RATE
from ser_ros.audio.reading import Reading
from ser_ros.audio.sources import SourceError, read_audio
from ser_ros.training.data.nonspeech import music
from ser_ros.training.evaluation.conditions import DISTANCES, level, room_response
from ser_ros.training.evaluation.prediction import Degrade

LOUDSPEAKER_BAND = (200, 6_000)
"""Hz, of the loudspeaker of a television."""

MUSIC_DB = (5.0, 20.0)
"""How much weaker the music of a television is than the speech."""

N_VOICES = 5
"""Recordings at once in babble."""

DESCRIPTIONS = {
    'television': f'played by a loudspeaker of {LOUDSPEAKER_BAND[0]} to '
    f'{LOUDSPEAKER_BAND[1]} Hz, {DISTANCES["far"]:g} m away in a simulated room, with music that is '
    f'{MUSIC_DB[0]:g} to {MUSIC_DB[1]:g} dB weaker',
    'babble': f'{N_VOICES} files at once, equally loud',
}
"""Name → how it is made."""


def background(name: str, paths: Sequence[Path], reading: Reading) -> Degrade:
    """What turns each of these sound files into the named background, one of `DESCRIPTIONS`.

    SerError for fewer than `N_VOICES` files that babble can be made of.
    """
    if name == 'television':
        return television
    if len(paths) < N_VOICES:
        raise SerError(
            f'{paths[0].parent} has {len(paths)} sound files: babble needs {N_VOICES} of them'
        )
    return partial(babble, another=partial(_draw, paths, reading))


def television(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Float32 (n,) samples of speech as from a television in the room, at the level they had."""
    accompaniment = music(rng, len(samples), SAMPLE_RATE)
    weaker = 10 ** (-rng.uniform(*MUSIC_DB) / 20)
    mixture = samples + accompaniment * (weaker * level(samples) / max(level(accompaniment), 1e-9))
    band = butter(2, LOUDSPEAKER_BAND, 'bandpass', fs=SAMPLE_RATE, output='sos')
    played = fftconvolve(sosfilt(band, mixture), _response())[: len(samples)]
    return _scaled(played, level(samples))


def babble(
    samples: np.ndarray,
    rng: np.random.Generator,
    another: Callable[[np.random.Generator], np.ndarray],
) -> np.ndarray:
    """Float32 (n,) samples with the voices of other recordings, at the level they had.

    `another`: draws a recording. A shorter one is repeated, a longer one cut off.
    """
    mixture = samples / max(level(samples), 1e-9)
    for _ in range(N_VOICES - 1):
        voice = np.roll(another(rng), rng.integers(len(samples)))
        mixture = mixture + np.resize(voice, len(samples)) / max(level(voice), 1e-9)
    return _scaled(mixture, level(samples))


def _draw(paths: Sequence[Path], reading: Reading, rng: np.random.Generator) -> np.ndarray:
    """One of the recordings that can be read: one at least, the one that is streamed."""
    while True:
        try:
            return read_audio(paths[rng.integers(len(paths))], reading=reading)
        except SourceError:  # the count names it
            continue


@cache
def _response() -> np.ndarray:
    return room_response(DISTANCES['far'])


def _scaled(samples: np.ndarray, to_level: float) -> np.ndarray:
    """The samples with this level, or less if they would exceed full scale."""
    gain = to_level / max(level(samples), 1e-9)
    return (samples * min(gain, 1 / max(np.abs(samples).max(), 1e-9))).astype(np.float32)

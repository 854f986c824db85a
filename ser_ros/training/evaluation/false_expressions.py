"""Expressions for sound in which no emotion is meant: how many a robot would receive in an hour."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scipy.stats import chi2
from tqdm import tqdm

from ser_ros.audio import SAMPLE_RATE
from ser_ros.audio.reading import DEFAULT_READING, Reading
from ser_ros.audio.sources import SourceError, read_audio
from ser_ros.stream.recognizer import Recognizer
from ser_ros.training.evaluation.prediction import one_thread, stream_sound

PROTOCOL = (
    'each file streamed as on the robot, between half a second of silence that does not count as '
    'time; expressions of finished utterances, while the room becomes known as one voice'
)

NEUTRAL = 'neutral'


@one_thread()
def count_expressions(
    recognizer: Recognizer, paths: Sequence[Path], reading: Reading = DEFAULT_READING
) -> dict[str, Any]:
    """Expressions for the sound files, in all and per hour, as plain values.

    `emotions` are those other than neutral: neutral is right for speech without an emotion, but not
    for noise. A file that cannot be read is named and not counted; SourceError if none can.
    """
    failures = []
    n_samples = utterances = expressions = emotions = 0
    for path in tqdm(paths, desc='streaming', unit='file', leave=False, disable=None):
        try:
            sound = read_audio(path, reading=reading)
        except SourceError as error:
            failures.append(error)
            continue
        n_samples += len(sound)
        finals = [e.expression for e in stream_sound(recognizer, sound) if e.is_final]
        utterances += len(finals)
        expressions += sum(e is not None for e in finals)
        emotions += sum(e not in (None, NEUTRAL) for e in finals)
    if len(failures) == len(paths):
        raise failures[0]
    for error in failures:
        print(f'ser_ros: {error}', file=sys.stderr)
    hours = n_samples / SAMPLE_RATE / 3600
    return {
        'files': len(paths) - len(failures),
        'seconds': n_samples / SAMPLE_RATE,
        'utterances': utterances,
        'expressions': expressions,
        'emotions': emotions,
        **_rate('expressions', expressions, hours),
        **_rate('emotions', emotions, hours),
    }


def _rate(name: str, count: int, hours: float) -> dict[str, Any]:
    low, high = poisson_interval(count)
    return {
        f'{name}_per_hour': count / hours,
        f'{name}_per_hour_interval': [low / hours, high / hours],
    }


def poisson_interval(count: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval of the mean of a Poisson distribution (Garwood, 1936) that gave `count`."""
    tail = (1 - confidence) / 2
    low = chi2.ppf(tail, 2 * count) / 2 if count else 0.0
    return float(low), float(chi2.isf(tail, 2 * count + 2) / 2)

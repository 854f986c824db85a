"""Expressions for sound in which no emotion is meant: how many a robot would receive in an hour."""

import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np
from scipy.stats import chi2
from tqdm import tqdm

from ser_ros.audio import SAMPLE_RATE
from ser_ros.audio.reading import DEFAULT_READING, Reading
from ser_ros.audio.sources import SourceError, read_audio
from ser_ros.stream.recognizer import Recognizer
from ser_ros.training.data.nonspeech import FAMILIES, HELD_OUT, Family, generate_one
from ser_ros.training.evaluation.background import DESCRIPTIONS
from ser_ros.training.evaluation.prediction import Degrade, one_thread, stream_sound

PROTOCOL = (
    'each file streamed as on the robot, between half a second of silence that does not count as '
    'time; expressions of finished utterances, while the room becomes known as one voice'
)

NEUTRAL = 'neutral'

N_GENERATED, SECONDS_GENERATED = 20, 30.0
"""Generated sounds of each kind: ten minutes."""

GENERATED = '(generated)'
"""The end of the names of their rows."""


def count_expressions(
    recognizer: Recognizer,
    paths: Sequence[Path],
    reading: Reading = DEFAULT_READING,
    degrade: Optional[Degrade] = None,
) -> dict[str, Any]:
    """Expressions for the sound files, in all and per hour, as plain values.

    `emotions` are those other than neutral: neutral is right for speech without an emotion, but not
    for noise. `degrade`: what happens to each file before. A file that cannot be read is named and
    not counted; SourceError if none can.
    """
    failures: list[SourceError] = []

    def readable() -> Iterator[np.ndarray]:
        for path in paths:
            try:
                yield read_audio(path, reading=reading)
            except SourceError as error:
                failures.append(error)

    counts = _count(recognizer, readable(), len(paths), degrade)
    if not counts['files']:
        raise failures[0]
    for error in failures:
        print(f'ser_ros: {error}', file=sys.stderr)
    return counts


def count_for_generated(recognizer: Recognizer, family: Family) -> dict[str, Any]:
    """`count_expressions` for ten minutes of sounds of one family of `data.nonspeech`."""
    kind = (*FAMILIES, *HELD_OUT).index(family)
    n = round(SECONDS_GENERATED * SAMPLE_RATE)
    sounds = (
        # The training seeds with four numbers, `rejection` with two.
        generate_one(family, np.random.default_rng((kind, number, n)), n, SAMPLE_RATE)
        for number in range(N_GENERATED)
    )
    return _count(recognizer, sounds, N_GENERATED)


def protocol(rows: Collection[str]) -> str:
    """How the counts of these rows, by name, were made."""
    own = [
        f'{name}: {text}'
        for name, text in DESCRIPTIONS.items()
        if any(row.endswith(f', {name}') for row in rows)
    ]
    if any(row.endswith(GENERATED) for row in rows):
        own.append(f'generated: {N_GENERATED} sounds of {SECONDS_GENERATED:g} s')
    return '; '.join((PROTOCOL, *own))


@one_thread()
def _count(
    recognizer: Recognizer,
    sounds: Iterable[np.ndarray],
    n: int,
    degrade: Optional[Degrade] = None,
) -> dict[str, Any]:
    """`count_expressions` for at most `n` float32 sounds at 16 kHz; no rates if there is none."""
    counts = dict.fromkeys(('files', 'seconds', 'utterances', 'expressions', 'emotions'), 0)
    for number, sound in enumerate(
        tqdm(sounds, desc='streaming', total=n, unit='file', leave=False, disable=None)
    ):
        estimates = stream_sound(recognizer, sound, degrade, seed=number)
        finals = [e.expression for e in estimates if e.is_final]
        counts['files'] += 1
        counts['seconds'] += len(sound) / SAMPLE_RATE
        counts['utterances'] += len(finals)
        counts['expressions'] += sum(e is not None for e in finals)
        counts['emotions'] += sum(e not in (None, NEUTRAL) for e in finals)
    return counts | (_rates(counts) if counts['seconds'] else {})


def _rates(counts: Mapping[str, Any]) -> dict[str, Any]:
    """Expressions and emotions per hour, with intervals."""
    hours = counts['seconds'] / 3600
    rates = {}
    for name in ('expressions', 'emotions'):
        low, high = poisson_interval(counts[name])
        rates[f'{name}_per_hour'] = counts[name] / hours
        rates[f'{name}_per_hour_interval'] = [low / hours, high / hours]
    return rates


def poisson_interval(count: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval of the mean of a Poisson distribution (Garwood, 1936) that gave `count`."""
    tail = (1 - confidence) / 2
    low = chi2.ppf(tail, 2 * count) / 2 if count else 0.0
    return float(low), float(chi2.isf(tail, 2 * count + 2) / 2)

"""The result of one clip: the probabilities and decisions that a bundle computed for it."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np
import torch

from ser_ros.emotions import EMOTIONS, Emotion
from ser_ros.stream.types import MIN_PROBABILITY
from ser_ros.stream.voice import pool_windows
from ser_ros.training.data.corpora import Clip


@dataclass(frozen=True)
class ClipResult:
    """The probabilities and decisions of a bundle for one clip."""

    clip: Clip
    windows: np.ndarray
    """(n_windows, n_classes) calibrated log-probabilities; no rows without detected speech."""
    decisions: list[Optional[str]]
    """Expression of each finished utterance, None below the threshold."""
    is_whole: bool = False
    """Whether `windows` is one row for the whole clip, which was not streamed."""
    lengths: Optional[Sequence[int]] = None
    """Samples in each window; None if all have the same length."""
    utterances: Optional[np.ndarray] = None
    """(n_decisions, n_classes) log-probabilities that `decisions` follow from; None if unknown."""

    @property
    def score(self) -> np.ndarray:
        """(n_classes,) log-probabilities of the whole clip, see `voice.pool_windows`."""
        return _log_softmax(pool_windows(self.windows, self.lengths or [1] * len(self.windows)))

    @property
    def has_speech(self) -> bool:
        """Whether speech was detected; without it there are no probabilities."""
        return len(self.windows) > 0

    def at_temperature(self, temperature: float) -> 'ClipResult':
        """The result if the bundle's temperature were multiplied by `temperature`."""
        utterances = self.utterances
        if utterances is not None:
            utterances = _log_softmax(utterances / temperature)
        windows = _log_softmax(self.windows / temperature)
        return dataclasses.replace(self, windows=windows, utterances=utterances)

    def restricted_to(self, chosen: Sequence[str], class_names: Sequence[str]) -> 'ClipResult':
        """The result if only the classes `chosen` out of `class_names` were possible."""
        columns = [class_names.index(name) for name in chosen]
        windows = _log_softmax(self.windows[:, columns])
        return dataclasses.replace(self, windows=windows, utterances=None)


def _log_softmax(scores: np.ndarray) -> np.ndarray:
    return torch.from_numpy(scores).log_softmax(dim=-1).numpy()


def to_records(results: Sequence[ClipResult], class_names: Sequence[str]) -> list[dict[str, Any]]:
    """A record of plain values for each clip; the metrics can be computed from them again."""
    return [
        {
            'name': result.clip.name,
            'fingerprint': result.clip.fingerprint,
            'corpus': result.clip.corpus,
            'speaker': result.clip.speaker,
            'emotion': result.clip.emotion,
            'gender': result.clip.gender,
            'age': result.clip.age,
            'intensity': result.clip.intensity,
            'probabilities': _probabilities(result, class_names) if result.has_speech else None,
            'n_windows': 0 if result.is_whole else len(result.windows),
            'decisions': result.decisions,
            **({'expression': result.clip.expression} if any(r.clip.own for r in results) else {}),
        }
        for result in results
    ]


def _probabilities(result: ClipResult, class_names: Sequence[str]) -> dict[str, float]:
    """Rounded to four significant digits, not decimals: a loss needs small ones as well."""
    return {name: float(f'{p:.4g}') for name, p in zip(class_names, np.exp(result.score))}


def from_records(records: Sequence[Mapping[str, Any]]) -> list[ClipResult]:
    """Results from the records of `to_records`; they have one row a clip, not its windows."""
    results = []
    for record in records:
        clip = Clip(
            path=Path(),
            name=record['name'],
            digest=record.get('fingerprint', ''),  # records of 0.1.0 lack it
            emotion=record['emotion'],
            speaker=record['speaker'],
            corpus=record['corpus'],
            gender=record['gender'],
            intensity=record['intensity'],
            age=record.get('age'),  # so they do
            own=_own(record),
        )
        probabilities = record['probabilities']
        rows = [] if probabilities is None else [list(probabilities.values())]
        windows = np.log(np.maximum(rows, MIN_PROBABILITY)) if rows else np.zeros((0, 0))
        results.append(ClipResult(clip, windows, record['decisions'], is_whole=True))
    return results


def _own(record: Mapping[str, Any]) -> Optional[Emotion]:
    """What the class means, if it is one of one's own; its valence and arousal no metric needs."""
    if record['emotion'] in EMOTIONS:
        return None
    return Emotion(record['expression'], 0.0, 0.0, 'not recorded')

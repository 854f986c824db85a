"""Enrolment: a few labelled phrases of a person, by which the voice is known before it speaks."""

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

import numpy as np

from ser_ros import SerError
from ser_ros.bundle_info import BundleInfo
from ser_ros.emotions import emotion_of
from ser_ros.files import user_path, write_atomically
from ser_ros.settings import from_dict
from ser_ros.stream.adaptation import Adaptation, Baseline
from ser_ros.stream.backend import Backend
from ser_ros.stream.recognizer import Recognizer

FORMAT, FORMAT_VERSION = 'ser_ros enrolment', 1


@dataclass(frozen=True)
class Phrase:
    """Something a person said, and how."""

    name: str
    """For messages: its file."""
    emotion: str
    """One of `emotions.EMOTIONS`, or a class of the bundle."""
    samples: np.ndarray
    """float32 (n,) at 16 kHz."""


@dataclass(frozen=True)
class Enrolment:
    """The baseline of one person's voice, for one bundle; no sound can be made from it."""

    bundle: str
    """File name of the bundle."""
    bundle_sha256: str
    class_names: tuple[str, ...]
    """The bundle's."""
    phrases: dict[str, int]
    """Class → number of phrases."""
    features: tuple[float, ...]
    """Mean of each feature."""
    log_probabilities: tuple[float, ...]
    """Mean of each class, see `enrol`; together 0."""
    format: str = field(default=FORMAT, init=False)
    format_version: int = field(default=FORMAT_VERSION, init=False)

    @property
    def baseline(self) -> Baseline:
        """What the voice's `Adaptation` starts from."""
        clip_mean = np.array(self.features, np.float32)[:, None]
        return Baseline(clip_mean, np.array(self.log_probabilities))


MAX_NATS = 1e3
"""A mean log-probability beyond it is damaged: the least probability that is kept is far above."""


def enrol(backend: Backend, phrases: Sequence[Phrase]) -> Enrolment:
    """The baseline of a voice: means over the classes of the means over each class's phrases.

    So it does not depend on how many phrases of a class there are, as what is learned later depends
    on what is said. The mean log-probabilities are those under the mean features. SerError for
    phrases of fewer than two expressions, of a class that the bundle lacks, or without speech, for
    one sound as two classes, and for a bundle that does not adapt.
    """
    info = backend.info
    _check_adapts(backend)
    classes = [_class_of(info, phrase) for phrase in phrases]
    expressions = sorted({emotion_of(name, info.classes).expression for name in classes})
    if len(expressions) < 2:
        raise SerError(
            'an enrolment needs phrases of at least two expressions, '
            f'these are {" and ".join(expressions) or "none"}'
        )
    _check_distinct(phrases, classes)
    recognizer = Recognizer(backend)
    lessons = [_listen(recognizer, phrase, None) for phrase in phrases]
    clip_mean = _balanced_mean(classes, [clip_mean for clip_mean, _ in lessons])
    under_mean = Baseline(clip_mean, np.zeros(len(info.class_names)))
    lessons = [_listen(recognizer, phrase, under_mean) for phrase in phrases]
    score = _balanced_mean(classes, [score for _, score in lessons])
    score -= score.mean()
    return Enrolment(
        bundle=backend.path.name,
        bundle_sha256=backend.digest,
        class_names=info.class_names,
        phrases=dict(sorted(Counter(classes).items())),
        features=tuple(round(value, 4) for value in clip_mean[:, 0].tolist()),
        log_probabilities=tuple(round(value, 4) for value in score.tolist()),
    )


def _check_adapts(backend: Backend) -> None:
    if not backend.info.adaptation.adapts:
        raise SerError(
            f'bundle {backend.path}: it does not adapt to voices, so that it needs no enrolment'
        )


def _class_of(info: BundleInfo, phrase: Phrase) -> str:
    """The bundle's class for a phrase: its own, or one of the same expression."""
    names, own = info.class_names, info.classes
    expression = emotion_of(phrase.emotion, own).expression
    alike = [name for name in names if emotion_of(name, own).expression == expression]
    if not alike:
        raise SerError(
            f'{phrase.name}: the bundle has no class {phrase.emotion}, only {", ".join(names)}'
        )
    return phrase.emotion if phrase.emotion in names else alike[0]


def _check_distinct(phrases: Sequence[Phrase], classes: Sequence[str]) -> None:
    known: dict[bytes, tuple[Phrase, str]] = {}
    for phrase, name in zip(phrases, classes):
        other, other_name = known.setdefault(phrase.samples.tobytes(), (phrase, name))
        if name != other_name:
            raise SerError(
                f'{phrase.name}: its sound is that of {other.name}, which is {other_name}, not {name}'
            )


class _Recorder(Adaptation):
    """Keeps what it would learn, and learns nothing."""

    def __init__(self, baseline: Optional[Baseline]):
        super().__init__(baseline)
        self.lessons: list[tuple[np.ndarray, np.ndarray]] = []

    def learn(self, clip_mean: np.ndarray, score: np.ndarray) -> None:
        self.lessons.append((clip_mean, score))


def _listen(
    recognizer: Recognizer, phrase: Phrase, baseline: Optional[Baseline]
) -> tuple[np.ndarray, np.ndarray]:
    """Mean features (n_features, 1) and log-probabilities (n_classes,) of a phrase's utterances."""
    recognizer.voice.adaptation = recorder = _Recorder(baseline)
    recognizer.push(phrase.samples, 0)
    recognizer.flush()
    if not recorder.lessons:
        least = recognizer.config.min_utterance
        raise SerError(f'{phrase.name}: no speech of at least {least} s was detected')
    clip_means, scores = zip(*recorder.lessons)
    return np.mean(clip_means, axis=0), np.mean(scores, axis=0)


def _balanced_mean(classes: Sequence[str], values: Sequence[np.ndarray]) -> np.ndarray:
    """The mean over the classes of each class's mean value."""
    means = [
        np.mean([v for c, v in zip(classes, values) if c == name], axis=0)
        for name in sorted(set(classes))
    ]
    return np.mean(means, axis=0)


def save_enrolment(path: Path, enrolment: Enrolment) -> None:
    """Write JSON to `path`, completely or not at all, for its owner alone: it is of a person.

    SerError if it cannot be written.
    """
    text = json.dumps(dataclasses.asdict(enrolment), indent=1) + '\n'
    write_atomically(path, text, mode=0o600)


def load_enrolment(path: Path, backend: Backend) -> Enrolment:
    """Read an enrolment that was made with the bundle of `backend`.

    SerError for a missing or damaged file, another bundle's, and a bundle that does not adapt.
    """
    _check_adapts(backend)
    path = user_path(path)
    try:
        enrolment = from_dict(Enrolment, json.loads(path.read_text()))
    except OSError as error:
        raise SerError(f'enrolment {path}: {error.strerror}') from error
    except (ValueError, RecursionError, OverflowError) as error:
        raise SerError(f'enrolment {path}: damaged, or not JSON ({error})') from error
    except SerError as error:
        raise SerError(f'enrolment {path}: {error}') from error
    if enrolment.bundle_sha256 != backend.digest:
        raise SerError(
            f'enrolment {path}: it was made with another bundle ({enrolment.bundle}, SHA-256 '
            f'{enrolment.bundle_sha256[:12]}…), not with {backend.path.name} '
            f'({backend.digest[:12]}…); enrol again'
        )
    names = backend.info.class_names
    expected = (names, backend.geometry.n_features, len(names))
    lengths = len(enrolment.features), len(enrolment.log_probabilities)
    if (enrolment.class_names, *lengths) != expected:
        raise SerError(f'enrolment {path}: damaged: its numbers do not fit to the bundle')
    with np.errstate(over='ignore'):
        is_finite = np.isfinite(enrolment.baseline.clip_mean).all()
    if not is_finite or np.abs(enrolment.log_probabilities).max() > MAX_NATS:
        raise SerError(f'enrolment {path}: damaged: some of its numbers are far too large')
    if min(enrolment.phrases.values(), default=0) < 1:
        raise SerError(f'enrolment {path}: damaged: a class has no phrases')
    return enrolment

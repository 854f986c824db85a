"""The vocabulary: emotion classes, corpus label maps, ROS4HRI expressions, valence and arousal."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Optional

import numpy as np

from ser_ros import SerError

ROS4HRI = (
    *('neutral', 'angry', 'sad', 'happy', 'surprised', 'disgusted', 'scared', 'pleading'),
    *('vulnerable', 'despaired', 'guilty', 'disappointed', 'embarrassed', 'horrified'),
    *('skeptical', 'annoyed', 'furious', 'suspicious', 'rejected', 'bored', 'tired', 'asleep'),
    *('confused', 'amazed', 'excited'),
)
"""The constants of `hri_msgs/Expression` (ROS4HRI, REP-155)."""

RUSSELL_MEHRABIAN = 'Russell & Mehrabian (1977)'


@dataclass(frozen=True)
class Emotion:
    """Expression, valence and arousal of a class; SerError for an invalid one.

    Valence and arousal in [-1, 1] are the means for the adjective of the same name in Russell &
    Mehrabian (1977), "Evidence for a three-factor theory of emotions", Journal of Research in
    Personality 11, 273-294. Their "relaxed" stands for calm; neutral is the scales' origin.
    """

    expression: str
    """One of `ROS4HRI`."""
    valence: float
    arousal: float
    source: str = RUSSELL_MEHRABIAN
    """Where valence and arousal come from."""

    def __post_init__(self):
        if self.expression not in ROS4HRI:
            raise SerError(
                f'{self.expression!r} is no expression of ROS4HRI: use one of {", ".join(ROS4HRI)}'
            )
        for name in ('valence', 'arousal'):
            if not -1 <= getattr(self, name) <= 1:
                raise SerError(f'{name} is {getattr(self, name)}, not between -1 and 1')


EMOTIONS = {
    'neutral': Emotion('neutral', 0.0, 0.0),
    'calm': Emotion('neutral', 0.68, -0.46),
    'happy': Emotion('happy', 0.81, 0.51),
    'sad': Emotion('sad', -0.63, -0.27),
    'angry': Emotion('angry', -0.51, 0.59),
    'fearful': Emotion('scared', -0.64, 0.60),
    'disgust': Emotion('disgusted', -0.60, 0.35),
    'surprised': Emotion('surprised', 0.40, 0.67),
}

OTHERS = {
    'amazed': Emotion('amazed', 0.16, 0.88),
    'annoyed': Emotion('annoyed', -0.28, 0.17),
    'bored': Emotion('bored', -0.65, -0.62),
    'confused': Emotion('confused', -0.53, 0.27),
    'despaired': Emotion('despaired', -0.72, -0.16),
    'embarrassed': Emotion('embarrassed', -0.46, 0.54),
    'excited': Emotion('excited', 0.62, 0.75),
    'furious': Emotion('furious', -0.44, 0.72),
    'guilty': Emotion('guilty', -0.57, 0.28),
    'horrified': Emotion('horrified', -0.62, 0.82),
    'rejected': Emotion('rejected', -0.62, -0.01),
    'skeptical': Emotion('skeptical', -0.22, 0.21),
    'suspicious': Emotion('suspicious', -0.25, 0.42),
    'tired': Emotion('tired', -0.18, -0.57),
}
"""Classes that no corpus here has, for labels of one's own. Their "astonished" stands for amazed,
"mildly annoyed" for annoyed, "despairing" for despaired, "enraged" for furious, "terrified" for
horrified, and "fatigued" for tired. What is left of ROS4HRI has no such adjective."""

LABELS = {
    'RAVDESS': {
        '01': 'neutral',
        '02': 'calm',
        '03': 'happy',
        '04': 'sad',
        '05': 'angry',
        '06': 'fearful',
        '07': 'disgust',
        '08': 'surprised',
    },
    'SAVEE': {
        'a': 'angry',
        'd': 'disgust',
        'f': 'fearful',
        'h': 'happy',
        'n': 'neutral',
        'sa': 'sad',
        'su': 'surprised',
    },
    'CREMA-D': {
        'ANG': 'angry',
        'DIS': 'disgust',
        'FEA': 'fearful',
        'HAP': 'happy',
        'NEU': 'neutral',
        'SAD': 'sad',
    },
    'TESS': {
        'angry': 'angry',
        'disgust': 'disgust',
        'fear': 'fearful',
        'happy': 'happy',
        'neutral': 'neutral',
        'ps': 'surprised',  # pleasantly
        'sad': 'sad',
    },
    # Initials of the German words; L, Langeweile, is boredom, which is not a class here.
    'EmoDB': {
        'W': 'angry',
        'E': 'disgust',
        'A': 'fearful',
        'F': 'happy',
        'T': 'sad',
        'N': 'neutral',
    },
    'BanglaSER': {
        '01': 'happy',
        '02': 'sad',
        '03': 'angry',
        '04': 'surprised',
        '05': 'neutral',
    },
    'nEMO': {
        'anger': 'angry',
        'fear': 'fearful',
        'happiness': 'happy',
        'neutral': 'neutral',
        'sadness': 'sad',
        'surprised': 'surprised',
    },
    'Indian-EmoSpeech-Command': {
        'angry': 'angry',
        'calm': 'calm',
        'fearful': 'fearful',
        'happy': 'happy',
    },
    # The first number of each emotion's hundred. Its README calls 201 to 300 angry and 301 to 400
    # sad. The published scripts say the opposite: 302 is a reproach for playing before an
    # examination, 202 the grief for an actor's accident.
    'emotiontts_open_db': {
        '001': 'neutral',
        '101': 'happy',
        '201': 'sad',
        '301': 'angry',
    },
    # Numbers of its thirty categories; those that fit no class here have none.
    'EmoGator': {
        '02': 'happy',  # amusement
        '03': 'angry',
        '10': 'disgust',
        '13': 'happy',  # elation
        '15': 'fearful',
        '18': 'neutral',
        '24': 'sad',
        '27': 'surprised',  # negative
        '28': 'surprised',  # positive
    },
}
"""Corpus → label in its file names → class."""

SYNONYMS = {
    'calmness': 'calm',
    'happiness': 'happy',
    'joy': 'happy',
    'sadness': 'sad',
    'anger': 'angry',
    'fear': 'fearful',
    'afraid': 'fearful',
    'scared': 'fearful',
    'disgusted': 'disgust',
    'surprise': 'surprised',
    'pleasant surprise': 'surprised',
}
"""Other names of a class in people's own corpora."""


def class_of(word: str) -> Optional[str]:
    """The class of a word, in upper or lower case; None if there is none."""
    word = plain_word(word)
    return word if word in EMOTIONS else SYNONYMS.get(word)


def plain_word(word: str) -> str:
    """A label in lower case, with a space for each _ and -."""
    return ' '.join(word.casefold().replace('_', ' ').replace('-', ' ').split())


NOTHING: Mapping[str, Emotion] = MappingProxyType({})


def emotion_of(name: str, own: Mapping[str, Emotion] = NOTHING) -> Emotion:
    """What a class means: one of `EMOTIONS`, or of one's own; KeyError if it is neither."""
    return own[name] if name in own else EMOTIONS[name]


def class_order(names: Iterable[str]) -> tuple[str, ...]:
    """The names in the order of `EMOTIONS`, then those of one's own classes, sorted."""
    names = set(names)
    return (*(name for name in EMOTIONS if name in names), *sorted(names - EMOTIONS.keys()))


def margin(expressions: np.ndarray, leader: int) -> float:
    """By how much an expression leads the next one, 0 if it does not; `leader`: its index.

    (n_expressions,) probabilities. On data unlike those of the training the margin tells right
    decisions from wrong ones better than the confidence does (Liang, Peng and Sun, Selective
    Classification Under Distribution Shifts, 2024).
    """
    return max(0.0, float(expressions[leader] - np.delete(expressions, leader).max(initial=0.0)))


class ExpressionMap:
    """Turns the class probabilities of one model into expressions, valence and arousal."""

    def __init__(self, class_names: Sequence[str], own: Mapping[str, Emotion] = NOTHING):
        """`class_names` in the model's order; raises KeyError as `emotion_of` does."""
        emotions = [emotion_of(name, own) for name in class_names]
        self.expressions = list(dict.fromkeys(emotion.expression for emotion in emotions))
        self._index = np.array([self.expressions.index(e.expression) for e in emotions])
        self._valence = np.array([emotion.valence for emotion in emotions])
        self._arousal = np.array([emotion.arousal for emotion in emotions])

    def sum_classes(self, probabilities: np.ndarray) -> np.ndarray:
        """(n_classes,) class probabilities → (n_expressions,), classes of one expression summed."""
        return np.bincount(self._index, probabilities, len(self.expressions))

    def decide(self, probabilities: np.ndarray, threshold: float) -> tuple[Optional[str], float]:
        """The leading expression, None if its margin is below the threshold, and its confidence."""
        summed = self.sum_classes(probabilities)
        leader = int(summed.argmax())
        is_certain = margin(summed, leader) >= threshold
        return self.expressions[leader] if is_certain else None, float(summed[leader])

    def valence_arousal(self, probabilities: np.ndarray) -> tuple[float, float]:
        """Expected valence and arousal under (n_classes,) probabilities."""
        return float(probabilities @ self._valence), float(probabilities @ self._arousal)

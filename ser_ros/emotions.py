"""The vocabulary: emotion classes, corpus label maps, ROS4HRI expressions, valence and arousal."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Emotion:
    """What a class name means to a behaviour node.

    Valence and arousal in [-1, 1] are the means for the adjective of the same name in Russell &
    Mehrabian (1977), "Evidence for a three-factor theory of emotions", Journal of Research in
    Personality 11, 273-294. Their "relaxed" stands for calm; neutral is the scales' origin.
    """

    expression: str
    """Value of `hri_msgs/Expression.expression` (ROS4HRI, REP-155)."""
    valence: float
    arousal: float


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

RAVDESS_LABELS = {
    '01': 'neutral',
    '02': 'calm',
    '03': 'happy',
    '04': 'sad',
    '05': 'angry',
    '06': 'fearful',
    '07': 'disgust',
    '08': 'surprised',
}


class ExpressionMap:
    """Class probabilities of one model turned into what the topics carry."""

    def __init__(self, class_names: Sequence[str]):
        """`class_names` in the model's order; raises KeyError for a name not in `EMOTIONS`."""
        emotions = [EMOTIONS[name] for name in class_names]
        self.expressions = list(dict.fromkeys(emotion.expression for emotion in emotions))
        self._index = np.array([self.expressions.index(e.expression) for e in emotions])
        self._valence = np.array([emotion.valence for emotion in emotions])
        self._arousal = np.array([emotion.arousal for emotion in emotions])

    def sum_classes(self, probabilities: np.ndarray) -> np.ndarray:
        """(n_classes,) class probabilities → (n_expressions,), classes of one expression summed."""
        return np.bincount(self._index, probabilities, len(self.expressions))

    def valence_arousal(self, probabilities: np.ndarray) -> tuple[float, float]:
        """Expected valence and arousal under (n_classes,) probabilities."""
        return float(probabilities @ self._valence), float(probabilities @ self._arousal)

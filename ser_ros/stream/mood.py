"""The running mood of a person: the mean of the last utterances."""

import math
from typing import Optional

MEMORY = 20.0
"""Time constant in seconds: several utterances decide, since one may be classified wrongly."""


class Mood:
    """Valence and arousal of the last utterances, weighted by confidence and age."""

    def __init__(self, memory: float = MEMORY):
        """`memory`: after so many seconds an utterance counts for 37 %."""
        self._memory = memory
        self._valence = self._arousal = 0.0
        self._last: Optional[float] = None
        self.weight = 0.0
        """Sum of the confidences, of those that are older less; 0 before the first utterance."""

    def add(self, stamp: float, valence: float, arousal: float, confidence: float) -> None:
        """Add an utterance that ended at `stamp`, in seconds; a stamp that goes back counts as now."""
        keep = self._keep(stamp)
        self._last = stamp
        self._valence = keep * self._valence + confidence * valence
        self._arousal = keep * self._arousal + confidence * arousal
        self.weight = keep * self.weight + confidence

    def _keep(self, stamp: float) -> float:
        elapsed = 0.0 if self._last is None else max(0.0, stamp - self._last)
        return math.exp(-elapsed / self._memory)

    @property
    def valence(self) -> float:
        """In [-1, 1]; 0 before the first utterance."""
        return self._valence / max(self.weight, 1e-6)

    @property
    def arousal(self) -> float:
        """In [-1, 1]; 0 before the first utterance."""
        return self._arousal / max(self.weight, 1e-6)

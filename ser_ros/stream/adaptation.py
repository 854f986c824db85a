"""How a voice usually sounds, learned while it speaks: what is said is judged against it."""

import math
from collections.abc import Sequence
from typing import Optional

import numpy as np
import torch

from ser_ros.emotions import EMOTIONS
from ser_ros.features import Frontend, voice_mean


class Adaptation:
    """Means over the utterances of one voice, or of all voices in a room, so far.

    Two things are learned, without labels: the mean of each feature, by which later utterances are
    standardised, and the mean log-probabilities, which are taken out of later ones. After n
    utterances both have the weight n / (n + memory). A few hundred numbers; nothing is stored on
    disk.
    """

    def __init__(self):
        self.forget()

    def forget(self) -> None:
        """Know nothing of the voice."""
        self.n_utterances = 0
        self._features = self._counts = self._scores = 0.0

    def learn(self, clip_mean: torch.Tensor, score: np.ndarray) -> None:
        """Add an utterance: see `Frontend.clip_mean`, and its (n_classes,) log-probabilities.

        The log-probabilities must be those before `shift`.
        """
        self.n_utterances += 1
        known = clip_mean.isfinite()
        self._features = self._features + clip_mean.where(known, 0.0)
        self._counts = self._counts + known.float()
        self._scores = self._scores + (score - score.mean())

    def features_mean(self, frontend: Frontend, memory: float) -> Optional[torch.Tensor]:
        """(n_features, 1) to standardise the voice's features by; None before its first utterance."""
        if not self.n_utterances:
            return None
        own = self._features / self._counts  # not a number where nothing is known
        return voice_mean(frontend.mean.cpu(), own, self._counts / (self._counts + memory))

    def shift(self, n_classes: int, memory: float) -> np.ndarray:
        """(n_classes,) to add to log-probabilities."""
        return np.zeros(n_classes) - self._scores / (self.n_utterances + memory)


def neutral_shift(class_names: Sequence[str], neutral_share: float) -> np.ndarray:
    """(n_classes,) to add to log-probabilities where `neutral_share` of the utterances is neutral.

    In training all classes are equally frequent; by Bayes' rule other shares shift the log-odds of
    neutral by the difference of the shares' log-odds (Saerens et al., 2002). Zeros for a model
    without a neutral class, or with no other.
    """
    is_neutral = np.array([EMOTIONS[name].expression == 'neutral' for name in class_names])
    if is_neutral.all() or not is_neutral.any():
        return np.zeros(len(class_names))
    share = is_neutral.mean()
    return is_neutral * (_log_odds(neutral_share) - _log_odds(share))


def _log_odds(share: float) -> float:
    return math.log(share / (1 - share))

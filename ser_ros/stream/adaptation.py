"""How a voice usually sounds, learned while it speaks, and what is said is compared with it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Optional

import numpy as np

from ser_ros.emotions import EMOTIONS, NOTHING, Emotion, emotion_of

BASELINE_UTTERANCES = 60
"""How many utterances of a voice a baseline counts for.

The most that a voice is known from in training. On four corpora left out in turn, 39 voices and
two phrases of each of four classes, unweighted accuracy over the first ten utterances rises from
46 % without a baseline to 48, 53, 55 and 56 % for 8, 24, 40 and 60, and no more for 72; over the
next thirty it is 49 to 51 % for all. For voices that have one emotion only: 39 % without,
55 % for 60.
"""

RARE = ('disgusted', 'scared', 'surprised')
"""Expressions that people have less often than others."""


@dataclass(frozen=True)
class Baseline:
    """How a voice usually sounds, known before it speaks: see `enrolment`."""

    clip_mean: np.ndarray
    """(n_features, 1), see `Frontend.clip_mean`."""
    score: np.ndarray
    """(n_classes,) log-probabilities whose mean over the classes is 0."""


class Adaptation:
    """Means over the utterances of one voice, or of all voices in a room, so far.

    Two things are learned, without labels: the mean of each feature, by which later utterances are
    standardised, and the mean log-probabilities, which are taken out of later ones. After n
    utterances both have the weight n / (n + memory); the log-probabilities only as far as they are
    trusted, see `shift`. A few hundred numbers; nothing is stored on disk.
    """

    def __init__(self, baseline: Optional[Baseline] = None):
        """`baseline`: counts as `BASELINE_UTTERANCES` earlier utterances."""
        self.start_from(baseline)

    def start_from(self, baseline: Optional[Baseline]) -> None:
        """Know nothing of the voice but this, now and whenever it is forgotten."""
        self._baseline = baseline
        self.forget()

    @property
    def has_baseline(self) -> bool:
        """Whether the voice is known before it speaks."""
        return self._baseline is not None

    def forget(self) -> None:
        """Know nothing of the voice but its baseline."""
        self.n_utterances = self._weight = 0
        self._features = self._scores = self._squares = self._baseline_scores = 0.0
        if self._baseline is not None:
            self._weight = BASELINE_UTTERANCES
            self._features = BASELINE_UTTERANCES * self._baseline.clip_mean
            self._baseline_scores = BASELINE_UTTERANCES * self._baseline.score

    def learn(self, clip_mean: np.ndarray, score: np.ndarray) -> None:
        """Add an utterance: see `Frontend.clip_mean`, and its (n_classes,) log-probabilities.

        The log-probabilities must be those before `shift`.
        """
        self.n_utterances += 1
        self._weight += 1
        # A float32 would take in ever less of the latest: a room has thousands of utterances a day.
        self._features = self._features + clip_mean.astype(np.float64)
        centred = score - score.mean()
        self._scores = self._scores + centred
        self._squares += float(centred @ centred)

    def features_mean(self, mean: np.ndarray, memory: float) -> Optional[np.ndarray]:
        """(n_features, 1) to standardise the voice's features by; None before anything is known.

        `mean`: (n_features, 1) of the training set. As `features.voice_mean` in training.
        """
        if not self._weight:
            return None
        own = self._features / self._weight
        share = self._weight / (self._weight + memory)
        return (mean + share * (own - mean)).astype(np.float32)

    def shift(self, n_classes: int, memory: float) -> np.ndarray:
        """(n_classes,) to add to log-probabilities: less their mean, as far as it is trusted.

        A voice that always expresses the same has a mean far from zero, too, and answers that
        hardly vary. So what was learned counts by their variance relative to the squared mean, 1 at
        most. On five corpora left out in turn this raises the accuracy of voices with one emotion
        alone of a former model from 16 to 24 % (45 % without adaptation), and costs 1.0 points where emotions are
        balanced and 1.5 where seven of ten utterances are neutral.
        """
        learned = self._trust() * self._scores + self._baseline_scores
        return np.zeros(n_classes) - learned / (self._weight + memory)

    def _trust(self) -> float:
        if not self.n_utterances:
            return 0.0
        mean = self._scores / self.n_utterances
        square = float(mean @ mean)
        variance = self._squares / self.n_utterances - square
        return min(1.0, max(0.0, variance) / square) if square else 1.0


def prior_shift(
    class_names: Sequence[str],
    neutral_share: float,
    rare_ratio: float,
    own: Mapping[str, Emotion] = NOTHING,
) -> np.ndarray:
    """(n_classes,) to add to log-probabilities where some classes are more frequent than others.

    `neutral_share` of the utterances is neutral, and of the others each class of `RARE` is
    `rare_ratio` times as frequent as each other class. In training all classes are equally frequent;
    by Bayes' rule other shares shift the log-odds (Saerens et al., 2002). A model without a neutral
    class, or with no other, has no share of neutral.
    """
    is_neutral = np.array([emotion_of(name, own).expression == 'neutral' for name in class_names])
    is_rare = [name not in own and EMOTIONS[name].expression in RARE for name in class_names]
    frequency = np.where(is_rare, rare_ratio, 1.0)
    if 0 < is_neutral.mean() < 1:
        others = frequency[~is_neutral].sum() / is_neutral.sum()
        frequency[is_neutral] = neutral_share / (1 - neutral_share) * others
    return np.log(frequency)

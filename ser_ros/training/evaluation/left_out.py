"""Metrics of models on corpora that they were not trained on, and choices made on such corpora."""

import dataclasses
import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

import numpy as np
from scipy.special import logsumexp, softmax

from ser_ros import SerError
from ser_ros.emotions import Emotion, ExpressionMap, emotion_of
from ser_ros.stream.adaptation import prior_shift
from ser_ros.training.data.corpora import Clip
from ser_ros.training.evaluation.calibration import calibration_metrics
from ser_ros.training.evaluation.clip_result import ClipResult
from ser_ros.training.evaluation.metrics import KEPT, compute_metrics
from ser_ros.training.evaluation.voice_streams import (
    BASIC,
    N_KNOWN,
    N_UTTERANCES,
    Scores,
    VoiceStream,
    adapt,
    decide_clips,
    expression_of,
    repeated_share,
)

NEUTRAL = 'neutral'

SEVERAL = ('balanced', 'mostly neutral')
"""Kinds of streams with several emotions."""

NEUTRAL_ERROR = 0.25
"""The largest share of neutral utterances that may be taken for another expression, in streams
that are mostly neutral: as much as is needed, since expecting more of them costs other classes."""

NEUTRAL_SHARES = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9)
TEMPERATURES = np.logspace(-0.4, 0.8, 49)

POSITIONS = (0, 1, 2, 4, 7, 11, 21, N_UTTERANCES)
"""Earlier utterances of the voice, in the curves: from each number to below the next."""


RARE_RATIO = 0.25
"""An assumption about people, not fitted: the streams have no disgusted, scared or surprised utterances,
as not all corpora have, so that on them less is always better."""

MIN_COVERAGE = 0.4
"""The share of utterances that a threshold leaves, even if fewer than wanted are right."""


@dataclass(frozen=True)
class Choices:
    """What is chosen for a trained model on corpora that it was not trained on."""

    temperature: float
    threshold: float
    neutral_share: float
    rare_ratio: float = RARE_RATIO


@dataclass(frozen=True)
class CorpusScores:
    """The scores of a model, of temperature 1, on a corpus that it was not trained on."""

    class_names: Sequence[str]
    memory: float
    clips: Sequence[Clip]
    cold: Scores
    """(n_clips, n_classes), see `voice_streams.cold_scores`."""
    streams: Sequence[VoiceStream]
    known: Scores
    """(n_streams, N_UTTERANCES, n_classes), see `voice_streams.known_scores`."""
    own: Mapping[str, Emotion] = field(default_factory=dict)
    """Classes that are not in `emotions.EMOTIONS`."""

    @property
    def expressions(self) -> list[str]:
        """The basic expressions that the corpus has."""
        present = {expression_of(clip) for clip in self.clips}
        return [name for name in BASIC if name in present]

    @functools.cached_property
    def _adapted(self) -> Scores:
        return adapt(self.known, self.memory)

    def adapted(self, choices: 'Choices') -> Scores:
        """The scores of the streams after adaptation."""
        # Temperature divides scores and their means alike.
        return self._adapted / choices.temperature + self.shares_shift(choices)

    def shares_shift(self, choices: 'Choices') -> Scores:
        """(n_classes,) to add to scores for the expected shares of classes."""
        return prior_shift(self.class_names, choices.neutral_share, choices.rare_ratio, self.own)

    def rows(self, kind: str) -> list[int]:
        """Indices of the streams of a kind."""
        return [row for row, stream in enumerate(self.streams) if stream.kind == kind]


def choose(corpora: Sequence[CorpusScores], target_accuracy: float) -> Choices:
    """Temperature, neutral share and threshold by corpora that all count alike.

    For each temperature the neutral share is the least with which at most `NEUTRAL_ERROR` of the
    neutral utterances are taken for something else. The temperature has the least negative
    log-likelihood, and the threshold is the least above which decisions are right as often as
    `target_accuracy`, both over streams of both kinds; if those are less than `MIN_COVERAGE` of the
    utterances, it is the greatest that leaves so many. SerError without corpora.
    """
    if not corpora:
        raise SerError('temperature and threshold need a corpus that was left out')
    tried = []
    for temperature in TEMPERATURES:
        for share in NEUTRAL_SHARES:
            choices = Choices(float(temperature), 0.0, share)
            if np.mean([_neutral_error(corpus, choices) for corpus in corpora]) <= NEUTRAL_ERROR:
                break
        tried.append((np.mean([_loss(corpus, choices) for corpus in corpora]), choices))
    _, best = min(tried, key=lambda item: item[0])
    return dataclasses.replace(best, threshold=_threshold(corpora, best, target_accuracy))


def _loss(corpus: CorpusScores, choices: Choices) -> float:
    """The mean negative log-likelihood of the streams with several emotions, each kind alike."""
    losses = []
    for kind in SEVERAL:
        rows = corpus.rows(kind)
        scores = corpus.adapted(choices)[rows]
        labels = [
            [corpus.class_names.index(corpus.clips[i].emotion) for i in corpus.streams[row].clips]
            for row in rows
        ]
        right = np.take_along_axis(scores, np.array(labels)[..., None], axis=-1)[..., 0]
        losses.append(np.nanmean(logsumexp(scores, axis=-1) - right))
    return float(np.mean(losses))


def _decide(
    scores: Scores, class_names: Sequence[str], own: Mapping[str, Emotion]
) -> tuple[np.ndarray, np.ndarray]:
    """(..., n_classes) → the leading expression and its margin; '' and 0 without speech."""
    expressions = np.array([emotion_of(name, own).expression for name in class_names])
    names = np.array(ExpressionMap(class_names, own).expressions)
    probabilities = softmax(scores, axis=-1)
    sums = np.stack([probabilities[..., expressions == n].sum(axis=-1) for n in names], axis=-1)
    has_speech = np.isfinite(sums).all(axis=-1)
    decided = np.where(has_speech, names[np.nan_to_num(sums).argmax(axis=-1)], '')
    # A column of zeros: there may be one expression alone.
    ordered = np.sort(np.concatenate((np.zeros_like(sums[..., :1]), sums), axis=-1), axis=-1)
    return decided, np.where(has_speech, ordered[..., -1] - ordered[..., -2], 0.0)


def _truth(corpus: CorpusScores, rows: Sequence[int]) -> np.ndarray:
    """(n_rows, N_UTTERANCES) expressions of the streams' clips."""
    return np.array(
        [[expression_of(corpus.clips[i]) for i in corpus.streams[row].clips] for row in rows]
    )


def _neutral_error(corpus: CorpusScores, choices: Choices) -> float:
    """The share of neutral utterances of a known voice that are taken for another expression."""
    rows = corpus.rows('mostly neutral')
    scores = corpus.adapted(choices)[rows][:, N_KNOWN:]
    decided, _ = _decide(_basic(corpus, scores), _basic_classes(corpus), corpus.own)
    is_neutral = _truth(corpus, rows)[:, N_KNOWN:] == NEUTRAL
    return float((decided[is_neutral] != NEUTRAL).mean())


def _basic_classes(corpus: CorpusScores) -> list[str]:
    present = corpus.expressions
    return [n for n in corpus.class_names if emotion_of(n, corpus.own).expression in present]


def _basic(corpus: CorpusScores, scores: Scores) -> Scores:
    """The scores of the classes whose basic expressions the corpus has."""
    return scores[..., [corpus.class_names.index(name) for name in _basic_classes(corpus)]]


def _threshold(corpora: Sequence[CorpusScores], choices: Choices, target: float) -> float:
    margins, rights, weights = [], [], []
    for corpus, kind in itertools.product(corpora, SEVERAL):
        rows = corpus.rows(kind)
        decided, margin = _decide(corpus.adapted(choices)[rows], corpus.class_names, corpus.own)
        margins.append(margin.ravel())
        rights.append((decided == _truth(corpus, rows)).ravel())
        weights.append(np.full(margin.size, 1 / margin.size))
    order = np.argsort(-np.concatenate(margins), kind='stable')
    weight = np.concatenate(weights)[order]
    right = np.cumsum(weight * np.concatenate(rights)[order]) / np.cumsum(weight)
    reached = np.flatnonzero(right >= target)
    enough = np.searchsorted(np.cumsum(weight), MIN_COVERAGE * weight.sum())
    chosen = order[max(enough, reached.max(initial=0))]
    # Rounded down: in other arithmetic the decision that sets it may be a little less certain.
    return float(np.floor(1e5 * np.concatenate(margins)[chosen]) / 1e5)


def evaluate_left_out(corpus: CorpusScores, choices: Choices) -> dict[str, Any]:
    """The metrics of a corpus that was left out, with choices that others made, as plain values.

    `cold`: all clips with basic expressions, each of a voice of which nothing is known. For each
    kind of stream the utterances from the eleventh on. Accuracies are those among the basic
    expressions of the corpus; calibration error, coverage and "right when decided" are those of
    the decisions among all classes, as a robot makes them. They are `unadapted`, with the
    `expected_shares` of classes alone, and `adapted` with both. `curves`: metrics after each number of
    utterances in `POSITIONS`.
    """
    adapted = corpus.adapted(choices)
    basic = [i for i, clip in enumerate(corpus.clips) if expression_of(clip) in BASIC]
    clips = [corpus.clips[i] for i in basic]
    kinds = dict.fromkeys(stream.kind for stream in corpus.streams)
    metrics: dict[str, Any] = {
        'expressions': corpus.expressions,
        'speakers': len({clip.voice for clip in clips}),
        'cold': _metrics(corpus, clips, corpus.cold[basic] / choices.temperature, choices),
        'streams': {},
        'curves': {'earlier_utterances': list(POSITIONS[:-1])},
    }
    for kind in kinds:
        rows = corpus.rows(kind)
        later, scores = _stream(corpus, rows, adapted, N_KNOWN, N_UTTERANCES)
        cold = corpus.cold[[corpus.streams[row].clips[N_KNOWN:] for row in rows]]
        metrics['streams'][kind] = {
            'speakers': len({corpus.streams[row].voice for row in rows}),
            'repeated': repeated_share([corpus.streams[row] for row in rows]),
            'unadapted': _metrics(corpus, later, cold / choices.temperature, choices),
            'expected_shares': _metrics(
                corpus, later, cold / choices.temperature + corpus.shares_shift(choices), choices
            ),
            'adapted': _metrics(corpus, later, scores, choices),
        }
        if kind in SEVERAL:
            spans = [
                _stream(corpus, rows, adapted, *span) for span in itertools.pairwise(POSITIONS)
            ]
            curve = [_metrics(corpus, *span, choices) for span in spans]
            metrics['curves'][kind] = {
                name: [values[name] for values in curve]
                for name in (
                    'accuracy',
                    'unweighted_accuracy',
                    'neutral_error',
                    'coverage',
                    'expression_accuracy_when_decided',
                )
            }
    return metrics


def _stream(
    corpus: CorpusScores, rows: Sequence[int], scores: Scores, first: int, last: int
) -> tuple[list[Clip], Scores]:
    """The clips and scores of some positions in some streams."""
    clips = [corpus.clips[i] for row in rows for i in corpus.streams[row].clips[first:last]]
    return clips, scores[rows][:, first:last]


def _metrics(
    corpus: CorpusScores, clips: Sequence[Clip], scores: Scores, choices: Choices
) -> dict[str, Any]:
    """The metrics of clips with (..., n_classes) scores, in the same order."""
    names = list(corpus.class_names)
    rows = scores.reshape(len(clips), len(names))
    results = decide_clips(clips, rows, names, corpus.own, choices.threshold)
    among = _basic_classes(corpus)
    metrics = compute_metrics([r.restricted_to(among, names) for r in results], among)
    unrestricted = [result for result in results if result.has_speech]
    calibration = calibration_metrics(
        np.array([result.score for result in unrestricted]),
        np.array([names.index(result.clip.emotion) for result in unrestricted]),
    )
    return {
        **{name: metrics[name] for name in KEPT},
        'calibration_error': calibration['calibration_error'],
        'neutral_error': _share_wrong(metrics),
        'emotion_accuracy_when_decided': _emotions_right(results),
    }


def _emotions_right(results: Sequence[ClipResult]) -> Optional[float]:
    """The share of right ones among the decided expressions other than neutral; None without any."""
    is_right = [
        decision == result.clip.expression
        for result in results
        for decision in result.decisions
        if decision not in (None, NEUTRAL)
    ]
    return sum(is_right) / len(is_right) if is_right else None


def _share_wrong(metrics: Mapping[str, Any]) -> float:
    """The share of neutral clips that are taken for another expression, or without detected speech."""
    return 1 - metrics['classes'].get(NEUTRAL, {'recall': 1.0})['recall']

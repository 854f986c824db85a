"""Calibration: how far confidences are from accuracies, and the temperature and threshold."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ser_ros import SerError
from ser_ros.bundle import Bundle
from ser_ros.emotions import NOTHING, Emotion, ExpressionMap, margin
from ser_ros.training.data.corpora import Clip
from ser_ros.training.evaluation.clip_result import ClipResult
from ser_ros.training.evaluation.prediction import decide, predict_clips

N_BINS = 15
"""Bins of confidence."""

N_DRAWS = 2_000
"""Random draws for the calibration error that chance alone causes."""


def calibration_metrics(scores: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Metrics of (n, n_classes) log-probabilities and true classes (n,); all None if n is 0."""
    if not len(scores):
        errors = ('calibration_error', 'calibration_error_by_chance')
        return dict.fromkeys((*errors, 'negative_log_likelihood', 'reliability'))
    confidence = np.exp(scores.max(axis=1))
    is_right = scores.argmax(axis=1) == labels
    index = np.minimum((confidence * N_BINS).astype(int), N_BINS - 1)
    count = np.bincount(index, minlength=N_BINS)
    bins = {
        'count': count.tolist(),
        'confidence': _mean_of_bins(np.bincount(index, confidence, N_BINS), count),
        'accuracy': _mean_of_bins(np.bincount(index, is_right, N_BINS), count),
    }
    return {
        **_calibration_errors(bins),
        'negative_log_likelihood': float(-scores[np.arange(len(labels)), labels].mean()),
        'reliability': bins,
    }


def pool_calibration(metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`calibration_metrics` of all values together, from the metrics of each set of them.

    The bins and losses of sets add up, so that the single log-probabilities are not needed.
    """
    all_bins = [values['reliability'] for values in metrics]
    counts = np.array([bins['count'] for bins in all_bins])
    count = counts.sum(axis=0)
    bins = {'count': count.tolist()}
    for name in ('confidence', 'accuracy'):
        total = (counts * [bins[name] for bins in all_bins]).sum(axis=0)
        bins[name] = _mean_of_bins(total, count)
    losses = [values['negative_log_likelihood'] for values in metrics]
    return {
        **_calibration_errors(bins),
        'negative_log_likelihood': float(np.average(losses, weights=counts.sum(axis=1))),
        'reliability': bins,
    }


def _mean_of_bins(total: np.ndarray, count: np.ndarray) -> list[float]:
    """Mean of each bin; 0 for an empty one."""
    return (total / np.maximum(count, 1)).round(6).tolist()


def _calibration_errors(bins: Mapping[str, list]) -> dict[str, float]:
    """Expected calibration error (Guo et al., 2017): mean gap of confidence and accuracy.

    `by_chance`: its expected value for a perfectly calibrated model, whose answers are right as
    often as their confidences state, independently of each other. It is never 0, since each bin
    has few answers.
    """
    count, confidence = np.array(bins['count']), np.array(bins['confidence'])
    right = np.random.default_rng(1).binomial(count, confidence, (N_DRAWS, len(count)))
    by_chance = np.abs(count * confidence - right).sum(axis=1) / count.sum()
    gaps = np.abs(confidence - bins['accuracy'])
    return {
        'calibration_error': float(np.average(gaps, weights=count)),
        'calibration_error_by_chance': float(by_chance.mean()),
    }


def calibrate(bundle: Bundle, clips: Sequence[Clip], device: str = 'auto') -> list[ClipResult]:
    """Set the bundle's temperature, and its threshold by the recipe's `target_accuracy`.

    Returns the results of the calibrated bundle for the validation `clips`, which are predicted
    once: temperature and threshold are applied to what is known. SerError if no speech is detected
    in any of them.
    """
    names = bundle.info.class_names
    bundle.info = dataclasses.replace(bundle.info, temperature=1.0, threshold=0.0)
    results = predict_clips(bundle, clips, device)
    temperature = fit_temperature(results, names)
    results = [result.at_temperature(temperature) for result in results]
    own = bundle.info.classes
    threshold = fit_threshold(results, names, bundle.info.recipe['target_accuracy'], own)
    bundle.info = dataclasses.replace(bundle.info, temperature=temperature, threshold=threshold)
    expressions = ExpressionMap(names, own)
    return [
        dataclasses.replace(
            result, decisions=[decide(bundle, row, expressions)[0] for row in result.utterances]
        )
        for result in results
    ]


def fit_temperature(results: Sequence[ClipResult], class_names: Sequence[str]) -> float:
    """The temperature of least negative log-likelihood over whole clips (Guo et al., 2017).

    `results` must be those of a bundle of temperature 1; SerError if none has speech.
    """
    usable = _with_speech(results)
    scores = torch.from_numpy(np.array([result.score for result in usable]))
    labels = torch.tensor([class_names.index(result.clip.emotion) for result in usable])
    candidates = torch.logspace(-1, 1, 401, dtype=torch.float64)
    losses = [torch.nn.functional.cross_entropy(scores / t, labels) for t in candidates]
    return candidates[int(torch.stack(losses).argmin())].item()


def fit_threshold(
    results: Sequence[ClipResult],
    class_names: Sequence[str],
    target_accuracy: float,
    own: Mapping[str, Emotion] = NOTHING,
) -> float:
    """The least margin (`emotions.margin`) above which `target_accuracy` of decisions are right.

    If no margin reaches the target, that of the most certain decision. It is rounded down to
    five decimals: in other arithmetic the decision that sets it is a little less certain. `own`:
    classes that are not in `emotions.EMOTIONS`. SerError if no result has speech.
    """
    expression_map = ExpressionMap(class_names, own)
    decided = []
    for result in _with_speech(results):
        expressions = expression_map.sum_classes(np.exp(result.score))
        leader = int(expressions.argmax())
        is_right = expression_map.expressions[leader] == result.clip.expression
        decided.append((margin(expressions, leader), is_right))
    margins, is_right = map(np.array, zip(*sorted(decided, reverse=True)))
    accuracy = is_right.cumsum() / np.arange(1, len(is_right) + 1)
    reached = np.flatnonzero(accuracy >= target_accuracy)
    return math.floor(1e5 * margins[reached[-1] if len(reached) else 0]) / 1e5


def _with_speech(results: Sequence[ClipResult]) -> list[ClipResult]:
    if usable := [result for result in results if result.has_speech]:
        return usable
    raise SerError(
        f'no speech was detected in any of {len(results)} validation clips; calibration needs it'
    )

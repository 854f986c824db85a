"""Metrics over the results of clips, as plain values."""

from collections.abc import Mapping, Sequence
from typing import Any, Optional

import numpy as np
import torch
from torchmetrics.functional.classification import (
    multiclass_confusion_matrix,
    multiclass_f1_score,
    multiclass_precision,
    multiclass_recall,
)

from ser_ros import SerError
from ser_ros.training.evaluation.calibration import calibration_metrics, pool_calibration
from ser_ros.training.evaluation.clip_result import ClipResult, from_records, to_records

N_DRAWS = 2_000
"""Random draws of the bootstrap over speakers."""

KEPT = (
    'clips',
    'no_speech',
    'accuracy',
    'unweighted_accuracy',
    'unweighted_accuracy_interval',
    'calibration_error',
    'coverage',
    'expression_accuracy_when_decided',
)
"""Metrics of `compute_metrics` that are kept of evaluations of which there are many."""

GROUPS = ('corpus', 'language', 'gender', 'age_group', 'intensity', 'voice')
"""Attributes of a clip for whose values there are separate metrics."""


def subset_results(
    results: Sequence[ClipResult], class_names: Sequence[str], protocol: str
) -> dict[str, Any]:
    """Class names, metrics and records of a subset, as `pool_subsets` and the reports need them."""
    return {
        'class_names': list(class_names),
        'metrics': {'protocol': protocol, **compute_metrics(results, class_names)},
        'predictions': to_records(results, class_names),
    }


def pool_subsets(subsets: Sequence[Mapping[str, Any]], protocol: str) -> dict[str, Any]:
    """One subset from several of `subset_results`, such as the test sets of all folds.

    SerError if their classes differ, or a clip is in two of them.
    """
    class_names = subsets[0]['class_names']
    if any(subset['class_names'] != class_names for subset in subsets):
        raise SerError('subsets with different classes cannot be pooled')
    records = [record for subset in subsets for record in subset['predictions']]
    # Old records have bare file names, of which folders of emotions may have the same.
    keys = ('corpus', 'speaker', 'emotion', 'name', 'fingerprint')
    names = {tuple(record.get(key) for key in keys) for record in records}
    if len(names) < len(records):
        raise SerError(f'{len(records) - len(names)} clips are in more than one of the subsets')
    return {
        'class_names': class_names,
        'metrics': {
            'protocol': protocol,
            **compute_metrics(from_records(records), class_names),
            **_pool_window_calibration([subset['metrics'] for subset in subsets]),
        },
        'predictions': records,
    }


def compute_metrics(results: Sequence[ClipResult], class_names: Sequence[str]) -> dict[str, Any]:
    """Metrics over whole clips, as plain values; SerError if there are no clips.

    A clip without detected speech counts as wrong. "Unweighted accuracy" is the mean of the
    classes' recalls, over the classes that the clips have; so is macro F1. A metric that cannot
    be computed from these clips is None.
    """
    if not results:
        raise SerError('there are no clips to compute metrics from')
    names = list(class_names)
    labels, predicted = _labels_and_predictions(results, names)
    classes = _class_metrics(labels, predicted, names)
    return {
        'clips': len(results),
        'no_speech': sum(not result.has_speech for result in results),
        'speakers': sorted({result.clip.voice for result in results}),
        **_accuracies(labels, predicted, len(names)),
        'unweighted_accuracy_interval': _interval(results, labels, predicted, len(names)),
        'macro_f1': float(np.mean([values['f1'] for values in classes.values()])),
        'classes': classes,
        'confusion': _confusion(labels, predicted, names),
        'groups': {name: _group(results, labels, predicted, len(names), name) for name in GROUPS},
        **_clip_calibration(results, labels),
        **_window_calibration(results, labels),
        'risk_coverage': _risk_coverage(results, labels == predicted),
        **_decisions(results),
    }


def accuracy_change(
    results: Sequence[ClipResult], before: Sequence[ClipResult], class_names: Sequence[str]
) -> dict[str, Any]:
    """How unweighted accuracy differs from that of results `before` for the same clips.

    The 95 % interval is paired: each random draw of speakers is the same for both.
    """
    names = list(class_names)
    accuracies, draws = [], []
    for some in (results, before):
        labels, predicted = _labels_and_predictions(some, names)
        accuracies.append(_accuracies(labels, predicted, len(names))['unweighted_accuracy'])
        draws.append(_bootstrap(some, labels, predicted, len(names)))
    interval = None if draws[0] is None else _percentiles(draws[0] - draws[1])
    return {'accuracy_change': accuracies[0] - accuracies[1], 'accuracy_change_interval': interval}


def _labels_and_predictions(
    results: Sequence[ClipResult], names: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Indices (n,) of the true and the predicted classes.

    A clip without speech counts as predicted in an additional class, which is never right.
    """
    labels = [names.index(result.clip.emotion) for result in results]
    predicted = [int(r.score.argmax()) if r.has_speech else len(names) for r in results]
    return np.array(labels), np.array(predicted)


def _accuracies(labels: np.ndarray, predicted: np.ndarray, n_classes: int) -> dict[str, float]:
    recalls = multiclass_recall(*_tensors(predicted, labels), n_classes + 1, average=None)
    return {
        'accuracy': float((labels == predicted).mean()),
        'unweighted_accuracy': recalls[np.unique(labels)].mean().item(),
    }


def _tensors(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(array) for array in arrays]


def _class_metrics(
    labels: np.ndarray, predicted: np.ndarray, names: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Class that the clips have → number of its clips, precision, recall and F1."""
    metrics = {
        'precision': multiclass_precision,
        'recall': multiclass_recall,
        'f1': multiclass_f1_score,
    }
    values = {
        name: metric(*_tensors(predicted, labels), len(names) + 1, average=None).tolist()
        for name, metric in metrics.items()
    }
    counts = np.bincount(labels, minlength=len(names)).tolist()
    return {
        name: {'clips': counts[index], **{key: values[key][index] for key in metrics}}
        for index, name in enumerate(names)
        if counts[index]
    }


def _confusion(labels: np.ndarray, predicted: np.ndarray, names: list[str]) -> dict[str, Any]:
    """Rows are true classes; the last column counts the clips without detected speech."""
    counts = multiclass_confusion_matrix(*_tensors(predicted, labels), len(names) + 1)
    return {'columns': [*names, 'no speech'], 'rows': counts[:-1].tolist()}


def _group(
    results: Sequence[ClipResult],
    labels: np.ndarray,
    predicted: np.ndarray,
    n_classes: int,
    attribute: str,
) -> dict[str, dict[str, Any]]:
    """Value of a clip's attribute → metrics of these clips; clips without a value are left out."""
    values = np.array([getattr(result.clip, attribute) or '' for result in results])
    metrics = {}
    for value in np.unique(values[values != '']).tolist():
        index = np.flatnonzero(values == value)
        selected = [results[i] for i in index], labels[index], predicted[index], n_classes
        metrics[value] = {
            'clips': len(index),
            'speakers': len({result.clip.voice for result in selected[0]}),
            'n_classes': len(np.unique(labels[index])),
            **_accuracies(*selected[1:]),
            'unweighted_accuracy_interval': _interval(*selected),
        }
    return metrics


def _interval(
    results: Sequence[ClipResult], labels: np.ndarray, predicted: np.ndarray, n_classes: int
) -> Optional[list[float]]:
    """95 % interval of unweighted accuracy; None if there is only one speaker."""
    draws = _bootstrap(results, labels, predicted, n_classes)
    return None if draws is None else _percentiles(draws)


def _percentiles(draws: np.ndarray) -> list[float]:
    return np.percentile(draws, (2.5, 97.5)).tolist()


def _bootstrap(
    results: Sequence[ClipResult], labels: np.ndarray, predicted: np.ndarray, n_classes: int
) -> Optional[np.ndarray]:
    """(N_DRAWS,) unweighted accuracies of random draws of speakers (Efron, 1979).

    Clips of one voice are alike, so whole speakers are drawn, the same for the same speakers; None
    if there is only one.
    """
    voices, speaker = np.unique([result.clip.voice for result in results], return_inverse=True)
    if len(voices) < 2:
        return None
    counts = np.zeros((2, len(voices), n_classes))
    np.add.at(counts[0], (speaker, labels), 1)
    np.add.at(counts[1], (speaker, labels), labels == predicted)
    generator = np.random.default_rng(1)
    draws = generator.multinomial(len(voices), np.full(len(voices), 1 / len(voices)), N_DRAWS)
    n_clips, n_right = draws @ counts
    recall = np.divide(n_right, n_clips, out=np.full(n_clips.shape, np.nan), where=n_clips > 0)
    return np.nanmean(recall, axis=1)


def _clip_calibration(results: Sequence[ClipResult], labels: np.ndarray) -> dict[str, Any]:
    index = [index for index, result in enumerate(results) if result.has_speech]
    scores = [results[i].score for i in index]
    return calibration_metrics(np.array(scores), labels[index])


def _window_calibration(results: Sequence[ClipResult], labels: np.ndarray) -> dict[str, Any]:
    """The same metrics over the windows of streamed clips."""
    windows = [() if result.is_whole else result.windows for result in results]
    scores = np.array([row for rows in windows for row in rows])
    return _of_windows(
        calibration_metrics(scores, np.repeat(labels, [len(rows) for rows in windows]))
    )


def _of_windows(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {f'window_{name}': value for name, value in metrics.items()}


def _pool_window_calibration(metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`_window_calibration` over the windows of all subsets, from the metrics of each."""
    if any(values['window_reliability'] is None for values in metrics):
        return {}
    names = ('reliability', 'negative_log_likelihood')
    return _of_windows(
        pool_calibration([{n: values[f'window_{n}'] for n in names} for values in metrics])
    )


def _risk_coverage(results: Sequence[ClipResult], is_right: np.ndarray) -> dict[str, Any]:
    """Share of errors among the most certain clips, for growing shares of all clips.

    `area` is the mean risk over all coverages (Geifman & El-Yaniv, 2017); the curve keeps at most
    50 of them. Among clips with the same confidence the wrong ones come first.
    """
    confidence = [float(np.exp(r.score.max())) if r.has_speech else 0.0 for r in results]
    errors = ~is_right[np.lexsort((is_right, -np.array(confidence)))]
    n = np.arange(1, len(errors) + 1)
    risk = errors.cumsum() / n
    kept = np.unique(np.linspace(0, len(n) - 1, 50).round().astype(int))
    return {
        'coverage': (n[kept] / len(n)).round(4).tolist(),
        'risk': risk[kept].round(4).tolist(),
        'area': float(risk.mean()),
    }


def _decisions(results: Sequence[ClipResult]) -> dict[str, Any]:
    """Share of the utterances with a decided expression, and how many of these are right."""
    decided = [
        decision == result.clip.expression
        for result in results
        for decision in result.decisions
        if decision is not None
    ]
    n_utterances = sum(len(result.decisions) for result in results)
    return {
        'utterances': n_utterances,
        'coverage': len(decided) / n_utterances if n_utterances else None,
        'expression_accuracy_when_decided': sum(decided) / len(decided) if decided else None,
    }

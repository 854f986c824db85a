"""How well a bundle does, clip by clip, and the figures that this comes to."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np
import torch
from torchmetrics.functional.classification import (
    multiclass_confusion_matrix,
    multiclass_f1_score,
    multiclass_precision,
    multiclass_recall,
)
from tqdm import tqdm

from ser_ros import SerError
from ser_ros.audio import SAMPLE_RATE, SECOND
from ser_ros.audio.formats import PcmFormat, encode_s16le
from ser_ros.audio.sources import read_audio
from ser_ros.bundle import Bundle, BundleError
from ser_ros.emotions import EMOTIONS, ExpressionMap
from ser_ros.stream.engine import select_device
from ser_ros.stream.recognizer import Recognizer
from ser_ros.stream.types import MIN_PROBABILITY, Estimate
from ser_ros.stream.voice import can_stream, pool_windows
from ser_ros.training.data.corpora import Clip
from ser_ros.training.data.dataset import one_thread

MESSAGE = PcmFormat('S16LE', 1, SAMPLE_RATE)
"""What a clip is sent as."""

N_BINS = 15
"""Of confidence, for calibration."""

N_DRAWS = 2_000
"""Of the bootstrap over speakers, and of the calibration error that chance alone makes."""

GROUPS = ('corpus', 'gender', 'intensity', 'voice')
"""Attributes of a clip by which figures are told apart."""


@dataclass(frozen=True)
class ClipResult:
    """What a bundle made of one clip."""

    clip: Clip
    windows: np.ndarray
    """(n_windows, n_classes) calibrated log-probabilities; no rows where no speech was heard."""
    decisions: list[Optional[str]]
    """Expression of each finished utterance, None where it was withheld."""
    is_whole: bool = False
    """Whether `windows` is one row for the whole clip, which was not heard as a stream."""
    lengths: Optional[Sequence[int]] = None
    """Of the windows, in samples; None where they are alike."""

    @property
    def score(self) -> np.ndarray:
        """(n_classes,) log-probabilities of the whole clip, see `voice.pool_windows`."""
        return _log_softmax(pool_windows(self.windows, self.lengths or [1] * len(self.windows)))

    @property
    def is_heard(self) -> bool:
        """Whether there is any probability at all."""
        return len(self.windows) > 0

    def at_temperature(self, temperature: float) -> 'ClipResult':
        """The same, had the bundle's temperature been this many times as high."""
        return dataclasses.replace(self, windows=_log_softmax(self.windows / temperature))

    def among(self, class_names: Sequence[str], chosen: Sequence[str]) -> 'ClipResult':
        """The same, had it been known that the class is one of those `chosen`."""
        columns = [class_names.index(name) for name in chosen]
        return dataclasses.replace(self, windows=_log_softmax(self.windows[:, columns]))


def _log_softmax(scores: np.ndarray) -> np.ndarray:
    return torch.from_numpy(scores).log_softmax(dim=-1).numpy()


def listen(
    bundle: Bundle, clips: Sequence[Clip], device: str = 'auto', gain_db: float = 0.0
) -> list[ClipResult]:
    """Hear the clips as a stream, or classify them whole where the bundle cannot stream."""
    if can_stream(bundle):
        return hear(Recognizer(bundle, device), clips, gain_db)
    return classify(bundle, clips, device, gain_db)


def manner(bundle: Bundle) -> str:
    """How `listen` lets this bundle hear a clip; the end of a protocol's sentence."""
    if can_stream(bundle):
        return 'each clip streamed as on the robot, between half a second of silence'
    return 'each clip classified as a whole'


@one_thread()
def hear(recognizer: Recognizer, clips: Sequence[Clip], gain_db: float = 0.0) -> list[ClipResult]:
    """Stream each clip, between half a second of silence, through the recogniser."""
    gain = np.float32(10 ** (gain_db / 20))
    results = []
    for clip in tqdm(clips, desc='hearing', unit='clip', leave=False):
        estimates = stream(recognizer, read_audio(clip.path) * gain)
        windows = [e for e in estimates if e.is_window]
        scores = np.array([e.log_probabilities for e in windows])
        results.append(
            ClipResult(
                clip,
                scores.reshape(-1, len(recognizer.bundle.info.class_names)),
                [e.expression for e in estimates if e.is_final],
                lengths=[e.n_samples for e in windows],
            )
        )
    return results


def stream(recognizer: Recognizer, sound: np.ndarray) -> list[Estimate]:
    """Float32 (n,) samples at 16 kHz, sent as on the robot, between half a second of silence."""
    silence = np.zeros(8_000, np.float32)
    samples = MESSAGE.decode(encode_s16le(np.concatenate((silence, sound, silence))))[:, 0]
    recognizer.reset()
    return recognizer.push(samples, SECOND) + recognizer.flush()


def classify(
    bundle: Bundle, clips: Sequence[Clip], device: str = 'auto', gain_db: float = 0.0
) -> list[ClipResult]:
    """Give each clip to the bundle as a whole; the decision is the clip's own.

    A clip that is too short, or silent where the front-end listens, is not heard.
    """
    bundle.model.to(select_device(device))
    gain = 10 ** (gain_db / 20)
    expressions = ExpressionMap(bundle.info.class_names)
    results = []
    for clip in tqdm(clips, desc='classifying', unit='clip', leave=False):
        samples = read_audio(clip.path, bundle.frontend.sample_rate) * np.float32(gain)
        try:
            scores = bundle.classify(torch.from_numpy(samples)).double().numpy()[None]
            scores = np.maximum(scores, np.log(MIN_PROBABILITY))
        except BundleError:
            scores = np.zeros((0, len(bundle.info.class_names)))
        decisions = [decide(bundle, row, expressions)[0] for row in scores]
        results.append(ClipResult(clip, scores, decisions, is_whole=True))
    return results


def decide(
    bundle: Bundle, score: np.ndarray, expressions: ExpressionMap
) -> tuple[Optional[str], float]:
    """The expression, None where it is withheld, and its confidence, by (n_classes,) log-probabilities."""
    return expressions.decide(np.exp(score), bundle.info.threshold)


def predictions(results: Sequence[ClipResult], class_names: Sequence[str]) -> list[dict[str, Any]]:
    """A record of each clip, as plain values, from which the figures can be had again."""
    return [
        {
            'name': result.clip.name,
            'corpus': result.clip.corpus,
            'speaker': result.clip.speaker,
            'emotion': result.clip.emotion,
            'gender': result.clip.gender,
            'intensity': result.clip.intensity,
            'probabilities': _probabilities(result, class_names) if result.is_heard else None,
            'n_windows': 0 if result.is_whole else len(result.windows),
            'decisions': result.decisions,
        }
        for result in results
    ]


def _probabilities(result: ClipResult, class_names: Sequence[str]) -> dict[str, float]:
    """To four significant digits, not decimals: a loss needs small ones as well."""
    return {name: float(f'{p:.4g}') for name, p in zip(class_names, np.exp(result.score))}


def from_predictions(records: Sequence[Mapping[str, Any]]) -> list[ClipResult]:
    """Results for `measure` from the records of `predictions`; of the windows nothing is left."""
    results = []
    for record in records:
        clip = Clip(
            path=Path(record['name']),
            emotion=record['emotion'],
            speaker=record['speaker'],
            corpus=record['corpus'],
            gender=record['gender'],
            intensity=record['intensity'],
        )
        probabilities = record['probabilities']
        rows = [] if probabilities is None else [list(probabilities.values())]
        windows = np.log(np.maximum(rows, MIN_PROBABILITY)) if rows else np.zeros((0, 0))
        results.append(ClipResult(clip, windows, record['decisions'], is_whole=True))
    return results


def record_part(
    results: Sequence[ClipResult], class_names: Sequence[str], protocol: str
) -> dict[str, Any]:
    """What a report and `pool` need of one part: figures, and a record of each clip."""
    return {
        'class_names': list(class_names),
        'figures': {'protocol': protocol, **measure(results, class_names)},
        'predictions': predictions(results, class_names),
    }


def pool(parts: Sequence[Mapping[str, Any]], protocol: str) -> dict[str, Any]:
    """One part of several of `record_part`, such as the test parts of all folds.

    SerError where they are of other classes, or share a clip.
    """
    class_names = parts[0]['class_names']
    if any(part['class_names'] != class_names for part in parts):
        raise SerError('parts of different classes have no figures in common')
    records = [record for part in parts for record in part['predictions']]
    names = {(record['corpus'], record['speaker'], record['name']) for record in records}
    if len(names) < len(records):
        raise SerError(f'{len(records) - len(names)} clips are in more than one of the parts')
    return {
        'class_names': class_names,
        'figures': {
            'protocol': protocol,
            **measure(from_predictions(records), class_names),
            **_pooled_windows([part['figures'] for part in parts]),
        },
        'predictions': records,
    }


def measure(results: Sequence[ClipResult], class_names: Sequence[str]) -> dict[str, Any]:
    """Figures over whole clips, as plain values; SerError where there are no clips.

    A clip in which no speech was heard counts as wrong. "Unweighted accuracy" is the mean of the
    classes' recalls, over the classes that the clips have; so is macro F1. What there is nothing
    to compute from is None.
    """
    if not results:
        raise SerError('there are no clips to measure')
    names = list(class_names)
    labels = _labels(results, names)
    # Whoever was not heard is taken for a class of its own, which nothing is.
    guesses = np.array([int(r.score.argmax()) if r.is_heard else len(names) for r in results])
    classes = _class_figures(labels, guesses, names)
    return {
        'clips': len(results),
        'unheard': sum(not result.is_heard for result in results),
        'speakers': sorted({result.clip.voice for result in results}),
        **_accuracies(labels, guesses, len(names)),
        'unweighted_accuracy_interval': _interval(results, labels, guesses, len(names)),
        'macro_f1': float(np.mean([figures['f1'] for figures in classes.values()])),
        'classes': classes,
        'confusion': _confusion(labels, guesses, names),
        'groups': {name: _group(results, labels, guesses, len(names), name) for name in GROUPS},
        **_clip_calibration(results, labels),
        **_window_calibration(results, labels),
        'risk_coverage': _risk_coverage(results, labels == guesses),
        **_decisions(results),
    }


def _labels(results: Sequence[ClipResult], names: Sequence[str]) -> np.ndarray:
    return np.array([names.index(result.clip.emotion) for result in results])


def _accuracies(labels: np.ndarray, guesses: np.ndarray, n_classes: int) -> dict[str, float]:
    recalls = multiclass_recall(*_tensors(guesses, labels), n_classes + 1, average=None)
    return {
        'accuracy': float((labels == guesses).mean()),
        'unweighted_accuracy': recalls[np.unique(labels)].mean().item(),
    }


def _tensors(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(array) for array in arrays]


def _class_figures(
    labels: np.ndarray, guesses: np.ndarray, names: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Of each class that the clips have."""
    metrics = {
        'precision': multiclass_precision,
        'recall': multiclass_recall,
        'f1': multiclass_f1_score,
    }
    values = {
        name: metric(*_tensors(guesses, labels), len(names) + 1, average=None).tolist()
        for name, metric in metrics.items()
    }
    counts = np.bincount(labels, minlength=len(names)).tolist()
    return {
        name: {'clips': counts[index], **{key: values[key][index] for key in metrics}}
        for index, name in enumerate(names)
        if counts[index]
    }


def _confusion(labels: np.ndarray, guesses: np.ndarray, names: list[str]) -> dict[str, Any]:
    """Rows are true classes; the last column is of the clips that were not heard."""
    counts = multiclass_confusion_matrix(*_tensors(guesses, labels), len(names) + 1)
    return {'columns': [*names, 'unheard'], 'rows': counts[:-1].tolist()}


def _group(
    results: Sequence[ClipResult],
    labels: np.ndarray,
    guesses: np.ndarray,
    n_classes: int,
    attribute: str,
) -> dict[str, dict[str, Any]]:
    """Figures for each value of a clip's attribute; clips of which it is not known are left out."""
    values = np.array([getattr(result.clip, attribute) or '' for result in results])
    figures = {}
    for value in np.unique(values[values != '']).tolist():
        index = np.flatnonzero(values == value)
        among = [results[i] for i in index], labels[index], guesses[index], n_classes
        figures[value] = {
            'clips': len(index),
            'n_classes': len(np.unique(labels[index])),
            **_accuracies(*among[1:]),
            'unweighted_accuracy_interval': _interval(*among),
        }
    return figures


def _interval(
    results: Sequence[ClipResult], labels: np.ndarray, guesses: np.ndarray, n_classes: int
) -> Optional[list[float]]:
    """95 % interval of unweighted accuracy: percentile bootstrap (Efron, 1979) over speakers.

    Clips of one voice are alike, so whole speakers are drawn; None where there is only one.
    """
    voices, speaker = np.unique([result.clip.voice for result in results], return_inverse=True)
    if len(voices) < 2:
        return None
    counts = np.zeros((2, len(voices), n_classes))
    np.add.at(counts[0], (speaker, labels), 1)
    np.add.at(counts[1], (speaker, labels), labels == guesses)
    generator = np.random.default_rng(1)
    draws = generator.multinomial(len(voices), np.full(len(voices), 1 / len(voices)), N_DRAWS)
    n_clips, n_right = draws @ counts
    recall = np.divide(n_right, n_clips, out=np.full(n_clips.shape, np.nan), where=n_clips > 0)
    return np.percentile(np.nanmean(recall, axis=1), (2.5, 97.5)).tolist()


def _clip_calibration(results: Sequence[ClipResult], labels: np.ndarray) -> dict[str, Any]:
    heard = [index for index, result in enumerate(results) if result.is_heard]
    scores = [results[index].score for index in heard]
    return _calibration(np.array(scores), labels[heard])


def _window_calibration(results: Sequence[ClipResult], labels: np.ndarray) -> dict[str, Any]:
    """The same over windows, where the clips were streamed."""
    windows = [() if result.is_whole else result.windows for result in results]
    scores = np.array([row for rows in windows for row in rows])
    figures = _calibration(scores, np.repeat(labels, [len(rows) for rows in windows]))
    return {f'window_{name}': value for name, value in figures.items()}


def _calibration(scores: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Of (n, n_classes) log-probabilities: see `_calibration_errors`; None for all where n is 0."""
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


def _mean_of_bins(total: np.ndarray, count: np.ndarray) -> list[float]:
    """0 in an empty bin."""
    return (total / np.maximum(count, 1)).round(6).tolist()


def _calibration_errors(bins: Mapping[str, list]) -> dict[str, float]:
    """Expected calibration error (Guo et al., 2017): mean gap of confidence and accuracy.

    `by_chance`: what it comes to, on average, where every answer is right as often as its
    confidence says, independently of the others: never 0, since each bin has few answers.
    """
    count, confidence = np.array(bins['count']), np.array(bins['confidence'])
    right = np.random.default_rng(1).binomial(count, confidence, (N_DRAWS, len(count)))
    by_chance = np.abs(count * confidence - right).sum(axis=1) / count.sum()
    gaps = np.abs(confidence - bins['accuracy'])
    return {
        'calibration_error': float(np.average(gaps, weights=count)),
        'calibration_error_by_chance': float(by_chance.mean()),
    }


def _pooled_windows(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`_window_calibration` over the windows of all parts, from the parts' own."""
    if any(figures['window_reliability'] is None for figures in parts):
        return {}
    all_bins = [figures['window_reliability'] for figures in parts]
    counts = np.array([bins['count'] for bins in all_bins])
    count = counts.sum(axis=0)
    bins = {'count': count.tolist()}
    for name in ('confidence', 'accuracy'):
        total = (counts * [bins[name] for bins in all_bins]).sum(axis=0)
        bins[name] = _mean_of_bins(total, count)
    losses = [figures['window_negative_log_likelihood'] for figures in parts]
    return {
        **{f'window_{name}': value for name, value in _calibration_errors(bins).items()},
        'window_negative_log_likelihood': float(np.average(losses, weights=counts.sum(axis=1))),
        'window_reliability': bins,
    }


def _risk_coverage(results: Sequence[ClipResult], is_right: np.ndarray) -> dict[str, Any]:
    """Share of errors among the most certain clips, for growing shares of all clips.

    `area` is the mean risk over all coverages (Geifman & El-Yaniv, 2017), of which at most 50 are
    kept. Of clips that are equally certain the wrong ones come first.
    """
    confidence = [float(np.exp(r.score.max())) if r.is_heard else 0.0 for r in results]
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
    """How often an utterance's expression was given, and was then right."""
    given = [
        decision == EMOTIONS[result.clip.emotion].expression
        for result in results
        for decision in result.decisions
        if decision is not None
    ]
    n_decisions = sum(len(result.decisions) for result in results)
    return {
        'utterances': n_decisions,
        'coverage': len(given) / n_decisions if n_decisions else None,
        'expression_accuracy_when_given': sum(given) / len(given) if given else None,
    }


def fit_temperature(results: Sequence[ClipResult], class_names: Sequence[str]) -> float:
    """The temperature of least negative log-likelihood over whole clips (Guo et al., 2017).

    `results` must come from a bundle of temperature 1; SerError where no speech was heard.
    """
    heard = _heard(results)
    scores = torch.from_numpy(np.array([result.score for result in heard]))
    labels = torch.from_numpy(_labels(heard, class_names))
    candidates = torch.logspace(-1, 1, 401, dtype=torch.float64)
    losses = [torch.nn.functional.cross_entropy(scores / t, labels) for t in candidates]
    return candidates[int(torch.stack(losses).argmin())].item()


def fit_threshold(
    results: Sequence[ClipResult], class_names: Sequence[str], target_accuracy: float
) -> float:
    """The least confidence from which on decisions are right as often as `target_accuracy`.

    Where no confidence reaches the target, that of the most certain decision; SerError where no
    speech was heard.
    """
    expression_map = ExpressionMap(class_names)
    decided = []
    for result in _heard(results):
        expressions = expression_map.sum_classes(np.exp(result.score))
        leader = int(expressions.argmax())
        truth = EMOTIONS[result.clip.emotion].expression
        decided.append((expressions[leader], expression_map.expressions[leader] == truth))
    confidence, is_right = map(np.array, zip(*sorted(decided, reverse=True)))
    accuracy = is_right.cumsum() / np.arange(1, len(is_right) + 1)
    reached = np.flatnonzero(accuracy >= target_accuracy)
    return float(confidence[reached[-1] if len(reached) else 0])


def _heard(results: Sequence[ClipResult]) -> list[ClipResult]:
    if heard := [result for result in results if result.is_heard]:
        return heard
    raise SerError(f'no speech was heard in any of {len(results)} clips: nothing to calibrate by')

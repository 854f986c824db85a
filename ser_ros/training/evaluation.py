"""How well a bundle does, heard through the very stream that runs on the robot."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
import torch
from torchmetrics.functional.classification import multiclass_calibration_error
from tqdm import tqdm

from ser_ros.audio import SAMPLE_RATE, SECOND
from ser_ros.audio.formats import PcmFormat, encode_s16le
from ser_ros.audio.sources import read_audio
from ser_ros.emotions import EMOTIONS, ExpressionMap
from ser_ros.recognizer import Recognizer
from ser_ros.training.corpora import Clip
from ser_ros.training.dataset import one_thread

MESSAGE = PcmFormat('S16LE', 1, SAMPLE_RATE)
"""What a clip is sent as."""


@dataclass(frozen=True)
class ClipResult:
    """What the stream made of one clip."""

    clip: Clip
    windows: np.ndarray
    """(n_windows, n_classes) calibrated log-probabilities; no rows where no speech was heard."""
    decisions: list[Optional[str]]
    """Expression of each finished utterance, None where it was withheld."""

    @property
    def score(self) -> np.ndarray:
        """(n_classes,) log-probabilities of the whole clip: the mean of its windows."""
        return _log_softmax(self.windows.mean(axis=0))

    def at_temperature(self, temperature: float) -> 'ClipResult':
        """The same, had the bundle's temperature been this many times as high."""
        return dataclasses.replace(self, windows=_log_softmax(self.windows / temperature))


def _log_softmax(scores: np.ndarray) -> np.ndarray:
    return torch.from_numpy(scores).log_softmax(dim=-1).numpy()


@one_thread()
def hear(recognizer: Recognizer, clips: Sequence[Clip], gain_db: float = 0.0) -> list[ClipResult]:
    """Stream each clip, between half a second of silence, through the recogniser."""
    gain = np.float32(10 ** (gain_db / 20))
    silence = np.zeros(8_000, np.float32)
    results = []
    for clip in tqdm(clips, desc='hearing', unit='clip', leave=False):
        recognizer.reset()
        sound = np.concatenate((silence, read_audio(clip.path) * gain, silence))
        samples = MESSAGE.decode(encode_s16le(sound))[:, 0]
        estimates = recognizer.push(samples, SECOND) + recognizer.flush()
        windows = [np.log(e.probabilities) for e in estimates if e.is_window]
        results.append(
            ClipResult(
                clip,
                np.array(windows).reshape(-1, len(recognizer.bundle.info.class_names)),
                [e.expression for e in estimates if e.is_final],
            )
        )
    return results


def measure(results: Sequence[ClipResult], class_names: Sequence[str]) -> dict[str, Any]:
    """Figures over whole clips, as plain values.

    A clip in which no speech was heard counts as wrong. "Unweighted accuracy" is the mean of the
    classes' recalls, over the classes that the clips have.
    """
    names = list(class_names)
    confusion = np.zeros((len(names), len(names) + 1), int)
    for result in results:
        heard = len(result.windows) > 0
        guess = int(result.score.argmax()) if heard else len(names)
        confusion[names.index(result.clip.emotion), guess] += 1
    present = confusion.sum(axis=1) > 0
    correct = confusion.diagonal()
    recall = correct[present] / confusion.sum(axis=1)[present]
    return {
        'clips': len(results),
        'speakers': sorted({result.clip.speaker for result in results}),
        'unweighted_accuracy': float(recall.mean()),
        'accuracy': float(correct.sum() / confusion.sum()),
        'recall': dict(zip(np.array(names)[present].tolist(), recall.tolist())),
        'confusion': {'columns': [*names, 'unheard'], 'rows': confusion.tolist()},
        'calibration_error': _calibration_error(results, names),
        **_decisions(results),
    }


def _calibration_error(results: Sequence[ClipResult], names: list[str]) -> float:
    """Expected calibration error of whole clips in 15 bins; 0 where nothing was heard."""
    heard = [result for result in results if len(result.windows)]
    if not heard:
        return 0.0
    return multiclass_calibration_error(
        torch.from_numpy(np.exp([result.score for result in heard])),
        torch.tensor([names.index(result.clip.emotion) for result in heard]),
        num_classes=len(names),
        n_bins=15,
    ).item()


def _decisions(results: Sequence[ClipResult]) -> dict[str, float]:
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
        'coverage': len(given) / max(1, n_decisions),
        'expression_accuracy_when_given': sum(given) / max(1, len(given)),
    }


def fit_temperature(results: Sequence[ClipResult], class_names: Sequence[str]) -> float:
    """The temperature of least negative log-likelihood over whole clips (Guo et al., 2017).

    `results` must come from a bundle of temperature 1.
    """
    heard = [result for result in results if len(result.windows)]
    scores = torch.from_numpy(np.array([result.score for result in heard]))
    labels = torch.tensor([list(class_names).index(result.clip.emotion) for result in heard])
    candidates = torch.logspace(-1, 1, 401, dtype=torch.float64)
    losses = [torch.nn.functional.cross_entropy(scores / t, labels) for t in candidates]
    return candidates[int(torch.stack(losses).argmin())].item()


def fit_threshold(
    results: Sequence[ClipResult], class_names: Sequence[str], target_accuracy: float
) -> float:
    """The least confidence from which on decisions are right as often as `target_accuracy`.

    Where no confidence reaches the target, that of the most certain decision.
    """
    expression_map = ExpressionMap(class_names)
    decided = []
    for result in results:
        if len(result.windows):
            expressions = expression_map.sum_classes(np.exp(result.score))
            leader = int(expressions.argmax())
            truth = EMOTIONS[result.clip.emotion].expression
            decided.append((expressions[leader], expression_map.expressions[leader] == truth))
    confidence, is_right = map(np.array, zip(*sorted(decided, reverse=True)))
    accuracy = is_right.cumsum() / np.arange(1, len(is_right) + 1)
    reached = np.flatnonzero(accuracy >= target_accuracy)
    return float(confidence[reached[-1] if len(reached) else 0])

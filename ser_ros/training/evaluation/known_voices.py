"""Accuracy for voices that are known by their earlier utterances, among all classes of a bundle."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np

from ser_ros.bundle import Bundle
from ser_ros.stream.torch_backend import select_device
from ser_ros.training.data.corpora import Clip
from ser_ros.training.evaluation.metrics import KEPT, compute_metrics
from ser_ros.training.evaluation.prediction import one_thread
from ser_ros.training.evaluation.voice_streams import (
    N_KNOWN,
    Scores,
    adapt,
    cold_scores,
    decide_clips,
    draw_streams_of_all_classes,
    find_utterances,
    known_scores,
)

LEAST_SHARE = 1e-6
"""Of a class in stored predictions: they are rounded, some of them to zero."""


@one_thread()
def evaluate_known_voices(
    bundle: Bundle, clips: Sequence[Clip], device: str = 'auto'
) -> Optional[dict[str, Any]]:
    """Metrics of the speakers' clips in random order, from the eleventh on, as plain values.

    With adaptation and, of the same utterances, without. No class is expected to be more frequent
    than another, unlike on the robot. None for a bundle that does not adapt to voices, and without
    speakers of more than `N_KNOWN` clips.
    """
    streams = draw_streams_of_all_classes(clips)
    if not (bundle.info.can_stream and bundle.info.adaptation.adapts and streams):
        return None
    chosen = select_device(device)
    utterances = find_utterances(bundle, clips)
    known = known_scores(bundle, utterances, streams, chosen)
    adapted = adapt(known, bundle.info.adaptation.memory)[:, N_KNOWN:]
    later = np.array([stream.clips[N_KNOWN:] for stream in streams]).ravel()
    unadapted = cold_scores(bundle, utterances, chosen)[later]
    return {
        'speakers': len({stream.voice for stream in streams}),
        'adapted': _metrics(bundle, [clips[i] for i in later], adapted),
        'unadapted': _metrics(bundle, [clips[i] for i in later], unadapted),
    }


def accuracies_by_answers(
    records: Sequence[Mapping[str, Any]], class_names: Sequence[str], memory: float
) -> Optional[tuple[float, float]]:
    """Unweighted accuracy of the same clips, with adaptation by answers and without.

    From stored predictions, see `results.from_columns`: such a model's features stay as they are.
    Clips without detected speech count as wrong. None without speakers of more than `N_KNOWN` clips.
    """
    clips = [
        Clip(Path(r['name']), r['emotion'], r['speaker'], r['corpus'], name=r['name'])
        for r in records
    ]
    if not (streams := draw_streams_of_all_classes(clips)):
        return None
    nothing = dict.fromkeys(class_names, np.nan)
    shares = [[(r['probabilities'] or nothing)[name] for name in class_names] for r in records]
    scores = np.log(np.maximum(shares, LEAST_SHARE))[np.array([s.clips for s in streams])]
    classes = [class_names.index(clip.emotion) for clip in clips]
    later = np.array(classes)[np.array([s.clips[N_KNOWN:] for s in streams])]

    def accuracy(scores: Scores) -> float:
        scores = scores[:, N_KNOWN:]
        is_right = np.isfinite(scores).all(axis=-1) & (scores.argmax(axis=-1) == later)
        return float(np.mean([is_right[later == name].mean() for name in np.unique(later)]))

    return accuracy(adapt(scores, memory)), accuracy(scores)


def _metrics(bundle: Bundle, clips: Sequence[Clip], scores: Scores) -> dict[str, Any]:
    info = bundle.info
    rows = scores.reshape(len(clips), len(info.class_names))
    results = decide_clips(clips, rows, info.class_names, info.classes, info.threshold)
    metrics = compute_metrics(results, info.class_names)
    return {name: metrics[name] for name in KEPT}

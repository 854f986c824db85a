"""Accuracy for voices that are known by their earlier utterances, among all classes of a bundle."""

from collections.abc import Sequence
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


def _metrics(bundle: Bundle, clips: Sequence[Clip], scores: Scores) -> dict[str, Any]:
    info = bundle.info
    rows = scores.reshape(len(clips), len(info.class_names))
    results = decide_clips(clips, rows, info.class_names, info.classes, info.threshold)
    metrics = compute_metrics(results, info.class_names)
    return {name: metrics[name] for name in KEPT}

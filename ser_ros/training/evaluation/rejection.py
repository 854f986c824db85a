"""Predictions for sounds without a voice: the bundle should be too uncertain to decide on them."""

from collections.abc import Mapping, Sequence
from typing import Any, Optional

import numpy as np
import torch
from tqdm import tqdm

from ser_ros.bundle import Bundle
from ser_ros.emotions import ExpressionMap
from ser_ros.stream.torch_backend import TorchBackend, select_device
from ser_ros.training.data.nonspeech import FAMILIES, HELD_OUT, generate_one
from ser_ros.training.evaluation.clip_result import ClipResult
from ser_ros.training.evaluation.prediction import (
    decide,
    one_thread,
    received,
    stream,
)

N_SOUNDS = 50
"""Sounds of each kind: they lengthen an evaluation by less than a minute."""


@one_thread()
def evaluate_nonspeech(bundle: Bundle, device: str = 'auto') -> dict[str, dict[str, Any]]:
    """Kind of sound → its metrics, over `N_SOUNDS` as long as the bundle's longest window.

    Those that are silent are left out.

    The model classifies each sound directly, as if voice activity detection had let it through:
    see `_rejection`. `answered` is the share for which an expression is decided when the sound is
    streamed, with voice activity detection; None for a bundle that classifies whole clips.
    """
    bundle.model.to(select_device(device))
    backend = TorchBackend(bundle, device) if bundle.info.can_stream else None
    rate = bundle.frontend.sample_rate
    metrics = {}
    for kind, family in enumerate(
        tqdm((*FAMILIES, *HELD_OUT), desc='rejecting', leave=False, disable=None)
    ):
        # The training seeds with four numbers, the last of which is not 0.
        sounds = [
            generate_one(
                family,
                np.random.default_rng((kind, number)),
                round(bundle.info.window * rate),
                rate,
            )
            for number in range(N_SOUNDS)
        ]
        # A short window may lie between two impacts.
        sounds = [sound for sound in sounds if sound.any()]
        scores = [bundle.classify(torch.from_numpy(sound)).double().numpy() for sound in sounds]
        answers = []
        if backend:
            streamed = stream(backend, [received(sound) for sound in sounds])
            answers = [any(e.expression for e in estimates) for estimates in streamed]
        name = family.__name__.replace('_', ' ') + ' (held out)' * (family in HELD_OUT)
        answered = float(np.mean(answers)) if answers else None
        metrics[name] = _rejection(bundle, scores, answered)
    return metrics


def nonspeech_metrics(
    bundle: Bundle,
    results: Sequence[ClipResult],
    sounds: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """The metrics `nonspeech` of a subset: its speech first, then `sounds` for comparison.

    `sounds`: see `evaluate_nonspeech`.
    """
    of_training = (
        'training used other sounds of the same generator, but none of the held-out kinds'
        if bundle.info.recipe.get('data', {}).get('nonspeech')
        else 'training used no such sounds'
    )
    unit = 'windows' if bundle.info.can_stream else 'clips'
    windows = [row for result in results for row in result.windows]
    return {
        'protocol': f'generated sounds of {bundle.info.window:g} s, classified by the model '
        f'without voice activity detection; {of_training}',
        'rows': {f'speech ({unit})': _rejection(bundle, windows, None), **sounds},
    }


def _rejection(
    bundle: Bundle, scores: Sequence[np.ndarray], answered: Optional[float]
) -> dict[str, Any]:
    """The share of (n_classes,) log-probabilities below the threshold, and the mean confidence."""
    expressions = ExpressionMap(bundle.info.class_names, bundle.info.classes)
    decided = [decide(bundle, row, expressions) for row in scores]
    return {
        'count': len(decided),
        'rejected': float(np.mean([e is None for e, _ in decided])) if decided else None,
        'confidence': float(np.mean([c for _, c in decided])) if decided else None,
        'answered': answered,
    }

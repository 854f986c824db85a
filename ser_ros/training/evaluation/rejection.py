"""What a bundle makes of sounds without a voice: it should be too uncertain to name an emotion."""

from collections.abc import Mapping, Sequence
from typing import Any, Optional

import numpy as np
import torch
from tqdm import tqdm

from ser_ros.bundle import Bundle
from ser_ros.emotions import ExpressionMap
from ser_ros.stream.engine import select_device
from ser_ros.stream.recognizer import Recognizer
from ser_ros.stream.voice import can_stream
from ser_ros.training.data.dataset import one_thread
from ser_ros.training.data.nonspeech import FAMILIES, HELD_OUT, generate_one
from ser_ros.training.evaluation.metrics import ClipResult, decide, stream

N_SOUNDS = 50
"""Of each kind: an evaluation takes less than a minute longer by them."""


@one_thread()
def hear_nonspeech(bundle: Bundle, device: str = 'auto') -> dict[str, dict[str, Any]]:
    """Kind of sound → its figures, over `N_SOUNDS` as long as the bundle's longest window.

    Each sound is given to the model as it is, as if voice activity detection had let it through:
    see `_rejection`. `answered` is the share of which any expression is published where it is a
    stream, with voice activity detection; None for a bundle that hears whole clips.
    """
    bundle.model.to(select_device(device))
    recognizer = Recognizer(bundle, device) if can_stream(bundle) else None
    rate = bundle.frontend.sample_rate
    figures = {}
    for kind, family in enumerate(tqdm((*FAMILIES, *HELD_OUT), desc='rejecting', leave=False)):
        scores, answers = [], []
        for number in range(N_SOUNDS):
            # The training seeds by four numbers, of which the last is not 0.
            rng = np.random.default_rng((kind, number))
            sound = generate_one(family, rng, round(bundle.info.window * rate), rate)
            scores.append(bundle.classify(torch.from_numpy(sound)).double().numpy())
            if recognizer:
                answers.append(any(e.expression for e in stream(recognizer, sound)))
        name = family.__name__.replace('_', ' ') + ' (held out)' * (family in HELD_OUT)
        answered = float(np.mean(answers)) if answers else None
        figures[name] = _rejection(bundle, scores, answered)
    return figures


def rejection(
    bundle: Bundle,
    results: Sequence[ClipResult],
    sounds: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """The figures `nonspeech` of a part: `sounds` (see `hear_nonspeech`) beside its speech."""
    of_training = (
        'training was given others of the same generator, but none of the kinds held out'
        if bundle.info.recipe.get('data', {}).get('nonspeech')
        else 'training was given none such'
    )
    unit = 'windows' if can_stream(bundle) else 'clips'
    windows = [row for result in results for row in result.windows]
    return {
        'protocol': f'generated sounds of {bundle.info.window:g} s, given to the model without '
        f'voice activity detection; {of_training}',
        'rows': {f'speech ({unit})': _rejection(bundle, windows, None), **sounds},
    }


def _rejection(
    bundle: Bundle, scores: Sequence[np.ndarray], answered: Optional[float]
) -> dict[str, Any]:
    """Of (n_classes,) log-probabilities: the share below the threshold, and the mean confidence."""
    expressions = ExpressionMap(bundle.info.class_names)
    decided = [decide(bundle, row, expressions) for row in scores]
    return {
        'count': len(decided),
        'rejected': float(np.mean([e is None for e, _ in decided])) if decided else None,
        'confidence': float(np.mean([c for _, c in decided])) if decided else None,
        'answered': answered,
    }

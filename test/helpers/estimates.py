"""An estimate of a voice, for tests of what is made of one."""

import numpy as np

from ser_ros.stream.types import Estimate


def make_estimate(expression='happy', probabilities=(0.6, 0.4), unadapted=(0.6, 0.4)):
    """The decision of an utterance."""
    return Estimate(
        stamp_ns=0,
        probabilities=np.array(probabilities),
        expression=expression,
        confidence=0.6,
        valence=0.0,
        arousal=0.0,
        is_final=True,
        is_window=False,
        n_samples=48_000,
        unadapted=np.array(unadapted),
        n_utterances=0,
    )

"""Clip results with known contents, for the tests of the evaluation."""

from pathlib import Path

import numpy as np

from ser_ros.training.data.corpora import Clip
from ser_ros.training.evaluation.clip_result import ClipResult

NAMES = ['happy', 'sad', 'angry']


def result(emotion, probabilities, decisions=(), speaker='01', name='clip', **said):
    """A clip of one window with these probabilities; no window where there are none."""
    windows = np.log(np.array([probabilities])) if len(probabilities) else np.zeros((0, 3))
    clip = Clip(Path(f'{name}.wav'), emotion, speaker, said.pop('corpus', 'RAVDESS'), **said)
    return ClipResult(clip, windows, list(decisions))


def drawn(n, seed=1, n_windows=(0, 4)):
    """Results of five speakers of two corpora, as if at random, each clip with its own name."""
    generator = np.random.default_rng(seed)
    results = []
    for index in range(n):
        rows = generator.dirichlet(np.ones(3), generator.integers(*n_windows))
        speaker = int(generator.integers(5))
        clip = Clip(
            Path(f'{seed}-{index}.wav'),
            NAMES[generator.integers(3)],
            f'{speaker:02}',
            ['RAVDESS', 'SAVEE'][speaker // 3],
            ['female', 'male', None][speaker % 3],
            ['normal', 'strong'][index % 2],
            age=[25, 50, None][speaker % 3],
        )
        decisions = [[None, 'happy', 'sad'][generator.integers(3)]] if len(rows) else []
        results.append(ClipResult(clip, np.log(rows).reshape(-1, 3), decisions))
    return results

"""The level of a stream, and which problem of the microphone it shows."""

import math
from typing import Optional

import numpy as np

MUTED_AFTER = 2.0
"""Seconds of zeros only, which no converter delivers, after which it counts as muted."""
SILENT_AFTER = 10.0
SILENCE = 10 ** (-70 / 20)
"""Of full scale. The own noise of a cheap microphone with its gain up is louder; an input without a
plug, of which the last bits toggle, is below."""
CLIPPED_SHARE = 1e-3
FULL_SCALE = 1.0 - 2.0**-15
"""The largest magnitude that S16LE has on both sides."""
MEMORY = 2.0
"""Time constant, in seconds, of the level and of the clipped share."""


class LevelMeter:
    """Detects a muted, a silent and a clipping input."""

    def __init__(self, sample_rate: int):
        self._sample_rate = sample_rate
        self.reset()

    def reset(self) -> None:
        """Start a new stream."""
        self._power = self._clipped = 0.0
        self._zeros = self._quiet = 0
        self.peak = 0.0
        """Of the last block, of full scale."""

    def push(self, samples: np.ndarray) -> None:
        """Add float32 samples in [-1, 1], (frames,) or (frames, channels)."""
        if not len(samples):
            return
        loudness = np.abs(samples)
        self.peak = float(loudness.max())
        self._zeros = 0 if self.peak else self._zeros + len(samples)
        self._quiet = 0 if self.peak >= SILENCE else self._quiet + len(samples)
        keep = math.exp(-len(samples) / self._sample_rate / MEMORY)
        power = float(np.vdot(samples, samples)) / samples.size
        self._power = keep * self._power + (1 - keep) * power
        clipped = float(np.mean(loudness >= FULL_SCALE)) if self.peak >= FULL_SCALE else 0.0
        self._clipped = keep * self._clipped + (1 - keep) * clipped

    @property
    def decibels(self) -> float:
        """Level over the last seconds, relative to a full-scale square wave; -inf for zeros."""
        return 10 * math.log10(self._power) if self._power else -math.inf

    @property
    def problem(self) -> Optional[str]:
        """What is wrong with the input; None while nothing is."""
        if self._zeros >= MUTED_AFTER * self._sample_rate:
            return 'the microphone is muted: it delivers nothing but zeros'
        if self._quiet >= SILENT_AFTER * self._sample_rate:
            return 'the microphone is silent: unplugged from its converter, or its gain is down'
        if self._clipped >= CLIPPED_SHARE:
            return f'the sound is clipped ({self._clipped:.1%} of the samples): turn the gain down'
        return None

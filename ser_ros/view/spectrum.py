"""Sound as columns of a picture: its extremes, and a log-mel spectrogram. numpy alone."""

import functools

import numpy as np

from ser_ros.audio import SAMPLE_RATE

HOP = 320
"""Samples of a column, 20 ms."""
WINDOW = 512
N_MELS = 48
F_MIN, F_MAX = 50.0, 7_600.0
FLOOR_DB, CEILING_DB = -95.0, -20.0
"""Shown as the darkest and the brightest; of a band, where a full-scale sine is about 0."""


def to_mel(hertz: np.ndarray | float) -> np.ndarray:
    """Hertz → mel, as HTK has it."""
    return 2595.0 * np.log10(1.0 + np.asarray(hertz) / 700.0)


@functools.cache
def mel_filters() -> np.ndarray:
    """Triangles (N_MELS, WINDOW // 2 + 1), each with its peak at 1."""
    mels = np.linspace(to_mel(F_MIN), to_mel(F_MAX), N_MELS + 2)
    edges = 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
    bins = np.fft.rfftfreq(WINDOW, 1 / SAMPLE_RATE)
    rise = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    fall = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    return np.maximum(0.0, np.minimum(rise, fall)).astype(np.float32)


class Columns:
    """Cuts a stream of samples into columns."""

    def __init__(self):
        self._rest = np.zeros(0, np.float32)

    def push(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Add float32 (n,) samples at 16 kHz; return the columns that are complete.

        These are int8 (columns, 2), the lowest and the highest sample, ±127 at full scale; and uint8
        (columns, N_MELS), low frequencies first. The first column begins `n_waiting` samples before
        the first of `samples`.
        """
        samples = np.concatenate((self._rest, samples))
        n = max(0, (len(samples) - WINDOW) // HOP + 1)
        self._rest = samples[n * HOP :]
        if not n:
            return np.zeros((0, 2), np.int8), np.zeros((0, N_MELS), np.uint8)
        steps = samples[: n * HOP].reshape(n, HOP)
        peaks = np.stack((steps.min(axis=1), steps.max(axis=1)), axis=1)
        frames = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[: n * HOP : HOP]
        window = np.hanning(WINDOW).astype(np.float32)
        spectrum = np.abs(np.fft.rfft(frames * window)) * (2.0 / window.sum())
        decibels = 10.0 * np.log10(np.maximum(np.square(spectrum) @ mel_filters().T, 1e-12))
        shade = (decibels - FLOOR_DB) * (255.0 / (CEILING_DB - FLOOR_DB))
        return (
            np.clip(np.rint(peaks * 127.0), -127, 127).astype(np.int8),
            np.clip(np.rint(shade), 0, 255).astype(np.uint8),
        )

    @property
    def n_waiting(self) -> int:
        """Samples that are not in a column yet."""
        return len(self._rest)

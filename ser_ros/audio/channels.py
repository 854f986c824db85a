"""Several channels to one: a chosen one or their average, and whether they can be averaged."""

import math
from typing import Optional

import numpy as np

from ser_ros import SerError

AVERAGE = -1
"""Instead of a channel's number: the average of all channels."""

LOUD = 10 ** (-50 / 10)
"""Power, of full scale, below which a stream's channels are not compared: the noise of two
microphones has nothing in common."""
QUIET = 10 ** (-20 / 10)
"""Power, of the loudest channel's, below which a channel counts as quiet."""
LEAST_CORRELATION = 0.25
"""Of channels that have the same source, at the lag where it is largest. A room lowers it: it is
the share of the sound that reaches both microphones directly."""
MAX_LAG = 2e-3
"""Seconds that sound may need from one microphone to another: 0.7 m."""
CANCELLED = 0.5
"""Power of the average, of what unrelated channels would have, below which they cancel."""
MEMORY = 10.0
"""Time constant in seconds of loud sound."""
LEAST = 1.0
"""Seconds of loud sound, before channels are compared."""
LOWEST = 50.0
"""Hz; what is below is offset and rumble, not voice."""
BATCH = 64
"""Frames transformed at a time."""


class ChannelError(SerError):
    """A channel that the sound does not have."""


def check_channel(channel: int, n_channels: int) -> None:
    """Raise ChannelError for a channel that sound with `n_channels` channels does not have."""
    if not AVERAGE <= channel < n_channels:
        there = 'one channel, 0' if n_channels == 1 else f'channels 0 to {n_channels - 1}'
        raise ChannelError(
            f'there is no channel {channel}: the sound has {there}; choose one that it has, or '
            f'{AVERAGE} for the average'
        )


def pick(frames: np.ndarray, channel: int) -> np.ndarray:
    """(frames, channels) → the channels that `mix` averages: the chosen one, or all."""
    return frames if channel == AVERAGE else frames[:, channel, None]


def mix(frames: np.ndarray) -> np.ndarray:
    """Float32 (frames, channels) → float32 (frames,): their average."""
    if frames.shape[1] == 1:
        return np.ascontiguousarray(frames[:, 0])
    return frames.mean(axis=1, dtype=np.float32)


def averaging(n_channels: int) -> Optional[str]:
    """What to know of the average of so many channels, if nobody chose it; None for one or two."""
    if n_channels <= 2:
        return None
    return (
        f'its {n_channels} channels are averaged, although those of a microphone array are not '
        'alike: one may be the processed voice, one what the robot itself plays'
    )


class ChannelMeter:
    """Compares the channels of a stream, whose average is used.

    The cross-correlation with the loudest channel is accumulated over loud sound; it allows for
    the time that sound needs from one microphone to another.
    """

    def __init__(
        self,
        n_channels: int,
        sample_rate: int,
        memory: float = MEMORY,
        floor: float = LOUD,
        least: float = LEAST,
    ):
        """`memory`: time constant in seconds; `floor`: power below which sound is ignored.

        `least`: seconds of sound before there is a verdict.
        """
        self._n = n_channels
        self._length = 2 ** math.ceil(math.log2(0.03 * sample_rate))
        self._window = np.hanning(self._length).astype(np.float32)[:, None]
        self._first_bin = math.ceil(LOWEST * self._length / sample_rate)
        self._n_lags = min(round(MAX_LAG * sample_rate), self._length // 2 - 1)
        self._keep = math.exp(-self._length / sample_rate / memory)
        self._least_frames = least * sample_rate / self._length
        self._floor = floor
        self._rest = np.zeros((0, n_channels), np.float32)
        self._start(0)
        self.problem: Optional[str] = None
        """Why the channels should not be averaged; None where they can, or are too quiet to tell."""

    def _start(self, reference: int) -> None:
        self._reference = reference
        self._n_frames = self._average = 0.0
        self._powers = np.zeros(self._n)
        self._cross = np.zeros((self._length // 2 + 1, self._n), complex)

    def push(self, frames: np.ndarray) -> None:
        """Add float32 (frames, channels) in [-1, 1]."""
        if self._n == 1:
            return
        frames = np.concatenate((self._rest, frames))
        n_whole = len(frames) // self._length
        for first in range(0, n_whole, BATCH):
            n = min(BATCH, n_whole - first)
            batch = frames[first * self._length : (first + n) * self._length]
            self._add(batch.reshape(n, self._length, self._n))
        self._rest = frames[n_whole * self._length :].copy()

    def _add(self, frames: np.ndarray) -> None:
        """Add (k, length, channels)."""
        loud = frames[frames.var(axis=1).max(axis=1) > self._floor]
        if not len(loud):
            return
        spectra = np.fft.rfft(loud * self._window, axis=1)
        spectra[:, : self._first_bin] = 0.0
        keep = self._keep ** len(loud)
        weights = self._keep ** np.arange(len(loud))[::-1, None, None]
        powers = (weights * np.abs(spectra) ** 2).sum(axis=(0, 1))
        total = keep * self._powers + powers
        if total[self._reference] < QUIET * total.max() or not self._n_frames:
            self._start(int(total.argmax()))
        of_reference = spectra[:, :, self._reference, None].conj()
        self._cross = keep * self._cross + (weights * spectra * of_reference).sum(axis=0)
        self._powers = keep * self._powers + powers
        average = np.abs(spectra.mean(axis=2)) ** 2
        self._average = keep * self._average + float((weights[:, :, 0] * average).sum())
        self._n_frames = keep * self._n_frames + float(weights.sum())
        self.problem = self._compare()

    def _correlations(self) -> np.ndarray:
        """(channels,): the largest magnitude of the correlation with the reference."""
        norms = np.sqrt(self._powers * self._powers[self._reference])
        lagged = np.fft.irfft(self._cross, self._length, axis=0) * self._length / 2
        near = np.concatenate((lagged[: self._n_lags + 1], lagged[-self._n_lags :]))
        return np.abs(near).max(axis=0) / np.maximum(norms, np.finfo(float).tiny)

    def _compare(self) -> Optional[str]:
        if self._n_frames < self._least_frames or not self._powers.any():
            return None
        if self._average < CANCELLED * self._powers.mean() / self._n:
            return (
                f'its {self._n} channels cancel each other in their average, which has '
                f'{self._average / self._powers.mean():.1%} of their power'
            )
        quiet = self._powers < QUIET * self._powers.max()
        correlations = np.where(quiet, 1.0, self._correlations())
        other = int(correlations.argmin())
        if correlations[other] < LEAST_CORRELATION:
            pair = sorted((self._reference, other))
            return (
                f'channels {pair[0]} and {pair[1]} have different sound (correlation '
                f'{correlations[other]:.2f}), and the average of all {self._n} is used'
            )
        if quiet.any():
            return (
                f'channel {int(np.flatnonzero(quiet)[0])} is silent beside channel '
                f'{int(self._powers.argmax())}, and the average of all {self._n} is used'
            )
        return None

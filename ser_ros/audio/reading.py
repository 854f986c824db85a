"""How a sound file becomes one channel in [-1, 1], and what is to be said of it."""

import math
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

from ser_ros.audio.channels import AVERAGE, ChannelMeter, averaging, check_channel, mix, pick
from ser_ros.audio.formats import sanitize
from ser_ros.audio.full_scale import FullScale

FLOATS = ('FLOAT', 'DOUBLE')
"""libsndfile's names of the sample formats that may be beyond full scale."""


OF_A_WHOLE = {'memory': math.inf, 'floor': 1e-10, 'least': 0.15}
"""Settings of `ChannelMeter` by which all of a file counts, however short it is, and quiet: less
than the last of 16 bits is nothing."""


@dataclass(frozen=True)
class Reading:
    """What to use of a sound file."""

    channel: int = AVERAGE
    """Number of a channel, from 0, or `AVERAGE`."""
    full_scale: float = 1.0
    """The value of float samples that is full scale; integers have their own."""

    def settings(self) -> dict[str, Any]:
        """What differs from the defaults: part of the key of cached results."""
        default = vars(DEFAULT_READING)
        return {name: value for name, value in vars(self).items() if value != default[name]}


DEFAULT_READING = Reading()


class Mixdown:
    """The frames of one file, block by block, to one channel."""

    def __init__(self, n_channels: int, sample_rate: int, subtype: str, reading: Reading):
        """`subtype`: libsndfile's name of the sample format.

        Raises ChannelError for a channel that the file does not have.
        """
        check_channel(reading.channel, n_channels)
        self.n_channels = n_channels
        self._channel = reading.channel
        self.full_scale = FullScale(reading.full_scale) if subtype in FLOATS else None
        self._channels = ChannelMeter(n_channels, sample_rate, **OF_A_WHOLE)

    def select(self, frames: np.ndarray) -> np.ndarray:
        """Float32 (frames, channels), as read → those to be averaged, scaled and not clipped."""
        frames = pick(frames, self._channel)
        if self.full_scale is not None:
            frames = self.full_scale.scale(frames)
        if not self.is_chosen:
            self._channels.push(sanitize(frames))
        return frames

    def push(self, frames: np.ndarray) -> np.ndarray:
        """Float32 (frames, channels), as read → float32 (frames,) in [-1, 1]."""
        return mix(sanitize(self.select(frames)))

    @property
    def is_chosen(self) -> bool:
        """Whether one channel is used, not the average."""
        return self._channel != AVERAGE

    @property
    def channel_problem(self) -> Optional[str]:
        """Why the channels should not be averaged, if they are: see `ChannelMeter`."""
        return self._channels.problem

    @property
    def warnings(self) -> list[str]:
        """A line for each fault that reading puts up with, with the option of a command."""
        found = []
        about = self.channel_problem or averaging(self.n_channels)
        if about and not self.is_chosen:
            found.append(f'{about}; choose one with --channel (0 to {self.n_channels - 1})')
        if self.full_scale is not None and (about := self.full_scale.problem):
            remedy = '; scale them with --full-scale' if self.full_scale.beyond else ''
            found.append(about + remedy)
        return found

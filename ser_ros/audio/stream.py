"""A stream of PCM blocks converted to mono samples at 16 kHz, with their stamps."""

import math
from typing import Optional

import numpy as np
import soxr

from ser_ros.audio import SAMPLE_RATE, SECOND
from ser_ros.audio.channels import AVERAGE, ChannelMeter, check_channel, mix, pick
from ser_ros.audio.formats import PcmFormat, sanitize
from ser_ros.audio.full_scale import FullScale


class StampTracker:
    """Expects each block to begin where the last one ended.

    Deviations add up, so that many small losses are a gap, just as one large one; the drift of a
    clock, and its corrections, are forgotten with a time constant of `MEMORY` seconds.
    """

    MEMORY = 10.0

    def __init__(self, sample_rate: int, tolerance: float):
        """`tolerance`: seconds by which stamps may deviate before the stream restarts."""
        self._sample_rate = sample_rate
        self.tolerance = tolerance
        self.reset()

    def advance(self, stamp_ns: int, n_samples: int) -> int:
        """Add a block; return the nanoseconds missing before it, 0 where the stream continues.

        Negative when the stamps jumped back.
        """
        if self._expected_ns is not None:
            self._deviation_ns += stamp_ns - self._expected_ns
        self._expected_ns = stamp_ns + n_samples * SECOND // self._sample_rate
        if abs(self._deviation_ns) > self.tolerance * SECOND:
            missing_ns, self._deviation_ns = round(self._deviation_ns), 0.0
            return missing_ns
        self._deviation_ns *= math.exp(-n_samples / self._sample_rate / self.MEMORY)
        return 0

    def reset(self) -> None:
        """Accept any stamp next."""
        self._expected_ns: Optional[int] = None
        self._deviation_ns = 0.0


class LossMeter:
    """How much sound is missing between blocks, by their stamps.

    Only whole blocks are lost, so that a step of less than half a block is jitter; and where blocks
    are stamped by their arrival, one that comes early compensates one that came late.
    """

    ANEW_NS = 60 * SECOND
    """A longer step means another stream, not a loss."""

    def __init__(self):
        self._expected_ns: Optional[int] = None
        self._counted_ns = self._early_ns = 0

    def advance(self, stamp_ns: int, duration_ns: int) -> int:
        """Add a block; return the nanoseconds missing before it."""
        step = 0 if self._expected_ns is None else stamp_ns - self._expected_ns
        self._expected_ns = stamp_ns + duration_ns
        if abs(step) > self.ANEW_NS:
            self._counted_ns = self._early_ns = 0
            return 0
        if 2 * abs(step) < duration_ns:
            return 0
        # Only sound that was counted as missing can have been late instead.
        missing_ns = max(0, step - self._early_ns)
        self._early_ns = min(max(0, self._early_ns - step), self._counted_ns)
        self._counted_ns += missing_ns
        return missing_ns


class PcmStream:
    """Decodes, makes one channel of several and resamples one stream of one format."""

    def __init__(
        self,
        pcm_format: PcmFormat,
        gap_tolerance: float = 0.1,
        channel: int = AVERAGE,
        full_scale: Optional[FullScale] = None,
    ):
        """`full_scale`: scales and counts float samples, here those of the channel that is used.

        Raises ChannelError for a channel that the format does not have.
        """
        check_channel(channel, pcm_format.channels)
        self.format = pcm_format
        self._channel = channel
        self._full_scale = full_scale or FullScale()
        self._channels = ChannelMeter(pcm_format.channels, pcm_format.sample_rate)
        self._tracker = StampTracker(pcm_format.sample_rate, gap_tolerance)
        self._resampler = (
            None
            if pcm_format.sample_rate == SAMPLE_RATE
            else soxr.ResampleStream(pcm_format.sample_rate, SAMPLE_RATE, 1)
        )
        self._n_in = 0
        self._n_out = 0
        self._anchor_ns = 0
        """The time of sample 0, by the stamp of the newest block."""

    def is_of(self, pcm_format: PcmFormat, channel: int) -> bool:
        """Whether it decodes this format and uses this channel."""
        return (self.format, self._channel) == (pcm_format, channel)

    @property
    def gap_tolerance(self) -> float:
        """Seconds by which stamps may deviate."""
        return self._tracker.tolerance

    @gap_tolerance.setter
    def gap_tolerance(self, seconds: float) -> None:
        self._tracker.tolerance = seconds

    def push(self, data: bytes, stamp_ns: int) -> list[tuple[np.ndarray, int]]:
        """Convert a block; `stamp_ns` is the time of its first sample.

        Returns float32 (n,) blocks at 16 kHz with the stamp of their own first sample, which may lie
        in an earlier block, since a resampler delays. Where the stamps jump, the delayed samples
        come first, as a block of their own.
        """
        ended, blocks = self.divide(data, stamp_ns)
        return ended + blocks

    def divide(
        self, data: bytes, stamp_ns: int
    ) -> tuple[list[tuple[np.ndarray, int]], list[tuple[np.ndarray, int]]]:
        """As `push`, but what belongs to the time before a jump of the stamps is apart."""
        mono = self._mix(self.format.unpack(data))
        if not len(mono):
            return [], []
        ended = []
        if self._tracker.advance(stamp_ns, len(mono)):
            ended = self.flush()
            self._tracker.advance(stamp_ns, len(mono))
        self._anchor_ns = stamp_ns - self._n_in * SECOND // self.format.sample_rate
        self._n_in += len(mono)
        return ended, self._convert(mono, last=False)

    @property
    def channel_problem(self) -> Optional[str]:
        """Why the channels should not be averaged, if they are: see `ChannelMeter`."""
        return self._channels.problem

    def _mix(self, frames: np.ndarray) -> np.ndarray:
        frames = pick(frames, self._channel)
        if self.format.is_float:
            frames = sanitize(self._full_scale.scale(frames))
        if self._channel == AVERAGE:
            self._channels.push(frames)
        return mix(frames)

    def flush(self) -> list[tuple[np.ndarray, int]]:
        """End the stream: return the delayed samples; the next block starts a new one."""
        blocks = self._convert(np.zeros(0, np.float32), last=True) if self._n_in else []
        if self._resampler is not None:
            self._resampler.clear()
        self._tracker.reset()
        self._n_in = self._n_out = 0
        return blocks

    def _convert(self, mono: np.ndarray, last: bool) -> list[tuple[np.ndarray, int]]:
        samples = mono if self._resampler is None else self._resampler.resample_chunk(mono, last)
        stamp_ns = self._anchor_ns + self._n_out * SECOND // SAMPLE_RATE
        self._n_out += len(samples)
        return [(samples, stamp_ns)] if len(samples) else []

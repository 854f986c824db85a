"""Capture stamps that advance by the sample clock and follow a measured time with jitter."""

from typing import Optional

from ser_ros.audio import SECOND


class SampleClock:
    """Stamps blocks of one stream.

    Each stamp is the last one plus the samples between, corrected towards the measured capture time
    with a time constant of `time_constant` seconds. Where both differ by more than `tolerance`
    seconds (samples were lost, the clock was set), the stamp is the measured time, and a subscriber
    sees a gap.
    """

    def __init__(self, sample_rate: int, tolerance: float = 0.1, time_constant: float = 2.0):
        self._sample_rate = sample_rate
        self._tolerance_ns = tolerance * SECOND
        self._time_constant = time_constant
        self._next_ns: Optional[int] = None

    def stamp(self, measured_ns: int, n_frames: int) -> int:
        """Nanoseconds for a block's first sample, which was measured at `measured_ns`."""
        duration = n_frames / self._sample_rate
        error = 0 if self._next_ns is None else measured_ns - self._next_ns
        if self._next_ns is None or abs(error) > self._tolerance_ns:
            stamp = measured_ns
        else:
            stamp = self._next_ns + round(error * min(1.0, duration / self._time_constant))
        self._next_ns = stamp + n_frames * SECOND // self._sample_rate
        return stamp

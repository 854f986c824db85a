"""How the blocks of a stream arrive, and how long to wait for the next before the sound has ended."""

from collections import deque

from ser_ros.audio import SECOND

LIVE_PATIENCE = 1.0
"""Seconds without sound after which live sound has ended."""
REPLAY_PATIENCE = 3.0
"""The same for a replay: it may be paused, and its messages should not depend on that."""
MAX_PAUSE = 10.0
"""Seconds; longer pauses do not make it wait longer."""
LIVE_JITTER = 1.0
"""Seconds by which the delay of live sound may vary; a replay at another speed soon exceeds it."""


class Pace:
    """Tells a live stream from a replay by its stamps and arrivals, and knows its intervals.

    Live sound arrives as fast as its stamps advance. A replay is faster or slower. A second without
    a block means nothing where the blocks are seconds long, or where a replay is slow: a pause in
    which nothing was missing, by the stamps, may come again.
    """

    def __init__(self):
        self._delays: deque[float] = deque(maxlen=200)
        """Seconds from the end of each block, by its stamp, to its arrival."""
        self._pauses: deque[float] = deque(maxlen=20)
        """Seconds between the arrivals of blocks that followed each other without a gap."""
        self._end_ns = 0
        self._arrived = 0.0

    def add(self, arrived: float, stamp_ns: int, duration_ns: int, tolerance: float) -> None:
        """Add a block that arrived at this time of the monotonic clock, in seconds.

        `tolerance`: seconds by which its stamp may deviate from the last block's end.
        """
        if self._delays and abs(stamp_ns - self._end_ns) <= tolerance * SECOND:
            self._pauses.append(arrived - self._arrived)
        self._end_ns = stamp_ns + duration_ns
        self._arrived = arrived
        self._delays.append(arrived - self._end_ns / SECOND)

    @property
    def is_live(self) -> bool:
        """Whether the last blocks came as fast as their stamps advance."""
        return not self._delays or max(self._delays) - min(self._delays) <= LIVE_JITTER

    @property
    def patience(self) -> float:
        """Seconds without a block after which no further one is expected."""
        least = LIVE_PATIENCE if self.is_live else REPLAY_PATIENCE
        return least + min(max(self._pauses, default=0.0), MAX_PAUSE)

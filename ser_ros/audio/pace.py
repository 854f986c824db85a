"""How the blocks of a stream arrive, and how long to wait for the next before the sound has ended."""

import math
from collections import deque
from typing import Optional

from ser_ros.audio import SECOND

LIVE_PATIENCE = 1.0
"""Seconds without sound after which live sound has ended."""
REPLAY_PATIENCE = 3.0
"""The same for a replay: it may be paused, and its messages should not depend on that."""
MAX_PAUSE = 10.0
"""Seconds; longer pauses do not make it wait longer."""
FORGETTING = 0.1
"""Seconds by which a pause gets shorter in a second, until there is a longer one."""
LIVE_JITTER = 1.0
"""Seconds by which the delay of live sound may vary; a replay at another speed soon exceeds it."""


class Pace:
    """Tells a live stream from a replay by its stamps and arrivals, and knows its intervals.

    Live sound arrives as fast as its stamps advance. A replay is faster or slower. A second without
    a block means nothing where the blocks are seconds long or come in bursts, or where a replay is
    slow: a pause in which nothing was missing may come again. Sound without stamps counts as live.
    """

    def __init__(self):
        self._delays: deque[float] = deque(maxlen=200)
        """Seconds from the end of each block, by its stamp, to its arrival."""
        self._pause = 0.0
        """Longest one lately between the arrivals of blocks that followed each other."""
        self._arrived = -math.inf

    def add(self, arrived: float, end_ns: Optional[int], continues: bool) -> None:
        """Add a block that arrived at this time of the monotonic clock, in seconds.

        `end_ns`: its end by its stamp, None for one without. `continues`: whether nothing is missing
        before it.
        """
        if end_ns is None:
            self._delays.clear()
        else:
            self._delays.append(arrived - end_ns / SECOND)
        passed, self._arrived = arrived - self._arrived, arrived
        self._pause = max(0.0, self._pause - FORGETTING * passed)
        if continues:
            self._pause = max(self._pause, min(passed, MAX_PAUSE))

    @property
    def is_live(self) -> bool:
        """Whether the last blocks came as fast as their stamps advance."""
        return not self._delays or max(self._delays) - min(self._delays) <= LIVE_JITTER

    @property
    def patience(self) -> float:
        """Seconds without a block after which no further one is expected."""
        return (LIVE_PATIENCE if self.is_live else REPLAY_PATIENCE) + self._pause

"""Capture stamps for blocks that come without any, from their number and from their arrival."""

import math
from typing import Optional

from ser_ros.audio import SECOND

PAUSE = 1.0
"""Seconds by which a block must be later than any lately, so that the sound has paused."""
WINDOW = 1.0
"""Seconds of arrivals that are compared with the count; longer bursts may look like a loss."""
MIN_BLOCKS = 5
"""Blocks in a window, however long they are."""
LEAST_LOSS = 0.005
"""Seconds; what is missing of shorter blocks is noticed when it is as much."""
STABLE = 0.01
"""Seconds by which the earliest arrivals of two windows may differ, if they are to be believed."""
SLEW = 0.05
"""Share of the tolerance by which the stamps are corrected in a window, without a gap."""
FIRST_SLEW = 0.5
"""The same for the first correction of a stream: its first block may have come late."""


class ArrivalClock:
    """Stamps blocks by counting samples, and corrects the count slowly by their arrivals.

    A block may arrive late, but never before it was captured: so what counts of a window is its
    earliest arrival, by the count. Where even that is late by half a block or more, sound is
    missing: the stamps step forward. Smaller deviations are the drift of the sender's clock or a
    first block that came late, and are corrected bit by bit. Earlier arrivals are believed if the
    next window confirms them; those of a replay that is faster than real time get earlier and
    earlier, and are only counted. A block later than the others by `PAUSE` follows a pause and is
    stamped by its arrival, as the first block is.

    So stamps are late by the least delay on the way, and beside that by at most the jitter of the
    first block, and early by at most what was lost in the last two windows (tested for clocks up to
    200 ppm off, jitter up to 50 ms, 2 % loss, and bursts after up to 0.8 s). A first block that was
    held up for longer is corrected by 5 ms a second.
    """

    def __init__(self):
        self.reset()

    def reset(self) -> None:
        """Stamp the next block by its arrival."""
        self._next_ns: Optional[int] = None
        self.continues = False
        """Whether nothing is missing before the last block: it was not later than others lately."""

    def follow(self, stamp_ns: int, duration_ns: int, tolerance: float = 0.1) -> None:
        """Continue after a block that has a stamp, whatever delay its clock shows."""
        next_ns = math.inf if self._next_ns is None else self._next_ns
        self.continues = abs(stamp_ns - next_ns) <= tolerance * SECOND
        self._begin(stamp_ns)
        self._delay_ns = None
        self._next_ns += duration_ns

    def stamp(self, arrival_ns: int, duration_ns: int, tolerance: float = 0.1) -> int:
        """Nanoseconds of a block's first sample; `arrival_ns`: when the block came.

        `tolerance`: seconds by which stamps may deviate where nothing is missing.
        """
        first_ns = arrival_ns - duration_ns
        self.continues = False
        if self._next_ns is None:
            self._begin(first_ns)
        elif self._delay_ns is None:
            self._delay_ns = first_ns - self._next_ns
            self.continues = True
        else:
            late_ns = first_ns - self._next_ns - self._delay_ns
            more_ns = late_ns - max(self._latest_ns, 0)
            self.continues = more_ns <= tolerance * SECOND
            is_back = arrival_ns < self._arrival_ns - PAUSE * SECOND
            if is_back or more_ns > PAUSE * SECOND:
                self._begin(first_ns)
            else:
                self._next_ns += self._correction(late_ns, arrival_ns, duration_ns, tolerance)
        self._arrival_ns = arrival_ns
        stamp_ns = self._next_ns
        self._next_ns += duration_ns
        return stamp_ns

    def _begin(self, stamp_ns: int) -> None:
        self._next_ns = stamp_ns
        self._delay_ns: Optional[int] = 0
        """Between a block's end by its stamp and its arrival; None where it is to be measured."""
        self._n_blocks = 0
        """In the open window."""
        self._window_ns = 0
        """Arrival of its first block."""
        self._least_ns = 0
        """How late its earliest block was."""
        self._last_least_ns: Optional[int] = None
        """The same of the window before."""
        self._latest_ns = 0
        """How late the latest block of both was."""
        self._slew = FIRST_SLEW

    def _correction(
        self, late_ns: int, arrival_ns: int, duration_ns: int, tolerance: float
    ) -> int:
        """Nanoseconds to add to the count; 0 within a window."""
        if not self._n_blocks:
            self._window_ns, self._least_ns = arrival_ns, late_ns
        self._n_blocks += 1
        self._least_ns = min(self._least_ns, late_ns)
        self._latest_ns = max(self._latest_ns, late_ns)
        if self._n_blocks < MIN_BLOCKS or arrival_ns - self._window_ns < WINDOW * SECOND:
            return 0
        least_ns, last_ns = self._least_ns, self._last_least_ns
        limit_ns = round(self._slew * tolerance * SECOND)
        correction_ns = 0
        if least_ns >= max(duration_ns / 2, LEAST_LOSS * SECOND):
            correction_ns = least_ns
        elif least_ns > 0:
            correction_ns = min(least_ns, limit_ns)
        elif last_ns is not None and abs(least_ns - last_ns) < STABLE * SECOND:
            is_burst = least_ns < -PAUSE * SECOND
            correction_ns = least_ns if is_burst else max(least_ns, -limit_ns)
        if correction_ns:
            self._slew = SLEW
        self._n_blocks = 0
        self._last_least_ns = least_ns - correction_ns
        self._latest_ns = late_ns - correction_ns
        return correction_ns

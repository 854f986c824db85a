"""Whether simulated time advances; nothing here imports rclpy."""

import time
from collections.abc import Callable
from typing import Optional

NEVER = 3.0
"""Seconds in which the first time must come on /clock."""
STILL = 10.0
"""Seconds in which simulated time must advance; a simulation may be paused for a moment."""


class ClockWatch:
    """Compares a clock that may stand still with one that always advances."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._last_ns: Optional[int] = None
        self._since = 0.0

    def problem(self, now_ns: int) -> Optional[str]:
        """What is wrong, if it has not advanced between the looks of the last seconds."""
        now = self._clock()
        if now_ns != self._last_ns:
            self._last_ns, self._since = now_ns, now
        seconds = now - self._since
        if seconds < (STILL if now_ns else NEVER):
            return None
        if not now_ns:
            return (
                'use_sim_time is set, but no time has come on /clock: have it published, or set '
                'use_sim_time to false'
            )
        return f'simulated time has stood still for {seconds:.0f} s: nothing new comes on /clock'

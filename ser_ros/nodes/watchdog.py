"""Notices that a thread does not come back."""

import threading
from collections.abc import Callable

STEP = 1.0
"""Seconds between two looks."""


class Watchdog(threading.Thread):
    """Calls a function when `reset` was not called for some seconds.

    The seconds are counted in steps of this thread: while the whole process is stopped, or the
    machine sleeps, none pass.
    """

    def __init__(self, seconds: float, on_hang: Callable[[], None]):
        super().__init__(name='watchdog', daemon=True)
        self._seconds = seconds
        self._on_hang = on_hang
        self._left = seconds
        self._stopping = threading.Event()

    def reset(self) -> None:
        """The watched thread is there."""
        self._left = self._seconds

    def stop(self) -> None:
        """Watch no longer."""
        self._stopping.set()

    def run(self) -> None:
        """Called by `start`."""
        while not self._stopping.wait(STEP):
            self._left -= STEP
            if self._left <= 0:
                self._on_hang()
                return

"""How much counters have increased in the last seconds."""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping


class CounterWindow:
    """Receives totals now and then; returns the increase of each over the last `seconds`."""

    def __init__(self, seconds: float = 10.0, clock: Callable[[], float] = time.monotonic):
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._totals: deque[tuple[float, dict[str, float]]] = deque()

    def add(self, totals: Mapping[str, float]) -> tuple[dict[str, float], float]:
        """Increase of each total, and over how many seconds; a counter may start from 0 again."""
        with self._lock:
            return self._add(totals)

    def _add(self, totals: Mapping[str, float]) -> tuple[dict[str, float], float]:
        now = self._clock()
        if self._totals and any(totals.get(k, 0) < v for k, v in self._totals[-1][1].items()):
            self._totals.clear()
        self._totals.append((now, dict(totals)))
        while len(self._totals) > 2 and self._totals[1][0] <= now - self._seconds:
            self._totals.popleft()
        then, before = self._totals[0]
        return {key: value - before.get(key, 0) for key, value in totals.items()}, now - then

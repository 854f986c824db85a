"""What is known of voices that are not processed now; nothing here imports rclpy."""

import time
from collections.abc import Callable
from typing import Optional

from ser_ros.stream.adaptation import Adaptation

KEPT = 600.0
"""Seconds after which an absent voice is forgotten."""

MAX_VOICES = 100
"""Absent voices that are kept: a tracker may give every utterance a new id."""


class AbsentVoices:
    """The adaptations of voices that have gone and may return."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._voices: dict[str, tuple[float, Adaptation]] = {}
        """Id → when it went, and what is known of it; the longest absent one is first."""

    def add(self, voice_id: str, adaptation: Adaptation) -> None:
        """Keep what is known of a voice that goes, where anything is."""
        if adaptation.n_utterances:
            self._voices[voice_id] = (self._clock(), adaptation)
        if len(self._voices) > MAX_VOICES:
            del self._voices[next(iter(self._voices))]

    def pop(self, voice_id: str) -> Optional[Adaptation]:
        """What is known of a voice that returns; None for an unknown one."""
        _, adaptation = self._voices.pop(voice_id, (0.0, None))
        return adaptation

    def forget_old(self) -> None:
        """Forget the voices that have been absent for longer than `KEPT`; to be called often."""
        oldest = self._clock() - KEPT
        self._voices = {name: kept for name, kept in self._voices.items() if kept[0] >= oldest}

    def forget(self) -> None:
        """Forget all voices."""
        self._voices.clear()

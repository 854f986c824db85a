"""Whether sound is ignored because the robot itself speaks."""

from typing import Optional

from ser_ros.audio import SECOND


class Gate:
    """Closed while the robot itself speaks, and for a tail after that.

    Its times are those of a clock that always advances, such as `time.monotonic_ns`: simulated time
    may stand still, and the gate would stay closed.
    """

    def __init__(self):
        self.forget_robot()

    def forget_robot(self) -> None:
        """Assume that the robot is silent, and was."""
        self._began_ns: Optional[int] = None
        self._ended_ns: Optional[int] = None

    def robot_speaks(self, is_speaking: bool, now_ns: int) -> None:
        """The robot starts to speak, or stops."""
        if not is_speaking and self._began_ns is not None:
            self._began_ns, self._ended_ns = None, now_ns
        elif is_speaking and self._began_ns is None:
            self._began_ns = now_ns

    def robot_has_spoken(self, now_ns: int) -> Optional[float]:
        """Seconds since it began; None while it is silent."""
        return None if self._began_ns is None else (now_ns - self._began_ns) / SECOND

    def is_muted(self, now_ns: int, tail: float) -> bool:
        """Whether the robot speaks, or did less than `tail` seconds ago."""
        if self._began_ns is not None:
            return True
        return self._ended_ns is not None and now_ns - self._ended_ns < tail * SECOND

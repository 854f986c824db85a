"""Voices at one model: a thread hears what comes in, and tells what it makes of it. No ROS."""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Optional

import numpy as np

from ser_ros.audio import SAMPLE_RATE, SECOND
from ser_ros.audio.intake import Intake
from ser_ros.audio.level import LevelMeter
from ser_ros.bundle import Bundle
from ser_ros.stream.recognizer import Recognizer
from ser_ros.stream.voice import Estimate, RecognizerConfig, Voice

STARVED = 1.0
"""Seconds without sound after which nobody is said to speak."""

STEP = SAMPLE_RATE // 10
"""Samples recognised at a time, so that a change of `is_speaking` is told within a long block."""


@dataclass(eq=False)
class Channel:
    """One voice: where its sound waits, what is known of it, and whom to tell."""

    intake: Intake
    voice: Voice
    on_estimate: Callable[[Estimate, str], None]
    """Called with each estimate and the frame id of its sound."""
    on_speaking: Callable[[bool], None]
    """Called when somebody begins to speak, and when nobody does any more."""
    is_said_to_speak: Optional[bool] = None
    """None as long as nothing was said."""
    last_heard: float = field(default_factory=time.monotonic)
    """When sound was heard last, by the steady clock."""
    meter: LevelMeter = field(default_factory=lambda: LevelMeter(SAMPLE_RATE))
    """Of the sound at 16 kHz."""
    pieces: deque[tuple[np.ndarray, int]] = field(default_factory=deque)
    """What is left of the block being heard: `STEP` samples each, and their stamps."""
    frame_id: str = ''
    """Of that block."""

    def next_piece(self) -> Optional[tuple[np.ndarray, int]]:
        """The next to be heard; None where nothing waits."""
        if not self.pieces:
            if (heard := self.intake.get()) is None:
                return None
            if heard.is_broken:
                self.voice.reset()
            self.frame_id = heard.frame_id
            for samples, stamp_ns in heard.parts:
                self.meter.push(samples)
                self.pieces += (
                    (samples[i : i + STEP], stamp_ns + i * SECOND // SAMPLE_RATE)
                    for i in range(0, len(samples), STEP)
                )
        return self.pieces.popleft() if self.pieces else None

    def forget(self) -> None:
        """Give up what was heard and what waits; whether somebody speaks is not said here."""
        self.intake.forget(sum(len(samples) for samples, _ in self.pieces) / SAMPLE_RATE)
        self.pieces.clear()
        self.voice.reset()

    def say_whether_speaking(self, is_speaking: bool) -> None:
        """Tell it if it has changed."""
        if is_speaking != self.is_said_to_speak:
            self.is_said_to_speak = is_speaking
            self.on_speaking(is_speaking)


class Load:
    """How much of its time a worker is busy: seconds of work for each second of sound."""

    MEMORY = 30.0
    """Seconds of sound after which a third of it is left."""

    def __init__(self):
        self._busy = self._sound = 0.0

    def add(self, busy: float, sound: float) -> None:
        """Seconds that so many seconds of sound have taken."""
        keep = np.exp(-sound / self.MEMORY)
        self._busy = keep * self._busy + busy
        self._sound = keep * self._sound + sound

    @property
    def real_time_factor(self) -> float:
        """Below 1 while it keeps up."""
        return float(self._busy / self._sound) if self._sound else 0.0


class Listener:
    """Hears its channels in one thread, in which they are told, too.

    What depends on the wall clock is only that a voice of which nothing comes any more is said
    not to speak.
    """

    def __init__(self, recognizer: Recognizer):
        self.recognizer = recognizer
        self.ready = threading.Condition()
        """What the channels' intakes are to be made with."""
        self.load = Load()
        self._channels: list[Channel] = []
        self._errands: deque[Callable[[], None]] = deque()
        self._is_running = False
        self._is_stopped = False

    @property
    def channels(self) -> tuple[Channel, ...]:
        """Those that are heard."""
        return tuple(self._channels)

    def add(
        self,
        intake: Intake,
        on_estimate: Callable[[Estimate, str], None],
        on_speaking: Callable[[bool], None],
    ) -> Channel:
        """Hear another voice."""
        channel = Channel(intake, self.recognizer.make_voice(), on_estimate, on_speaking)
        with self.ready:
            self._channels.append(channel)
            self.ready.notify()
        return channel

    def remove(self, channel: Channel) -> None:
        """Hear it no longer; nothing is told of it when this has returned."""

        def leave() -> None:
            channel.forget()
            channel.say_whether_speaking(False)
            self._channels.remove(channel)

        self.between_windows(leave)

    def adopt(self, bundle: Bundle) -> None:
        """Go on with another bundle, which lies on the recogniser's device."""

        def swap() -> None:
            self.recognizer.adopt(bundle)
            for channel in self._channels:
                channel.voice.adopt(bundle)

        self.between_windows(swap)

    def configure(self, config: RecognizerConfig) -> None:
        """Go on with other settings."""

        def apply() -> None:
            self.recognizer.configure(config)
            for channel in self._channels:
                channel.voice.configure(config)

        self.between_windows(apply)

    def reset(self) -> None:
        """Forget what was heard and what waits, and open utterances without a decision."""

        def forget() -> None:
            for channel in self._channels:
                channel.forget()
                channel.say_whether_speaking(False)

        self.between_windows(forget)

    def between_windows(self, errand: Callable[[], None]) -> None:
        """Have the worker do something before it takes the next block, and wait for it."""
        done = threading.Event()
        error: list[Exception] = []

        def run() -> None:
            try:
                errand()
            except Exception as caught:
                error.append(caught)
            finally:
                done.set()

        with self.ready:
            if not self._is_running:
                run()
            else:
                self._errands.append(run)
                self.ready.notify()
        done.wait()
        if error:
            raise error[0]

    def run(self) -> None:
        """Hear, until `stop`."""
        with self.ready:
            self._is_running = True
        try:
            while self._wait():
                self._do_errands()
                self._hear()
                self._say_who_is_silent()
        finally:
            with self.ready:
                self._is_running = False
                self._do_errands()
            for channel in self._channels:
                channel.say_whether_speaking(False)

    def stop(self) -> None:
        """Have `run` return soon."""
        with self.ready:
            self._is_stopped = True
            self.ready.notify()

    def _wait(self) -> bool:
        """Until there is something to do, for `STARVED` seconds at most; False once stopped."""
        with self.ready:
            self.ready.wait_for(
                lambda: (
                    self._is_stopped
                    or self._errands
                    or any(c.pieces or c.intake.has_block for c in self._channels)
                ),
                STARVED,
            )
            return not self._is_stopped

    def _do_errands(self) -> None:
        while self._errands:
            self._errands.popleft()()

    def _hear(self) -> None:
        """A piece of each channel that has one, windows that are due together as one batch."""
        start = time.monotonic()
        due = [(c, piece) for c in self._channels if (piece := c.next_piece()) is not None]
        if not due:
            return
        found = self.recognizer.push_together(
            [(channel.voice, samples, stamp_ns) for channel, (samples, stamp_ns) in due]
        )
        for (channel, _), estimates in zip(due, found):
            channel.last_heard = start
            for estimate in estimates:
                channel.on_estimate(estimate, channel.frame_id)
            channel.say_whether_speaking(channel.voice.is_speaking)
        longest = max(len(samples) for _, (samples, _) in due)
        self.load.add(time.monotonic() - start, longest / SAMPLE_RATE)

    def _say_who_is_silent(self) -> None:
        """The voices that are new, and those of which nothing comes."""
        now = time.monotonic()
        for channel in self._channels:
            if channel.is_said_to_speak is None or now - channel.last_heard >= STARVED:
                channel.say_whether_speaking(False)

"""The worker: one thread that processes the sound of several voices with one model. No ROS."""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Optional

import numpy as np

from ser_ros import HangError
from ser_ros.audio import SAMPLE_RATE, SECOND
from ser_ros.audio.block_queue import BlockQueue
from ser_ros.audio.level import LevelMeter
from ser_ros.bundle import Bundle
from ser_ros.stream.adaptation import Adaptation
from ser_ros.stream.engine import Engine
from ser_ros.stream.types import Estimate, StreamConfig
from ser_ros.stream.voice import Voice

STARVED = 1.0
"""Seconds without sound after which a voice is reported as not speaking."""

STEP = SAMPLE_RATE // 10
"""Samples processed at a time, so that `is_speaking` is reported in time within a long block."""

PATIENCE = 10.0
"""Seconds after which a worker that does nothing counts as hanging: it processes 0.1 s of sound in
much less, and without sound it runs once a second."""


@dataclass(eq=False, kw_only=True)
class VoiceStream:
    """One voice: the queue of its sound, its state, and the callbacks for its results."""

    queue: BlockQueue
    voice: Voice
    adaptation: Adaptation
    """What is known of this voice alone."""
    on_estimate: Callable[[Estimate, str], None]
    """Called with each estimate and the frame id of its sound."""
    on_speaking: Callable[[bool], None]
    """Called whenever the voice starts or stops speaking."""
    reported_speaking: Optional[bool] = None
    """The last value given to `on_speaking`; None before the first."""
    last_sound: float = field(default_factory=time.monotonic)
    """When sound was processed last, by the monotonic clock."""
    meter: LevelMeter = field(default_factory=lambda: LevelMeter(SAMPLE_RATE))
    """Of the sound at 16 kHz."""
    pieces: deque[tuple[np.ndarray, int]] = field(default_factory=deque)
    """The rest of the block in progress: `STEP` samples each, and their stamps."""
    frame_id: str = ''
    """Of that block."""

    def next_piece(self) -> Optional[tuple[np.ndarray, int]]:
        """The next piece to process; None where nothing waits."""
        if not self.pieces:
            if (block := self.queue.get()) is None:
                return None
            if block.is_broken:
                self.voice.reset()
            self.frame_id = block.frame_id
            for samples, stamp_ns in block.parts:
                self.meter.push(samples)
                self.pieces += (
                    (samples[i : i + STEP], stamp_ns + i * SECOND // SAMPLE_RATE)
                    for i in range(0, len(samples), STEP)
                )
        return self.pieces.popleft() if self.pieces else None

    def clear(self) -> None:
        """Forget the open utterance and the sound that waits; `on_speaking` is not called."""
        self.queue.clear(sum(len(samples) for samples, _ in self.pieces) / SAMPLE_RATE)
        self.pieces.clear()
        self.voice.reset()

    def report_speaking(self, is_speaking: bool) -> None:
        """Call `on_speaking` if the value has changed."""
        if is_speaking != self.reported_speaking:
            self.reported_speaking = is_speaking
            self.on_speaking(is_speaking)


class Load:
    """The real-time factor of a worker: seconds of work for each second of sound."""

    MEMORY = 30.0
    """Time constant in seconds of sound."""
    MINIMUM = 2.0
    """Seconds of sound from which on there is a factor: a first block of 20 ms that the processor
    was late for says nothing of the machine."""

    def __init__(self):
        self._busy = self._sound = 0.0

    def add(self, busy: float, sound: float) -> None:
        """Add `busy` seconds of work for `sound` seconds of sound."""
        keep = np.exp(-sound / self.MEMORY)
        self._busy = keep * self._busy + busy
        self._sound = keep * self._sound + sound

    @property
    def real_time_factor(self) -> Optional[float]:
        """Below 1 while the worker keeps up; None until there is enough sound to tell."""
        return float(self._busy / self._sound) if self._sound >= self.MINIMUM else None


class Listener:
    """Processes voice streams in one thread, which also calls their callbacks.

    The wall clock decides two things only: when a voice that sends nothing any more is reported as
    not speaking, and when the worker counts as hanging. What other threads ask the worker for
    raises HangError then.
    """

    def __init__(self, engine: Engine, config: StreamConfig):
        self.engine = engine
        self.ready = threading.Condition()
        """The condition that the streams' queues must be created with."""
        self.load = Load()
        self.config = config
        self._room = Adaptation()
        """What is known of all voices together."""
        self._streams: list[VoiceStream] = []
        self._calls: deque[Callable[[], None]] = deque()
        """What other threads asked the worker to do between two windows."""
        self._is_running = False
        self._is_stopped = False
        self._hangs = False
        self._rounds = 0
        """How often the worker came back for more."""
        self._idle_checks, self._checked_rounds = 0, 0

    @property
    def streams(self) -> tuple[VoiceStream, ...]:
        """The streams that are processed."""
        return tuple(self._streams)

    def add(
        self,
        queue: BlockQueue,
        on_estimate: Callable[[Estimate, str], None],
        on_speaking: Callable[[bool], None],
        adaptation: Optional[Adaptation] = None,
    ) -> VoiceStream:
        """Process another voice; `adaptation`: what is known of it."""
        adaptation = adaptation or Adaptation()
        stream = VoiceStream(
            queue=queue,
            voice=Voice(self.engine.bundle, self.config),
            adaptation=adaptation,
            on_estimate=on_estimate,
            on_speaking=on_speaking,
        )
        self._choose_adaptation(stream)
        with self.ready:
            self._streams.append(stream)
            self.ready.notify()
        return stream

    def _choose_adaptation(self, stream: VoiceStream) -> None:
        is_room = self.config.adaptation == 'room'
        stream.voice.adaptation = self._room if is_room else stream.adaptation

    def remove(self, stream: VoiceStream) -> None:
        """Stop processing a voice; its callbacks are not called after this has returned."""

        def remove() -> None:
            stream.clear()
            stream.report_speaking(False)
            self._streams.remove(stream)

        self.call_between_windows(remove)

    def replace_bundle(self, bundle: Bundle) -> None:
        """Continue with another bundle, which is already on the engine's device.

        What is known of the voices is forgotten, with their baselines: see `Voice.replace_bundle`.
        """

        def replace() -> None:
            self.engine.replace_bundle(bundle)
            self._room.forget()
            for stream in self._streams:
                stream.adaptation.start_from(None)
                stream.voice.replace_bundle(bundle)

        self.call_between_windows(replace)

    def configure(self, config: StreamConfig) -> None:
        """Continue with other settings."""

        def configure() -> None:
            self.config = config
            for stream in self._streams:
                stream.voice.configure(config)
                self._choose_adaptation(stream)

        self.call_between_windows(configure)

    def reset(self, voices: bool = False) -> None:
        """Forget the sound that waits, and open utterances without a decision.

        `voices`: also what is known of the voices.
        """

        def reset() -> None:
            if voices:
                self._room.forget()
            for stream in self._streams:
                stream.clear()
                stream.report_speaking(False)
                if voices:
                    stream.adaptation.forget()

        self.call_between_windows(reset)

    def call_between_windows(self, function: Callable[[], None]) -> None:
        """Have the worker call a function before it takes the next block, and wait for it.

        HangError if the worker does not call it within `PATIENCE` seconds.
        """
        if self._hangs:  # not another wait
            raise self._hang()
        done = threading.Event()
        errors: list[Exception] = []

        def call() -> None:
            try:
                function()
            except Exception as error:
                errors.append(error)
            finally:
                done.set()

        with self.ready:
            if not self._is_running:
                call()
            else:
                self._calls.append(call)
                self.ready.notify()
        if not done.wait(PATIENCE):
            raise self._hang()
        if errors:
            raise errors[0]

    def check_progress(self) -> None:
        """Call it once a second while `run` runs; HangError if the worker has done nothing.

        Calls are counted, not seconds: of a process that was stopped meanwhile the worker does not
        hang.
        """
        if not self._is_running or self._rounds != self._checked_rounds:
            self._checked_rounds, self._idle_checks = self._rounds, 0
            return
        self._idle_checks += 1
        if self._idle_checks >= PATIENCE:
            raise self._hang()

    def _hang(self) -> HangError:
        self._hangs = True
        return HangError(
            f'the worker hangs: it has done nothing for {PATIENCE:g} s, as when the device of the '
            'model does not answer; only a new process helps'
        )

    def run(self) -> None:
        """Process the streams until `stop`."""
        with self.ready:
            self._is_running = True
        try:
            while self._wait():
                self._rounds += 1
                self._run_calls()
                self._process()
                self._report_starved()
        finally:
            with self.ready:
                self._is_running = False
                self._run_calls()
            for stream in self._streams:
                stream.report_speaking(False)

    def stop(self) -> None:
        """Make `run` return soon."""
        with self.ready:
            self._is_stopped = True
            self.ready.notify()

    def _wait(self) -> bool:
        """Wait for work, for `STARVED` seconds at most; False once stopped."""
        with self.ready:
            self.ready.wait_for(
                lambda: (
                    self._is_stopped
                    or self._calls
                    or any(s.pieces or s.queue.has_block for s in self._streams)
                ),
                STARVED,
            )
            return not self._is_stopped

    def _run_calls(self) -> None:
        while self._calls:
            self._calls.popleft()()

    def _process(self) -> None:
        """Process a piece of each stream that has one; windows due together are one batch."""
        start = time.monotonic()
        due = [(s, piece) for s in self._streams if (piece := s.next_piece()) is not None]
        if not due:
            return
        results = self.engine.run(
            [stream.voice.push(samples, stamp_ns) for stream, (samples, stamp_ns) in due]
        )
        for (stream, _), estimates in zip(due, results):
            stream.last_sound = start
            for estimate in estimates:
                stream.on_estimate(estimate, stream.frame_id)
            stream.report_speaking(stream.voice.is_speaking)
        longest = max(len(samples) for _, (samples, _) in due)
        self.load.add(time.monotonic() - start, longest / SAMPLE_RATE)

    def _report_starved(self) -> None:
        """Report new voices, and those that send nothing, as not speaking."""
        now = time.monotonic()
        for stream in self._streams:
            if stream.reported_speaking is None or now - stream.last_sound >= STARVED:
                stream.report_speaking(False)

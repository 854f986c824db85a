"""The worker: one thread that processes the sound of several voices with one model. No ROS."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Optional

import numpy as np

from ser_ros import HangError
from ser_ros.audio import SAMPLE_RATE, SECOND
from ser_ros.audio.block_queue import BlockQueue, Part
from ser_ros.audio.level import LevelMeter
from ser_ros.stream.adaptation import Adaptation, Baseline
from ser_ros.stream.backend import Backend
from ser_ros.stream.types import Estimate, StreamConfig
from ser_ros.stream.voice import Voice

TICK = 0.25
"""Seconds between two looks at voices that send nothing; also the longest silence that one look
counts: where the whole process stood still, nobody knows what would have come."""

DRAIN = 3.0
"""Seconds in which a voice that is removed may still process the sound that it has sent."""

STEP = SAMPLE_RATE // 10
"""Samples processed at a time, so that `is_speaking` is reported in time within a long block; those of a
voice's turn; and the most that gather before one."""

MAX_BLOCKS = 20
"""Blocks of a turn, so that thousands of tiny ones are no long turn; with 5 ms each it is a whole one."""

PATIENCE = 10.0
"""Seconds after which a worker that does nothing counts as hanging: it processes 0.1 s of sound in
much less, and without sound it runs more often than once a second."""


@dataclass(frozen=True)
class Piece:
    """A part of a block, of one stream."""

    samples: np.ndarray
    """float32 (n,) at 16 kHz."""
    stamp_ns: int
    frame_id: str
    starts_anew: bool
    """Whether sound before it was dropped, skipped or refused."""


@dataclass(eq=False, kw_only=True)
class VoiceStream:
    """One voice: the queue of its sound, its state, and the callbacks for its results."""

    queue: BlockQueue
    voice: Voice
    adaptation: Adaptation
    """What is known of this voice alone."""
    room: Adaptation
    """What is known of all voices where it is."""
    on_estimate: Callable[[Estimate, str], None]
    """Called with each estimate and the frame id of its sound."""
    on_speaking: Callable[[bool], None]
    """Called whenever the voice starts or stops speaking."""
    reported_speaking: Optional[bool] = None
    """The last value given to `on_speaking`; None before the first."""
    silence: float = 0.0
    """Seconds in which nothing was there to process."""
    meter: LevelMeter = field(default_factory=lambda: LevelMeter(SAMPLE_RATE))
    """Of the sound at 16 kHz."""
    pieces: deque[Piece] = field(default_factory=deque)
    """The rest of the block in progress, `STEP` samples each."""
    frame_id: str = ''
    """Of the sound that was processed last."""
    leaves_by: Optional[float] = None
    """When a voice that is removed must be decided, by the monotonic clock."""
    has_left: threading.Event = field(default_factory=threading.Event)
    """Set when it is."""
    is_broken: bool = False
    """Whether sound was dropped, skipped or refused before the next piece."""
    is_behind: bool = False
    """Whether its windows are left out until nothing waits."""

    @property
    def has_sound(self) -> bool:
        """Whether anything waits to be processed."""
        return bool(self.pieces) or self.queue.has_block

    @property
    def is_due(self) -> bool:
        """Whether the worker should not wait for more sound."""
        return bool(self.pieces) or self.leaves_by is not None or self.queue.has_gathered

    def choose_gather(self) -> None:
        """Let sound gather until a result of it is due, for `STEP` at most.

        To wake up for each block costs more than to process it; only the start of speech, which
        nobody can foresee, is reported later for it.
        """
        self.queue.gather = min(self.voice.samples_until_due, STEP) / SAMPLE_RATE

    def next_piece(self) -> Optional[Piece]:
        """The next piece to process; None where nothing waits. It also decides on `is_behind`."""
        if not self.pieces:
            if (block := self.queue.get()) is None:
                return None
            self._cut(block.ended, self.frame_id)
            self.is_broken |= block.is_broken
            self._cut(block.parts, block.frame_id)
        if not self.pieces:
            return None
        piece = self.pieces.popleft()
        # Once behind, until nothing waits: voices that fall behind alike would never change places
        # otherwise, and one of them would lose all windows.
        self.is_behind = self.queue.is_behind or (self.is_behind and self.has_sound)
        self.voice.skips_windows = self.is_behind
        return piece

    def end(self) -> None:
        """Add the samples that the resampler holds back to those that wait: nothing follows."""
        self._cut(self.queue.end_stream(), self.frame_id)

    def _cut(self, parts: Sequence[Part], frame_id: str) -> None:
        """Cut samples into pieces."""
        for samples, stamp_ns in parts:
            self.meter.push(samples)
            for i in range(0, len(samples), STEP):
                piece_ns = stamp_ns + i * SECOND // SAMPLE_RATE
                piece = Piece(samples[i : i + STEP], piece_ns, frame_id, self.is_broken)
                self.pieces.append(piece)
                self.is_broken = False

    def clear(self) -> None:
        """Forget the open utterance and the sound that waits; `on_speaking` is not called."""
        self.queue.clear(sum(len(piece.samples) for piece in self.pieces) / SAMPLE_RATE)
        self.pieces.clear()
        self.is_behind = False
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
    """Seconds of sound from which on there is a factor: a first block of 32 ms that the processor
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

    In each round every voice that has sent sound has a turn of `STEP` samples, so that a voice that
    sends too much delays itself alone. A round takes what is there and never waits for more: while a
    batch is computed more arrives, so that batches grow with the load by themselves.

    A voice that is too far behind (see `BlockQueue.is_behind`) catches up: all of its sound is
    processed, in longer turns, and its utterances are decided, but its running estimates are left
    out, and counted.

    Otherwise what it reports depends on samples and stamps alone. The wall clock decides two things
    only: when to notice that a voice sends nothing any more, so that its utterance has ended (see
    `Pace`), and when the worker counts as hanging. What other threads ask the worker for raises
    HangError then.
    """

    def __init__(self, backend: Backend, config: StreamConfig):
        self.backend = backend
        self.ready = threading.Condition()
        """The condition that the streams' queues must be created with."""
        self.load = Load()
        self.config = config
        self._room = Adaptation()
        """What is known of all voices together that are in no other room."""
        self._streams: list[VoiceStream] = []
        self._calls: deque[Callable[[], None]] = deque()
        """What other threads asked the worker to do between two windows."""
        self._is_running = False
        self._is_stopped = False
        self._hangs = False
        self._rounds = 0
        """How often the worker came back for more."""
        self._idle_checks, self._checked_rounds = 0, 0
        self._looked = time.monotonic()

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
        room: Optional[Adaptation] = None,
    ) -> VoiceStream:
        """Process another voice; `adaptation`: what is known of it.

        `room`: what is known of all voices where it is; by default they are in one room.
        """
        stream = VoiceStream(
            queue=queue,
            voice=Voice(self.backend, self.config),
            adaptation=adaptation or Adaptation(),
            room=room or self._room,
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
        stream.voice.adaptation = stream.room if is_room else stream.adaptation

    def remove(self, stream: VoiceStream) -> None:
        """Stop processing a voice; its callbacks are not called after this has returned.

        What it has sent is processed first, for `DRAIN` seconds at most, and its open utterance is
        decided. Once `run` has ended, what waits is forgotten.
        """

        def remove() -> None:
            stream.clear()
            stream.report_speaking(False)
            self._streams.remove(stream)

        with self.ready:
            waits = self._is_running and not self._is_stopped and not self._hangs
            if waits:  # the worker does it, so that its errors end it, as any others
                stream.leaves_by = time.monotonic() + DRAIN
                self.ready.notify()
        if waits:
            stream.has_left.wait(min(2 * DRAIN, PATIENCE))
        self.call_between_windows(remove)

    def replace_backend(
        self,
        backend: Backend,
        enrolled: Optional[VoiceStream] = None,
        baseline: Optional[Baseline] = None,
    ) -> None:
        """Continue with another bundle or backend.

        What is known of the voices is forgotten, see `Voice.replace_backend`; `enrolled` starts from
        `baseline`, which is of this bundle, all others from nothing.
        """

        def replace() -> None:
            self.backend = backend
            self._room.forget()
            for stream in self._streams:
                stream.room.forget()
                stream.adaptation.start_from(baseline if stream is enrolled else None)
                stream.voice.replace_backend(backend)

        self.call_between_windows(replace)

    def configure(self, config: StreamConfig) -> None:
        """Continue with other settings."""

        def configure() -> None:
            self.config = config
            for stream in self._streams:
                stream.voice.configure(config)
                self._choose_adaptation(stream)

        self.call_between_windows(configure)

    def reset(self, streams: Optional[Sequence[VoiceStream]] = None, voices: bool = False) -> None:
        """Forget the sound of some streams that waits, and open utterances without a decision.

        `streams`: by default all; `voices`: also what is known of the voices, and of their rooms.
        """

        def reset() -> None:
            if voices:
                self._room.forget()
            for stream in self._streams:
                if streams is not None and stream not in streams:
                    continue
                stream.clear()
                stream.report_speaking(False)
                if voices:
                    stream.room.forget()
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
        """Process the streams until `stop`; then decide the utterances that are open."""
        with self.ready:
            self._is_running = True
        try:
            while self._wait():
                self._rounds += 1
                self._run_calls()
                self._take_turns()
                self._end_streams()
            for stream in self._streams:
                self._end(stream)
        finally:
            with self.ready:
                self._is_running = False
                self._run_calls()
            for stream in self._streams:
                stream.has_left.set()
                stream.report_speaking(False)

    def stop(self) -> None:
        """Make `run` return soon."""
        with self.ready:
            self._is_stopped = True
            self.ready.notify()

    def _wait(self) -> bool:
        """Wait for work, for `TICK` seconds at most; False once stopped."""
        with self.ready:
            self.ready.wait_for(
                lambda: self._is_stopped or self._calls or any(s.is_due for s in self._streams),
                TICK,
            )
            return not self._is_stopped

    def _run_calls(self) -> None:
        while self._calls:
            self._calls.popleft()()

    def _take_turns(self) -> None:
        """Process `STEP` samples of each voice, however long its blocks are.

        Of one that is behind twice as many, so that it does not stay the one that is.
        """
        start = time.monotonic()
        turns = {stream: STEP * (1 + stream.is_behind) for stream in self._streams}
        processed = dict.fromkeys(turns, 0)
        for _ in range(MAX_BLOCKS):
            due = [s for s, n in turns.items() if processed[s] < n and s.has_sound]
            if not due:
                break
            for stream, piece in self._process(due):
                processed[stream] += len(piece.samples)
        for stream in turns:
            stream.choose_gather()
        if longest := max(processed.values(), default=0):
            self.load.add(time.monotonic() - start, longest / SAMPLE_RATE)

    def _process(self, streams: Sequence[VoiceStream]) -> list[tuple[VoiceStream, Piece]]:
        """Process a piece of each stream that has one; windows due together are one batch."""
        due = [(s, piece) for s in streams if (piece := s.next_piece()) is not None]
        if not due:
            return due
        for stream, piece in due:
            stream.silence = 0.0
            if piece.starts_anew:
                self._report(stream, self.backend.run([stream.voice.flush()])[0])
        n_gaps = [stream.voice.counters.gaps for stream, _ in due]
        results = self.backend.run(
            [stream.voice.push(piece.samples, piece.stamp_ns) for stream, piece in due]
        )
        for (stream, piece), n, estimates in zip(due, n_gaps, results):
            if stream.voice.counters.gaps > n:
                # All of these are of the utterance before the gap: a piece is shorter than any.
                self._report(stream, estimates)
                estimates = []
            stream.frame_id = piece.frame_id
            for estimate in estimates:
                stream.on_estimate(estimate, stream.frame_id)
            stream.report_speaking(stream.voice.is_speaking)
        return due

    def _report(self, stream: VoiceStream, estimates: Sequence[Estimate]) -> None:
        """Report the last estimates before an interruption, and that nobody speaks in it."""
        for estimate in estimates:
            stream.on_estimate(estimate, stream.frame_id)
        stream.report_speaking(False)

    def _end(self, stream: VoiceStream) -> None:
        """Decide the open utterance from what was processed of it, as at a gap."""
        estimates = []
        if stream.voice.has_open_utterance:
            if not stream.has_sound:
                stream.end()
                while stream.pieces:
                    self._process((stream,))
            estimates = self.backend.run([stream.voice.interrupt()])[0]
        self._report(stream, estimates)

    def _end_streams(self) -> None:
        """End the utterances of voices that send nothing or leave; report new ones as silent."""
        now = time.monotonic()
        passed, self._looked = min(now - self._looked, TICK), now
        for stream in self._streams:
            if stream.reported_speaking is None:
                stream.report_speaking(False)
            if stream.leaves_by is not None and (not stream.has_sound or now > stream.leaves_by):
                self._end(stream)
                stream.leaves_by = None
                stream.has_left.set()
            if stream.has_sound:
                continue
            stream.silence += passed
            if stream.silence >= stream.queue.pace.patience:
                self._end(stream)

"""What is known of one voice: its sound, its probabilities, its decisions. Times are in seconds."""

import base64
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

from ser_ros.audio import SAMPLE_RATE, SECOND
from ser_ros.audio.level import LevelMeter
from ser_ros.emotions import EMOTIONS
from ser_ros.stream.mood import Mood
from ser_ros.view.sound import SoundRing
from ser_ros.view.spectrum import HOP, Columns

SOUND_SHOWN = 12.0
"""Seconds of waveform and spectrogram."""
HISTORY = 60.0
"""Seconds of all else."""
MAX_UTTERANCES = 50
MAX_KEPT = 5_000
"""Of anything else, whatever its times are."""
STEP_BACK = 1.0
"""Seconds by which the time of sound may go back; more is another recording."""
LATE = 20.0
"""Seconds by which anything else may be late, as where the recogniser has a backlog."""
STRAY = 30.0
"""Seconds after the sound that comes, from which on a message is of a time before it went back."""
GONE = 5.0
"""Seconds without sound after which its time no longer counts."""
JITTER = 0.05
"""Seconds by which sound may come early or late before its columns start anew."""
UNDECIDED = 0.3
"""Seconds in which the decision for a window comes, if there is one."""
UNDECIDED_UTTERANCE = 1.5
"""The same for an utterance, whose end is noticed before its decision comes."""
ONSET = 0.4
"""Seconds of sound before speech is noticed that belong to it."""
MAX_NAME = 64
"""Characters of a name that is shown."""
MAX_CLASSES = 64


def shown(name: str) -> str:
    """A name from outside, cut to a length that a page can show."""
    return name if len(name) <= MAX_NAME else name[: MAX_NAME - 1] + '…'


def expression_of(name: str) -> str:
    """The expression that a class means: its own name for a class that is not known here."""
    return EMOTIONS[name].expression if name in EMOTIONS else name


@dataclass(frozen=True)
class Decision:
    """What was decided, at a time; `expression` is None where nothing was certain enough."""

    time: float
    expression: Optional[str]
    confidence: float
    valence: Optional[float] = None
    arousal: Optional[float] = None
    leading: Optional[str] = None
    """The most probable expression where none was certain enough."""

    def to_json(self) -> dict[str, Any]:
        """As the page wants it."""
        values = {name: _rounded(value) for name, value in vars(self).items()}
        return {**values, 'expression': _shown(self.expression), 'leading': _shown(self.leading)}


def _rounded(value: Any) -> Any:
    """Milliseconds and thousandths; no NaN, which JSON does not have."""
    if isinstance(value, float):
        return round(value, 3) if np.isfinite(value) else None
    return value


def most_probable(probabilities: Mapping[str, float]) -> tuple[Optional[str], float]:
    """The expression to which the classes give most, and how much; None without classes."""
    summed: dict[str, float] = {}
    for name, probability in probabilities.items():
        expression = expression_of(name)
        summed[expression] = summed.get(expression, 0.0) + probability
    leading = max(summed, key=summed.__getitem__, default=None)
    return leading, 0.0 if leading is None else summed[leading]


def _shown(name: Optional[str]) -> Optional[str]:
    return None if name is None else shown(name)


class Lane:
    """One voice; used under the lock of its `Model`."""

    def __init__(self, keep_audio: float = 0.0, is_recording: bool = False):
        """`keep_audio`: seconds of sound to keep; `is_recording`: keep everything that is shown."""
        self.ring = SoundRing(keep_audio)
        self.meter = LevelMeter(SAMPLE_RATE)
        self.is_watched = is_recording
        """Whether sound is kept, and made into columns."""
        self.sound_received: Optional[float] = None
        """When sound came last, by the monotonic clock."""
        self.is_speaking = False
        self.classes: tuple[str, ...] = ()
        self._is_recording = is_recording
        self._kept: dict[str, deque[Any]] = {}
        self._new: dict[str, list[Any]] = {}
        self._n_utterances = 0
        self._spans: dict[int, tuple[int, int]] = {}
        """Utterance → its stamps, while it is shown."""
        self.restart()

    def restart(self) -> None:
        """Forget all that a page shows, as where time went back, or the classes are others."""
        limit = None if self._is_recording else MAX_KEPT
        for kind in ('sound', 'windows', 'decisions', 'speech', 'mood'):
            self._kept[kind] = deque(maxlen=limit)
        self._kept['utterances'] = deque(maxlen=limit and MAX_UTTERANCES)
        self._new = {'restart': [True]}
        self._columns = Columns()
        self._expected: Optional[float] = None
        """The time of the next sample."""
        self._pending: deque[tuple[float, Decision]] = deque(maxlen=MAX_KEPT)
        """Windows without a decision so far, with the time that they came."""
        self._closing: Optional[tuple[float, Decision]] = None
        """An utterance that has ended without a decision so far."""
        self._speech_start: Optional[float] = None
        self._windows_since = 0
        self._last_window = Decision(-np.inf, None, 0.0)
        self._decided = self._utterance_end = -np.inf
        self._mood = Mood()
        self._sound_head: Optional[float] = None
        """The end of the latest sound."""
        self._event_head: Optional[float] = None
        """The latest time of anything else."""
        self._spans = {}
        self.ring.clear()

    @property
    def head(self) -> Optional[float]:
        """The latest time that anything is known of."""
        known = [time for time in (self._sound_head, self._event_head) if time is not None]
        return max(known, default=None)

    # Events.

    def add_sound(self, samples: np.ndarray, stamp_ns: int, received: float) -> None:
        """Add float32 (n,) samples at 16 kHz that came now."""
        if not len(samples):
            return
        time, seconds = stamp_ns / SECOND, len(samples) / SAMPLE_RATE
        if self._sound_head is not None and time < self._sound_head - STEP_BACK:
            if self._is_recording:
                return
            self.restart()
        self._sound_head = time + seconds
        self.sound_received = received
        self.meter.push(samples)
        if not self.is_watched:
            return
        self.ring.add(samples, stamp_ns)
        if self._expected is None or abs(time - self._expected) > JITTER:
            self._columns = Columns()
        first = time - self._columns.n_waiting / SAMPLE_RATE
        peaks, mel = self._columns.push(samples)
        self._expected = time + seconds
        if len(peaks):
            piece = {'time': round(first, 4), 'peaks': _base64(peaks), 'mel': _base64(mel)}
            self._add('sound', piece, first + len(peaks) * HOP / SAMPLE_RATE)

    def set_speaking(
        self, is_speaking: bool, received: float, time: Optional[float] = None
    ) -> None:
        """The voice starts or stops speaking, at `time`, by default at the latest that is known."""
        if is_speaking == self.is_speaking:
            return
        self.is_speaking = is_speaking
        if is_speaking and self._closing is not None:
            self.add_utterance(self._closing[1])
        if time is None:
            time = self.head
        if time is None:
            return
        self._add('speech', [round(time, 3), is_speaking], time)
        if is_speaking:
            self._speech_start, self._windows_since = time - ONSET, 0
        elif self._windows_since and self._utterance_end < self._last_window.time:
            self._closing = (received, self._last_window)

    def add_window(self, time: float, probabilities: Mapping[str, float], received: float) -> None:
        """Add the probabilities of a window that ends at `time`."""
        if not self._advance(time):
            return
        names = tuple(probabilities)[:MAX_CLASSES]
        if names != self.classes:
            if self.classes:
                self.restart()
                self._event_head = time
            self.classes = names
        values = [_rounded(float(probabilities[name])) or 0.0 for name in names]
        self._add('windows', [round(time, 3), values], time)
        leading, confidence = most_probable(dict(zip(names, values)))
        self._last_window = Decision(time, None, confidence, leading=leading)
        self._windows_since += 1
        if time > self._decided:
            self._pending.append((received, self._last_window))

    def add_decision(self, decision: Decision) -> None:
        """Add a running decision."""
        if not self._advance(decision.time):
            return
        # Decisions come in order: those of earlier windows will not come any more.
        while self._pending and self._pending[0][1].time <= decision.time + 0.001:
            self._settle_window(decision.time - 0.001)
        self._decided = max(self._decided, decision.time)
        self._add('decisions', decision.to_json(), decision.time)

    def add_utterance(self, decision: Decision) -> None:
        """Add the decision for a finished utterance."""
        if not self._advance(decision.time):
            return
        self._closing = None
        self._n_utterances += 1
        start = None
        if self._speech_start is not None:
            start = max(self._speech_start, self._utterance_end)
            if start >= decision.time:
                start = None
        self._utterance_end = decision.time
        number = self._n_utterances
        if start is not None:
            self._spans[number] = (round(start * SECOND), round((decision.time + 0.2) * SECOND))
            for old in [n for n in self._spans if n <= number - MAX_UTTERANCES]:
                if not self._is_recording:
                    del self._spans[old]
        about = {'id': number, 'start': _rounded(start), **decision.to_json()}
        self._add('utterances', about, decision.time)
        if decision.expression is not None and decision.valence is not None:
            self._mood.add(
                decision.time, decision.valence, decision.arousal or 0.0, decision.confidence
            )
            mood = [decision.time, self._mood.valence, self._mood.arousal, self._mood.weight]
            self._add('mood', [_rounded(float(value)) for value in mood], decision.time)

    def settle(self, now: float) -> None:
        """Conclude from what has not come that it was uncertain; `now`: by the monotonic clock."""
        if self.sound_received is not None and now - self.sound_received > GONE:
            self._event_head, self._sound_head = self.head, None
        while self._pending and now - self._pending[0][0] > UNDECIDED:
            self._settle_window(np.inf)
        if self._closing is not None and now - self._closing[0] > UNDECIDED_UTTERANCE:
            self.add_utterance(self._closing[1])

    def _settle_window(self, before: float) -> None:
        """The oldest window without a decision was uncertain, if it is from before this time."""
        _, window = self._pending.popleft()
        if self._decided < window.time < before:
            self._decided = window.time
            self._add('decisions', window.to_json(), window.time)

    def cut(self, number: int) -> Optional[bytes]:
        """The S16LE of an utterance; None where it is not kept."""
        span = self._spans.get(number)
        return None if span is None else self.ring.cut(*span)

    def _advance(self, time: float) -> bool:
        """Whether something of this time is shown."""
        if self._is_recording:
            pass
        elif self._sound_head is not None:
            if time > self._sound_head + STRAY:
                return False
        elif self._event_head is not None and time < self._event_head - LATE:
            self.restart()
        self._event_head = max(time, self._event_head or time)
        return True

    def _add(self, kind: str, item: Any, time: float) -> None:
        kept = self._kept[kind]
        kept.append((time, item))
        if self.is_watched:
            new = self._new.setdefault(kind, [])
            new.append(item)
        if self._is_recording or kind == 'utterances':
            return
        shown_for = SOUND_SHOWN if kind == 'sound' else HISTORY
        # One more than is shown: a state begins with a change before the beginning.
        while len(kept) > 1 and kept[1][0] < (self.head or time) - shown_for:
            kept.popleft()

    # For the page.

    def take_new(self) -> dict[str, Any]:
        """What was added since the last call."""
        new, self._new = self._new, {}
        return new

    def snapshot(self) -> dict[str, Any]:
        """All that is shown."""
        return {kind: [item for _, item in kept] for kind, kept in self._kept.items()}

    def state(self) -> dict[str, Any]:
        """What changes all the time."""
        return {
            'head': _rounded(self.head),
            'speaking': self.is_speaking,
            'level': _rounded(self.meter.decibels),
        }

    def about(self) -> dict[str, Any]:
        """What seldom changes."""
        return {'classes': [[shown(name), shown(expression_of(name))] for name in self.classes]}


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()

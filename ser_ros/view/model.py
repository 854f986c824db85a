"""The state of the page: voices, nodes, and what is missing. Any thread may call it."""

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

import numpy as np

from ser_ros.audio import SECOND
from ser_ros.emotions import EMOTIONS
from ser_ros.stream.types import Estimate
from ser_ros.view.lane import Decision, Lane, most_probable, shown

SILENT_SOUND = 1.0
"""Seconds without sound after which the page says so."""
SILENT_NODE = 3.0
"""The same for diagnostics, which come once a second."""
GRACE = 2.0
"""Seconds that a subscription may take to receive anything."""
MAX_LANES = 32
MAX_VALUES = 80
PLACES = [
    [emotion.expression, emotion.valence, emotion.arousal]
    for name, emotion in EMOTIONS.items()
    if name != 'calm'
]
"""Expressions and where they are on the plane of valence and arousal."""
LEVELS = ('ok', 'warn', 'error', 'stale')


@dataclass
class NodeView:
    """What a node says of itself."""

    level: str = ''
    message: str = ''
    values: Mapping[str, str] = field(default_factory=dict)
    received: Optional[float] = None
    """When its diagnostics came last, by the monotonic clock."""
    state: str = ''
    """Of its life cycle; empty where it is not known."""


@dataclass(frozen=True)
class Topics:
    """Topic of a voice's sound; empty for none."""

    sound: str = ''
    info: str = ''


class Model:
    """Collects events, and gives what is new to the page."""

    def __init__(
        self,
        keep_audio: float = 0.0,
        nodes: Sequence[str] = (),
        about: Optional[Mapping[str, Any]] = None,
        is_recording: bool = False,
        clock: Callable[[], float] = time.monotonic,
        recogniser: str = '',
    ):
        """`keep_audio`: seconds of each voice's sound; `nodes`: names of those that are expected.

        `recogniser`: the one of them that says who speaks; empty where none of them does.
        `about`: further values for the page, which never change. `is_recording`: keep everything.
        """
        self._keep_audio = keep_audio
        self._is_recording = is_recording
        self.about: dict[str, Any] = {'keep_audio': keep_audio, 'places': PLACES, **(about or {})}
        """What the page is told once."""
        self._clock = clock
        self._lock = threading.RLock()
        self._lanes: dict[str, Lane] = {}
        self._topics: dict[str, Topics] = {}
        self._reasons: dict[str, str] = {}
        self._nodes = {name: NodeView() for name in nodes}
        self._recogniser = self._nodes.get(recogniser, NodeView())
        self._since: dict[str, float] = {}
        self._is_watched = is_recording
        self._watched_since = clock()

    # Voices.

    def set_lanes(self, lanes: Mapping[str, Topics]) -> None:
        """Show these voices and no others."""
        with self._lock:
            lanes = dict(list(lanes.items())[:MAX_LANES])
            for name in self._lanes.keys() - lanes.keys():
                del self._lanes[name], self._since[name]
                self._reasons.pop(name, None)
            for name in lanes:
                if name not in self._lanes:
                    lane = self._lanes[name] = Lane(self._keep_audio, self._is_recording)
                    lane.is_watched = self._is_watched
                    self._since[name] = self._clock()
            self._topics = dict(lanes)

    def add_sound(self, name: str, samples: np.ndarray, stamp_ns: int) -> None:
        """Float32 (n,) samples at 16 kHz of a voice; an unknown voice is ignored, here and below."""
        with self._lane(name) as lane:
            lane.add_sound(samples, stamp_ns, self._clock())

    def set_speaking(self, name: str, is_speaking: bool, at: Optional[float] = None) -> None:
        """A voice starts or stops speaking."""
        with self._lane(name) as lane:
            lane.set_speaking(is_speaking, self._clock(), at)

    def add_window(self, name: str, at: float, probabilities: Mapping[str, float]) -> None:
        """Class → probability, of a window that ends at this second."""
        with self._lane(name) as lane:
            lane.add_window(at, probabilities, self._clock())

    def add_decision(self, name: str, decision: Decision, is_utterance: bool = False) -> None:
        """A decision that was published: a running one, or that of an utterance."""
        with self._lane(name) as lane:
            (lane.add_utterance if is_utterance else lane.add_decision)(decision)

    def add_estimate(self, name: str, estimate: Estimate, class_names: Sequence[str]) -> None:
        """What a `Recognizer` in this process returns, certain or not."""
        at = estimate.stamp_ns / SECOND
        smoothed = estimate.probabilities if estimate.smoothed is None else estimate.smoothed
        decision = Decision(
            at,
            estimate.expression,
            float(estimate.confidence),
            float(estimate.valence),
            float(estimate.arousal),
            most_probable(dict(zip(class_names, map(float, smoothed))))[0],
        )
        if estimate.is_window:
            window = dict(zip(class_names, map(float, estimate.probabilities)))
            self.add_window(name, at, window)
        self.add_decision(name, decision, is_utterance=estimate.is_final)

    def conclude(self) -> None:
        """Nothing follows: what has no decision yet was uncertain."""
        with self._lock:
            for lane in self._lanes.values():
                lane.settle(math.inf)

    def forget(self) -> None:
        """Forget the sound and all that is shown of the voices."""
        with self._lock:
            for lane in self._lanes.values():
                lane.restart()

    @contextlib.contextmanager
    def _lane(self, name: str) -> Iterator[Lane]:
        with self._lock:
            yield self._lanes.get(name) or Lane()

    # Nodes, and what is missing.

    def add_status(self, name: str, level: int, message: str, values: Mapping[str, str]) -> None:
        """Diagnostics of a node; those of a node that is not expected are ignored."""
        with self._lock:
            if (node := self._nodes.get(name)) is None:
                return
            node.level = LEVELS[level] if level < len(LEVELS) else LEVELS[-1]
            node.message = message[:500]
            node.values = {
                shown(key): value[:200] for key, value in list(values.items())[:MAX_VALUES]
            }
            node.received = self._clock()

    def set_state(self, name: str, state: str) -> None:
        """The state of a node's life cycle; empty where nobody says."""
        with self._lock:
            if name in self._nodes:
                self._nodes[name].state = shown(state)

    def set_reasons(self, reasons: Mapping[str, str]) -> None:
        """Voice → what is known of why its sound does not come or cannot be decoded."""
        with self._lock:
            self._reasons = {name: reason[:500] for name, reason in reasons.items() if reason}

    def missing(self) -> list[str]:
        """Sentences about what does not come."""
        with self._lock:
            return [*self._missing_sound(), *self._missing_nodes()]

    def _missing_sound(self) -> Iterator[str]:
        now = self._clock()
        for name, lane in self._lanes.items():
            topics, reason = self._topics[name], self._reasons.get(name, '')
            since = max(self._since[name], self._watched_since)
            if not topics.sound:
                continue
            if lane.sound_received is None or lane.sound_received < self._watched_since:
                if now - since > GRACE:
                    yield f'no sound on {topics.sound} yet' + (f': {reason}' if reason else '')
            elif (age := now - lane.sound_received) > SILENT_SOUND:
                yield f'no sound on {topics.sound} for {age:.0f} s' + (
                    f': {reason}' if reason else ''
                )
            elif reason:
                yield f'{topics.sound}: {reason}'

    def _missing_nodes(self) -> Iterator[str]:
        now = self._clock()
        for name, node in self._nodes.items():
            if node.received is None:
                if now - self._watched_since > GRACE:
                    yield f'no /diagnostics of {name} yet'
            elif (age := now - node.received) > SILENT_NODE:
                yield f'{name} has said nothing for {age:.0f} s'

    # For the server.

    @property
    def is_watched(self) -> bool:
        """Whether somebody looks; sound is drawn only then."""
        return self._is_watched

    @is_watched.setter
    def is_watched(self, is_watched: bool) -> None:
        with self._lock:
            if is_watched and not self._is_watched:
                self._watched_since = self._clock()
            self._is_watched = is_watched
            for lane in self._lanes.values():
                lane.is_watched = is_watched
                if not is_watched:
                    lane.take_new()
                    lane.ring.clear()  # sound is kept for those who look

    def frame(self, has_status: bool = False) -> dict[str, Any]:
        """What is new since the last call; with `has_status` also of nodes and names."""
        with self._lock:
            now = self._clock()
            since = self._recogniser.received
            is_silent = since is not None and now - since > SILENT_NODE
            lanes = {}
            for name, lane in self._lanes.items():
                if is_silent:  # it was killed, perhaps while somebody spoke
                    lane.set_speaking(False, now)
                lane.settle(now)
                lanes[name] = {**lane.state(), **lane.take_new()}
            frame: dict[str, Any] = {'type': 'frame', 'lanes': lanes}
            if has_status:
                frame['status'] = self.status()
            return frame

    def frame_and_snapshot(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """A frame for those who look already, and all that is shown for one who comes after it."""
        with self._lock:
            frame = self.frame()
            lanes = {
                name: {**lane.state(), **lane.snapshot()} for name, lane in self._lanes.items()
            }
            snapshot = {'type': 'snapshot', 'about': self.about, 'lanes': lanes}
            return frame, {**snapshot, 'status': self.status()}

    def status(self) -> dict[str, Any]:
        """Nodes, names, and what is missing."""
        with self._lock:
            now = self._clock()
            return {
                'lanes': {name: lane.about() for name, lane in self._lanes.items()},
                'nodes': [
                    {
                        'name': name,
                        'level': node.level,
                        'message': node.message,
                        'values': node.values,
                        'state': node.state,
                        'age': None if node.received is None else round(now - node.received, 1),
                    }
                    for name, node in self._nodes.items()
                ],
                'missing': self.missing(),
            }

    def sound_of(self, name: str, number: int) -> Optional[bytes]:
        """The S16LE of an utterance; None where it is not kept."""
        with self._lock:
            lane = self._lanes.get(name)
            return None if lane is None else lane.cut(number)

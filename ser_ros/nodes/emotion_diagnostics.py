"""What the emotion node reports of itself; nothing here imports rclpy."""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

import numpy as np

from ser_ros.nodes.counter_window import CounterWindow
from ser_ros.nodes.diagnostics import (
    BEYOND_FULL_SCALE,
    CHOOSE_CHANNEL,
    Level,
    Report,
    sum_counters,
)
from ser_ros.stream.types import MIN_PROBABILITY, Estimate

STALE_AFTER = 5.0
"""Seconds without sound after which a voice is stale."""

LONG_SPEECH = 60.0
"""Seconds of the robot's own speech after which its end was perhaps never published."""

CLOCK_ERROR = 1.0
"""Seconds by which the clocks of two machines may differ."""

BUSY = 0.9
"""Real-time factor from which on the machine hardly keeps up."""

BEYOND = 'samples beyond full scale'

WARNINGS = {
    'dropped seconds': 'seconds of sound were dropped lately: more than max_backlog waited, because '
    'the machine is too slow or much sound comes at once',
    'messages lost': 'messages were lost lately by the middleware: the machine or the '
    'network is too slow, or blocks are too large (set reliability to reliable, or publish '
    'smaller ones)',
    'lost seconds': 'seconds of sound are missing lately between its blocks: it is lost on the '
    'way, published only while somebody speaks, or not stamped with its capture time',
    'gaps': 'times lately the stamps of the sound jumped',
    'skipped windows': 'windows were left out lately: half of max_backlog waited, because the machine '
    'is too slow or much sound comes at once, or the GPU has no memory left',
    BEYOND: BEYOND_FULL_SCALE,
    'samples not numbers': 'samples lately were not numbers: zero was used for them',
}
"""Counter → what its increase means; the first that increased is reported."""


MIXED_GAPS = 3
"""Gaps lately from which on several publishers of a voice's sound are their cause."""
MIXED_SPEED = 1.5
"""Seconds of sound in a second that do the same, where sound has no stamps."""


@dataclass(frozen=True)
class Publisher:
    """Of a topic of sound."""

    node: str
    """Its full name."""
    other_type: Optional[str] = None
    """The type that it publishes, where it is not the one that is subscribed to."""


@dataclass(frozen=True)
class VoiceStatus:
    """The state of one voice's sound."""

    voice_id: str
    """Empty for the one voice without ROS4HRI."""
    topic: str
    format: str
    decibels: float
    backlog_bytes: int
    seconds_without_block: float
    counters: Mapping[str, float]
    n_utterances: int
    """That its adaptation comes from; 0 without adaptation."""
    refusal: Optional[str] = None
    """Why its format cannot be decoded."""
    waits_for_format_on: Optional[str] = None
    """The topic of the AudioInfo that sound waits for."""
    level_problem: Optional[str] = None
    """Muted, silent or clipping: see `audio.level`."""
    channel_problem: Optional[str] = None
    """Why its channels should not be averaged: see `audio.channels`."""
    has_incompatible_publishers: bool = False
    lost_since_block: int = 0
    """Messages that the middleware reports as lost since the last one that came."""
    is_reliable: bool = False
    """Whether lost messages are requested again."""
    publishers: Optional[Sequence[Publisher]] = None
    """Of its topic; None where that is not known."""
    may_come_unpublished: bool = False
    """Whether sound may also come from this process."""

    has_ended: bool = False
    """Whether its source has said that no sound follows."""

    @property
    def is_stale(self) -> bool:
        """Whether no sound has come for `STALE_AFTER` seconds, although some should."""
        return self.seconds_without_block > STALE_AFTER and not self.has_ended

    @property
    def silence(self) -> str:
        """A sentence: that no sound comes, and the reason where it is known."""
        message = f'no sound has come on {self.topic} for {self.seconds_without_block:.0f} s'
        if reason := self._reason_for_silence():
            message += f'; {reason}'
        return message

    def _reason_for_silence(self) -> Optional[str]:
        if self.has_incompatible_publishers:
            return 'a publisher there offers less than reliability asks for'
        if self.lost_since_block:
            remedy = 'publish smaller blocks'
            if not self.is_reliable:
                remedy = f'set reliability to reliable, or {remedy}'
            return f'{self.lost_since_block} messages were lost on the way instead: {remedy}'
        others = [p for p in self.publishers or () if p.other_type]
        if others and len(others) == len(self.publishers):
            return (
                f'{others[0].node} publishes {others[0].other_type} there: see audio_topic and '
                'stamped'
            )
        if self.publishers == () and not self.may_come_unpublished:
            return 'nobody publishes there'
        return None

    @property
    def rivals(self) -> Optional[str]:
        """A sentence that names the publishers, where there are several; else None."""
        names = sorted(p.node for p in self.publishers or () if not p.other_type)
        if len(names) < 2:
            return None
        return (
            f'{len(names)} publishers send sound on {self.topic}, which is mixed: '
            f'{" and ".join(names)}; leave one of them'
        )

    @property
    def problem(self) -> Optional[str]:
        """What is wrong with the sound that comes; None where nothing is."""
        if self.refusal:
            return f'sound refused: {self.refusal}'
        if self.waits_for_format_on:
            return (
                f'sound waits for its format: no AudioInfo came on {self.waits_for_format_on}; '
                'have it published or set sample_format, channels and sample_rate'
            )
        if self.channel_problem:  # which may be why the average is silent
            return f'{self.channel_problem}: {CHOOSE_CHANNEL}'
        return self.level_problem


@dataclass(frozen=True)
class NodeStatus:
    """The state of the whole node."""

    voices: Sequence[VoiceStatus]
    values: Mapping[str, Any] = field(default_factory=dict)
    """Further values to report, such as the device and the bundle."""
    is_enabled: bool = True
    is_muted: bool = False
    """Whether the robot itself speaks, or has just spoken."""
    robot_seconds: float = 0.0
    """How long the robot has been speaking."""
    robot_topic: str = ''
    real_time_factor: Optional[float] = None
    time_jumps: int = 0
    """Times that the clock jumped back."""
    clock_problem: Optional[str] = None
    """Why times cannot be compared: see `ClockWatch`."""


class EmotionDiagnostics:
    """Collects latencies, decisions and counters, and reports them."""

    def __init__(self):
        self._window = CounterWindow()
        self._window.add({})
        self._removed: dict[str, float] = {}
        self._latencies: deque[float] = deque(maxlen=1_000)
        self._last: Optional[tuple[float, Estimate]] = None

    def add_estimate(self, estimate: Estimate, latency: Optional[float]) -> None:
        """Count a published estimate; `latency`: seconds since the sound that it needs was there.

        None where there is no time to compare it with; a negative one of more than `CLOCK_ERROR`
        is of another clock, as where only one of node and sound has simulated time.
        """
        if latency is not None and latency >= -CLOCK_ERROR:
            self._latencies.append(latency)
        self._last = (time.monotonic(), estimate)

    def add_removed(self, counters: Mapping[str, float]) -> None:
        """Keep counting what happened to a voice that is removed."""
        self._removed = sum_counters([self._removed, counters])

    def report(self, status: NodeStatus) -> Report:
        """The worst that there is to say, and all values."""
        counters = sum_counters([self._removed, *(voice.counters for voice in status.voices)])
        counters['time jumps'] = status.time_jumps
        increase, seconds = self._window.add(counters)
        values = {**self._values(status), **counters}
        for name in ('blocks', 'windows'):
            values[f'{name} per second'] = round(increase.get(name, 0) / max(seconds, 1e-3), 1)
        level, message = _worst(status, increase, seconds)
        return Report(level, message, values)

    def _values(self, status: NodeStatus) -> dict[str, Any]:
        voices = status.voices
        values: dict[str, Any] = {
            **status.values,
            'voices': ', '.join(voice.voice_id or voice.topic for voice in voices) or 'none',
            'format': '; '.join(dict.fromkeys(voice.format for voice in voices)) or 'unknown',
            'level dB': ', '.join(f'{voice.decibels:.1f}' for voice in voices),
            'adaptation utterances': ', '.join(str(voice.n_utterances) for voice in voices),
            'backlog bytes': sum(voice.backlog_bytes for voice in voices),
        }
        if status.real_time_factor is not None:
            values['real-time factor'] = round(status.real_time_factor, 3)
        if latencies := list(self._latencies):
            p50, p95, longest = np.percentile(latencies, (50, 95, 100)) * 1_000
            values |= {
                'latency p50 ms': round(p50, 1),
                'latency p95 ms': round(p95, 1),
                'latency max ms': round(longest, 1),
            }
        if self._last is not None:
            when, estimate = self._last
            values |= {
                'last decision': estimate.expression or 'uncertain',
                'last decision age s': round(time.monotonic() - when, 1),
                'last decision shift nats': round(_shift(estimate), 2) + 0.0,  # never -0.0
            }
        return values


def _shift(estimate: Estimate) -> float:
    """By how much the adaptation changed the log-probability of the most probable class.

    Not the largest change of any class: that is often one of a class that nobody expected before
    or after it.
    """
    leader = estimate.probabilities.argmax()
    before = max(estimate.unadapted[leader], MIN_PROBABILITY)
    return float(np.log(estimate.probabilities[leader] / before))


def _worst(status: NodeStatus, increase: Mapping[str, float], seconds: float) -> tuple[Level, str]:
    """Of what increased in the last `seconds`, and of the rest."""
    if not status.is_enabled:
        return Level.OK, 'switched off by ~/enable'
    if status.clock_problem:
        return Level.WARN, status.clock_problem
    if status.robot_seconds > LONG_SPEECH:
        return (
            Level.WARN,
            f'muted for a long time: {status.robot_topic} says that the robot speaks',
        )
    if status.is_muted:
        return Level.OK, 'muted: the robot speaks'
    if not status.voices:
        return Level.OK, 'nobody is tracked'
    stale = [voice for voice in status.voices if voice.is_stale]
    silence = ', '.join(voice.silence for voice in stale)
    if len(stale) == len(status.voices):
        return Level.STALE, silence
    speed = increase.get('seconds', 0.0) / max(seconds, 1.0) / len(status.voices)
    if increase.get('gaps', 0) >= MIXED_GAPS or speed > MIXED_SPEED:
        for voice in status.voices:
            if voice.rivals:
                return Level.WARN, voice.rivals
    if increase.get(BEYOND):  # before the level, which is that of a gain too high
        return Level.WARN, f'{increase[BEYOND]:.3g} {WARNINGS[BEYOND]}'
    for voice in status.voices:
        if not (voice.is_stale or voice.has_ended) and voice.problem:
            return Level.WARN, voice.problem
    if stale:
        return Level.WARN, silence
    # Where a replay starts again, its clock and its stamps jump, which is logged already.
    if increase.get('gaps', 0) <= increase['time jumps'] * len(status.voices):
        increase = {**increase, 'gaps': 0}
    for name, meaning in WARNINGS.items():
        if increase.get(name):
            return Level.WARN, f'{increase[name]:.3g} {meaning}'
    if (status.real_time_factor or 0.0) > BUSY:
        return Level.WARN, 'the machine hardly keeps up: see the real-time factor'
    if all(voice.has_ended for voice in status.voices):
        return Level.OK, 'the sound has ended: its source says so'
    return Level.OK, 'listening'

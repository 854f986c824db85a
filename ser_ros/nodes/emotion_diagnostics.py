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

BUSY = 0.9
"""Real-time factor from which on the machine hardly keeps up."""

BEYOND = 'samples beyond full scale'

WARNINGS = {
    'dropped seconds': 'seconds of sound were dropped lately: the machine is too slow',
    'lost seconds': 'seconds of sound are missing lately between the stamps of its blocks: '
    'it is lost on the way, or not stamped with its capture time',
    'gaps': 'times lately the stamps of the sound jumped',
    'skipped windows': 'windows were skipped lately: the GPU has no memory left',
    BEYOND: BEYOND_FULL_SCALE,
    'samples not numbers': 'samples lately were not numbers: zero was used for them',
    'messages lost': 'messages were lost lately by the middleware: the machine or the '
    'network is too slow',
}
"""Counter → what its increase means; the first that increased is reported."""


@dataclass(frozen=True)
class VoiceStatus:
    """The state of one voice's sound."""

    voice_id: str
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

    @property
    def is_stale(self) -> bool:
        """Whether no sound has come for `STALE_AFTER` seconds."""
        return self.seconds_without_block > STALE_AFTER

    @property
    def silence(self) -> str:
        """A sentence: that no sound comes, and a possible reason."""
        message = f'no sound has come on {self.topic} for {self.seconds_without_block:.0f} s'
        if self.has_incompatible_publishers:
            message += '; a publisher there offers less than reliability asks for'
        return message

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


class EmotionDiagnostics:
    """Collects latencies, decisions and counters, and reports them."""

    def __init__(self):
        self._window = CounterWindow()
        self._window.add({})
        self._removed: dict[str, float] = {}
        self._latencies: deque[float] = deque(maxlen=1_000)
        self._last: Optional[tuple[float, Estimate]] = None

    def add_estimate(self, estimate: Estimate, latency: float) -> None:
        """Count a published estimate; `latency`: seconds since the end of its window."""
        self._latencies.append(latency)
        self._last = (time.monotonic(), estimate)

    def add_removed(self, counters: Mapping[str, float]) -> None:
        """Keep counting what happened to a voice that is removed."""
        self._removed = sum_counters([self._removed, counters])

    def report(self, status: NodeStatus) -> Report:
        """The worst that there is to say, and all values."""
        counters = sum_counters([self._removed, *(voice.counters for voice in status.voices)])
        increase, seconds = self._window.add(counters)
        values = {**self._values(status), **counters}
        for name in ('blocks', 'windows'):
            values[f'{name} per second'] = round(increase.get(name, 0) / max(seconds, 1e-3), 1)
        level, message = _worst(status, increase)
        return Report(level, message, values)

    def _values(self, status: NodeStatus) -> dict[str, Any]:
        voices = status.voices
        values: dict[str, Any] = {
            **status.values,
            'voices': ', '.join(voice.voice_id for voice in voices) or 'none',
            'format': ', '.join({voice.format for voice in voices}),
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


def _worst(status: NodeStatus, increase: Mapping[str, float]) -> tuple[Level, str]:
    if not status.is_enabled:
        return Level.OK, 'switched off by ~/enable'
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
    if increase.get(BEYOND):  # before the level, which is that of a gain too high
        return Level.WARN, f'{increase[BEYOND]:.3g} {WARNINGS[BEYOND]}'
    for voice in status.voices:
        if not voice.is_stale and voice.problem:
            return Level.WARN, voice.problem
    if stale:
        return Level.WARN, silence
    for name, meaning in WARNINGS.items():
        if increase.get(name):
            return Level.WARN, f'{increase[name]:.3g} {meaning}'
    if (status.real_time_factor or 0.0) > BUSY:
        return Level.WARN, 'the machine hardly keeps up: see the real-time factor'
    return Level.OK, 'listening'

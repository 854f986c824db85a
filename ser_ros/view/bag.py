"""A bag as a recording: what was published of voices, read without ROS."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.typesys import Stores, get_typestore

from ser_ros import SerError
from ser_ros.audio import SAMPLE_RATE, SECOND
from ser_ros.files import printable
from ser_ros.stream.backend import Backend
from ser_ros.view.lane import Decision
from ser_ros.view.model import Model, Topics
from ser_ros.view.recording import MAX_SECONDS, Part, Recording, lay_out, recognise
from ser_ros.view.sound import LiveQueue

SOUND = {
    'audio_common_msgs/msg/AudioDataStamped': 'sound',
    'audio_common_msgs/msg/AudioData': 'unstamped',
    'audio_common_msgs/msg/AudioInfo': 'info',
}
KINDS = {
    ('hri_msgs/msg/Expression', 'emotion'): 'decision',
    ('hri_msgs/msg/Expression', 'expression'): 'decision',
    ('hri_msgs/msg/Expression', 'utterance'): 'utterance',
    ('vision_msgs/msg/Classification', 'probabilities'): 'window',
    ('std_msgs/msg/Bool', 'is_speaking'): 'speaking',
}
"""Type and last part of a topic's name → what its messages are."""
VOICES = '/humans/voices/'


@dataclass
class _Voice:
    parts: list[Part] = field(default_factory=list)
    events: list[tuple[float, str, Any]] = field(default_factory=list)
    """Second, kind, message."""
    queue: Optional[LiveQueue] = None
    is_stamped: bool = False


def is_bag(path: Path) -> bool:
    """Whether it is a bag, by its name."""
    return path.is_dir() or path.suffix in ('.mcap', '.db3')


def of_bag(path: Path, backend: Backend, anew: bool = False) -> Recording:
    """The voices in a bag, with the decisions in it.

    Where it has none, or with `anew`, the backend recognises its sound. SerError for a bag without
    sound and without decisions, or one that cannot be read.
    """
    voices: dict[str, _Voice] = defaultdict(_Voice)
    try:
        with AnyReader([path], default_typestore=get_typestore(Stores.ROS2_JAZZY)) as reader:
            for kind, name, stamp_ns, message in _messages(reader):
                _add(voices[name], kind, stamp_ns, message)
    except (AnyReaderError, OSError, KeyError, ValueError) as error:
        raise SerError(f'bag {printable(path)}: {" ".join(str(error).split())}') from error
    voices = _merged({name: v for name, v in voices.items() if v.parts or v.events})
    if not voices:
        raise SerError(
            f'bag {printable(path)}: it has no sound (audio_common_msgs of ros-drivers, with its '
            'format) and no emotions'
        )
    return _record(path.stem, voices, backend, anew)


def _messages(reader: AnyReader) -> Iterator[tuple[str, str, int, Any]]:
    """Kind, voice, when it was recorded, and the message, of each that is of a voice."""
    kinds = {}
    for connection in reader.connections:
        prefix, _, last = connection.topic.rpartition('/')
        kind = SOUND.get(connection.msgtype) or KINDS.get((connection.msgtype, last))
        if kind is not None:
            kinds[connection.id, connection.topic] = (kind, _voice_of(prefix, last))
    chosen = [c for c in reader.connections if (c.id, c.topic) in kinds]
    for connection, stamp_ns, data in reader.messages(chosen) if chosen else ():
        kind, name = kinds[connection.id, connection.topic]
        yield kind, name, stamp_ns, reader.deserialize(data, connection.msgtype)


def _voice_of(prefix: str, last: str) -> str:
    if prefix.startswith(VOICES):
        return prefix.removeprefix(VOICES)
    if last in ('utterance', 'probabilities'):  # emotion/utterance
        prefix = prefix.rpartition('/')[0]
    return prefix.strip('/')


def _add(voice: _Voice, kind: str, stamp_ns: int, message: Any) -> None:
    if kind in SOUND.values():
        if voice.queue is None:
            voice.queue = LiveQueue(
                lambda samples, at_ns: voice.parts.append((samples, at_ns)),
                max_backlog=MAX_SECONDS,
            )
        if kind == 'info':
            voice.queue.announce(
                message.sample_format, message.channels, message.sample_rate, message.coding_format
            )
        elif kind == 'sound':
            voice.is_stamped = True
            header_ns = message.header.stamp.sec * SECOND + message.header.stamp.nanosec
            voice.queue.put(message.audio.data.tobytes(), header_ns or None, stamp_ns, '')
        elif not voice.is_stamped:
            voice.queue.put(message.data.tobytes(), None, stamp_ns, '')
        return
    if kind == 'speaking':
        voice.events.append((stamp_ns / SECOND, kind, message))
    else:
        stamp = message.header.stamp
        voice.events.append((stamp.sec + stamp.nanosec / SECOND, kind, message))


def _merged(voices: dict[str, _Voice]) -> dict[str, _Voice]:
    """One voice where one has sound and another one its decisions, as with a remapped topic."""
    received = [name for name, voice in voices.items() if voice.parts]
    said = [name for name, voice in voices.items() if voice.events]
    if len(received) == len(said) == 1 and received != said:
        return {said[0]: _Voice(voices[received[0]].parts, voices[said[0]].events)}
    return voices


def _record(title: str, voices: dict[str, _Voice], backend: Backend, anew: bool) -> Recording:
    starts = [stamp for voice in voices.values() for _, stamp in voice.parts]
    starts += [round(at * SECOND) for voice in voices.values() for at, _, _ in voice.events]
    start_ns = min(starts)
    model = Model(is_recording=True)
    model.set_lanes({name: Topics() for name in voices})
    has_decisions = any(
        kind == 'window' for voice in voices.values() for _, kind, _ in voice.events
    )
    for name, voice in voices.items():
        if anew or not has_decisions:
            recognise(model, name, voice.parts, backend)
            continue
        _replay(model, name, voice, start_ns)
    sounds = [lay_out(voice.parts, start_ns) for voice in voices.values()]
    samples = max(sounds, key=len)
    for other in sounds:
        if other is not samples:
            samples[: len(other)] += other
    duration = min(MAX_SECONDS, (max(starts) - start_ns) / SECOND)
    return Recording(
        title, model, start_ns, samples.clip(-1, 1), max(duration, len(samples) / SAMPLE_RATE)
    )


def _replay(model: Model, name: str, voice: _Voice, start_ns: int) -> None:
    """Add what was published in the order of its times."""
    end = start_ns / SECOND + MAX_SECONDS
    events: list[tuple[float, int, str, Any]] = [
        (at, n, kind, message) for n, (at, kind, message) in enumerate(voice.events)
    ]
    events += [(at_ns / SECOND, -1, 'sound', (s, at_ns)) for s, at_ns in voice.parts]
    for at, _, kind, message in sorted(events, key=lambda event: event[:2]):
        if at > end:
            break
        if kind == 'sound':
            model.add_sound(name, *message)
        elif kind == 'speaking':
            model.set_speaking(name, bool(message.data), at)
        elif kind == 'window':
            model.add_window(name, at, {r.class_id: r.score for r in message.results})
        else:
            values = (message.expression, message.confidence, message.valence, message.arousal)
            decision = Decision(at, *values)
            model.add_decision(name, decision, is_utterance=kind == 'utterance')
    model.conclude()

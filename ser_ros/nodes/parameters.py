"""The parameters of the nodes, as data; nothing here imports rclpy."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Optional

from ser_ros.audio.channels import AVERAGE
from ser_ros.audio.formats import MAX_CHANNELS
from ser_ros.stream.types import StreamConfig

UNSET = -1.0
"""Value of a parameter that is left to the bundle; ROS parameters have no None."""


FULL_SCALES = (1e-6, 2.0**31)
"""Values that float samples may have at full scale."""


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter."""

    name: str
    default: Any
    description: str
    limits: Optional[tuple[float, float]] = None
    """Of a number: the closed range of valid values."""
    any_type: bool = False
    """Whether values of another type than the default's are accepted."""
    is_live: bool = False
    """Whether it may change at any time; others may only while the node is not configured."""
    read_only: bool = False
    """Whether it never changes after the node has started."""

    @property
    def full_description(self) -> str:
        """With a sentence on when it may change."""
        if self.read_only:
            return f'{self.description} Fixed.'
        if self.is_live:
            return self.description
        return f'{self.description} Read when the node is configured.'


COMMON = (
    ParameterSpec(
        'autostart', True, 'Configure and activate without being asked to.', read_only=True
    ),
)

CAPTURE = (
    *COMMON,
    ParameterSpec('source', 'microphone', 'microphone or file.'),
    ParameterSpec('microphone', 'default', 'Index, part of the name, or default.', any_type=True),
    ParameterSpec('sample_rate', 0, "Hz; 0 for the microphone's own.", (0, 768_000)),
    ParameterSpec('channels', 1, 'Channels; 0 for all the microphone has.', (0, 64)),
    ParameterSpec(
        'channel',
        AVERAGE,
        'The one channel to publish, from 0; a microphone is then opened with all it has, unless '
        'channels is more than 1. -1 publishes all, of which subscribers use the average.',
        (AVERAGE, MAX_CHANNELS - 1),
    ),
    ParameterSpec(
        'block_duration',
        0.032,
        'Seconds of sound in a message; shorter ones cost more and are decided no earlier.',
        (0.001, 1.0),
    ),
    ParameterSpec(
        'watchdog_timeout',
        1.0,
        'Seconds without sound, at least four blocks, after which the microphone is reopened.',
        (0.2, 60.0),
    ),
    ParameterSpec('file', '', 'Sound file (WAV, FLAC, ...) to play when source is file.'),
    ParameterSpec(
        'full_scale', 1.0, 'The value that is full scale in a file of float samples.', FULL_SCALES
    ),
    ParameterSpec('speed', 1.0, 'Speed of the file, times real time.', (0.01, 1000.0)),
    ParameterSpec('loop', False, 'Play the file again and again.'),
    ParameterSpec('trailing_silence', 1.0, 'Seconds of silence after the file.', (1.0, 60.0)),
    ParameterSpec('frame_id', 'microphone', 'Frame of the microphone.'),
    ParameterSpec(
        'publish_audio',
        True,
        'Publish the sound; false keeps it in the process, for an emotion node there.',
    ),
    ParameterSpec('publish_unstamped', False, 'Publish AudioData on audio, too.'),
)

STREAM_SETTINGS = tuple(field.name for field in dataclasses.fields(StreamConfig))
"""Parameters of the emotion node that are settings of its stream."""


def _stream_parameter(setting: dataclasses.Field) -> ParameterSpec:
    description, default = setting.metadata['description'], setting.default
    if 'choices' in setting.metadata:
        return ParameterSpec(setting.name, default, description, is_live=True)
    low, high = setting.metadata['limits']
    if default is None:
        default, low = UNSET, UNSET
    return ParameterSpec(setting.name, default, description, (low, high), is_live=True)


EMOTION = (
    *COMMON,
    ParameterSpec(
        'bundle',
        '',
        'Model: a path, a shipped name, or empty for the default. Read when the node is '
        'configured and by ~/reload_bundle.',
        is_live=True,
    ),
    ParameterSpec(
        'enrolment',
        '',
        'File of an enrolment (ser_ros enroll) with this bundle, by which the one voice is known '
        'before it speaks; empty for none. Read as the bundle is.',
        is_live=True,
    ),
    ParameterSpec(
        'backend',
        'auto',
        'torch, onnx (on the CPU, without torch) or auto: torch on a GPU, onnx on a CPU.',
    ),
    ParameterSpec('device', 'auto', 'auto, cpu, cuda or cuda:N; auto uses a GPU if there is one.'),
    ParameterSpec('num_threads', 1, 'CPU threads of one inference.', (1, 256)),
    ParameterSpec('audio_topic', 'audio_stamped', 'Topic of the sound.'),
    ParameterSpec(
        'namespaces',
        [''],
        "Namespaces whose sound is processed, each a voice that is published there; '' for the node's "
        'own. Not with ros4hri.',
    ),
    ParameterSpec('stamped', True, 'AudioDataStamped (true) or AudioData without stamps.'),
    ParameterSpec('info_topic', 'audio_info', 'Topic of the AudioInfo that goes with it.'),
    ParameterSpec(
        'reliability', 'best_effort', 'best_effort (receives from every publisher) or reliable.'
    ),
    ParameterSpec('queue_depth', 500, 'Blocks the middleware keeps for this node.', (1, 100_000)),
    ParameterSpec('sample_format', '', 'Format where no AudioInfo comes: S16LE, F32LE, ...'),
    ParameterSpec('channels', 1, 'Channels where no AudioInfo comes.', (1, 64)),
    ParameterSpec('sample_rate', 16_000, 'Hz where no AudioInfo comes.', (1_000, 768_000)),
    ParameterSpec(
        'channel',
        AVERAGE,
        'The one channel to use, from 0; -1 for the average of all.',
        (AVERAGE, MAX_CHANNELS - 1),
        is_live=True,
    ),
    ParameterSpec('full_scale', 1.0, 'The value that is full scale in float sound.', FULL_SCALES),
    ParameterSpec(
        'max_backlog',
        5.0,
        'Seconds of sound that may wait; from half of it on windows are left out.',
        (0.1, 3600.0),
    ),
    ParameterSpec(
        'robot_speaking_topic',
        'robot_speaking',
        'Bool topic: whether the robot itself speaks; its sound is then ignored. Empty for none.',
    ),
    ParameterSpec(
        'robot_speaking_tail',
        0.3,
        'Seconds after its speech in which sound is still ignored.',
        (0.0, 10.0),
        is_live=True,
    ),
    ParameterSpec('ros4hri', False, 'Process the voices that ROS4HRI tracks (REP-155).'),
    ParameterSpec('max_voices', 4, 'With ros4hri: voices processed at once.', (1, 256)),
    ParameterSpec(
        'voice_id',
        'anonymous_speaker',
        'With ros4hri: id of the one voice while nobody publishes tracked voices.',
        is_live=True,
    ),
    *map(_stream_parameter, dataclasses.fields(StreamConfig)),
)

_SHARED = (
    'audio_topic',
    'stamped',
    'info_topic',
    'reliability',
    'queue_depth',
    'sample_format',
    'channels',
    'sample_rate',
    'channel',
    'full_scale',
    'ros4hri',
    'max_voices',
)
"""Parameters that say where sound is, which are those of the emotion node."""

VIEW = (
    *COMMON,
    ParameterSpec(
        'host',
        '127.0.0.1',
        'Address that the page is served on: 127.0.0.1 for this machine alone, 0.0.0.0 for all that '
        'reach it, who then need the token.',
    ),
    ParameterSpec('port', 8790, 'Port of the page; 0 for any that is free.', (0, 65_535)),
    ParameterSpec('token', '', 'Token of the page; empty: a new one at each start.'),
    ParameterSpec(
        'keep_audio',
        120.0,
        'Seconds of sound that are kept in memory while somebody looks, to play utterances; 0 for none.',
        (0.0, 3600.0),
    ),
    ParameterSpec(
        'foxglove_port',
        0,
        'Port on which Foxglove, at this machine alone, gets the sound; 0: not at all. Needs '
        'foxglove-sdk.',
        (0, 65_535),
    ),
    ParameterSpec('max_viewers', 16, 'Browsers that may look at once.', (1, 256)),
    ParameterSpec('emotion_node', 'emotion_node', 'Node that the commands are for.'),
    ParameterSpec('capture_node', 'audio_capture_node', 'Node that captures; empty for none.'),
    *(dataclasses.replace(spec, is_live=False) for spec in EMOTION if spec.name in _SHARED),
)

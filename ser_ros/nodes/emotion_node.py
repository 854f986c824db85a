"""Audio messages in, emotion messages out."""

import dataclasses
import hashlib
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Optional

import numpy as np
import torch
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.task import Future
from std_msgs.msg import Bool
from std_srvs.srv import SetBool, Trigger

from ser_ros import SerError
from ser_ros.audio import SECOND
from ser_ros.audio.block_queue import BlockQueue
from ser_ros.audio.formats import PcmFormat
from ser_ros.audio.gate import Gate
from ser_ros.audio.sources import Block
from ser_ros.bundle import Bundle, load_bundle
from ser_ros.nodes import messages
from ser_ros.nodes.inputs import RELIABILITIES, Inputs
from ser_ros.nodes.lately import Lately
from ser_ros.nodes.managed_node import OK, STALE, WARN, ManagedNode, Report, figures
from ser_ros.nodes.outputs import Outputs, Topics, topics_of
from ser_ros.nodes.voices import TrackedVoices, check_voice_id
from ser_ros.stream.engine import select_device
from ser_ros.stream.listener import Channel, Listener
from ser_ros.stream.recognizer import Recognizer
from ser_ros.stream.types import Estimate, StreamConfig

UNSET = -1.0
"""A setting that is left to the bundle."""

STALE_AFTER = 5.0
"""Seconds without sound after which the node has nothing to say."""

LONG_SPEECH = 60.0
"""Seconds of the robot's own speech after which somebody may have forgotten to end it."""

SETTINGS = {setting.name: setting for setting in dataclasses.fields(StreamConfig)}


@dataclasses.dataclass
class _Line:
    """One voice: its topics at both ends of a channel."""

    channel: Channel
    inputs: Inputs
    outputs: Outputs
    is_plain: bool
    """Whether it is the one voice on the plain topics of sound."""


class EmotionNode(ManagedNode):
    """Subscribes to sound, publishes what a `Recognizer` makes of it."""

    def __init__(self, **kwargs: Any):
        super().__init__('emotion_node', **kwargs)
        self.declare(
            'bundle',
            '',
            'Model: a path, a shipped name, or empty for the default. Read when the node is '
            'configured and by ~/reload_bundle.',
            is_live=True,
        )
        self.declare('device', 'auto', 'auto, cpu, cuda or cuda:N; auto takes a GPU if there is.')
        self.declare('num_threads', 1, 'CPU threads of one inference.', (1, 256))
        self.declare('audio_topic', 'audio_stamped', 'Topic of the sound.')
        self.declare('stamped', True, 'AudioDataStamped (true) or AudioData without stamps.')
        self.declare('info_topic', 'audio_info', 'Topic of the AudioInfo that goes with it.')
        self.declare(
            'reliability', 'best_effort', 'best_effort (hears every publisher), reliable.'
        )
        self.declare(
            'queue_depth', 500, 'Blocks the middleware keeps for this node.', (1, 100_000)
        )
        self.declare('sample_format', '', 'Format where no AudioInfo comes: S16LE, F32LE, ...')
        self.declare('channels', 1, 'Channels where no AudioInfo comes.', (1, 64))
        self.declare('sample_rate', 16_000, 'Hz where no AudioInfo comes.', (1_000, 768_000))
        self.declare('max_backlog', 5.0, 'Seconds of sound that may wait.', (0.1, 3600.0))
        self.declare(
            'robot_speaking_topic',
            'robot_speaking',
            'Bool topic that says when the robot itself speaks, and is not heard; empty for none.',
        )
        self.declare(
            'robot_speaking_tail',
            0.3,
            'Seconds after its speech in which the robot may still be heard.',
            (0.0, 10.0),
            is_live=True,
        )
        self.declare('ros4hri', False, 'Hear the voices that ROS4HRI tracks (REP-155).')
        self.declare('max_voices', 4, 'Voices that are heard at once.', (1, 64))
        self.declare(
            'voice_id',
            'anonymous_speaker',
            'With ros4hri: id of the one voice while nobody publishes who is tracked.',
            is_live=True,
        )
        for name, setting in SETTINGS.items():
            low, high = setting.metadata['limits']
            default, description = setting.default, setting.metadata['description']
            if default is None:  # parameters have no None
                default, low = UNSET, UNSET
            self.declare(name, default, description, (low, high), is_live=True)
        self._gate = Gate()
        self._recognizer: Optional[Recognizer] = None
        self._listener: Optional[Listener] = None
        self._tracked: Optional[TrackedVoices] = None
        self._lines: dict[str, _Line] = {}
        self._plain_outputs: Optional[Outputs] = None
        self._others: list = []
        self._loading: Optional[Future] = None
        self._jumps = 0
        self.create_service(SetBool, '~/enable', self._enable)
        self.create_service(Trigger, '~/reset', self._reset)
        # In a group of its own: sound is heard while the service waits for the bundle.
        self.create_service(
            Trigger,
            '~/reload_bundle',
            self._reload_bundle,
            callback_group=ReentrantCallbackGroup(),
        )
        self._jump_handle = self.get_clock().create_jump_callback(
            JumpThreshold(
                min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=False
            ),
            post_callback=self._time_jumped,
        )

    # The life cycle.

    def setup(self) -> None:
        """See `ManagedNode`."""
        messages.check_audio_messages()
        torch.set_num_threads(self.value('num_threads'))
        if self.value('reliability') not in RELIABILITIES:
            raise SerError(
                f'reliability {self.value("reliability")!r} is not one of {", ".join(RELIABILITIES)}'
            )
        for name in ('audio_topic', 'info_topic', 'robot_speaking_topic'):
            self._check_topic(name)
        check_voice_id(self.value('voice_id'))
        self._pcm_format = None
        if self.value('sample_format') or self.value('ros4hri'):
            self._pcm_format = PcmFormat(
                self.value('sample_format') or 'S16LE',
                self.value('channels'),
                self.value('sample_rate'),
            )
        bundle, digest = _load(self.value('bundle'))
        self._device = select_device(self.value('device'))
        self._recognizer = Recognizer(bundle, 'cpu', self._config({}))
        self._recognizer.warm_up()
        self._note_bundle(bundle, digest)
        self._latencies: deque[float] = deque(maxlen=1_000)
        self._last: Optional[tuple[float, str]] = None
        self._lately = Lately()
        self._lately.add({})
        self._jumps = 0
        self._past: dict[str, float] = {}
        if not self.value('ros4hri'):
            self._plain_outputs = Outputs(self, Topics(), self._class_names)

    def _check_topic(self, name: str) -> None:
        try:
            if self.value(name) or name != 'robot_speaking_topic':
                self.resolve_topic_name(self.value(name))
        except RuntimeError as error:  # of rcl
            said = str(error).partition(', at ')[0]
            raise SerError(f'{name} {self.value(name)!r}: {said}') from error

    def _note_bundle(self, bundle: Bundle, digest: str) -> None:
        self._digest = digest
        self.get_logger().info(
            f'bundle {bundle.path.name}: {bundle.info.architecture}, '
            f'{len(bundle.info.class_names)} classes, licence {bundle.info.license}'
        )

    def _class_names(self) -> Sequence[str]:
        return self._recognizer.bundle.info.class_names

    def _config(self, changed: dict[str, Any]) -> StreamConfig:
        """Of the parameters, with some changed; SerError where they do not go together."""
        values = {name: changed.get(name, self.value(name)) for name in SETTINGS}
        return StreamConfig(
            **{name: None if value == UNSET else value for name, value in values.items()}
        )

    def start(self) -> None:
        """See `ManagedNode`."""
        self._gate.forget_robot()
        self._move_to_device()
        self._listener = Listener(self._recognizer)
        topic = self.value('robot_speaking_topic')
        if topic:
            self._others = messages.subscribe_latched(self, Bool, topic, self._hear_of_robot)
        if self.value('ros4hri'):
            self._tracked = TrackedVoices(
                self, self.value('voice_id'), self.value('max_voices'), self._follow
            )
            self._tracked.look_around()
            self.get_logger().info(f'listening to tracked voices on {self._recognizer.device}')
            return
        self._add_line('', self._plain_outputs, is_plain=True)
        self.get_logger().info(
            f'listening to {self._lines[""].inputs.topic} on {self._recognizer.device}'
        )

    def _move_to_device(self) -> None:
        try:
            self._recognizer.to(self._device)
            self._recognizer.warm_up()
        except RuntimeError as error:  # full, or too old or new for this torch
            said = str(error).splitlines()[0]
            if self.value('device') != 'auto':
                raise SerError(f'device {self._device} does not run the model: {said}') from error
            self.get_logger().warning(f'{self._device} does not run the model ({said}): CPU')
            self._recognizer.to('cpu')
            self._recognizer.warm_up()

    def work(self) -> None:
        """See `ManagedNode`."""
        self._listener.run()

    def stop(self) -> None:
        """See `ManagedNode`."""
        self._listener.stop()

    def stopped(self) -> None:
        """See `ManagedNode`."""
        if self._tracked is not None:
            self._tracked.close()
            self._tracked = None
        for name in list(self._lines):
            self._drop_line(name)
        for subscription in self._others:
            self.destroy_subscription(subscription)
        self._others = []
        self._listener = None
        if self._recognizer is not None and not self.failed:
            self._recognizer.to('cpu')

    def teardown(self) -> None:
        """See `ManagedNode`."""
        self._recognizer = self._plain_outputs = None

    def is_beyond_repair(self, error: Exception) -> bool:
        """See `ManagedNode`; after an error of its own a GPU does nothing more for a process."""
        return 'CUDA' in str(error)

    # Voices.

    def _add_line(self, name: str, outputs: Outputs, is_plain: bool) -> None:
        intake = BlockQueue(
            self.value('max_backlog'),
            self.value('gap_tolerance'),
            self._pcm_format,
            self._listener.ready,
        )
        channel = self._listener.add(
            intake,
            lambda estimate, frame_id: self._publish(outputs, estimate, frame_id),
            outputs.say_whether_speaking,
        )
        source: dict[str, Any] = {'topic': f'/humans/voices/{name}/audio'}
        if is_plain:
            source = {
                'topic': self.value('audio_topic'),
                'is_stamped': self.value('stamped'),
                'info_topic': self.value('info_topic'),
            }
        inputs = Inputs(
            self,
            intake,
            is_open=self._is_open,
            depth=self.value('queue_depth'),
            reliability=self.value('reliability'),
            **source,
        )
        self._lines[name] = _Line(channel, inputs, outputs, is_plain)

    def _drop_line(self, name: str) -> None:
        line = self._lines.pop(name)
        line.inputs.close()
        self._listener.remove(line.channel)
        self._past = _sum([self._past, _counters(line)])
        if line.outputs is not self._plain_outputs:
            line.outputs.close()

    def _follow(self, ids: Sequence[str], is_anonymous: bool) -> None:
        """Hear these voices and no others; the anonymous one speaks on the plain topic."""
        for name, line in list(self._lines.items()):
            if name not in ids or line.is_plain != is_anonymous:
                self._drop_line(name)
        for name in ids:
            if name not in self._lines:
                outputs = Outputs(self, topics_of(name), self._class_names)
                self._add_line(name, outputs, is_plain=is_anonymous)

    def _publish(self, outputs: Outputs, estimate: Estimate, frame_id: str) -> None:
        self._latencies.append((self._now_ns() - estimate.stamp_ns) / SECOND)
        self._last = (time.monotonic(), estimate.expression or 'uncertain')
        outputs.publish(estimate, frame_id)

    def hear(self, pcm_format: PcmFormat, block: Block, frame_id: str) -> None:
        """Hear a block that is not published, of a node in this process; from any thread."""
        for line in [line for line in list(self._lines.values()) if line.is_plain]:
            inputs = line.inputs
            inputs.intake.announce(
                pcm_format.sample_format, pcm_format.channels, pcm_format.sample_rate, ''
            )
            inputs.put(block.data, block.stamp_ns, frame_id)

    def _is_open(self) -> bool:
        return self._gate.is_open(self._now_ns(), self.value('robot_speaking_tail'))

    def _hear_of_robot(self, message: Bool) -> None:
        self._gate.robot_speaks(message.data, self._now_ns())
        if message.data:
            self._forget()

    def _forget(self) -> None:
        if self._listener is not None:
            self._listener.reset()

    def _time_jumped(self, jump: TimeJump) -> None:
        self._jumps += 1
        seconds = -jump.delta.nanoseconds / SECOND
        self.get_logger().warning(f'the time jumped back by {seconds:.3f} s: listening anew')
        self._forget()

    def _now_ns(self) -> int:
        return self.get_clock().now().nanoseconds

    # Parameters and services.

    def check(self, changed: dict[str, Any]) -> None:
        """See `ManagedNode`."""
        if set(changed) & set(SETTINGS):
            self._config(changed)
        if 'voice_id' in changed:
            check_voice_id(changed['voice_id'])

    def apply(self, changed: set[str]) -> None:
        """See `ManagedNode`."""
        if changed & set(SETTINGS):
            # Without a listener the recogniser itself: what is heard later, is heard so.
            (self._listener or self._recognizer).configure(self._config({}))
            for line in self._lines.values():
                line.inputs.intake.gap_tolerance = self.value('gap_tolerance')
        if 'voice_id' in changed and self._tracked is not None:
            self._tracked.name_anonymous(self.value('voice_id'))

    def _enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._gate.is_enabled = request.data
        if not request.data:
            self._forget()
        response.success = True
        response.message = 'listening' if request.data else 'not listening'
        return response

    def _reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = self._listener is not None
        response.message = (
            'forgot what was heard' if response.success else 'the node is not active'
        )
        self._forget()
        return response

    async def _reload_bundle(
        self, _: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        recognizer, name = self._recognizer, self.value('bundle')
        response.success = False
        if recognizer is None:
            response.message = 'the node is not configured: it reads its bundle when it is'
            return response
        if self._loading is not None:
            response.message = 'a bundle is being loaded already'
            return response
        self._loading = Future()
        threading.Thread(
            target=self._try_bundle, args=(recognizer, name, self._loading), daemon=True
        ).start()
        try:
            bundle, digest = await self._loading
            if self._recognizer is not recognizer:
                raise SerError('the node was cleaned up meanwhile')
            (self._listener or recognizer).adopt(bundle)
            self._note_bundle(bundle, digest)
            response.success, response.message = True, f'bundle {bundle.path.name}'
        except Exception as error:
            kind = '' if isinstance(error, SerError) else f'{type(error).__name__}: '
            response.message = kind + ' '.join(str(error).split())
            self.get_logger().error(f'kept the old bundle: {response.message}')
        finally:
            self._loading = None
        return response

    def _try_bundle(self, recognizer: Recognizer, name: str, outcome: Future) -> None:
        """Load a bundle and try it, in a thread."""
        try:
            bundle, digest = _load(name)
            Recognizer(bundle, str(recognizer.device), recognizer.config).warm_up()
            outcome.set_result((bundle, digest))
        except Exception as error:
            outcome.set_exception(error)
        if (executor := self.executor) is not None:
            executor.wake()

    # Diagnostics.

    def look_around(self) -> None:
        """See `ManagedNode`."""
        if self._tracked is not None:
            self._tracked.look_around()
        topic = self.value('robot_speaking_topic')
        is_speaking = self._gate.robot_has_spoken(self._now_ns()) is not None
        if is_speaking and not self.count_publishers(topic):
            self._gate.robot_speaks(False, self._now_ns())
            self.get_logger().warning(
                f'who said on {topic} that the robot speaks is gone: listening'
            )

    def report(self) -> Report:
        """See `ManagedNode`."""
        lines = list(self._lines.values())
        counters = _sum([self._past, *map(_counters, lines)])
        gained, seconds = self._lately.add(counters)
        values = {**self._describe(lines), **counters}
        for name in ('blocks', 'windows'):
            values[f'{name} per second'] = round(gained.get(name, 0) / max(seconds, 1e-3), 1)
        level, message = self._judge(lines, gained)
        return Report(level, message, values)

    def _describe(self, lines: Sequence[_Line]) -> dict[str, Any]:
        values: dict[str, Any] = {
            'device': self._recognizer.device,
            'bundle': self._recognizer.bundle.path.name,
            'bundle sha256': self._digest,
            'voices': ', '.join(self._lines) or 'none',
            'format': ', '.join({str(line.inputs.intake.format) for line in lines}),
            'level dB': ', '.join(f'{line.channel.meter.decibels:.1f}' for line in lines),
            'backlog bytes': sum(line.inputs.intake.backlog_bytes for line in lines),
            'time jumps': self._jumps,
        }
        if self._listener is not None:
            values['real-time factor'] = round(self._listener.load.real_time_factor, 3)
        if latencies := list(self._latencies):
            p50, p95, longest = np.percentile(latencies, (50, 95, 100)) * 1_000
            values |= {
                'latency p50 ms': round(p50, 1),
                'latency p95 ms': round(p95, 1),
                'latency max ms': round(longest, 1),
            }
        if self._last is not None:
            when, decision = self._last
            values |= {
                'last decision': decision,
                'last decision age s': round(time.monotonic() - when, 1),
            }
        if self._recognizer.device.type == 'cuda':
            n_bytes = torch.cuda.memory_allocated(self._recognizer.device)
            values['GPU memory MB'] = round(n_bytes / 2**20, 1)
        return values

    def _judge(self, lines: Sequence[_Line], gained: dict[str, float]) -> tuple[bytes, str]:
        """The worst that there is to say."""
        if not self._gate.is_enabled:
            return OK, 'switched off by ~/enable'
        if (self._gate.robot_has_spoken(self._now_ns()) or 0.0) > LONG_SPEECH:
            topic = self.value('robot_speaking_topic')
            return WARN, f'muted for a long time: {topic} says that the robot speaks'
        if self._gate.is_muted(self._now_ns(), self.value('robot_speaking_tail')):
            return OK, 'muted: the robot speaks'
        if not lines:
            return OK, 'nobody is tracked'
        now = time.monotonic()
        stale = [line for line in lines if now - line.inputs.intake.last_block > STALE_AFTER]
        silence = ', '.join(self._silence(line, now) for line in stale)
        if len(stale) == len(lines):
            return STALE, silence
        for line in lines:
            if line not in stale and (trouble := self._trouble(line)):
                return WARN, trouble
        if stale:
            return WARN, silence
        said = {
            'dropped seconds': 'seconds of sound were given up lately: the machine is too slow',
            'lost seconds': 'seconds of sound are missing lately between the stamps of its blocks: '
            'it is lost on the way, or not stamped with its capture time',
            'gaps': 'times lately the stamps of the sound jumped',
            'skipped windows': 'windows were skipped lately: the GPU has no memory left',
            'messages lost': 'messages were lost lately by the middleware: the machine or the '
            'network is too slow',
        }
        for name, message in said.items():
            if gained.get(name):
                return WARN, f'{gained[name]:.3g} {message}'
        if self._listener is not None and self._listener.load.real_time_factor > 0.9:
            return WARN, 'the machine hardly keeps up: see the real-time factor'
        return OK, 'listening'

    def _silence(self, line: _Line, now: float) -> str:
        """That nothing comes, and perhaps why."""
        inputs = line.inputs
        said = f'no sound has come on {inputs.topic} for {now - inputs.intake.last_block:.0f} s'
        if inputs.losses.incompatible_publishers:
            said += '; a publisher there offers less than reliability asks for'
        return said

    def _trouble(self, line: _Line) -> Optional[str]:
        """What is wrong with the sound of a voice."""
        intake = line.inputs.intake
        if intake.refusal:
            return f'sound refused: {intake.refusal}'
        if intake.waits_for_format(self._now_ns()):
            topic = self.resolve_topic_name(self.value('info_topic'))
            return (
                f'sound waits for its format: no AudioInfo came on {topic}; have it published or '
                'set sample_format, channels and sample_rate'
            )
        return line.channel.meter.trouble


def _load(name: str) -> tuple[Bundle, str]:
    """A bundle, and the first digits of its file's SHA-256."""
    bundle = load_bundle(name)
    return bundle, hashlib.sha256(bundle.path.read_bytes()).hexdigest()[:12]


def _counters(line: _Line) -> dict[str, float]:
    """What happened to the sound of a voice."""
    return {
        **figures(line.inputs.intake.counters),
        **figures(line.channel.voice.counters),
        **figures(line.inputs.losses),
    }


def _sum(rows: Iterable[dict[str, float]]) -> dict[str, float]:
    """Each key's sum."""
    total: dict[str, float] = {}
    for row in rows:
        for key, value in row.items():
            total[key] = total.get(key, 0) + value
    return total

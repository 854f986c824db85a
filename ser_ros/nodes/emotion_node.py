"""Audio messages in, emotion messages out."""

import functools
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.task import Future
from std_msgs.msg import Bool
from std_srvs.srv import SetBool, Trigger

from ser_ros import SerError
from ser_ros.audio import SECOND
from ser_ros.audio.block_queue import BlockQueue
from ser_ros.audio.channels import AVERAGE, averaging, check_channel
from ser_ros.audio.formats import PcmFormat
from ser_ros.audio.gate import Gate
from ser_ros.audio.sources import Block
from ser_ros.backends import load_backend
from ser_ros.nodes import messages, parameters
from ser_ros.nodes.absent_voices import AbsentVoices
from ser_ros.nodes.audio_messages import SOUND
from ser_ros.nodes.clock_watch import ClockWatch
from ser_ros.nodes.diagnostics import CHOOSE_CHANNEL, Report, counter_values
from ser_ros.nodes.emotion_diagnostics import EmotionDiagnostics, NodeStatus, VoiceStatus
from ser_ros.nodes.managed_node import ManagedNode
from ser_ros.nodes.publishers import EmotionPublishers, Topics, topics_of
from ser_ros.nodes.subscription_thread import SubscriptionThread
from ser_ros.nodes.subscriptions import RELIABILITIES, AudioSubscription
from ser_ros.nodes.voices import TrackedVoices, check_voice_id
from ser_ros.stream.adaptation import Adaptation, Baseline
from ser_ros.stream.backend import Backend, DeviceError
from ser_ros.stream.enrolment import load_enrolment
from ser_ros.stream.listener import Listener, VoiceStream
from ser_ros.stream.types import Estimate, StreamConfig

GPU_ERROR = re.compile(r'CUDA (driver )?error|CUBLAS_STATUS|CUDNN_STATUS')

LOADING_PATIENCE = 120.0
"""Seconds that a bundle may take to load while the node runs: a disk or a GPU may hang."""


@dataclass(kw_only=True)
class _Connection:
    """One voice: its stream, with the topics at both ends."""

    stream: VoiceStream
    subscription: AudioSubscription
    publishers: EmotionPublishers
    is_plain: bool
    """Whether it is the one voice on the plain audio topics."""

    @property
    def counters(self) -> dict[str, float]:
        """What happened to its sound."""
        return {
            **counter_values(self.stream.queue.counters),
            **counter_values(self.stream.voice.counters),
            **counter_values(self.subscription.counters),
        }


class EmotionNode(ManagedNode):
    """Subscribes to sound, publishes the estimates of a `Listener`."""

    def __init__(self, **kwargs: Any):
        super().__init__('emotion_node', parameters.EMOTION, **kwargs)
        self.shares_process = False
        """Whether a capture node in this process may call `receive`."""
        self._gate = Gate()
        self._clock_watch = ClockWatch()
        self._backend: Optional[Backend] = None
        self._listener: Optional[Listener] = None
        self._receiver: Optional[SubscriptionThread] = None
        self._tracked: Optional[TrackedVoices] = None
        self._connections: dict[str, _Connection] = {}
        self._absent = AbsentVoices()
        self._plain_publishers: Optional[EmotionPublishers] = None
        self._robot_subscriptions: list = []
        self._loading: Optional[Future] = None
        self._loading_lock = threading.Lock()
        self._jumps = 0
        self.create_service(SetBool, '~/enable', self._enable)
        self.create_service(Trigger, '~/reset', self._reset)
        # In a group of its own: sound is processed while the service waits for the bundle.
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
            post_callback=self._on_time_jump,
        )

    # The life cycle.

    def setup(self) -> None:
        """See `ManagedNode`."""
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
        if self.value('sample_format'):
            check_channel(self.value('channel'), self.value('channels'))
        self._stream_config({})  # raises SerError where the settings do not fit together
        self._backend, self._baseline = self._load()
        self._device = self._backend.device
        self._backend.to('cpu')
        self._log_bundle(self._backend)
        self._emotion_diagnostics = EmotionDiagnostics()
        self._jumps = 0
        if not self.value('ros4hri'):
            self._plain_publishers = EmotionPublishers(self, Topics(), self._class_names)

    def _check_topic(self, name: str) -> None:
        try:
            if self.value(name) or name != 'robot_speaking_topic':
                self.resolve_topic_name(self.value(name))
        except RuntimeError as error:  # of rcl
            reason = str(error).partition(', at ')[0]
            raise SerError(f'{name} {self.value(name)!r}: {reason}') from error

    def _load(self) -> tuple[Backend, Optional[Baseline]]:
        """The bundle, and the baseline of an enrolment with it if its path is not empty."""
        backend = load_backend(
            *(self.value(name) for name in ('bundle', 'backend', 'device', 'num_threads'))
        )
        if not (enrolment := self.value('enrolment')):
            return backend, None
        return backend, load_enrolment(Path(enrolment), backend).baseline

    def _log_bundle(self, backend: Backend) -> None:
        info = backend.info
        self.get_logger().info(
            f'bundle {backend.path.name}: {info.architecture}, {len(info.class_names)} classes, '
            f'licence {info.license}'
        )

    def _class_names(self) -> Sequence[str]:
        return self._backend.info.class_names

    def _stream_config(self, changed: dict[str, Any]) -> StreamConfig:
        """Of the parameters, some of them changed; SerError where they do not fit together."""
        values = {name: changed.get(name, self.value(name)) for name in parameters.STREAM_SETTINGS}
        return StreamConfig(
            **{
                name: None if value == parameters.UNSET else value
                for name, value in values.items()
            }
        )

    def start(self) -> None:
        """See `ManagedNode`."""
        self._gate.forget_robot()
        self._move_to_device()
        self._listener = Listener(self._backend, self._stream_config({}))
        self._receiver = SubscriptionThread(self, 'sound', self.end_work)
        topic = self.value('robot_speaking_topic')
        if topic:
            self._robot_subscriptions = messages.subscribe_transient_local(
                self, Bool, topic, self._on_robot_speaking
            )
        if self.value('ros4hri'):
            self._tracked = TrackedVoices(
                self,
                self.value('voice_id'),
                max_voices=self.value('max_voices'),
                on_change=self._set_voices,
            )
            self._tracked.check_publishers()
            self.get_logger().info(f'listening to tracked voices {self._where()}')
            return
        self._connect('', self._plain_publishers, is_plain=True)
        topic = self._connections[''].subscription.topic
        self.get_logger().info(f'listening to {topic} {self._where()}')

    def _move_to_device(self) -> None:
        try:
            self._backend.to(self._device)
        except DeviceError as error:
            if self.value('device') != 'auto':
                raise
            self.get_logger().warning(f'{error}: CPU')
            self._backend.to('cpu')

    def _where(self) -> str:
        return f'with {self._backend.name} on {self._backend.device}'

    def work(self) -> None:
        """See `ManagedNode`."""
        self._listener.run()

    def stop(self) -> None:
        """See `ManagedNode`."""
        self._listener.stop()

    def after_stop(self) -> None:
        """See `ManagedNode`."""
        if self._tracked is not None:
            self._tracked.close()
            self._tracked = None
        for voice_id in list(self._connections):
            self._disconnect(voice_id)
        if self._receiver is not None:
            self._receiver.close()
            self._receiver = None
        self._absent.forget()
        for subscription in self._robot_subscriptions:
            self.destroy_subscription(subscription)
        self._robot_subscriptions = []
        self._listener = None
        if self._backend is not None and not self.failed:
            self._backend.to('cpu')

    def teardown(self) -> None:
        """See `ManagedNode`."""
        self._backend = self._plain_publishers = None

    def needs_new_process(self, error: Exception) -> bool:
        """See `ManagedNode`; after an error of its own a GPU does nothing more for a process."""
        return bool(GPU_ERROR.search(str(error))) or super().needs_new_process(error)

    # Voices.

    def _connect(self, voice_id: str, publishers: EmotionPublishers, is_plain: bool) -> None:
        queue = BlockQueue(
            max_backlog=self.value('max_backlog'),
            gap_tolerance=self.value('gap_tolerance'),
            pcm_format=self._pcm_format,
            ready=self._listener.ready,
            channel=self.value('channel'),
            full_scale=self.value('full_scale'),
        )
        stream = self._listener.add(
            queue,
            on_estimate=lambda estimate, frame_id: self._publish(publishers, estimate, frame_id),
            on_speaking=publishers.publish_is_speaking,
            adaptation=self._absent.pop(_known_as(voice_id, is_plain))
            or Adaptation(self._baseline if is_plain else None),
        )
        source: dict[str, Any] = {
            'topic': f'/humans/voices/{voice_id}/audio',
            'is_stamped': SOUND.info is None,
        }
        if is_plain:
            source = {
                'topic': self.value('audio_topic'),
                'is_stamped': self.value('stamped'),
                'info_topic': self.value('info_topic'),
            }
        subscription = AudioSubscription(
            self,
            self._receiver.node,
            queue,
            is_open=self._is_open,
            depth=self.value('queue_depth'),
            reliability=self.value('reliability'),
            **source,
        )
        self._connections[voice_id] = _Connection(
            stream=stream, subscription=subscription, publishers=publishers, is_plain=is_plain
        )

    def _disconnect(self, voice_id: str) -> None:
        connection = self._connections.pop(voice_id)
        connection.subscription.close()
        if not self.ask_worker(functools.partial(self._listener.remove, connection.stream)):
            return
        self._absent.add(_known_as(voice_id, connection.is_plain), connection.stream.adaptation)
        self._emotion_diagnostics.add_removed(connection.counters)
        if connection.publishers is not self._plain_publishers:
            connection.publishers.close()

    def _set_voices(self, ids: Sequence[str], is_anonymous: bool) -> None:
        """Process these voices and no others; the anonymous one uses the plain topic of sound."""
        for voice_id, connection in list(self._connections.items()):
            if voice_id not in ids or connection.is_plain != is_anonymous:
                self._disconnect(voice_id)
        for voice_id in ids:
            if voice_id not in self._connections:
                publishers = EmotionPublishers(self, topics_of(voice_id), self._class_names)
                self._connect(voice_id, publishers, is_plain=is_anonymous)

    def _publish(self, publishers: EmotionPublishers, estimate: Estimate, frame_id: str) -> None:
        now_ns = self._now_ns()
        latency = (now_ns - estimate.stamp_ns - estimate.silence_ns) / SECOND if now_ns else None
        self._emotion_diagnostics.add_estimate(estimate, latency)
        publishers.publish(estimate, frame_id)

    def receive(self, pcm_format: PcmFormat, block: Block, frame_id: str) -> None:
        """Take a block of a node in this process that is not published; from any thread."""
        for connection in list(self._connections.values()):
            if connection.is_plain:
                connection.subscription.queue.announce(
                    pcm_format.sample_format, pcm_format.channels, pcm_format.sample_rate, ''
                )
                connection.subscription.put(block.data, block.stamp_ns, frame_id)

    def receive_end(self) -> None:
        """That no further block follows; from any thread."""
        for connection in list(self._connections.values()):
            if connection.is_plain:
                connection.stream.queue.announce_end()

    def _is_open(self) -> bool:
        return self._gate.is_open(time.monotonic_ns(), self.value('robot_speaking_tail'))

    def _on_robot_speaking(self, message: Bool) -> None:
        self._gate.robot_speaks(message.data, time.monotonic_ns())
        if message.data:
            self._reset_streams()

    def _reset_streams(self, voices: bool = False) -> bool:
        """Forget open utterances; `voices`: also what is known of voices. False if that failed."""
        if voices:
            self._absent.forget()
        return self._listener is not None and self.ask_worker(
            functools.partial(self._listener.reset, voices)
        )

    def _on_time_jump(self, jump: TimeJump) -> None:
        """Sound is not touched: its own stamps show whether it jumps, too."""
        self._jumps += 1
        self._gate.forget_robot()
        seconds = -jump.delta.nanoseconds / SECOND
        self.get_logger().warning(
            f"the time jumped back by {seconds:.3f} s: a mute by the robot's speech ends"
        )

    def _now_ns(self) -> int:
        return self.get_clock().now().nanoseconds

    # Parameters and services.

    def check_parameters(self, changed: dict[str, Any]) -> None:
        """See `ManagedNode`."""
        if not changed.keys().isdisjoint(parameters.STREAM_SETTINGS):
            self._stream_config(changed)
        if 'voice_id' in changed:
            check_voice_id(changed['voice_id'])
        for connection in self._connections.values():
            if 'channel' in changed and (n_channels := connection.stream.queue.n_channels):
                check_channel(changed['channel'], n_channels)

    def apply_parameters(self, changed: set[str]) -> None:
        """See `ManagedNode`; while the node is inactive `start` reads them later."""
        if self._listener is not None and not changed.isdisjoint(parameters.STREAM_SETTINGS):
            config = self._stream_config({})
            self.ask_worker(functools.partial(self._listener.configure, config))
            for connection in self._connections.values():
                connection.subscription.queue.gap_tolerance = self.value('gap_tolerance')
        if 'channel' in changed:
            for connection in self._connections.values():
                connection.stream.queue.choose_channel(self.value('channel'))
        if 'voice_id' in changed and self._tracked is not None:
            self._tracked.rename_anonymous(self.value('voice_id'))

    def _enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        if request.data != self._gate.is_enabled:
            self.get_logger().info(
                'listening again: switched on by ~/enable'
                if request.data
                else 'not listening: switched off by ~/enable'
            )
        self._gate.is_enabled = request.data
        response.success = True
        response.message = 'listening' if request.data else 'not listening'
        if not request.data and not self._reset_streams() and self.hangs:
            response.success, response.message = False, self.failure
        return response

    def _reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = self._reset_streams(voices=True)
        response.message = 'all voices are reset'
        if not response.success:
            response.message = self.failure or 'the node is not active'
        return response

    async def _reload_bundle(
        self, _: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        before = self._backend
        response.success = False
        if before is None:
            response.message = 'the node is not configured: it loads its bundle when it is'
            return response
        if self._loading is not None:
            response.message = 'a bundle is being loaded already'
            return response
        self._loading = Future()
        late = SerError(f'it was not loaded within {LOADING_PATIENCE:g} s')
        deadline = threading.Timer(LOADING_PATIENCE, self._end_loading, (self._loading, late))
        loading = threading.Thread(target=self._try_bundle, args=(before.device, self._loading))
        for thread in (deadline, loading):
            thread.daemon = True
            thread.start()
        try:
            backend, baseline = await self._loading
            if self._backend is not before:
                raise SerError('the node was cleaned up meanwhile')
            if not self.ask_worker(functools.partial(self._use, backend, baseline)):
                raise SerError(self.failure)
            self._log_bundle(backend)
            response.success, response.message = True, f'bundle {backend.path.name}'
        except Exception as error:
            kind = '' if isinstance(error, SerError) else f'{type(error).__name__}: '
            response.message = kind + ' '.join(str(error).split())
            self.get_logger().error(f'kept the old bundle: {response.message}')
        finally:
            deadline.cancel()
            self._loading = None
        return response

    def _use(self, backend: Backend, baseline: Optional[Baseline]) -> None:
        """Continue with a bundle, and know of the plain voice what its enrolment says."""
        self._backend = backend
        if self._listener is not None:
            self._listener.replace_backend(backend)
        self._absent.forget()
        self._baseline = baseline
        for connection in self._connections.values():
            if connection.is_plain:
                start_from = connection.stream.adaptation.start_from
                self._listener.call_between_windows(functools.partial(start_from, baseline))

    def _try_bundle(self, device: str, result: Future) -> None:
        """Load a bundle and an enrolment, and run the bundle once, in a thread."""
        try:
            backend, baseline = self._load()
            backend.to(device)
            self._end_loading(result, value=(backend, baseline))
        except Exception as error:
            self._end_loading(result, error)

    def _end_loading(
        self, result: Future, error: Optional[Exception] = None, value: Any = None
    ) -> None:
        """Set the outcome, unless it is set; from any thread."""
        with self._loading_lock:
            if result.done():
                return
            if error is not None:
                result.set_exception(error)
            else:
                result.set_result(value)
        if (executor := self.executor) is not None:
            executor.wake()

    # Diagnostics.

    def every_second(self) -> None:
        """See `ManagedNode`."""
        self._listener.check_progress()
        if self._tracked is not None:
            self._tracked.check_publishers()
        self._absent.forget_old()
        self._say_what_is_averaged()
        topic = self.value('robot_speaking_topic')
        is_speaking = self._gate.robot_has_spoken(time.monotonic_ns()) is not None
        if is_speaking and not self.count_publishers(topic):
            self._gate.robot_speaks(False, time.monotonic_ns())
            self.get_logger().warning(
                f'the publisher of {topic} is gone while it said that the robot speaks: '
                'listening again'
            )

    def _say_what_is_averaged(self) -> None:
        if self.value('channel') != AVERAGE:
            return
        for connection in self._connections.values():
            if about := averaging(connection.stream.queue.n_channels or 1):
                topic = connection.subscription.topic
                self.get_logger().warning(
                    f'sound on {topic}: {about}: {CHOOSE_CHANNEL}', once=True
                )

    def report(self) -> Report:
        """See `ManagedNode`."""
        backend = self._backend
        values: dict[str, Any] = {
            'backend': backend.name,
            'device': backend.device,
            'bundle': backend.path.name,
            'bundle sha256': backend.digest[:12],
        }
        if (n_bytes := backend.device_bytes) is not None:
            values['GPU memory MB'] = round(n_bytes / 2**20, 1)
        now_ns = time.monotonic_ns()
        load = self._listener.load if self._listener is not None else None
        status = NodeStatus(
            voices=[self._voice_status(*item) for item in list(self._connections.items())],
            values=values,
            is_enabled=self._gate.is_enabled,
            is_muted=self._gate.is_muted(now_ns, self.value('robot_speaking_tail')),
            robot_seconds=self._gate.robot_has_spoken(now_ns) or 0.0,
            robot_topic=self.value('robot_speaking_topic'),
            real_time_factor=load.real_time_factor if load else None,
            time_jumps=self._jumps,
            clock_problem=self._clock_watch.problem(self._now_ns()),
        )
        return self._emotion_diagnostics.report(status)

    def _voice_status(self, voice_id: str, connection: _Connection) -> VoiceStatus:
        subscription, queue = connection.subscription, connection.stream.queue
        voice = connection.stream.voice
        waits = queue.waits_for_format
        return VoiceStatus(
            voice_id=voice_id,
            topic=subscription.topic,
            format='refused' if queue.refusal else str(queue.format or 'unknown'),
            decibels=connection.stream.meter.decibels,
            backlog_bytes=queue.backlog_bytes,
            seconds_without_block=queue.seconds_without_block,
            counters=connection.counters,
            n_utterances=voice.adaptation.n_utterances if voice.adapts else 0,
            refusal=queue.refusal,
            waits_for_format_on=(
                self.resolve_topic_name(self.value('info_topic')) if waits else None
            ),
            level_problem=connection.stream.meter.problem,
            channel_problem=queue.channel_problem,
            has_incompatible_publishers=subscription.counters.incompatible_publishers > 0,
            lost_since_block=subscription.lost_since_block,
            is_reliable=self.value('reliability') == 'reliable',
            publishers=subscription.publishers(),
            may_come_unpublished=self.shares_process,
            has_ended=queue.has_ended,
        )


def _known_as(voice_id: str, is_plain: bool) -> str:
    """By which name a voice is known; the one on the plain topics is the same under any id."""
    return '' if is_plain else voice_id

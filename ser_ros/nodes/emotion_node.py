"""Audio messages in, emotion messages out."""

import functools
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.task import Future
from std_srvs.srv import SetBool, Trigger

from ser_ros import SerError
from ser_ros.audio import SECOND
from ser_ros.audio.block_queue import BlockQueue
from ser_ros.audio.channels import AVERAGE, averaging, check_channel
from ser_ros.audio.formats import PcmFormat
from ser_ros.audio.sources import Block
from ser_ros.backends import load_backend
from ser_ros.nodes import parameters
from ser_ros.nodes.absent_voices import AbsentVoices
from ser_ros.nodes.audio_messages import SOUND
from ser_ros.nodes.clock_watch import ClockWatch
from ser_ros.nodes.connection import Connection, known_as
from ser_ros.nodes.diagnostics import CHOOSE_CHANNEL, Report, combine
from ser_ros.nodes.emotion_diagnostics import EmotionDiagnostics, NodeStatus
from ser_ros.nodes.managed_node import ManagedNode
from ser_ros.nodes.namespaces import Namespace, make_namespaces
from ser_ros.nodes.publishers import EmotionPublishers, topics_of
from ser_ros.nodes.subscription_thread import SubscriptionThread
from ser_ros.nodes.subscriptions import AudioSubscription, stated_format
from ser_ros.nodes.voices import TrackedVoices, check_voice_id
from ser_ros.stream.adaptation import Adaptation, Baseline
from ser_ros.stream.backend import Backend, DeviceError
from ser_ros.stream.enrolment import load_enrolment
from ser_ros.stream.listener import Listener
from ser_ros.stream.types import Estimate, StreamConfig

GPU_ERROR = re.compile(r'CUDA (driver )?error|CUBLAS_STATUS|CUDNN_STATUS')

MIN_JUMP = 0.1
"""Seconds by which simulated time must jump back to begin anew: two messages may be exchanged."""

LOADING_PATIENCE = 120.0
"""Seconds that a bundle may take to load while the node runs: a disk or a GPU may hang."""

ENDING_PATIENCE = 3.0
"""Seconds that it may take to load once the node ends."""


class EmotionNode(ManagedNode):
    """Subscribes to sound, publishes the estimates of a `Listener`."""

    def __init__(self, **kwargs: Any):
        super().__init__('emotion_node', parameters.EMOTION, **kwargs)
        self.shares_process = False
        """Whether a capture node in this process may call `receive`."""
        self._is_enabled = True
        self._clock_watch = ClockWatch()
        self._backend: Optional[Backend] = None
        self._listener: Optional[Listener] = None
        self._receiver: Optional[SubscriptionThread] = None
        self._namespaces: list[Namespace] = []
        self._tracked: Optional[TrackedVoices] = None
        self._connections: dict[str, Connection] = {}
        """By voice with ROS4HRI, else by namespace."""
        self._absent = AbsentVoices()
        self._loading: Optional[Future] = None
        self._loader: Optional[threading.Thread] = None
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
                min_forward=None,
                min_backward=Duration(seconds=-MIN_JUMP),
                on_clock_change=False,
            ),
            post_callback=self._on_time_jump,
        )

    # The life cycle.

    def setup(self) -> None:
        """See `ManagedNode`."""
        for name in ('audio_topic', 'info_topic', 'robot_speaking_topic'):
            self._check_topic(name)
        self._namespaces = self._make_namespaces()
        check_voice_id(self.value('voice_id'))
        self._pcm_format = stated_format(self.value)
        self._stream_config({})  # raises SerError where the settings do not fit together
        self._backend, self._baseline = self._load()
        self._device = self._backend.device
        self._backend.to('cpu')
        self._log_bundle(self._backend)
        self._emotion_diagnostics = EmotionDiagnostics()
        self._jumps = 0
        if not self.value('ros4hri'):
            for namespace in self._namespaces:
                namespace.publishers = EmotionPublishers(self, namespace.topics, self._class_names)

    def _make_namespaces(self) -> list[Namespace]:
        given = self.value('namespaces')
        namespaces = make_namespaces(self, given, self.value('audio_topic'))
        if self.value('ros4hri') and not (len(namespaces) == 1 and namespaces[0].is_own):
            raise SerError(
                'namespaces and ros4hri exclude each other: the voices of ROS4HRI have no '
                'namespace but /humans'
            )
        if self.shares_process and not any(namespace.is_own for namespace in namespaces):
            raise SerError(
                f"namespaces {given} lack the node's own, '', in which the capture node of this "
                'process is'
            )
        return namespaces

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
        if not any(namespace.is_own for namespace in self._namespaces):
            raise SerError(
                "enrolment: it is of the voice in the node's own namespace, '', which namespaces lacks"
            )
        return backend, load_enrolment(Path(enrolment), backend).baseline

    def _log_bundle(self, backend: Backend) -> None:
        info = backend.info
        self.get_logger().info(
            f'bundle {backend.path.name}: {info.architecture}, {len(info.class_names)} classes, '
            f'licence {info.license}'
        )

    def _class_names(self) -> Sequence[str]:
        """Of the worker's bundle, which it replaces later than this node does."""
        return self._listener.backend.info.class_names

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
        self._move_to_device()
        self._listener = Listener(self._backend, self._stream_config({}))
        self._receiver = SubscriptionThread(self, 'sound', self.end_work)
        for namespace in self._namespaces:
            namespace.follow_robot(
                self.value('robot_speaking_topic'),
                functools.partial(self._reset_streams, namespace=namespace),
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
        for namespace in self._namespaces:
            self._connect(namespace, '', namespace.publishers, is_plain=True)
        topics = ', '.join(c.subscription.topic for c in self._connections.values())
        self.get_logger().info(f'listening to {topics} {self._where()}')

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
        for key in list(self._connections):
            self._disconnect(key)
        if self._receiver is not None:
            self._receiver.close()
            self._receiver = None
        self._absent.forget()
        for namespace in self._namespaces:
            namespace.leave_robot()
        self._listener = None
        if self._backend is not None and not self.failed:
            self._backend.to('cpu')

    def teardown(self) -> None:
        """See `ManagedNode`."""
        self._backend = None
        self._namespaces = []

    def destroy_node(self) -> None:
        """See `ManagedNode`."""
        if self._loader is not None:  # a process that ends within its libraries is aborted
            self._loader.join(ENDING_PATIENCE)
        super().destroy_node()

    def needs_new_process(self, error: Exception) -> bool:
        """See `ManagedNode`; after an error of its own a GPU does nothing more for a process."""
        return bool(GPU_ERROR.search(str(error))) or super().needs_new_process(error)

    # Voices.

    def _connect(
        self, namespace: Namespace, voice_id: str, publishers: EmotionPublishers, is_plain: bool
    ) -> None:
        is_own = is_plain and namespace.is_own
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
            on_estimate=functools.partial(self._publish, namespace, publishers),
            on_speaking=publishers.publish_is_speaking,
            adaptation=self._absent.pop(known_as(voice_id, is_plain))
            or Adaptation(self._baseline if is_own else None),
            room=None if self.value('ros4hri') else Adaptation(),
        )
        source: dict[str, Any] = {
            'topic': f'/humans/voices/{voice_id}/audio',
            'is_stamped': SOUND.info is None,
        }
        if is_plain:
            source = {
                'topic': namespace.topic(self.value('audio_topic')),
                'is_stamped': self.value('stamped'),
                'info_topic': namespace.topic(self.value('info_topic')),
            }
        subscription = AudioSubscription(
            self,
            self._receiver.node,
            queue,
            is_open=functools.partial(self._is_open, namespace),
            depth=self.value('queue_depth'),
            reliability=self.value('reliability'),
            **source,
        )
        self._connections[voice_id or namespace.name] = Connection(
            voice_id=voice_id,
            namespace=namespace,
            stream=stream,
            subscription=subscription,
            publishers=publishers,
            is_plain=is_plain,
        )

    def _disconnect(self, key: str) -> None:
        connection = self._connections.pop(key)
        connection.subscription.close()
        if not self.ask_worker(functools.partial(self._listener.remove, connection.stream)):
            return
        self._absent.add(connection.known_as, connection.stream.adaptation)
        for diagnostics in (self._emotion_diagnostics, connection.namespace.diagnostics):
            diagnostics.add_removed(connection.counters)
        if connection.publishers is not connection.namespace.publishers:
            connection.publishers.close()

    def _set_voices(self, ids: Sequence[str], is_anonymous: bool) -> None:
        """Process these voices and no others; the anonymous one uses the plain topic of sound."""
        for voice_id, connection in list(self._connections.items()):
            if voice_id not in ids or connection.is_plain != is_anonymous:
                self._disconnect(voice_id)
        for voice_id in ids:
            if voice_id not in self._connections:
                publishers = EmotionPublishers(self, topics_of(voice_id), self._class_names)
                self._connect(self._namespaces[0], voice_id, publishers, is_plain=is_anonymous)

    def _publish(
        self,
        namespace: Namespace,
        publishers: EmotionPublishers,
        estimate: Estimate,
        frame_id: str,
    ) -> None:
        now_ns = self._now_ns()
        latency = (now_ns - estimate.stamp_ns - estimate.silence_ns) / SECOND if now_ns else None
        for diagnostics in (self._emotion_diagnostics, namespace.diagnostics):
            diagnostics.add_estimate(estimate, latency)
        publishers.publish(estimate, frame_id)

    def receive(self, pcm_format: PcmFormat, block: Block, frame_id: str) -> None:
        """Take a block of a node in this process that is not published; from any thread."""
        for connection in list(self._connections.values()):
            if connection.is_own:
                connection.subscription.queue.announce(
                    pcm_format.sample_format, pcm_format.channels, pcm_format.sample_rate, ''
                )
                connection.subscription.put(block.data, block.stamp_ns, frame_id)

    def receive_end(self) -> None:
        """That no further block follows; from any thread."""
        for connection in list(self._connections.values()):
            if connection.is_own:
                connection.stream.queue.announce_end()

    def _is_open(self, namespace: Namespace, seconds: float) -> bool:
        """Whether a block of so many seconds that arrives now is processed."""
        return self._is_enabled and not self._is_muted(namespace, seconds)

    def _is_muted(self, namespace: Namespace, seconds: float = 0.0) -> bool:
        """Whether the robot speaks, or did in the last `seconds` or the tail before them."""
        tail = self.value('robot_speaking_tail')
        return namespace.gate.is_muted(time.monotonic_ns(), seconds + tail)

    def _reset_streams(self, voices: bool = False, namespace: Optional[Namespace] = None) -> bool:
        """Forget open utterances, in one namespace or all; False if that failed.

        `voices`: also what is known of voices.
        """
        if voices:
            self._absent.forget()
        streams = [
            c.stream for c in list(self._connections.values()) if namespace in (None, c.namespace)
        ]
        return self._listener is not None and self.ask_worker(
            functools.partial(self._listener.reset, streams, voices)
        )

    def _on_time_jump(self, jump: TimeJump) -> None:
        """Sound is not touched: its own stamps show whether it jumps, too."""
        self._jumps += 1
        for namespace in self._namespaces:
            namespace.gate.forget_robot()
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
        if request.data != self._is_enabled:
            self.get_logger().info(
                'listening again: switched on by ~/enable'
                if request.data
                else 'not listening: switched off by ~/enable'
            )
        self._is_enabled = request.data
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
        self._loader = threading.Thread(
            target=self._try_bundle, args=(before.device, self._loading)
        )
        for thread in (deadline, self._loader):
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
        """Continue with a bundle, and know of the one voice what its enrolment says."""
        self._backend = backend
        self._baseline = baseline
        self._absent.forget()
        own = [c.stream for c in self._connections.values() if c.is_own]
        if self._listener is not None:
            self._listener.replace_backend(backend, own[0] if own else None, baseline)

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
        for namespace in self._namespaces:
            namespace.check_robot()

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
            'enrolment': self._enrolment_state(),
        }
        if (n_bytes := backend.device_bytes) is not None:
            values['GPU memory MB'] = round(n_bytes / 2**20, 1)
        load = self._listener.load if self._listener is not None else None
        common = {
            'is_enabled': self._is_enabled,
            'real_time_factor': load.real_time_factor if load else None,
            'time_jumps': self._jumps,
            'clock_problem': self._clock_watch.problem(self._now_ns()),
        }
        statuses = {n.name: self._status(n, common) for n in self._namespaces}
        voices = [voice for status in statuses.values() for voice in status.voices]
        if len(statuses) > 1:
            whole = self._emotion_diagnostics.report(NodeStatus(voices, values, **common))
            return combine(
                {n.name: n.diagnostics.report(statuses[n.name]) for n in self._namespaces},
                whole.values,
            )
        (status,) = statuses.values()
        return self._emotion_diagnostics.report(replace(status, values=values))

    def _enrolment_state(self) -> str:
        if self._baseline is None:
            return 'none'
        is_used = any(c.is_enrolled for c in list(self._connections.values()))
        return 'in use' if is_used else 'not in use'

    def _status(self, namespace: Namespace, common: dict[str, Any]) -> NodeStatus:
        connections = list(self._connections.values())
        return NodeStatus(
            voices=[
                c.status(may_come_unpublished=self.shares_process and c.is_own)
                for c in connections
                if c.namespace is namespace
            ],
            is_muted=self._is_muted(namespace),
            robot_seconds=namespace.gate.robot_has_spoken(time.monotonic_ns()) or 0.0,
            robot_topic=namespace.robot_topic,
            **common,
        )

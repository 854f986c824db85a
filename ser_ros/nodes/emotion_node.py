"""Audio messages in, emotion messages out."""

import dataclasses
from typing import Any, Optional

import torch
from audio_common_msgs.msg import AudioData, AudioDataStamped, AudioInfo
from hri_msgs.msg import Expression
from rclpy.qos import QoSProfile, ReliabilityPolicy
from std_msgs.msg import Bool
from vision_msgs.msg import Classification

from ser_ros import SerError
from ser_ros.audio import SAMPLE_RATE, SECOND
from ser_ros.audio.formats import PcmFormat
from ser_ros.audio.intake import Intake
from ser_ros.bundle import Bundle, load_bundle
from ser_ros.nodes import messages
from ser_ros.nodes.managed_node import ManagedNode, figures
from ser_ros.recognizer import Estimate, Recognizer, RecognizerConfig, select_device

DEPTH = 50
"""Messages kept for a slow subscriber: a backlog worked off at once is a burst of some twenty."""

UNSET = -1.0
"""A setting that is left to the bundle."""

RELIABILITIES = {
    'best_effort': ReliabilityPolicy.BEST_EFFORT,
    'reliable': ReliabilityPolicy.RELIABLE,
}
STARVED = 1.0
"""Seconds without sound after which nobody is said to speak."""

STEP = SAMPLE_RATE // 10
"""Samples recognised at a time, so that `is_speaking` is seen to change within a long block."""


class EmotionNode(ManagedNode):
    """Subscribes to sound, publishes what a `Recognizer` makes of it."""

    def __init__(self, **kwargs: Any):
        super().__init__('emotion_node', **kwargs)
        self.declare('bundle', '', 'Model: a path, a shipped name, or empty for the default.')
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
        for setting in dataclasses.fields(RecognizerConfig):
            low, high = setting.metadata['limits']
            default, description = setting.default, setting.metadata['description']
            if default is None:  # parameters have no None
                default, low = UNSET, UNSET
            self.declare(setting.name, default, description, (low, high))
        self._recognizer: Optional[Recognizer] = None
        self._intake: Optional[Intake] = None
        self._inputs: list = []
        self._latency_ns = 0

    def setup(self) -> None:
        """See `ManagedNode`."""
        messages.check_audio_messages()
        torch.set_num_threads(self.value('num_threads'))
        if self.value('reliability') not in RELIABILITIES:
            raise SerError(
                f'reliability {self.value("reliability")!r} is not one of {", ".join(RELIABILITIES)}'
            )
        self._pcm_format = None
        if self.value('sample_format'):
            self._pcm_format = PcmFormat(
                self.value('sample_format'), self.value('channels'), self.value('sample_rate')
            )
        bundle: Bundle = load_bundle(self.value('bundle'))
        self._device = select_device(self.value('device'))
        self._recognizer = Recognizer(bundle, 'cpu', self._recognizer_config())
        self._recognizer.warm_up()
        self._emotion = self.make_output(Expression, 'emotion', DEPTH)
        self._utterance = self.make_output(Expression, 'emotion/utterance', DEPTH)
        self._probabilities = self.make_output(Classification, 'emotion/probabilities', DEPTH)
        self._is_speaking = self.make_output(Bool, 'is_speaking', messages.LATCHED)
        self.get_logger().info(
            f'bundle {bundle.path.name}: {bundle.info.architecture}, '
            f'{len(bundle.info.class_names)} classes, licence {bundle.info.license}'
        )

    def _recognizer_config(self) -> RecognizerConfig:
        names = [setting.name for setting in dataclasses.fields(RecognizerConfig)]
        values = {name: self.value(name) for name in names}
        return RecognizerConfig(
            **{name: None if value == UNSET else value for name, value in values.items()}
        )

    def start(self) -> None:
        """See `ManagedNode`."""
        self._move_to_device()
        self._recognizer.reset()
        self._intake = Intake(
            self.value('max_backlog'), self.value('gap_tolerance'), self._pcm_format
        )
        qos = QoSProfile(
            depth=self.value('queue_depth'),
            reliability=RELIABILITIES[self.value('reliability')],
        )
        info_topic = self.value('info_topic')
        # A transient-local subscriber hears no volatile publisher; a volatile one misses what is
        # latched. The same news twice changes nothing.
        self._inputs = [
            self.create_subscription(AudioInfo, info_topic, self._hear_info, messages.LATCHED),
            self.create_subscription(AudioInfo, info_topic, self._hear_info, 10),
            self.create_subscription(
                AudioDataStamped if self.value('stamped') else AudioData,
                self.value('audio_topic'),
                self._hear_stamped if self.value('stamped') else self._hear_unstamped,
                qos,
            ),
        ]
        self.get_logger().info(
            f'listening to {self._inputs[-1].topic_name} on {self._recognizer.device}'
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

    def stop(self) -> None:
        """See `ManagedNode`."""
        self._intake.close()

    def stopped(self) -> None:
        """See `ManagedNode`."""
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        self._inputs = []
        if self._recognizer is not None and not self.failed:
            self._recognizer.to('cpu')

    def teardown(self) -> None:
        """See `ManagedNode`."""
        self._recognizer = self._intake = None

    def _hear_info(self, info: AudioInfo) -> None:
        self._intake.announce(
            info.sample_format, info.channels, info.sample_rate, info.coding_format
        )
        self._complain()

    def _hear_stamped(self, message: AudioDataStamped) -> None:
        header = message.header
        # A stamp of zero is none.
        stamp_ns = messages.to_nanoseconds(header.stamp) or None
        self._put(message.audio, stamp_ns, header.frame_id)

    def _hear_unstamped(self, message: AudioData) -> None:
        self._put(message, None, '')

    def _put(self, audio: AudioData, stamp_ns: Optional[int], frame_id: str) -> None:
        self._intake.put(audio.data.tobytes(), stamp_ns, self._now_ns(), frame_id)
        self._complain()

    def _complain(self) -> None:
        if trouble := self.trouble():
            self.get_logger().warning(trouble, throttle_duration_sec=10.0)

    def trouble(self) -> Optional[str]:
        """See `ManagedNode`."""
        if self._intake is None:
            return None
        if self._intake.refusal:
            return f'sound refused: {self._intake.refusal}'
        if self._intake.waits_for_format(self._now_ns()):
            topic = self.resolve_topic_name(self.value('info_topic'))
            return (
                f'sound waits for its format: no AudioInfo came on {topic}; have it published or '
                'set the parameters sample_format, channels and sample_rate'
            )
        return None

    def _now_ns(self) -> int:
        return self.get_clock().now().nanoseconds

    def work(self) -> None:
        """See `ManagedNode`."""
        recognizer = self._recognizer
        self._is_said_to_speak = None
        self._say_whether_speaking(False)
        n_gaps = recognizer.counters.gaps
        while (heard := self._intake.get(STARVED)) is not None:
            if heard.is_broken:
                recognizer.reset()
            for samples, stamp_ns in heard.parts:
                for first in range(0, len(samples), STEP):
                    piece_ns = stamp_ns + first * SECOND // SAMPLE_RATE
                    for estimate in recognizer.push(samples[first : first + STEP], piece_ns):
                        self._publish(estimate, heard.frame_id)
                    self._say_whether_speaking(recognizer.is_speaking)
            if not heard.parts:  # nobody is heard to speak while nothing is heard
                self._say_whether_speaking(False)
            if recognizer.counters.gaps > n_gaps:
                n_gaps = recognizer.counters.gaps
                self.get_logger().warning(
                    f'the stamps of the sound jumped ({n_gaps} times so far): it is lost on the '
                    'way, or not stamped with its capture time',
                    throttle_duration_sec=10.0,
                )
        self._say_whether_speaking(False)

    def _say_whether_speaking(self, is_speaking: bool) -> None:
        if is_speaking != self._is_said_to_speak:
            self._is_said_to_speak = is_speaking
            self._is_speaking.publish(Bool(data=is_speaking))

    def _publish(self, estimate: Estimate, frame_id: str) -> None:
        header = messages.to_header(estimate.stamp_ns, frame_id)
        self._latency_ns = self._now_ns() - estimate.stamp_ns
        if estimate.expression is not None:
            publisher = self._utterance if estimate.is_final else self._emotion
            publisher.publish(messages.to_expression(estimate, header))
        if estimate.is_window:
            self._probabilities.publish(
                messages.to_classification(
                    self._recognizer.bundle.info.class_names, estimate, header
                )
            )

    def diagnose(self) -> tuple[str, dict[str, Any]]:
        """See `ManagedNode`."""
        if self._recognizer is None or self._intake is None:
            return 'not active', {}
        values = {
            'device': self._recognizer.device,
            'bundle': self._recognizer.bundle.path.name,
            'format': self._intake.format,
            'backlog bytes': self._intake.backlog_bytes,
            'last latency ms': round(self._latency_ns / 1e6, 1),
            **figures(self._intake.counters),
            **figures(self._recognizer.counters),
        }
        return 'listening' if self._inputs else 'not active', values

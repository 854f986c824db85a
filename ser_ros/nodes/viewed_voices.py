"""The subscriptions to what is published of one voice, and to its sound while somebody looks."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional

import numpy as np
from hri_msgs.msg import Expression
from rclpy.node import Node
from std_msgs.msg import Bool
from vision_msgs.msg import Classification

from ser_ros.audio import SECOND
from ser_ros.audio.formats import PcmFormat
from ser_ros.nodes import messages
from ser_ros.nodes.publishers import DEPTH, Topics
from ser_ros.nodes.subscriptions import AudioSubscription
from ser_ros.view.lane import Decision
from ser_ros.view.sound import LiveQueue

if TYPE_CHECKING:
    from ser_ros.nodes.managed_node import ManagedNode
    from ser_ros.view.model import Model


@dataclass(frozen=True, kw_only=True)
class SoundSource:
    """Where the sound of a voice is published, and as what."""

    topic: str
    is_stamped: bool
    info_topic: Optional[str] = None
    pcm_format: Optional[PcmFormat] = None


def to_seconds(stamp: Any) -> float:
    """A message's stamp in seconds."""
    return messages.to_nanoseconds(stamp) / SECOND


class ViewedVoice:
    """One voice on the page."""

    def __init__(
        self,
        node: ManagedNode,
        model: Model,
        name: str,
        topics: Topics,
        on_sound: Callable[[str, np.ndarray, int], None],
    ):
        """`name`: of its lane in `model`.

        `on_sound`: called with it, float32 (n,) samples at 16 kHz, and the stamp of the first.
        """
        self._node, self._model, self._name = node, model, name
        self._on_sound = on_sound
        self._sound: Optional[AudioSubscription] = None
        self._source: Optional[SoundSource] = None
        self._subscriptions = [
            node.create_subscription(Expression, topics.emotion, self._on_emotion, DEPTH),
            node.create_subscription(Expression, topics.utterance, self._on_utterance, DEPTH),
            node.create_subscription(
                Classification, topics.probabilities, self._on_probabilities, DEPTH
            ),
            *messages.subscribe_transient_local(node, Bool, topics.is_speaking, self._on_speaking),
        ]

    def _on_emotion(self, message: Expression, is_utterance: bool = False) -> None:
        decision = Decision(
            to_seconds(message.header.stamp),
            message.expression,
            message.confidence,
            message.valence,
            message.arousal,
        )
        self._model.add_decision(self._name, decision, is_utterance)

    def _on_utterance(self, message: Expression) -> None:
        self._on_emotion(message, is_utterance=True)

    def _on_probabilities(self, message: Classification) -> None:
        probabilities = {result.class_id: result.score for result in message.results}
        self._model.add_window(self._name, to_seconds(message.header.stamp), probabilities)

    def _on_speaking(self, message: Bool) -> None:
        self._model.set_speaking(self._name, message.data)

    def follow_sound(self, receiver: Node, source: SoundSource) -> None:
        """Subscribe to its sound there and nowhere else."""
        if source == self._source:
            return
        self.close_sound()
        self._source = source
        queue = LiveQueue(
            functools.partial(self._on_sound, self._name),
            pcm_format=source.pcm_format,
            channel=self._node.value('channel'),
            full_scale=self._node.value('full_scale'),
        )
        self._sound = AudioSubscription(
            self._node,
            receiver,
            queue,
            source.topic,
            is_open=lambda seconds: True,
            is_stamped=source.is_stamped,
            info_topic=source.info_topic,
            depth=self._node.value('queue_depth'),
            reliability=self._node.value('reliability'),
        )

    def close_sound(self) -> None:
        """Undo `follow_sound`, after it or not."""
        if self._sound is not None:
            self._sound.close()
            self._sound = self._source = None

    @property
    def reason(self) -> str:
        """What is known of why its sound does not come, or cannot be decoded; empty for nothing."""
        if self._sound is None:
            return ''
        queue = self._sound.queue
        if queue.refusal:
            return queue.refusal
        reasons = []
        publishers = self._sound.publishers()
        others = [publisher for publisher in publishers if publisher.other_type]
        if not publishers:
            reasons.append('nobody publishes there')
        elif len(others) == len(publishers):
            reasons.append(f'{others[0].node} publishes {others[0].other_type} there')
        if queue.format is None and self._sound.info_topic is not None:
            reasons.append(f'no audio_info on {self._sound.info_topic} yet')
        return '; '.join(reasons)

    def close(self) -> None:
        """Destroy the subscriptions."""
        self.close_sound()
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

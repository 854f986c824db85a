"""Where the sound of one voice comes from: subscriptions, and what they bring into an intake."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Optional

from audio_common_msgs.msg import AudioData, AudioDataStamped, AudioInfo
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription

from ser_ros.audio.block_queue import BlockQueue
from ser_ros.nodes import messages

RELIABILITIES = {
    'best_effort': ReliabilityPolicy.BEST_EFFORT,
    'reliable': ReliabilityPolicy.RELIABLE,
}


@dataclass
class Losses:
    """What the middleware says of itself."""

    messages_lost: int = 0
    """By its own account; a slow subscriber loses more without a word."""
    incompatible_publishers: int = 0


class Inputs:
    """The subscriptions of one voice."""

    def __init__(
        self,
        node: LifecycleNode,
        intake: BlockQueue,
        topic: str,
        is_open: Callable[[], bool],
        is_stamped: bool = False,
        info_topic: Optional[str] = None,
        depth: int = 500,
        reliability: str = 'best_effort',
    ):
        """`is_open`: whether a block that comes now is to be heard."""
        self.intake = intake
        self.losses = Losses()
        self._node = node
        self._is_open = is_open
        self._subscriptions: list[Subscription] = []
        if info_topic is not None:
            # First: of two messages that are there, an executor takes that of the older
            # subscription, and sound must not overtake what says how to decode it.
            self._subscriptions += messages.subscribe_latched(
                node, AudioInfo, info_topic, self._hear_info
            )
        self._audio = node.create_subscription(
            AudioDataStamped if is_stamped else AudioData,
            topic,
            self._hear_stamped if is_stamped else self._hear_unstamped,
            QoSProfile(depth=depth, reliability=RELIABILITIES[reliability]),
            event_callbacks=SubscriptionEventCallbacks(
                message_lost=self._count_lost, incompatible_qos=self._say_incompatible
            ),
        )
        self._subscriptions.append(self._audio)

    @property
    def topic(self) -> str:
        """Of the sound."""
        return self._audio.topic_name

    def close(self) -> None:
        """Destroy the subscriptions."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    def _now_ns(self) -> int:
        return self._node.get_clock().now().nanoseconds

    def _hear_info(self, info: AudioInfo) -> None:
        self.intake.announce(
            info.sample_format, info.channels, info.sample_rate, info.coding_format
        )

    def _hear_stamped(self, message: AudioDataStamped) -> None:
        header = message.header
        # A stamp of zero is none.
        stamp_ns = messages.to_nanoseconds(header.stamp) or None
        self.put(message.audio.data.tobytes(), stamp_ns, header.frame_id)

    def _hear_unstamped(self, message: AudioData) -> None:
        self.put(message.data.tobytes(), None, '')

    def put(self, data: bytes, stamp_ns: Optional[int], frame_id: str) -> None:
        """Take a block."""
        if self._is_open():
            self.intake.put(data, stamp_ns, self._now_ns(), frame_id)
        else:
            self.intake.skip(data, stamp_ns)

    def _count_lost(self, event) -> None:
        self.losses.messages_lost += event.total_count_change

    def _say_incompatible(self, event) -> None:
        self.losses.incompatible_publishers += event.total_count_change
        self._node.get_logger().warning(
            f'a publisher of {self.topic} offers less than is asked for '
            f'({event.last_policy_kind.name.lower()}) and is not heard: set reliability to '
            'best_effort'
        )

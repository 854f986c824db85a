"""The subscriptions that bring the sound of one voice into its queue."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Optional

from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.lifecycle import LifecycleNode
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription

from ser_ros import SerError
from ser_ros.audio.block_queue import BlockQueue
from ser_ros.audio.channels import check_channel
from ser_ros.audio.formats import PcmFormat
from ser_ros.nodes import messages
from ser_ros.nodes.audio_messages import SOUND
from ser_ros.nodes.emotion_diagnostics import Publisher

RELIABILITIES = {
    'best_effort': ReliabilityPolicy.BEST_EFFORT,
    'reliable': ReliabilityPolicy.RELIABLE,
}


def stated_format(value: Callable[[str], Any]) -> Optional[PcmFormat]:
    """The format of the sound that parameters state, S16LE by default for ROS4HRI; None without one.

    `value`: name of a parameter → its value. SerError for an invalid format, channel or reliability.
    """
    if value('reliability') not in RELIABILITIES:
        raise SerError(
            f'reliability {value("reliability")!r} is not one of {", ".join(RELIABILITIES)}'
        )
    if not (value('sample_format') or value('ros4hri')):
        return None
    stated = PcmFormat(value('sample_format') or 'S16LE', value('channels'), value('sample_rate'))
    if value('sample_format'):
        check_channel(value('channel'), value('channels'))
    return stated


@dataclass
class SubscriptionCounters:
    """What the middleware reports."""

    messages_lost: int = 0
    """By its own count; a slow subscriber loses more, which is not reported."""
    incompatible_publishers: int = 0


class AudioSubscription:
    """Subscribes to the sound of one voice and to its format."""

    def __init__(
        self,
        node: LifecycleNode,
        receiver: Node,
        queue: BlockQueue,
        topic: str,
        *,
        is_open: Callable[[float], bool],
        is_stamped: bool = False,
        info_topic: Optional[str] = None,
        depth: int = 500,
        reliability: str = 'best_effort',
    ):
        """`receiver`: of `node`'s `SubscriptionThread`, in which the messages arrive.

        `is_open`: whether a block of so many seconds that arrives now is to be processed.
        """
        self.queue = queue
        self.counters = SubscriptionCounters()
        self.lost_since_block = 0
        """Messages that the middleware reports as lost since the last one that came."""
        self.is_reliable = reliability == 'reliable'
        """Whether lost messages are requested again."""
        self.topic = node.resolve_topic_name(topic)
        """The full name of the topic of the sound."""
        self.info_topic = node.resolve_topic_name(info_topic) if info_topic is not None else None
        """The full name of the topic of the format, where there is one."""
        self._type = SOUND.stamped if is_stamped else SOUND.unstamped
        self._node, self._receiver = node, receiver
        self._is_open = is_open
        self._subscriptions: list[Subscription] = []
        if self.info_topic is not None and SOUND.info is not None:
            # First: of two messages that wait, an executor takes that of the older subscription,
            # and sound must not overtake the message that says how to decode it.
            self._subscriptions += messages.subscribe_transient_local(
                receiver, SOUND.info, self.info_topic, self._on_info
            )
        audio = receiver.create_subscription(
            self._type,
            self.topic,
            self._on_stamped if is_stamped else self._on_unstamped,
            QoSProfile(depth=depth, reliability=RELIABILITIES[reliability]),
            event_callbacks=SubscriptionEventCallbacks(
                message_lost=self._on_lost, incompatible_qos=self._on_incompatible
            ),
        )
        self._subscriptions.append(audio)

    def publishers(self) -> tuple[Publisher, ...]:
        """Who publishes on the topic of the sound, the nodes of a name as often as they do."""
        expected = messages.type_name(self._type)
        return tuple(
            Publisher(
                info.node_namespace.rstrip('/') + '/' + info.node_name,
                None if info.topic_type == expected else info.topic_type,
            )
            for info in self._node.get_publishers_info_by_topic(self.topic)
        )

    def close(self) -> None:
        """Destroy the subscriptions."""
        for subscription in self._subscriptions:
            self._receiver.destroy_subscription(subscription)

    def _now_ns(self) -> int:
        return self._node.get_clock().now().nanoseconds

    def _on_info(self, info: Any) -> None:
        if info == SOUND.info():
            self.queue.announce_end()
            return
        self.queue.announce(
            info.sample_format, info.channels, info.sample_rate, info.coding_format
        )

    def _on_stamped(self, message: Any) -> None:
        header = message.header
        # A stamp of zero means that there is none.
        stamp_ns = messages.to_nanoseconds(header.stamp) or None
        self.put(self._unpack(message.audio), stamp_ns, header.frame_id)

    def _on_unstamped(self, message: Any) -> None:
        self.put(self._unpack(message), None, '')

    def _unpack(self, audio: Any) -> bytes:
        data, announced = SOUND.unpack(audio)
        if announced is not None:
            self.queue.announce(*announced)
        return data

    def put(self, data: bytes, stamp_ns: Optional[int], frame_id: str) -> None:
        """Queue a block, or skip it while sound is ignored."""
        self.lost_since_block = 0
        arrival_ns = self._now_ns()
        if self._is_open(self.queue.seconds(data)):
            self.queue.put(data, stamp_ns, arrival_ns, frame_id)
        else:
            self.queue.skip(data, stamp_ns, arrival_ns)

    def _on_lost(self, event) -> None:
        self.counters.messages_lost += event.total_count_change
        self.lost_since_block += event.total_count_change

    def _on_incompatible(self, event) -> None:
        self._node.get_logger().warning(
            f'a publisher of {self.topic} offers less than this node requests '
            f'({event.last_policy_kind.name.lower()}), so that nothing of it is received: set '
            'reliability to best_effort'
        )
        self.counters.incompatible_publishers += event.total_count_change

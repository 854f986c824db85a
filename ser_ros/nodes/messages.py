"""Messages ↔ plain values."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from audio_common_msgs.msg import AudioInfo
from builtin_interfaces.msg import Time
from hri_msgs.msg import Expression
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from std_msgs.msg import Header
from vision_msgs.msg import Classification, ObjectHypothesis

from ser_ros.audio import SECOND
from ser_ros.audio.formats import PcmFormat

if TYPE_CHECKING:  # sound is captured without torch
    from ser_ros.stream.types import Estimate

TRANSIENT_LOCAL = QoSProfile(
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)

SUBSCRIPTION_DEPTH = 10
"""Messages that wait for a node that is busy."""


def subscribe_transient_local(
    node: Node, message_type: type, topic: str, callback: Callable[[Any], None]
) -> list[Subscription]:
    """Subscribe with both durabilities, to publishers of any reliability.

    A transient local subscription receives nothing from a volatile publisher, of which the
    middleware warns; a volatile one misses what was published before it. The last message that is
    passed on is the last published, see `FirstArrivals`.
    """
    arrivals = FirstArrivals(callback)
    silent = SubscriptionEventCallbacks(use_default_callbacks=False)
    # As deep as the other: it would skip messages that the other still delivers, after it.
    transient_local = QoSProfile(
        depth=SUBSCRIPTION_DEPTH,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL,
    )
    volatile = QoSProfile(depth=SUBSCRIPTION_DEPTH, reliability=ReliabilityPolicy.BEST_EFFORT)
    return [
        node.create_subscription(message_type, topic, on_message, profile, event_callbacks=silent)
        for on_message, profile in (
            (arrivals.on_reliable, transient_local),
            (arrivals.on_best_effort, volatile),
        )
    ]


class FirstArrivals:
    """Passes on messages that two subscriptions receive, each at its first arrival.

    Each subscription keeps the order in which a publisher published. But where the network loses a
    message, the reliable one receives it late, after its successor came by the other: the
    successor is then passed on again, so that it has the last word.
    """

    def __init__(self, callback: Callable[[Any], None]):
        self._callback = callback
        self._seen: deque[int] = deque(maxlen=5 * SUBSCRIPTION_DEPTH)
        """Times at which messages were published, which tell them apart."""
        self._is_reliable = False
        """Whether the last message passed on came by the reliable subscription first."""

    def on_reliable(self, message: Any, info: Mapping[str, Any]) -> None:
        """A message of the reliable subscription."""
        time = info['source_timestamp']
        if time not in self._seen or (self._is_reliable and time > self._seen[-1]):
            self._pass_on(message, time, is_reliable=True)

    def on_best_effort(self, message: Any, info: Mapping[str, Any]) -> None:
        """A message of the other subscription."""
        time = info['source_timestamp']
        if time not in self._seen:
            self._pass_on(message, time, is_reliable=False)

    def _pass_on(self, message: Any, time: int, is_reliable: bool) -> None:
        self._seen.append(time)
        self._is_reliable = is_reliable
        self._callback(message)


def type_name(message_type: type) -> str:
    """A message's type as the middleware names it, such as `std_msgs/msg/Bool`."""
    package, folder, *_ = message_type.__module__.split('.')
    return f'{package}/{folder}/{message_type.__name__}'


def to_nanoseconds(stamp: Time) -> int:
    """A message's stamp as nanoseconds."""
    return stamp.sec * SECOND + stamp.nanosec


def to_header(stamp_ns: int, frame_id: str) -> Header:
    """A header; a stamp before 1970 or after 2038 is the nearest that the message can carry."""
    sec, nanosec = divmod(min(max(stamp_ns, 0), 2**31 * SECOND - 1), SECOND)
    return Header(stamp=Time(sec=sec, nanosec=nanosec), frame_id=frame_id)


def to_audio_info(pcm_format: PcmFormat) -> AudioInfo:
    """AudioInfo of a PCM stream, as ros-drivers' package has it."""
    return AudioInfo(
        channels=pcm_format.channels,
        sample_rate=pcm_format.sample_rate,
        sample_format=pcm_format.sample_format,
        bitrate=pcm_format.sample_rate * pcm_format.frame_bytes * 8,
        coding_format='wave',
    )


def to_expression(estimate: Estimate, header: Header) -> Expression:
    """An estimate that has an expression."""
    return Expression(
        header=header,
        expression=estimate.expression,
        valence=estimate.valence,
        arousal=estimate.arousal,
        confidence=estimate.confidence,
    )


def to_classification(
    class_names: Sequence[str], estimate: Estimate, header: Header
) -> Classification:
    """Every class with its probability, in the model's order."""
    return Classification(
        header=header,
        results=[
            ObjectHypothesis(class_id=name, score=float(probability))
            for name, probability in zip(class_names, estimate.probabilities, strict=True)
        ],
    )

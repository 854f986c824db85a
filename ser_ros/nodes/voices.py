"""Which voices are tracked, by ROS4HRI (REP-155)."""

import re
from collections.abc import Callable, Sequence
from typing import Optional

from hri_msgs.msg import IdsList
from rclpy.exceptions import InvalidTopicNameException
from rclpy.lifecycle import LifecycleNode
from rclpy.validate_full_topic_name import validate_full_topic_name

from ser_ros import SerError
from ser_ros.nodes import messages

TRACKED = '/humans/voices/tracked'
TOKEN = re.compile(r'[A-Za-z_][A-Za-z0-9_]*')


def topic_of(voice_id: str, name: str) -> str:
    """The topic of a voice's `name`."""
    return f'/humans/voices/{voice_id}/{name}'


def is_voice_id(voice_id: str) -> bool:
    """Whether topics can be named by it: REP-155 limits the characters, the middleware the length."""
    try:
        validate_full_topic_name(topic_of(voice_id, 'probabilities'))
    except InvalidTopicNameException:
        return False
    return TOKEN.fullmatch(voice_id) is not None


def check_voice_id(voice_id: str) -> None:
    """Raise SerError for an id that no topic can be named by."""
    if not is_voice_id(voice_id):
        raise SerError(f'voice_id {voice_id!r} cannot be part of a topic name')


class TrackedVoices:
    """Follows which voices are tracked.

    While no other node publishes them there is one voice, the anonymous one, and this publishes it
    as tracked itself.
    """

    def __init__(
        self,
        node: LifecycleNode,
        anonymous: str,
        *,
        max_voices: int,
        on_change: Callable[[Sequence[str], bool], None],
    ):
        """`on_change` is called with the ids to process and whether they are the anonymous one."""
        self._node = node
        self._anonymous = anonymous
        self._max_voices = max_voices
        self._on_change = on_change
        self._publisher = None
        self._own: Optional[IdsList] = None
        """The last message of this object, by which it recognizes its own messages."""
        self._received: Optional[IdsList] = None
        """The last message of another node."""
        self._followed: Optional[list[str]] = None
        self._subscriptions = messages.subscribe_transient_local(
            node, IdsList, TRACKED, self._on_tracked
        )

    def rename_anonymous(self, anonymous: str) -> None:
        """Use another id for the one voice while no other node publishes tracked voices."""
        self._anonymous = anonymous
        self.check_publishers()

    def check_publishers(self) -> None:
        """Publish the anonymous voice where no other node publishes, and stop where one does."""
        names = {
            (info.node_name, info.node_namespace)
            for info in self._node.get_publishers_info_by_topic(TRACKED)
        }
        if names - {(self._node.get_name(), self._node.get_namespace())}:
            self._follow_others()
        else:
            self._publish_anonymous()

    def _follow_others(self) -> None:
        if self._publisher is not None:
            self._node.destroy_publisher(self._publisher)
            self._publisher = None
        if self._received is not None:
            self._follow_received()

    def _publish_anonymous(self) -> None:
        self._received = None
        is_new = self._publisher is None
        if is_new:
            self._publisher = self._node.create_publisher(
                IdsList, TRACKED, messages.TRANSIENT_LOCAL
            )
        if is_new or self._own.ids != [self._anonymous]:
            self._own = IdsList(ids=[self._anonymous])
            self._own.header.stamp = self._node.get_clock().now().to_msg()
            self._publisher.publish(self._own)
            self._followed = None
            self._on_change((self._anonymous,), True)

    def _on_tracked(self, message: IdsList) -> None:
        if message == self._own:
            return
        self.check_publishers()
        # A message may arrive before its publisher is discovered: the next check then uses it.
        self._received = message
        if self._publisher is None:
            self._follow_received()

    def _follow_received(self) -> None:
        ids = list(dict.fromkeys(self._received.ids))
        if ids == self._followed:
            return
        self._followed = ids
        usable = [voice_id for voice_id in ids if is_voice_id(voice_id)]
        if unusable := [voice_id[:40] for voice_id in ids if voice_id not in usable]:
            self._node.get_logger().warning(
                f'{TRACKED} names {unusable}, which cannot be part of a topic name'
            )
        if len(usable) > self._max_voices:
            self._node.get_logger().warning(
                f'{len(usable)} voices are tracked, only the first {self._max_voices} are '
                'processed: see max_voices'
            )
        self._on_change(usable[: self._max_voices], False)

    def close(self) -> None:
        """Track nobody."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        if self._publisher is not None:
            self._publisher.publish(IdsList())
            self._node.destroy_publisher(self._publisher)

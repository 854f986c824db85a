"""Whose voices there are, by ROS4HRI (REP-155)."""

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
    """Whether topics can be named by it: REP-155 says which tokens, the middleware how long."""
    try:
        validate_full_topic_name(topic_of(voice_id, 'probabilities'))
    except InvalidTopicNameException:
        return False
    return TOKEN.fullmatch(voice_id) is not None


def check_voice_id(voice_id: str) -> None:
    """SerError for an id that no topic can be named by."""
    if not is_voice_id(voice_id):
        raise SerError(f'voice_id {voice_id!r} cannot be part of a topic name')


class TrackedVoices:
    """Follows who is tracked; where nobody says, it is one voice, and this says so itself."""

    def __init__(
        self,
        node: LifecycleNode,
        anonymous: str,
        max_voices: int,
        follow: Callable[[Sequence[str], bool], None],
    ):
        """`follow` is called with the ids to be heard and whether they are the anonymous one."""
        self._node = node
        self._anonymous = anonymous
        self._max_voices = max_voices
        self._follow = follow
        self._publisher = None
        self._own: Optional[IdsList] = None
        """What this said itself last, by which it is known again when it is heard."""
        self._told: Optional[IdsList] = None
        """What somebody else said last."""
        self._followed: Optional[list[str]] = None
        self._subscriptions = messages.subscribe_latched(node, IdsList, TRACKED, self._hear)

    def name_anonymous(self, anonymous: str) -> None:
        """Call the one voice so, while nobody says who is there."""
        self._anonymous = anonymous
        self.look_around()

    def look_around(self) -> None:
        """Take over where nobody publishes who is tracked, and step back where somebody does."""
        names = {
            (info.node_name, info.node_namespace)
            for info in self._node.get_publishers_info_by_topic(TRACKED)
        }
        if names - {(self._node.get_name(), self._node.get_namespace())}:
            self._step_back()
        else:
            self._take_over()

    def _step_back(self) -> None:
        if self._publisher is not None:
            self._node.destroy_publisher(self._publisher)
            self._publisher = None
        if self._told is not None:
            self._follow_others()

    def _take_over(self) -> None:
        self._told = None
        is_new = self._publisher is None
        if is_new:
            self._publisher = self._node.create_publisher(IdsList, TRACKED, messages.LATCHED)
        if is_new or self._own.ids != [self._anonymous]:
            self._own = IdsList(ids=[self._anonymous])
            self._own.header.stamp = self._node.get_clock().now().to_msg()
            self._publisher.publish(self._own)
            self._followed = None
            self._follow((self._anonymous,), True)

    def _hear(self, message: IdsList) -> None:
        if message == self._own:
            return
        self.look_around()
        # News may be here before its publisher is known: then the next look around takes them.
        self._told = message
        if self._publisher is None:
            self._follow_others()

    def _follow_others(self) -> None:
        ids = list(dict.fromkeys(self._told.ids))
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
                f'{len(usable)} voices are tracked, and the first {self._max_voices} are heard: '
                'see max_voices'
            )
        self._follow(usable[: self._max_voices], False)

    def close(self) -> None:
        """Track nobody."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        if self._publisher is not None:
            self._publisher.publish(IdsList())
            self._node.destroy_publisher(self._publisher)

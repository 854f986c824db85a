"""The namespaces whose topics the emotion node serves: in each one voice, and a robot that may speak."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Optional

from rclpy.subscription import Subscription
from std_msgs.msg import Bool

from ser_ros import SerError
from ser_ros.audio.gate import Gate
from ser_ros.nodes import messages
from ser_ros.nodes.emotion_diagnostics import EmotionDiagnostics
from ser_ros.nodes.managed_node import ManagedNode
from ser_ros.nodes.publishers import EmotionPublishers, Topics

OWN = ''
"""How the parameter names the node's own namespace."""


class Namespace:
    """The topics of one namespace, whether its robot speaks, and what is reported of its sound."""

    def __init__(self, node: ManagedNode, given: str):
        """`given`: absolute, or relative to that of the node; RuntimeError for an invalid one."""
        self._node = node
        self._prefix = f'{given.rstrip("/")}/' if given else ''
        expanded = node.resolve_topic_name(self.topic('audio'), only_expand=True)
        self.name = expanded.rpartition('/')[0] or '/'
        """In full."""
        self.is_own = self.name == node.get_namespace()
        self.gate = Gate()
        self.diagnostics = EmotionDiagnostics()
        self.publishers: Optional[EmotionPublishers] = None
        """Of the voice on the plain topics; they exist while the node is inactive, too."""
        self.robot_topic = ''
        """Full name of the topic on which the robot says that it speaks; empty for none."""
        self._robot: list[Subscription] = []

    def topic(self, name: str) -> str:
        """A topic's name in this namespace; absolute and private names are the same in all."""
        return name if name.startswith(('/', '~')) else self._prefix + name

    def resolve(self, name: str) -> str:
        """The full name of a topic, remapped; RuntimeError for an invalid one."""
        return self._node.resolve_topic_name(self.topic(name))

    @property
    def topics(self) -> Topics:
        """Names of the topics of the one voice here."""
        plain = dataclasses.asdict(Topics())
        return Topics(**{key: self.topic(name) for key, name in plain.items()})

    def follow_robot(self, topic: str, on_speech: Callable[[], None]) -> None:
        """Close the gate while the robot speaks; `on_speech` is called whenever it says so."""

        def on_message(message: Bool) -> None:
            self.gate.robot_speaks(message.data, time.monotonic_ns())
            if message.data:
                on_speech()

        self.gate.forget_robot()
        if topic:
            self.robot_topic = self.resolve(topic)
            self._robot = messages.subscribe_transient_local(
                self._node, Bool, self.topic(topic), on_message
            )

    def check_robot(self) -> None:
        """Open the gate where nobody is left who could say that the robot has spoken."""
        is_speaking = self.gate.robot_has_spoken(time.monotonic_ns()) is not None
        if is_speaking and not self._node.count_publishers(self.robot_topic):
            self.gate.robot_speaks(False, time.monotonic_ns())
            self._node.get_logger().warning(
                f'the publisher of {self.robot_topic} is gone while it said that the robot speaks: '
                'listening again'
            )

    def leave_robot(self) -> None:
        """Undo `follow_robot`."""
        for subscription in self._robot:
            self._node.destroy_subscription(subscription)
        self._robot = []


def make_namespaces(node: ManagedNode, given: Sequence[str], sound: str) -> list[Namespace]:
    """One for each that was given, or the node's own; `sound`: the topic of the sound.

    SerError for an invalid name, or two in which the sound is the same.
    """
    found: dict[str, Namespace] = {}
    names: dict[str, str] = {}
    for name in given or [OWN]:
        try:
            namespace = Namespace(node, name)
            topic = namespace.resolve(sound)
        except RuntimeError as error:  # of rcl
            raise SerError(f'namespaces: {name!r}: {str(error).partition(", at ")[0]}') from error
        if topic in found:
            raise SerError(
                f'namespaces: {names[topic]!r} and {name!r} have the same sound, on {topic}'
            )
        found[topic], names[topic] = namespace, name
    return list(found.values())

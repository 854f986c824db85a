"""Choose a behaviour by the mood of a person: approach, soften the voice, or call for help.

    python examples/react_to_mood.py [--ros-args -r __ns:=/robot]

Publishes std_msgs/String on `behaviour` when it changes: none, approach, soften_voice, call_for_help.
"""

import contextlib
import math

import rclpy
from hri_msgs.msg import Expression
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from std_msgs.msg import String

MEMORY = 20.0
"""Time constant in seconds: several utterances decide, since one may be classified wrongly."""


class ReactToMood(Node):
    """Keeps a mood: the mean of the last utterances, weighted by confidence and age."""

    def __init__(self, **kwargs):
        super().__init__('react_to_mood', **kwargs)
        self._valence = self._arousal = self._weight = 0.0
        self._last = None
        self._behaviour = 'none'
        self._publisher = self.create_publisher(String, 'behaviour', 10)
        self.create_subscription(Expression, 'emotion/utterance', self._on_utterance, 10)
        self.get_logger().info('waiting for emotion/utterance; the behaviour is none')

    def _on_utterance(self, message):
        stamp = message.header.stamp.sec + message.header.stamp.nanosec * 1e-9
        elapsed = 0.0 if self._last is None else max(0.0, stamp - self._last)
        keep, self._last = math.exp(-elapsed / MEMORY), stamp
        self._valence = keep * self._valence + message.confidence * message.valence
        self._arousal = keep * self._arousal + message.confidence * message.arousal
        self._weight = keep * self._weight + message.confidence
        behaviour = self._choose()
        total = max(self._weight, 1e-6)
        self.get_logger().info(
            f'somebody sounds {message.expression} ({message.confidence:.2f}): mood of valence '
            f'{self._valence / total:+.2f} and arousal {self._arousal / total:+.2f}, '
            f'behaviour {behaviour}'
        )
        if behaviour != self._behaviour:
            self._behaviour = behaviour
            self._publisher.publish(String(data=behaviour))

    def _choose(self):
        if self._weight < 0.5 or self._valence > -0.2 * self._weight:
            return 'none'
        if self._arousal < 0:  # unhappy and calm: sad
            return 'approach'
        return (
            'call_for_help' if self._weight > 1.5 else 'soften_voice'
        )  # upset; the weight grows with each utterance


if __name__ == '__main__':
    rclpy.init()
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(ReactToMood())

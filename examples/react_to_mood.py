"""Choose a behaviour by the mood of a person: approach, soften the voice, or call for help.

    python examples/react_to_mood.py [--ros-args -r __ns:=/robot]

Publishes std_msgs/String on `behaviour` when it changes: none, approach, soften_voice, call_for_help.
"""

import rclpy
from hri_msgs.msg import Expression
from rclpy.node import Node
from std_msgs.msg import String

from ser_ros.stream.mood import Mood


class ReactToMood(Node):
    """Keeps a mood, which the page of view_node shows as well."""

    def __init__(self, **kwargs):
        super().__init__('react_to_mood', **kwargs)
        self._mood = Mood()
        self._behaviour = 'none'
        self._publisher = self.create_publisher(String, 'behaviour', 10)
        self.create_subscription(Expression, 'emotion/utterance', self._on_utterance, 10)
        self.get_logger().info('waiting for emotion/utterance; the behaviour is none')

    def _on_utterance(self, message):
        stamp = message.header.stamp.sec + message.header.stamp.nanosec * 1e-9
        self._mood.add(stamp, message.valence, message.arousal, message.confidence)
        behaviour = self._choose()
        self.get_logger().info(
            f'somebody sounds {message.expression} ({message.confidence:.2f}): mood of valence '
            f'{self._mood.valence:+.2f} and arousal {self._mood.arousal:+.2f}, '
            f'behaviour {behaviour}'
        )
        if behaviour != self._behaviour:
            self._behaviour = behaviour
            self._publisher.publish(String(data=behaviour))

    def _choose(self):
        mood = self._mood
        if mood.weight < 0.5 or mood.valence > -0.2:
            return 'none'
        if mood.arousal < 0:  # unhappy and calm: sad
            return 'approach'
        return (
            'call_for_help' if mood.weight > 1.5 else 'soften_voice'
        )  # upset; the weight grows with each utterance


if __name__ == '__main__':
    rclpy.init()
    try:
        rclpy.spin(ReactToMood())
    except KeyboardInterrupt:
        pass
    except Exception:
        if rclpy.ok():  # else it was interrupted, and rclpy found itself shut down
            raise

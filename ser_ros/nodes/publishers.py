"""The publishers of one voice."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hri_msgs.msg import Expression
from std_msgs.msg import Bool
from vision_msgs.msg import Classification

from ser_ros.nodes import messages
from ser_ros.nodes.managed_node import ManagedNode
from ser_ros.nodes.voices import topic_of
from ser_ros.stream.types import Estimate

DEPTH = 50
"""Messages kept for a slow subscriber: a backlog processed at once is a burst of some twenty."""


@dataclass(frozen=True)
class Topics:
    """Names of the topics."""

    emotion: str = 'emotion'
    utterance: str = 'emotion/utterance'
    probabilities: str = 'emotion/probabilities'
    is_speaking: str = 'is_speaking'


def topics_of(voice_id: str) -> Topics:
    """Of a ROS4HRI voice (REP-155); all but `is_speaking` are this package's extension."""
    return Topics(
        emotion=topic_of(voice_id, 'expression'),
        utterance=topic_of(voice_id, 'utterance'),
        probabilities=topic_of(voice_id, 'probabilities'),
        is_speaking=topic_of(voice_id, 'is_speaking'),
    )


class EmotionPublishers:
    """Publishes the estimates of one voice; used by the worker alone."""

    def __init__(
        self, node: ManagedNode, topics: Topics, class_names: Callable[[], Sequence[str]]
    ):
        self._node = node
        self._class_names = class_names
        self._emotion = node.make_output(Expression, topics.emotion, DEPTH)
        self._utterance = node.make_output(Expression, topics.utterance, DEPTH)
        self._probabilities = node.make_output(Classification, topics.probabilities, DEPTH)
        self._is_speaking = node.make_output(Bool, topics.is_speaking, messages.TRANSIENT_LOCAL)

    def publish(self, estimate: Estimate, frame_id: str) -> None:
        """Publish an estimate on the topics it belongs to."""
        header = messages.to_header(estimate.stamp_ns, frame_id)
        if estimate.expression is not None:
            publisher = self._utterance if estimate.is_final else self._emotion
            publisher.publish(messages.to_expression(estimate, header))
        if estimate.is_window:
            self._probabilities.publish(
                messages.to_classification(self._class_names(), estimate, header)
            )

    def publish_is_speaking(self, is_speaking: bool) -> None:
        """Publish whether the voice speaks."""
        self._is_speaking.publish(Bool(data=is_speaking))

    def close(self) -> None:
        """Destroy the publishers."""
        for output in (self._emotion, self._utterance, self._probabilities, self._is_speaking):
            self._node.drop_output(output)

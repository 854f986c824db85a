"""The example of a behaviour node."""

import importlib.util
from pathlib import Path

import pytest

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2: . tools/ros_env.sh')

from hri_msgs.msg import Expression  # noqa: E402
from rclpy.context import Context  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from std_msgs.msg import String  # noqa: E402

from ser_ros.audio import SECOND  # noqa: E402
from ser_ros.emotions import EMOTIONS  # noqa: E402
from ser_ros.nodes.messages import to_header  # noqa: E402

PATH = Path(__file__).parents[2] / 'examples' / 'react_to_mood.py'
FEELINGS = {emotion.expression: emotion for emotion in reversed(EMOTIONS.values())}


@pytest.fixture
def hear(domain_id, monkeypatch):
    """A function: expression, second, confidence → what the robot is told, None where nothing."""
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    spec = importlib.util.spec_from_file_location('react_to_mood', PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    context = Context()
    rclpy.init(context=context, domain_id=domain_id)
    nodes = [module.ReactToMood(context=context), rclpy.create_node('robot', context=context)]
    told, echoes = [], []
    nodes[1].create_subscription(String, 'behaviour', lambda m: told.append(m.data), 10)
    utterances = nodes[1].create_publisher(Expression, 'emotion/utterance', 10)
    executor = SingleThreadedExecutor(context=context)
    for node in nodes:
        executor.add_node(node)

    def spin_until(condition):
        for _ in range(1_000):
            if condition():
                return
            executor.spin_once(timeout_sec=0.02)
        raise AssertionError('nothing came')

    spin_until(
        lambda: utterances.get_subscription_count() and nodes[0].count_subscribers('behaviour')
    )
    # The same node hears it a second time, after the example has.
    nodes[0].create_subscription(Expression, 'emotion/utterance', echoes.append, 10)
    spin_until(lambda: utterances.get_subscription_count() == 2)

    def utter(expression, second, confidence=0.8):
        told.clear()
        echoes.clear()
        feeling = FEELINGS[expression]
        utterances.publish(
            Expression(
                header=to_header(second * SECOND, ''),
                expression=expression,
                confidence=confidence,
                valence=feeling.valence,
                arousal=feeling.arousal,
            )
        )
        spin_until(lambda: echoes)
        for _ in range(5):
            executor.spin_once(timeout_sec=0.02)
        return told[-1] if told else None

    yield utter
    executor.shutdown()
    for node in nodes:
        node.destroy_node()
    rclpy.shutdown(context=context)


def test_it_approaches_who_is_sad_and_leaves_who_is_happy_again(hear):
    assert hear('sad', 10) == 'approach'
    assert hear('sad', 15) is None
    assert hear('happy', 40) == 'none'


def test_it_softens_its_voice_and_calls_for_help_when_it_lasts(hear):
    assert hear('scared', 10) == 'soften_voice'
    assert hear('angry', 14) is None
    assert hear('scared', 16) == 'call_for_help'
    assert hear('neutral', 100) == 'none'


def test_what_is_unsure_or_well_changes_nothing(hear):
    assert hear('scared', 10, confidence=0.3) is None
    assert hear('happy', 12) is None
    assert hear('neutral', 14) is None


def test_stamps_that_go_back_are_no_reason_to_fail(hear):
    assert hear('sad', 1000) == 'approach'
    assert hear('happy', 10, confidence=1.0) == 'none'

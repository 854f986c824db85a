"""The example of a behaviour node: examples/react_to_mood.py."""

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
def behaviour_after(domain_id, monkeypatch):
    """A function: expression, second, confidence → the published behaviour, None if there is none."""
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    spec = importlib.util.spec_from_file_location('react_to_mood', PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    context = Context()
    rclpy.init(context=context, domain_id=domain_id)
    nodes = [module.ReactToMood(context=context), rclpy.create_node('robot', context=context)]
    behaviours, echoes = [], []
    nodes[1].create_subscription(String, 'behaviour', lambda m: behaviours.append(m.data), 10)
    utterances = nodes[1].create_publisher(Expression, 'emotion/utterance', 10)
    executor = SingleThreadedExecutor(context=context)
    for node in nodes:
        executor.add_node(node)

    def spin_until(condition):
        for _ in range(1_000):
            if condition():
                return
            executor.spin_once(timeout_sec=0.02)
        raise AssertionError('no message arrived')

    spin_until(
        lambda: utterances.get_subscription_count() and nodes[0].count_subscribers('behaviour')
    )
    # A second subscription of the same node, called after the example's own.
    nodes[0].create_subscription(Expression, 'emotion/utterance', echoes.append, 10)
    spin_until(lambda: utterances.get_subscription_count() == 2)

    def utter(expression, second, confidence=0.8):
        behaviours.clear()
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
        return behaviours[-1] if behaviours else None

    yield utter
    executor.shutdown()
    for node in nodes:
        node.destroy_node()
    rclpy.shutdown(context=context)


def test_it_approaches_a_sad_person_and_stops_when_they_are_happy(behaviour_after):
    assert behaviour_after('sad', 10) == 'approach'
    assert behaviour_after('sad', 15) is None
    assert behaviour_after('happy', 40) == 'none'


def test_it_softens_its_voice_and_calls_for_help_when_distress_lasts(behaviour_after):
    assert behaviour_after('scared', 10) == 'soften_voice'
    assert behaviour_after('angry', 14) is None
    assert behaviour_after('scared', 16) == 'call_for_help'
    assert behaviour_after('neutral', 100) == 'none'


def test_uncertain_or_positive_expressions_change_nothing(behaviour_after):
    assert behaviour_after('scared', 10, confidence=0.3) is None
    assert behaviour_after('happy', 12) is None
    assert behaviour_after('neutral', 14) is None


def test_stamps_that_go_back_do_no_harm(behaviour_after):
    assert behaviour_after('sad', 1000) == 'approach'
    assert behaviour_after('happy', 10, confidence=1.0) == 'none'


def test_it_says_what_it_does(capfd, behaviour_after):
    assert behaviour_after('angry', 1) == 'soften_voice'
    output = capfd.readouterr().err
    assert 'waiting for emotion/utterance' in output
    assert 'somebody sounds angry (0.80)' in output
    assert 'behaviour soften_voice' in output

"""Simulated time may stand still, jump back or never come: the node must not stay deaf."""

import pytest

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2: . tools/ros_env.sh')

from feeding import (  # noqa: E402
    LARGE_BACKLOG,
    START,
    reported,
    speech_then_silence,
)
from rosgraph_msgs.msg import Clock  # noqa: E402
from std_msgs.msg import Bool  # noqa: E402

from ser_ros.audio import SAMPLE_RATE, SECOND  # noqa: E402
from ser_ros.audio.formats import encode_s16le  # noqa: E402
from ser_ros.nodes.emotion_node import EmotionNode  # noqa: E402
from ser_ros.nodes.messages import TRANSIENT_LOCAL, to_header  # noqa: E402


@pytest.fixture
def robot(graph):
    """A function that publishes whether the robot speaks."""
    publisher = graph.node.create_publisher(Bool, 'robot_speaking', TRANSIENT_LOCAL)
    return lambda is_speaking: publisher.publish(Bool(data=is_speaking))


@pytest.fixture
def clock(graph):
    """A function that publishes a time in seconds on /clock."""
    publisher = graph.node.create_publisher(Clock, '/clock', 1)
    return lambda seconds: publisher.publish(
        Clock(clock=to_header(round(seconds * SECOND), '').stamp)
    )


def test_without_a_clock_it_listens_after_the_robot_has_spoken(graph, outputs, publisher, robot):
    node = graph.make(EmotionNode, **LARGE_BACKLOG, use_sim_time=True, robot_speaking_tail=0.5)
    publisher.wait_for_subscriber(node)
    publisher.announce()
    graph.wait(lambda: 'no time has come on /clock' in node.diagnose().message, 'the warning')
    assert node.diagnose().level == b'\1'
    robot(True)
    (namespace,) = node._namespaces
    graph.wait(lambda: namespace.gate.robot_has_spoken(10**18), 'the mute')
    robot(False)
    graph.wait(lambda: node._is_open(namespace, 0.0), 'the end of the mute')
    publisher.play(encode_s16le(speech_then_silence()[: 6 * SAMPLE_RATE]))
    graph.wait(lambda: outputs['is_speaking'][-1].data, 'speech')
    graph.wait(lambda: outputs['probabilities'], 'windows')
    assert not [name for name in reported(node) if 'latency' in name]


def test_two_times_that_are_exchanged_are_no_jump(graph, robot, clock):
    node = graph.make(EmotionNode, **LARGE_BACKLOG, use_sim_time=True)

    def is_at(seconds):
        clock(seconds)
        return node.get_clock().now().nanoseconds == round(seconds * SECOND)

    graph.wait(lambda: is_at(100.01), 'the time of /clock')
    robot(True)
    graph.wait(lambda: node.diagnose().message == 'muted: the robot speaks', 'the mute')
    graph.wait(lambda: is_at(100.009), 'a time just before it')
    assert node.diagnose().message == 'muted: the robot speaks'
    assert reported(node)['time jumps'] == 0


def test_a_jump_back_ends_the_mute_and_no_utterance(graph, outputs, publisher, robot, clock):
    """A bag that loops says that the robot speaks, and perhaps never that it has spoken."""
    node = graph.make(EmotionNode, **LARGE_BACKLOG, use_sim_time=True, threshold=0.0)
    publisher.wait_for_subscriber(node)
    publisher.announce()

    def is_at(seconds):
        clock(seconds)
        return node.get_clock().now().nanoseconds == seconds * SECOND

    graph.wait(lambda: is_at(100), 'the time of /clock')
    robot(True)
    graph.wait(lambda: node.diagnose().message == 'muted: the robot speaks', 'the mute')
    graph.wait(lambda: is_at(10), 'an earlier time')
    graph.wait(lambda: 'muted' not in node.diagnose().message, 'the end of the mute')
    for n_rounds in (1, 2):
        publisher.play(encode_s16le(speech_then_silence()[: 5 * SAMPLE_RATE // 2]))
        graph.wait(
            lambda: reported(node)['samples'] == n_rounds * 5 * SAMPLE_RATE // 2,  # noqa: B023
            'all samples',
        )
        graph.wait(lambda: is_at(10 - n_rounds), 'an earlier time')  # noqa: B023
    # Of the first round, since the stamps of the second begin where those of the first did.
    graph.wait(lambda: outputs['utterance'], 'the decision')
    assert reported(node)['broken utterances'] == 0
    assert outputs['utterance'][0].header.stamp.sec * SECOND >= START

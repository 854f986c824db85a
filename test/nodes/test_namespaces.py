"""One emotion node for several namespaces: a voice in each, and nothing of one in another."""

import functools

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2: . tools/ros_env.sh')

from audio_common_msgs.msg import AudioDataStamped  # noqa: E402
from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from feeding import (  # noqa: E402
    LARGE_BACKLOG,
    START,
    AudioPublisher,
    probabilities_by_stamp,
    recognize,
    reported,
    speech_then_silence,
)
from hri_msgs.msg import Expression  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from std_msgs.msg import Bool  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402
from vision_msgs.msg import Classification  # noqa: E402

from ser_ros.audio import SAMPLE_RATE  # noqa: E402
from ser_ros.audio.formats import PcmFormat, encode_s16le  # noqa: E402
from ser_ros.audio.sources import Block  # noqa: E402
from ser_ros.nodes.emotion_node import EmotionNode  # noqa: E402
from ser_ros.nodes.messages import TRANSIENT_LOCAL  # noqa: E402

MONO = PcmFormat('S16LE', 1, SAMPLE_RATE)
WARN = b'\1'


class Robot:
    """What is published in a namespace, and what publishes its sound."""

    def __init__(self, graph, namespace):
        prefix = f'{namespace}/' if namespace else ''
        subscribe = functools.partial(self._subscribe, graph, prefix)
        self.emotion = subscribe(Expression, 'emotion')
        self.utterance = subscribe(Expression, 'emotion/utterance')
        self.probabilities = subscribe(Classification, 'emotion/probabilities')
        self.is_speaking = subscribe(Bool, 'is_speaking', TRANSIENT_LOCAL)
        self.sound = AudioPublisher(
            graph, AudioDataStamped, f'{prefix}audio_stamped', info_topic=f'{prefix}audio_info'
        )
        self.speaks = graph.node.create_publisher(Bool, f'{prefix}robot_speaking', TRANSIENT_LOCAL)

    @staticmethod
    def _subscribe(graph, prefix, message_type, name, qos=100):
        return graph.subscribe(message_type, f'{prefix}{name}', qos)

    def received(self):
        """Of its windows, the probabilities by their stamps."""
        return probabilities_by_stamp(self.probabilities)


def make(graph, namespaces, **parameters):
    """The robots of these namespaces, and the node that serves them."""
    robots = [Robot(graph, namespace) for namespace in namespaces]
    node = graph.make(EmotionNode, namespaces=namespaces, **{**LARGE_BACKLOG, **parameters})
    for robot in robots:
        robot.sound.wait_for_subscriber()
        robot.sound.announce()
    graph.wait(lambda: reported(node)['format'] == 'S16LE, mono, 16000 Hz', 'the formats')
    return node, robots


def spoken(begin=0, gain=1.0):
    """Five seconds of speech, as they are after encoding and decoding."""
    sound = speech_then_silence()[begin * SAMPLE_RATE : (begin + 5) * SAMPLE_RATE]
    return MONO.decode(encode_s16le(gain * sound))[:, 0]


def windows(sound, has_ended=False):
    """Stamp → probabilities of the windows in the sound, after which more or nothing comes."""
    return {e.stamp_ns: e.probabilities for e in recognize(sound, has_ended) if e.is_window}


def assert_alike(received, expected):
    assert received.keys() == expected.keys()
    assert len(expected) > 3
    for stamp, probabilities in expected.items():
        np.testing.assert_allclose(received[stamp], probabilities, atol=1e-4)


def test_each_namespace_has_the_messages_of_its_own_sound(graph):
    node, robots = make(graph, ['', 'robot1', '/far/robot2'], threshold=0.0)
    sounds = [spoken(), spoken(4), spoken(9, gain=0.3)]
    for robot, sound in zip(robots, sounds):
        robot.sound.play(encode_s16le(sound))
    for robot, sound in zip(robots, sounds):
        expected = windows(sound, has_ended=True)
        graph.wait(lambda: len(robot.probabilities) >= len(expected), 'its windows')  # noqa: B023
        assert_alike(robot.received(), expected)
        graph.wait(lambda: robot.emotion and robot.utterance, 'its decisions')  # noqa: B023
        graph.wait(lambda: not robot.is_speaking[-1].data, 'the end of its speech')  # noqa: B023
        assert robot.emotion[0].header.frame_id == 'mic'
    topics = '/audio_stamped, /robot1/audio_stamped, /far/robot2/audio_stamped'
    assert reported(node)['voices'] == topics


def test_a_robot_that_speaks_mutes_its_own_namespace_alone(graph):
    node, (one, two) = make(graph, ['one', 'two'])
    one.speaks.publish(Bool(data=True))
    muted = '/one: muted: the robot speaks'
    graph.wait(lambda: node.diagnose().message.startswith(muted), 'the mute')
    sound = encode_s16le(spoken())
    for robot in (one, two):
        robot.sound.play(sound)
    graph.wait(lambda: reported(node)['skipped blocks'] >= 250, 'sound that is ignored')
    expected = windows(spoken(), has_ended=True)
    graph.wait(lambda: len(two.probabilities) >= len(expected), 'the windows of the other')
    assert not one.probabilities
    graph.destroy(one.speaks)
    graph.wait(lambda: not node.diagnose().message.startswith(muted), 'the end of the mute', 30)


def test_each_namespace_knows_its_own_voice(graph, by_voice_path):
    """Also with the adaptation to rooms: another robot is in another room."""
    node, (one, two) = make(
        graph, ['one', 'two'], bundle=str(by_voice_path), adaptation='room', first_estimate=0.5
    )
    one.sound.play(encode_s16le(spoken()))
    graph.wait(lambda: reported(node)['adaptation utterances'] == '1, 0', 'what is learned')
    assert not two.probabilities
    client = graph.node.create_client(Trigger, 'emotion_node/reset')
    assert client.wait_for_service(20.0)
    answer = client.call_async(Trigger.Request())
    graph.wait(answer.done, 'an answer')
    assert reported(node)['adaptation utterances'] == '0, 0'


def test_each_namespace_has_its_own_diagnostics(graph):
    received = graph.subscribe(DiagnosticArray, '/diagnostics')
    node, (one, _) = make(graph, ['one', 'two'])
    one.sound.play(encode_s16le(np.ones((SAMPLE_RATE, 1), np.float32)))  # clips

    def seconds(status):
        return next(value.value for value in status.values if value.key == 'seconds')

    def statuses():
        return {s.name: s for s in received[-1].status} if received else {}

    name = 'emotion_node: /one'
    graph.wait(lambda: statuses().keys() >= {'emotion_node', name}, 'the diagnostics')
    graph.wait(lambda: seconds(statuses()[name]) == '1.0', 'all of the sound')
    found = statuses()
    assert found.keys() == {'emotion_node', name, 'emotion_node: /two'}
    assert (found[name].level, found['emotion_node: /two'].message) == (WARN, 'listening')
    assert found['emotion_node'].message == f'/one: {found[name].message}'
    assert [seconds(status) for status in found.values()] == ['1.0', '1.0', '0.0']
    graph.run(node.trigger_deactivate)
    graph.wait(lambda: len(statuses()) == 1, 'one status of a node that is not active')


def test_a_voice_that_floods_costs_another_no_window(graph):
    """More than a minute comes at once; what another robot's voice says meanwhile is all classified."""
    node, (flood, live) = make(graph, ['flood', 'live'])
    flood.sound.play(encode_s16le(np.tile(speech_then_silence(), 4)), block_frames=SAMPLE_RATE)
    sound = spoken()
    live.sound.play(encode_s16le(sound))
    expected = windows(sound, has_ended=True)
    graph.wait(lambda: len(live.probabilities) >= len(expected), 'the windows of the live voice')
    assert_alike(live.received(), expected)
    of_flood, of_live = (node.report().parts[name].values for name in ('/flood', '/live'))
    assert of_flood['skipped windows'] > 0
    assert of_live['skipped windows'] == of_live['dropped seconds'] == 0


@pytest.mark.parametrize(
    ('parameters', 'message'),
    [
        ({'namespaces': ['one', '2nd']}, "namespaces: '2nd': "),
        ({'namespaces': ['one', 'a b']}, "namespaces: 'a b': "),
        (
            {'namespaces': ['one', '/one/']},
            "namespaces: 'one' and '/one/' have the same sound, on /one/audio_stamped",
        ),
        (
            {'namespaces': ['one', 'two'], 'audio_topic': '/mic/audio'},
            "namespaces: 'one' and 'two' have the same sound, on /mic/audio",
        ),
        ({'namespaces': ['one'], 'ros4hri': True}, 'namespaces and ros4hri exclude each other'),
        (
            {'namespaces': ['one'], 'enrolment': '/anna.json'},
            "enrolment: it is of the voice in the node's own namespace, '', which namespaces lacks",
        ),
    ],
)
def test_namespaces_that_do_not_fit_are_one_line(graph, capfd, parameters, message):
    node = graph.make(EmotionNode, device='cpu', **parameters)
    assert node.failed
    errors = [line for line in capfd.readouterr().err.splitlines() if '[ERROR]' in line]
    assert len(errors) == 1
    assert message in errors[0]


def test_relative_namespaces_are_below_that_of_the_node(graph):
    node = graph.make(EmotionNode, namespace='fleet', namespaces=['', 'one'], device='cpu')
    assert reported(node)['voices'] == '/fleet/audio_stamped, /fleet/one/audio_stamped'
    published = graph.node.get_publisher_names_and_types_by_node
    expected = {'/fleet/emotion', '/fleet/one/emotion', '/fleet/one/is_speaking'}
    graph.wait(
        lambda: expected <= {name for name, _ in published('emotion_node', '/fleet')}, 'topics'
    )


def test_sound_that_is_not_published_is_that_of_the_own_namespace(graph, capfd):
    node = graph.make(EmotionNode, autostart=False, device='cpu', namespaces=['one', ''])
    node.shares_process = True
    graph.run(node.trigger_configure)
    graph.run(node.trigger_activate)
    node.receive(MONO, Block(bytes(640), START), 'mic')
    own, other = (node.report().parts[name].values for name in ('/', '/one'))
    assert (own['blocks'], other['blocks']) == (1, 0)
    graph.run(node.trigger_deactivate)
    graph.run(node.trigger_cleanup)
    node.set_parameters([Parameter('namespaces', value=['one'])])
    graph.run(node.trigger_configure)
    assert "namespaces ['one'] lack the node's own, ''" in capfd.readouterr().err

"""The emotion node learns how voices usually sound, and forgets it when it should."""

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2: . tools/ros_env.sh')

from audio_common_msgs.msg import AudioData  # noqa: E402
from feeding import LARGE_BACKLOG, START, AudioPublisher, reported  # noqa: E402
from hri_msgs.msg import IdsList  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from std_msgs.msg import Bool  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402
from vision_msgs.msg import Classification  # noqa: E402

from ser_ros.audio import SECOND  # noqa: E402
from ser_ros.audio.formats import encode_s16le  # noqa: E402
from ser_ros.nodes import absent_voices  # noqa: E402
from ser_ros.nodes.emotion_node import EmotionNode  # noqa: E402
from ser_ros.nodes.messages import TRANSIENT_LOCAL  # noqa: E402
from ser_ros.stream.recognizer import Recognizer  # noqa: E402

TRACKED = '/humans/voices/tracked'


@pytest.fixture(scope='module')
def answers(by_voice, utterance):
    """Probabilities (windows, classes) of the first utterance of a voice, and of the same again."""
    recognizer = Recognizer(by_voice, 'cpu')
    runs = []
    for _ in range(2):
        estimates = recognizer.push(utterance, START) + recognizer.flush()
        runs.append(np.array([e.probabilities for e in estimates if e.is_window]))
    assert abs(runs[0] - runs[1]).max() > 0.05
    return runs


def assert_answers(graph, messages, expected):
    """Wait for the probabilities of an utterance; the sound was encoded with 16 bits."""
    graph.wait(lambda: len(messages) >= len(expected), f'{len(expected)} windows')
    received = [[result.score for result in message.results] for message in messages]
    np.testing.assert_allclose(received, expected, atol=5e-3)
    messages.clear()


def known(node):
    """From how many utterances the adaptation of each voice comes."""
    return reported(node)['adaptation utterances']


def trigger(graph, name):
    client = graph.node.create_client(Trigger, f'emotion_node/{name}')
    assert client.wait_for_service(20.0)
    answer = client.call_async(Trigger.Request())
    graph.wait(answer.done, f'an answer of {name}')
    assert answer.result().success


def set_parameter(graph, node, **values):
    parameters = [Parameter(name, value=value) for name, value in values.items()]
    results = graph.run(lambda: node.set_parameters(parameters))
    assert all(result.successful for result in results)


# --- One microphone


@pytest.fixture
def make_node(graph, publisher, by_voice_path):
    """A function that makes a node which receives what `publisher` plays."""

    def make(**parameters):
        node = graph.make(EmotionNode, **LARGE_BACKLOG, bundle=str(by_voice_path), **parameters)
        publisher.wait_for_subscriber(node)
        publisher.announce()
        return node

    return make


def test_what_is_known_counts_until_a_reset(
    graph, outputs, publisher, make_node, utterance, answers
):
    node = make_node()
    windows, data = outputs['probabilities'], encode_s16le(utterance)
    publisher.play(data)
    assert_answers(graph, windows, answers[0])
    graph.wait(lambda: known(node) == '1', 'an utterance to be known')
    publisher.play(data)
    assert_answers(graph, windows, answers[1])
    graph.wait(lambda: known(node) == '2', 'the other utterance to be known')
    trigger(graph, 'reset')
    assert known(node) == '0'
    publisher.play(data)
    assert_answers(graph, windows, answers[0])


def test_a_mute_and_a_jump_of_the_stamps_do_not_forget(
    graph, outputs, publisher, make_node, utterance, answers
):
    node = make_node()
    publisher.play(encode_s16le(utterance))
    assert_answers(graph, outputs['probabilities'], answers[0])
    graph.wait(lambda: known(node) == '1', 'an utterance to be known')
    robot = graph.node.create_publisher(Bool, 'robot_speaking', 10)
    graph.wait_for_subscriber(robot)
    for is_speaking in (True, False):
        robot.publish(Bool(data=is_speaking))
        graph.wait(
            lambda: (node.diagnose().message == 'muted: the robot speaks') is is_speaking,  # noqa: B023
            f'a mute: {is_speaking}',
        )
    (namespace,) = node._namespaces
    graph.wait(lambda: node._is_open(namespace, 0.02), 'blocks that began after the mute')
    publisher.publish_block(bytes(640), START + 3600 * SECOND)
    publisher.play(encode_s16le(utterance))
    assert_answers(graph, outputs['probabilities'], answers[1])
    assert reported(node)['gaps'] == 1


@pytest.mark.parametrize('step', ['reload_bundle', 'deactivate', 'cleanup'])
def test_it_is_forgotten_with_its_bundle_and_when_the_node_ends(
    graph, publisher, make_node, utterance, step
):
    node = make_node()
    publisher.play(encode_s16le(utterance))
    graph.wait(lambda: known(node) == '1', 'an utterance to be known')
    if step == 'reload_bundle':
        trigger(graph, step)
    else:
        graph.run(node.trigger_deactivate)
        if step == 'cleanup':
            graph.run(node.trigger_cleanup)
            graph.run(node.trigger_configure)
        graph.run(node.trigger_activate)
    assert known(node) == '0'


def test_the_mode_can_change_while_somebody_speaks(
    graph, outputs, publisher, make_node, utterance, endless_patience
):
    node = make_node(adaptation='off')
    data = encode_s16le(utterance)
    expected = {'off': '0', 'room': '1', 'voice': '1'}
    half = len(data) // 1280 * 640
    n_samples = 0
    for mode in expected:
        outputs['is_speaking'].clear()
        publisher.play(data[:half])
        graph.wait(lambda: True in [m.data for m in outputs['is_speaking']], 'speech')
        set_parameter(graph, node, adaptation=mode)
        for first in range(half, len(data), 640):
            publisher.publish_block(data[first : first + 640], START + first * SECOND // 32_000)
        n_samples += len(utterance)
        graph.wait(lambda: reported(node)['samples'] == n_samples, 'the end')  # noqa: B023
        graph.wait(lambda: known(node) == expected[mode], mode)  # noqa: B023
    assert reported(node)['utterances'] == 3
    assert not node.failed


def test_diagnostics_report_what_the_adaptation_does(
    graph, outputs, publisher, make_node, utterance
):
    node = make_node(neutral_share=0.9)
    publisher.play(encode_s16le(utterance))
    graph.wait(lambda: known(node) == '1', 'an utterance to be known')
    # Nothing but neutral is expected of an unknown voice.
    with_prior = reported(node)['last decision shift nats']
    set_parameter(graph, node, adaptation='off', neutral_share=-1.0)
    assert known(node) == '0'
    publisher.play(encode_s16le(utterance))
    graph.wait(lambda: reported(node)['samples'] == 2 * len(utterance), 'the utterance again')
    graph.wait(lambda: reported(node)['utterances'] == 2, 'its decision')
    assert reported(node)['last decision shift nats'] == 0
    assert with_prior != 0


# --- ROS4HRI


@pytest.fixture
def track(graph, by_voice_path):
    """A function that has voices tracked and waits until the node processes these alone.

    The first call makes the node.
    """
    nodes = []
    tracker = graph.add(rclpy.create_node('tracker', context=graph.context))
    publisher = tracker.create_publisher(IdsList, TRACKED, TRANSIENT_LOCAL)

    def track(*ids, **parameters):
        publisher.publish(IdsList(ids=list(ids)))
        if not nodes:
            parameters = {**LARGE_BACKLOG, 'bundle': str(by_voice_path), **parameters}
            nodes.append(graph.make(EmotionNode, ros4hri=True, **parameters))
        (node,) = nodes
        graph.wait(lambda: reported(node)['voices'] == (', '.join(ids) or 'none'), str(ids))
        return node

    return track


@pytest.fixture
def speak(graph, utterance, answers):
    """A function: a voice says the utterance, and must be given the expected answer."""
    windows = {}

    def speak(voice_id, expected):
        if voice_id not in windows:
            topic = f'/humans/voices/{voice_id}/probabilities'
            windows[voice_id] = graph.subscribe(Classification, topic)
            graph.wait(lambda: graph.node.count_publishers(topic), 'its probabilities')
        sound = AudioPublisher(graph, AudioData, f'/humans/voices/{voice_id}/audio')
        sound.wait_for_subscriber()
        sound.play(encode_s16le(utterance))
        assert_answers(graph, windows[voice_id], expected)
        graph.destroy(sound.audio)

    return speak


def test_each_voice_is_known_by_itself(graph, track, speak, answers):
    node = track('anna', 'bob')
    speak('anna', answers[0])
    graph.wait(lambda: known(node) == '1, 0', 'anna to be known')
    speak('bob', answers[0])
    graph.wait(lambda: known(node) == '1, 1', 'both to be known')


def test_a_room_is_known_by_all_its_voices(graph, track, speak, answers):
    node = track('anna', 'bob', adaptation='room')
    speak('anna', answers[0])
    graph.wait(lambda: known(node) == '1, 1', 'the room to be known')
    speak('bob', answers[1])
    # Whoever comes next speaks in the same room.
    graph.wait(lambda: known(node) == '2, 2', 'more of it to be known')
    assert known(track('carl')) == '2'


def test_a_voice_that_returns_is_still_known(graph, track, speak, answers):
    node = track('anna')
    speak('anna', answers[0])
    graph.wait(lambda: known(node) == '1', 'anna to be known')
    track()
    track('carl')
    assert known(node) == '0'
    track('carl', 'anna')
    assert known(node) == '0, 1'
    speak('anna', answers[1])


@pytest.mark.parametrize('cause', ['a reset', 'a bundle', 'a deactivation', 'a long absence'])
def test_absent_voices_are_forgotten(graph, track, speak, answers, cause, monkeypatch):
    node = track('anna')
    speak('anna', answers[0])
    graph.wait(lambda: known(node) == '1', 'anna to be known')
    track()
    if cause == 'a reset':
        trigger(graph, 'reset')
    elif cause == 'a bundle':
        trigger(graph, 'reload_bundle')
    elif cause == 'a deactivation':
        graph.run(node.trigger_deactivate)
        graph.run(node.trigger_activate)
    else:
        monkeypatch.setattr(absent_voices, 'KEPT', 0.0)
        graph.run(node.every_second)
    track('anna')
    assert known(node) == '0'


def test_the_anonymous_voice_is_the_same_by_any_name(graph, publisher, make_node, utterance):
    """It is the microphone's; another node that publishes tracked voices only interrupts it."""
    node = make_node(ros4hri=True)
    publisher.play(encode_s16le(utterance))
    graph.wait(lambda: known(node) == '1', 'an utterance to be known')
    set_parameter(graph, node, voice_id='guest')
    assert reported(node)['voices'] == 'guest'
    assert known(node) == '1'
    other = graph.add(rclpy.create_node('tracker', context=graph.context))
    tracker = other.create_publisher(IdsList, TRACKED, TRANSIENT_LOCAL)
    tracker.publish(IdsList(ids=['guest']))
    graph.wait(lambda: known(node) == '0', 'another voice of this name')
    graph.destroy(tracker)
    graph.wait(lambda: known(node) == '1', 'the anonymous voice again')

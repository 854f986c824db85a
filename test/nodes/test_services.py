"""Services of the emotion node, and parameters that change while it runs."""

import dataclasses
import threading

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2: . tools/ros_env.sh')

from feeding import (  # noqa: E402
    LARGE_BACKLOG,
    START,
    AudioPublisher,
    assert_logs_only,
    probabilities_by_stamp,
    recognize,
    reported,
    speech_then_silence,
    wait_until_processed,
)
from rcl_interfaces.msg import Parameter as ParameterMessage  # noqa: E402
from rcl_interfaces.srv import SetParameters, SetParametersAtomically  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from std_msgs.msg import Bool  # noqa: E402
from std_srvs.srv import SetBool, Trigger  # noqa: E402

from ser_ros.audio import SAMPLE_RATE, SECOND  # noqa: E402
from ser_ros.audio.formats import encode_s16le  # noqa: E402
from ser_ros.backends import load_backend  # noqa: E402
from ser_ros.bundle import load_bundle, save_bundle  # noqa: E402
from ser_ros.nodes import emotion_node  # noqa: E402
from ser_ros.nodes.emotion_node import EmotionNode  # noqa: E402
from ser_ros.nodes.messages import TRANSIENT_LOCAL  # noqa: E402


def call(graph, service_type, name, request, timeout=60.0):
    client = graph.node.create_client(service_type, name)
    assert client.wait_for_service(20.0)
    answer = client.call_async(request)
    graph.wait(answer.done, f'an answer of {name}', timeout)
    return answer.result()


def trigger(graph, name):
    return call(graph, Trigger, f'emotion_node/{name}', Trigger.Request())


def enable(graph, data):
    return call(graph, SetBool, 'emotion_node/enable', SetBool.Request(data=data))


def set_together(graph, **values):
    parameters = [Parameter(k, value=v).to_parameter_msg() for k, v in values.items()]
    assert all(isinstance(p, ParameterMessage) for p in parameters)
    request = SetParametersAtomically.Request(parameters=parameters)
    name = 'emotion_node/set_parameters_atomically'
    return call(graph, SetParametersAtomically, name, request).result


@pytest.fixture
def node(graph, publisher):
    """An active node that receives what `publisher` plays, and knows the format."""
    node = graph.make(EmotionNode, **LARGE_BACKLOG)
    publisher.wait_for_subscriber(node)
    publisher.announce()
    return node


def play(publisher, samples, start=0):
    """Publish the samples from `start` on, with the stamps of their place in `samples`."""
    data = encode_s16le(samples)
    for first in range(start, len(samples), 320):
        publisher.publish_block(
            data[2 * first : 2 * (first + 320)], START + first * SECOND // SAMPLE_RATE
        )


@pytest.fixture
def other_bundle(tmp_path):
    """The shipped bundle with so high a temperature that its probabilities are nearly equal."""
    bundle = load_bundle()
    info = dataclasses.replace(bundle.info, temperature=1000.0)
    path = tmp_path / 'unsure.safetensors'
    save_bundle(path, info, bundle.frontend, bundle.model)
    return path


def test_the_log_says_who_switched_the_node_off_and_on(graph, node, capfd):
    for data in (True, False, False, True):
        assert enable(graph, data).success
    lines = [line for line in capfd.readouterr().err.splitlines() if '~/enable' in line]
    assert len(lines) == 2
    assert 'not listening: switched off by ~/enable' in lines[0]
    assert 'listening again: switched on by ~/enable' in lines[1]


def test_no_sound_is_processed_while_it_is_disabled(graph, outputs, publisher, node):
    assert enable(graph, False).success
    play(publisher, speech_then_silence()[: 3 * SAMPLE_RATE])
    graph.wait(lambda: reported(node)['skipped blocks'] == 150, 'skipped blocks')
    assert reported(node)['samples'] == 0
    assert 'switched off' in node.diagnose().message
    assert enable(graph, True).success
    samples = speech_then_silence(seconds=4)
    play(publisher, samples)
    wait_until_processed(graph, node, outputs, len(samples))
    assert len(outputs['probabilities']) == sum(e.is_window for e in recognize(samples))


def test_a_reset_drops_the_open_utterance(graph, outputs, publisher, node, endless_patience):
    play(publisher, speech_then_silence()[: 2 * SAMPLE_RATE])
    graph.wait(lambda: True in [m.data for m in outputs['is_speaking']], 'speech')
    assert trigger(graph, 'reset').success
    graph.wait(lambda: not outputs['is_speaking'][-1].data, 'is_speaking to become false')
    assert reported(node)['broken utterances'] == 1
    assert not outputs['utterance']
    graph.run(node.trigger_deactivate)
    assert not trigger(graph, 'reset').success


def test_sound_is_skipped_while_the_robot_speaks(
    graph, outputs, publisher, node, endless_patience
):
    robot = graph.node.create_publisher(Bool, 'robot_speaking', 10)
    graph.wait_for_subscriber(robot)
    samples = speech_then_silence()[: 3 * SAMPLE_RATE]
    play(publisher, samples[: 2 * SAMPLE_RATE])
    graph.wait(lambda: True in [m.data for m in outputs['is_speaking']], 'speech')
    robot.publish(Bool(data=True))
    graph.wait(lambda: not outputs['is_speaking'][-1].data, 'is_speaking to become false')
    assert node.diagnose().message == 'muted: the robot speaks'
    n_processed = reported(node)['samples']
    play(publisher, samples, start=2 * SAMPLE_RATE)
    graph.wait(lambda: reported(node)['skipped blocks'] >= 50, 'skipped blocks')
    assert reported(node)['samples'] == n_processed
    robot.publish(Bool(data=False))
    (namespace,) = node._namespaces
    graph.wait(lambda: node._is_open(namespace, 0.02), 'the end of the mute tail')
    publisher.publish_block(bytes(640), START + 10 * SECOND)
    graph.wait(lambda: reported(node)['samples'] == n_processed + 320, 'sound again')


def test_a_remapped_publisher_of_robot_speaking_keeps_the_mute(graph):
    arguments = ['--ros-args', '-r', 'robot_speaking:=/speech/is_speaking', '-p', 'device:=cpu']
    node = graph.add(EmotionNode(context=graph.context, cli_args=arguments))
    node.autostart()
    robot = graph.node.create_publisher(Bool, '/speech/is_speaking', TRANSIENT_LOCAL)
    robot.publish(Bool(data=True))
    graph.wait(lambda: 'muted' in node.diagnose().message, 'the mute')
    graph.run(node.every_second)
    assert 'muted' in node.diagnose().message
    graph.destroy(robot)
    graph.wait(lambda: 'muted' not in node.diagnose().message, 'the end of the mute')


def test_a_block_is_ignored_if_the_robot_spoke_in_any_of_it(graph, publisher):
    """A microphone with blocks of a minute: it arrives after the robot has said that it is silent."""
    node = graph.make(EmotionNode, **LARGE_BACKLOG, robot_speaking_tail=0.1)
    publisher.wait_for_subscriber(node)
    publisher.announce()
    robot = graph.node.create_publisher(Bool, 'robot_speaking', TRANSIENT_LOCAL)
    for is_speaking in (True, False):
        robot.publish(Bool(data=is_speaking))
        graph.wait(
            lambda: ('muted' in node.diagnose().message) == is_speaking,  # noqa: B023
            'the mute, or its end',
        )
    publisher.publish_block(bytes(2 * 60 * SAMPLE_RATE), START)
    graph.wait(lambda: reported(node)['skipped blocks'] == 1, 'the block')
    publisher.publish_block(bytes(640), START + 60 * SECOND)
    graph.wait(lambda: reported(node)['samples'] == 320, 'a short block')
    assert reported(node)['skipped blocks'] == 1


def test_the_mute_ends_when_the_publisher_of_robot_speaking_dies(graph, publisher, node, capfd):
    robot = graph.node.create_publisher(Bool, 'robot_speaking', TRANSIENT_LOCAL)
    robot.publish(Bool(data=True))
    graph.wait(lambda: 'muted' in node.diagnose().message, 'the mute')
    graph.destroy(robot)
    graph.wait(lambda: 'muted' not in node.diagnose().message, 'the end of the mute')
    assert_logs_only(graph, capfd, 'the publisher of /robot_speaking is gone')


def test_a_node_that_starts_while_the_robot_speaks_is_muted(graph):
    robot = graph.node.create_publisher(Bool, 'robot_speaking', TRANSIENT_LOCAL)
    robot.publish(Bool(data=True))
    node = graph.make(EmotionNode, **LARGE_BACKLOG)
    graph.wait(lambda: 'muted' in node.diagnose().message, 'the mute')
    # What the robot published before the node was activated again does not count.
    graph.run(node.trigger_deactivate)
    graph.destroy(robot)
    graph.run(node.trigger_activate)
    assert 'muted' not in node.diagnose().message


def test_a_bundle_is_swapped_without_losing_sound(
    graph, outputs, publisher, node, other_bundle, monkeypatch, endless_patience
):
    samples = speech_then_silence()
    half = 20 * 320 * 10
    play(publisher, samples[:half])
    before = [e for e in recognize(samples[:half]) if e.is_window]
    graph.wait(
        lambda: len(outputs['probabilities']) == len(before), 'the windows of the old bundle'
    )
    assert set_together(graph, bundle=str(other_bundle)).successful
    assert reported(node)['bundle'] == 'companion.safetensors'
    answer = trigger(graph, 'reload_bundle')
    assert answer.success
    assert answer.message == 'bundle unsure.safetensors'
    assert reported(node)['bundle'] == 'unsure.safetensors'
    play(publisher, samples, start=half)
    wait_until_processed(graph, node, outputs, len(samples) - 512)
    assert reported(node)['gaps'] == reported(node)['lost seconds'] == 0
    expected = [e for e in recognize(samples) if e.is_window]
    received = probabilities_by_stamp(outputs['probabilities'])
    assert list(received) == [e.stamp_ns for e in expected]
    probabilities = list(received.values())
    assert np.ptp(probabilities[: len(before)], axis=0).max() > 0.02
    assert np.ptp(probabilities[len(before) :], axis=0).max() < 0.005  # unsure of all alike


def test_the_old_bundle_stays_when_a_reload_fails(graph, outputs, publisher, node, tmp_path):
    broken = tmp_path / 'broken.safetensors'
    broken.write_bytes(b'nothing')
    for path, message in ((broken, 'broken'), (tmp_path / 'none', 'no such file')):
        assert set_together(graph, bundle=str(path)).successful
        answer = trigger(graph, 'reload_bundle')
        assert not answer.success
        assert message in answer.message
    samples = speech_then_silence(seconds=4)
    play(publisher, samples)
    wait_until_processed(graph, node, outputs, len(samples))
    expected = {e.stamp_ns: e.probabilities for e in recognize(samples) if e.is_window}
    received = probabilities_by_stamp(outputs['probabilities'])
    assert received.keys() == expected.keys()
    for stamp, probabilities in expected.items():
        np.testing.assert_allclose(received[stamp], probabilities, atol=1e-6)


def test_sound_is_processed_while_a_bundle_is_loaded(
    graph, outputs, publisher, node, other_bundle, monkeypatch
):
    """However long the load takes. Another load is refused meanwhile."""
    may_load = threading.Event()

    def load_late(*arguments):
        assert may_load.wait(60)
        return load_backend(*arguments)

    monkeypatch.setattr(emotion_node, 'load_backend', load_late)
    assert set_together(graph, bundle=str(other_bundle)).successful
    client = graph.node.create_client(Trigger, 'emotion_node/reload_bundle')
    assert client.wait_for_service(20.0)
    first = client.call_async(Trigger.Request())
    graph.wait(lambda: node._loading is not None, 'the load')
    samples = speech_then_silence()[: 3 * SAMPLE_RATE]
    play(publisher, samples)
    wait_until_processed(graph, node, outputs, len(samples))
    second = trigger(graph, 'reload_bundle')
    assert (second.success, second.message) == (False, 'a bundle is being loaded already')
    assert reported(node)['bundle'] == 'companion.safetensors'
    may_load.set()
    graph.wait(first.done, 'its answer')
    assert first.result().success
    assert reported(node)['bundle'] == 'unsure.safetensors'


def test_a_bundle_that_was_loaded_after_a_cleanup_is_discarded(
    graph, node, other_bundle, monkeypatch
):
    may_load = threading.Event()

    def load_late(*arguments):
        assert may_load.wait(60)
        return load_backend(*arguments)

    monkeypatch.setattr(emotion_node, 'load_backend', load_late)
    client = graph.node.create_client(Trigger, 'emotion_node/reload_bundle')
    assert client.wait_for_service(20.0)
    answer = client.call_async(Trigger.Request())
    graph.wait(lambda: node._loading is not None, 'the load')
    graph.run(node.trigger_deactivate)
    graph.run(node.trigger_cleanup)
    may_load.set()
    graph.wait(answer.done, 'its answer')
    assert answer.result().message == 'the node was cleaned up meanwhile'


def test_an_unconfigured_node_refuses_to_reload(graph):
    graph.make(EmotionNode, device='cpu', autostart=False)
    answer = trigger(graph, 'reload_bundle')
    assert not answer.success
    assert 'not configured' in answer.message


def test_several_settings_change_together_during_speech(graph, outputs, publisher, node):
    assert set_together(graph, hop=0.5, smoothing=2.0, threshold=1.0, gain_db=-3.0).successful
    samples = speech_then_silence()[: 6 * SAMPLE_RATE]
    play(publisher, samples)
    wait_until_processed(graph, node, outputs, len(samples) - 512)
    stamps = list(probabilities_by_stamp(outputs['probabilities']))
    # Windows end with a chunk of 32 ms.
    assert np.isclose(np.diff(stamps), SECOND // 2, atol=0.032 * SECOND).any()
    assert not np.isclose(np.diff(stamps), SECOND // 4, atol=0.032 * SECOND).any()
    assert not outputs['emotion']
    # They stay when the node is configured again.
    graph.run(node.trigger_deactivate)
    graph.run(node.trigger_cleanup)
    graph.run(node.trigger_configure)
    graph.run(node.trigger_activate)
    assert node._listener.config.hop == 0.5


@pytest.mark.parametrize(
    ('values', 'reason'),
    [
        ({'min_utterance': 3.0}, 'must rise in this order'),
        ({'hop': 100.0}, 'hop'),
        ({'hop': 'fast'}, 'DOUBLE'),
        ({'device': 'cpu'}, 'device: read when the node is configured'),
        ({'hop': 0.5, 'channels': 2}, 'channels: read when the node is configured'),
        ({'voice_id': 'a b'}, "voice_id 'a b'"),
        ({'voice_id': 'a' * 240}, 'cannot be part of a topic name'),
        ({'autostart': False}, 'autostart'),
        ({'adaptation': 'loud'}, "adaptation is 'loud', not one of voice, room, off"),
        ({'hop': 0.5, 'adaptation': ''}, "adaptation is '', not one of voice, room, off"),
        ({'neutral_share': 0.0}, 'neutral_share is 0.0, not between 0.01 and 0.99'),
    ],
)
def test_a_refused_change_reports_why_and_changes_nothing(graph, node, values, reason):
    result = set_together(graph, **values)
    assert not result.successful
    assert reason in result.reason
    assert node._listener.config.hop == 0.25
    assert node.value('hop') == 0.25
    assert node.value('min_utterance') == 0.3
    assert node.value('adaptation') == node._listener.config.adaptation == 'voice'


def test_settings_that_limit_each_other_can_change_together(graph, node):
    values = {'min_utterance': 2.0, 'first_estimate': 3.0}
    assert not set_together(graph, min_utterance=2.0).successful
    assert set_together(graph, **values).successful
    assert node._listener.config.min_utterance == 2.0


def test_before_configure_all_may_change_but_autostart(graph):
    node = graph.make(EmotionNode, device='cpu', autostart=False)
    assert set_together(graph, channels=2, sample_format='S16LE').successful
    assert not set_together(graph, autostart=True).successful
    request = SetParameters.Request(parameters=[Parameter('channels', value=1).to_parameter_msg()])
    (result,) = call(graph, SetParameters, 'emotion_node/set_parameters', request).results
    assert result.successful
    assert node.value('channels') == 1


def test_an_incompatible_publisher_is_named(graph, capfd):
    node = graph.make(EmotionNode, device='cpu', reliability='reliable')
    best_effort = rclpy.qos.QoSProfile(
        depth=10, reliability=rclpy.qos.ReliabilityPolicy.BEST_EFFORT
    )
    AudioPublisher(graph, qos=best_effort)
    graph.wait(lambda: reported(node)['incompatible publishers'] == 1, 'the event')
    lines = [x for x in capfd.readouterr().err.splitlines() if '/audio_stamped' in x]
    assert any('reliability' in line and 'best_effort' in line for line in lines)

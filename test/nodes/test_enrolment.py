"""The microphone's one voice is known before it speaks."""

import json

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2: . tools/ros_env.sh')

from feeding import (  # noqa: E402
    LARGE_BACKLOG,
    START,
    assert_logs_only,
    probabilities_by_stamp,
    speech_then_silence,
    wait_until_processed,
)
from hri_msgs.msg import IdsList  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

from ser_ros.audio import SAMPLE_RATE  # noqa: E402
from ser_ros.audio.formats import PcmFormat, encode_s16le  # noqa: E402
from ser_ros.nodes.emotion_node import EmotionNode  # noqa: E402
from ser_ros.nodes.messages import TRANSIENT_LOCAL  # noqa: E402
from ser_ros.stream.adaptation import Adaptation  # noqa: E402
from ser_ros.stream.enrolment import Enrolment, save_enrolment  # noqa: E402
from ser_ros.stream.recognizer import Recognizer  # noqa: E402


@pytest.fixture(scope='module')
def enrolment(by_voice):
    """Of a bright voice that usually sounds angry."""
    n_classes = len(by_voice.info.class_names)
    is_angry = np.equal(by_voice.info.class_names, 'angry')
    return Enrolment(
        bundle=by_voice.path.name,
        bundle_sha256=by_voice.digest,
        class_names=by_voice.info.class_names,
        phrases={'angry': 1, 'neutral': 1},
        features=tuple(np.linspace(-20.0, 20.0, by_voice.frontend.n_features).tolist()),
        log_probabilities=tuple((3.0 * is_angry - 3.0 / n_classes).tolist()),
    )


@pytest.fixture
def parameters(enrolment, by_voice_path, tmp_path):
    path = tmp_path / 'anna.json'
    save_enrolment(path, enrolment)
    return {**LARGE_BACKLOG, 'bundle': str(by_voice_path), 'enrolment': str(path)}


def reload(graph):
    client = graph.node.create_client(Trigger, 'emotion_node/reload_bundle')
    assert client.wait_for_service(20.0)
    answer = client.call_async(Trigger.Request())
    graph.wait(answer.done, 'an answer', 60)
    return answer.result()


def shift(adaptation):
    return adaptation.shift(8, 2.0)


def test_the_plain_voice_starts_from_its_enrolment(
    graph, outputs, publisher, parameters, enrolment, by_voice
):
    node = graph.make(EmotionNode, **parameters)
    publisher.wait_for_subscriber(node)
    publisher.announce()
    samples = speech_then_silence(seconds=4)
    data = encode_s16le(samples)
    publisher.play(data)
    wait_until_processed(graph, node, outputs, len(samples))
    decoded = PcmFormat('S16LE', 1, SAMPLE_RATE).decode(data)[:, 0]
    known = Recognizer(by_voice, 'cpu', adaptation=Adaptation(enrolment.baseline))
    expected = {e.stamp_ns: e.probabilities for e in known.push(decoded, START) if e.is_window}
    received = probabilities_by_stamp(outputs['probabilities'])
    assert received.keys() == expected.keys()
    assert len(expected) > 3
    for stamp, probabilities in expected.items():
        np.testing.assert_allclose(received[stamp], probabilities, atol=1e-6)


def test_a_reload_reads_another_enrolment_or_keeps_the_old(
    graph, parameters, enrolment, bundle_path, tmp_path
):
    node = graph.make(EmotionNode, **parameters)
    (adaptation,) = (c.stream.adaptation for c in node._connections.values())
    old = shift(Adaptation(enrolment.baseline))
    foreign = tmp_path / 'foreign.json'
    foreign.write_text(json.dumps({**vars(enrolment), 'bundle_sha256': '0' * 64}))
    for values, message in (
        ({'enrolment': str(foreign)}, 'was made with another bundle'),
        ({'enrolment': str(tmp_path / 'none.json')}, 'No such file'),
        ({'bundle': str(bundle_path)}, 'does not adapt'),
    ):
        changed = {**parameters, **values}
        node.set_parameters([Parameter(n, value=changed[n]) for n in ('bundle', 'enrolment')])
        answer = reload(graph)
        assert not answer.success
        assert message in answer.message
        assert node._backend.path.name == 'by_voice.safetensors'
        np.testing.assert_array_equal(shift(adaptation), old)
    assert node.diagnose().values['enrolment'] == 'in use'
    node.set_parameters([Parameter('enrolment', value='')])
    node.set_parameters([Parameter('bundle', value=parameters['bundle'])])
    assert reload(graph).success
    assert (shift(adaptation) == 0).all()
    assert node.diagnose().values['enrolment'] == 'none'
    node.set_parameters([Parameter('enrolment', value=parameters['enrolment'])])
    assert reload(graph).success
    np.testing.assert_array_equal(shift(adaptation), old)


def test_only_the_anonymous_voice_is_the_enrolled_one(graph, parameters):
    node = graph.make(EmotionNode, **parameters, ros4hri=True)
    graph.wait(lambda: 'anonymous_speaker' in node._connections, 'the anonymous voice')
    assert shift(node._connections['anonymous_speaker'].stream.adaptation).any()
    tracker = graph.node.create_publisher(IdsList, '/humans/voices/tracked', TRANSIENT_LOCAL)
    tracker.publish(IdsList(ids=['anna']))
    graph.wait(lambda: list(node._connections) == ['anna'], 'a tracked voice')
    assert node.diagnose().values['enrolment'] == 'not in use'
    assert not shift(node._connections['anna'].stream.adaptation).any()


def test_of_several_namespaces_the_own_voice_is_the_enrolled_one(graph, parameters):
    node = graph.make(EmotionNode, **parameters, namespaces=['robot', ''])

    def is_known():
        return {key: shift(c.stream.adaptation).any() for key, c in node._connections.items()}

    assert is_known() == {'/robot': False, '/': True}
    for adaptation, state in (('room', 'not in use'), ('off', 'not in use'), ('voice', 'in use')):
        node.set_parameters([Parameter('adaptation', value=adaptation)])
        assert node.diagnose().values['enrolment'] == state
    assert reload(graph).success
    assert is_known() == {'/robot': False, '/': True}


def test_a_node_does_not_start_with_a_damaged_enrolment(graph, parameters, tmp_path, capfd):
    damaged = tmp_path / 'anna.json'
    damaged.write_bytes(damaged.read_bytes()[:100])
    node = graph.make(EmotionNode, **parameters)
    assert node.failed
    assert_logs_only(graph, capfd, f'enrolment {damaged}: damaged')

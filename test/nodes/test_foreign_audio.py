"""Sound of other packages: their topics, qualities of service, and habits."""

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2: . tools/ros_env.sh')

import soxr  # noqa: E402
from audio_common_msgs.msg import AudioData, AudioInfo  # noqa: E402
from feeding import (  # noqa: E402
    PATIENT,
    START,
    Publisher,
    counters,
    direct,
    probabilities_by_stamp,
    speech_then_silence,
    wait_until_heard,
)
from rclpy.qos import QoSProfile, ReliabilityPolicy  # noqa: E402

from ser_ros.audio import SAMPLE_RATE, SECOND  # noqa: E402
from ser_ros.audio.formats import encode_s16le  # noqa: E402
from ser_ros.nodes.emotion_node import EmotionNode  # noqa: E402

BEST_EFFORT = QoSProfile(depth=1_000, reliability=ReliabilityPolicy.BEST_EFFORT)


class AudioCapture(Publisher):
    """As ros-drivers' audio_capture: AudioInfo volatile, and said again and again."""

    def __init__(self, graph, **kwargs):
        super().__init__(graph, **kwargs)
        graph.node.destroy_publisher(self.info)
        self.info = graph.node.create_publisher(AudioInfo, 'audio_info', 1)


def same_as_direct(outputs, samples):
    expected = {e.stamp_ns: e.probabilities for e in direct(samples) if e.is_window}
    got = probabilities_by_stamp(outputs['probabilities'])
    assert got.keys() == expected.keys()
    for stamp, probabilities in expected.items():
        np.testing.assert_allclose(got[stamp], probabilities, atol=1e-5)


def sound(seconds=4):
    return speech_then_silence()[: seconds * SAMPLE_RATE]


def test_audio_capture_whose_info_comes_late(graph, outputs):
    """It says its format every five seconds; what came before waits for that."""
    node = graph.make(EmotionNode, **PATIENT)
    driver = AudioCapture(graph)
    driver.wait_for_listener(node)
    driver.play(encode_s16le(sound()))
    graph.wait(lambda: counters(node)['blocks'] == 200, 'blocks that wait')
    assert counters(node)['samples'] == 0
    driver.announce()
    wait_until_heard(graph, node, outputs, len(sound()))
    driver.announce()  # five seconds later
    same_as_direct(outputs, sound())


def test_audio_capture_without_stamps(graph, outputs):
    node = graph.make(EmotionNode, **PATIENT, stamped=False, audio_topic='audio')
    driver = AudioCapture(graph, message_type=AudioData)
    driver.wait_for_listener(node)
    driver.announce()
    graph.wait(lambda: 'S16LE' in counters(node)['format'], 'its format')
    driver.play(encode_s16le(sound()))
    wait_until_heard(graph, node, outputs, len(sound()))
    assert len(outputs['probabilities']) == sum(e.is_window for e in direct(sound()))


def test_a_respeaker_that_says_nothing_of_its_format(graph, outputs):
    """Six channels at 16 kHz, best effort, without stamps or AudioInfo."""
    node = graph.make(
        EmotionNode,
        **PATIENT,
        stamped=False,
        audio_topic='audio',
        sample_format='S16LE',
        channels=6,
    )
    driver = Publisher(graph, AudioData, qos=BEST_EFFORT)
    graph.wait(driver.audio.get_subscription_count, 'discovery')
    channels = np.repeat(sound()[:, None], 6, axis=1)
    driver.play(encode_s16le(channels), frame_bytes=12, period=0.002)
    wait_until_heard(graph, node, outputs, len(sound()))
    assert len(outputs['probabilities']) == sum(e.is_window for e in direct(sound()))


@pytest.mark.parametrize('reliability', ['best_effort', 'reliable'])
def test_reliable_sound_is_heard_either_way(graph, outputs, publisher, reliability):
    node = graph.make(EmotionNode, **PATIENT, reliability=reliability)
    publisher.wait_for_listener(node)
    publisher.announce()
    publisher.play(encode_s16le(sound()), period=0.002)
    wait_until_heard(graph, node, outputs, len(sound()))
    same_as_direct(outputs, sound())


def test_whoever_comes_late_on_either_side_is_heard(graph, outputs):
    """The publisher was there before the node, and has said its format long ago."""
    early = Publisher(graph)
    early.announce()
    node = graph.make(EmotionNode, **PATIENT)
    early.wait_for_listener(node)
    early.play(encode_s16le(sound()), period=0.001)
    wait_until_heard(graph, node, outputs, len(sound()))
    same_as_direct(outputs, sound())


def test_a_publisher_that_dies_may_come_back_with_another_rate(graph, outputs, publisher):
    node = graph.make(EmotionNode, **PATIENT)
    publisher.wait_for_listener(node)
    publisher.announce()
    publisher.play(encode_s16le(sound(2)))
    graph.wait(lambda: counters(node)['samples'] == 2 * SAMPLE_RATE, 'the first')
    graph.node.destroy_publisher(publisher.audio)
    graph.node.destroy_publisher(publisher.info)
    graph.wait(lambda: not node.count_publishers('audio_stamped'), 'its end')
    second = Publisher(graph)
    second.wait_for_listener(node)
    second.announce(channels=2, rate=44_100)
    graph.wait(lambda: '44100' in counters(node)['format'], 'the new format')
    for messages in outputs.values():
        messages.clear()
    n_before = counters(node)['windows']
    later = soxr.resample(sound(), SAMPLE_RATE, 44_100)
    data = encode_s16le(np.repeat(later[:, None], 2, axis=1))
    for first in range(0, len(data), 441 * 4):
        stamp_ns = START + 3600 * SECOND + first // 4 * SECOND // 44_100
        second.block(data[first : first + 441 * 4], stamp_ns)
    n_windows = sum(e.is_window for e in direct(sound()))
    graph.wait(lambda: counters(node)['windows'] - n_before >= n_windows - 1, 'its windows', 60)
    assert counters(node)['refused blocks'] == 0


def test_a_format_that_is_said_best_effort_is_heard(graph, publisher):
    node = graph.make(EmotionNode, **PATIENT)
    graph.node.destroy_publisher(publisher.info)
    publisher.info = graph.node.create_publisher(AudioInfo, 'audio_info', BEST_EFFORT)
    graph.wait(lambda: publisher.info.get_subscription_count(), 'discovery')
    publisher.announce()
    graph.wait(lambda: 'S16LE' in counters(node)['format'], 'its format')


def test_what_was_wrong_with_sound_is_forgotten_when_none_comes(graph, publisher):
    node = graph.make(EmotionNode, **PATIENT)
    publisher.wait_for_listener(node)
    publisher.announce()
    publisher.play(bytes(3 * 2 * SAMPLE_RATE))
    graph.wait(lambda: 'muted' in node.diagnose().message, 'zeros')
    graph.wait(lambda: node.diagnose().level == b'\3', 'that it is stale')
    assert 'no sound has come on /audio_stamped' in node.diagnose().message


def test_sound_that_stops_is_stale(graph, publisher):
    node = graph.make(EmotionNode, **PATIENT)
    publisher.wait_for_listener(node)
    publisher.announce()
    publisher.block(bytes(640))
    graph.wait(lambda: counters(node)['samples'] == 320, 'sound')
    assert node.diagnose().level == b'\0'
    graph.wait(lambda: node.diagnose().level == b'\3', 'that it is stale')
    assert 'no sound has come on /audio_stamped for' in node.diagnose().message

"""Sound from other packages: their topics, QoS and behaviour."""

import itertools

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2: . tools/ros_env.sh')

import soxr  # noqa: E402
from audio_common_msgs.msg import AudioData, AudioDataStamped, AudioInfo  # noqa: E402
from feeding import (  # noqa: E402
    LARGE_BACKLOG,
    START,
    AudioPublisher,
    probabilities_by_stamp,
    recognize,
    reported,
    speech_then_silence,
    wait_until_processed,
)
from rclpy.qos import QoSProfile, ReliabilityPolicy  # noqa: E402

from ser_ros.audio import SAMPLE_RATE, SECOND  # noqa: E402
from ser_ros.audio.formats import encode_s16le  # noqa: E402
from ser_ros.nodes.emotion_node import EmotionNode  # noqa: E402

BEST_EFFORT = QoSProfile(depth=1_000, reliability=ReliabilityPolicy.BEST_EFFORT)


class AudioCapture(AudioPublisher):
    """Like ros-drivers' audio_capture: AudioInfo is volatile and published repeatedly."""

    def __init__(self, graph, **kwargs):
        super().__init__(graph, **kwargs)
        graph.destroy(self.info)
        self.info = graph.node.create_publisher(AudioInfo, 'audio_info', 1)


def check_windows(outputs, samples):
    """Assert that the published windows are those of a `Recognizer`."""
    expected = {e.stamp_ns: e.probabilities for e in recognize(samples) if e.is_window}
    received = probabilities_by_stamp(outputs['probabilities'])
    assert received.keys() == expected.keys()
    for stamp, probabilities in expected.items():
        np.testing.assert_allclose(received[stamp], probabilities, atol=1e-5)


def sound(seconds=4):
    return speech_then_silence(seconds=seconds)


def test_audio_capture_that_announces_its_format_late(graph, outputs):
    """It publishes its format every five seconds; blocks that come before wait for it."""
    node = graph.make(EmotionNode, **LARGE_BACKLOG)
    driver = AudioCapture(graph)
    driver.wait_for_subscriber(node)
    driver.play(encode_s16le(sound()))
    graph.wait(lambda: reported(node)['blocks'] == 200, 'blocks that wait')
    assert reported(node)['samples'] == 0
    driver.announce()
    wait_until_processed(graph, node, outputs, len(sound()))
    driver.announce()  # five seconds later
    check_windows(outputs, sound())


def test_audio_capture_without_stamps(graph, outputs):
    node = graph.make(EmotionNode, **LARGE_BACKLOG, stamped=False, audio_topic='audio')
    driver = AudioCapture(graph, message_type=AudioData)
    driver.wait_for_subscriber(node)
    driver.announce()
    graph.wait(lambda: 'S16LE' in reported(node)['format'], 'its format')
    driver.play(encode_s16le(sound()))
    wait_until_processed(graph, node, outputs, len(sound()))
    assert len(outputs['probabilities']) == sum(e.is_window for e in recognize(sound()))


def test_a_respeaker_without_audio_info(graph, outputs):
    """Six channels at 16 kHz, best effort, without stamps or AudioInfo."""
    node = graph.make(
        EmotionNode,
        **LARGE_BACKLOG,
        stamped=False,
        audio_topic='audio',
        sample_format='S16LE',
        channels=6,
    )
    driver = AudioPublisher(graph, AudioData, qos=BEST_EFFORT)
    driver.wait_for_subscriber()
    channels = np.repeat(sound()[:, None], 6, axis=1)
    driver.play(encode_s16le(channels), frame_bytes=12, period=0.002)
    wait_until_processed(graph, node, outputs, len(sound()))
    assert len(outputs['probabilities']) == sum(e.is_window for e in recognize(sound()))


@pytest.mark.parametrize('reliability', ['best_effort', 'reliable'])
def test_a_reliable_publisher_reaches_both_kinds_of_subscriber(
    graph, outputs, publisher, reliability
):
    node = graph.make(EmotionNode, **LARGE_BACKLOG, reliability=reliability)
    publisher.wait_for_subscriber(node)
    publisher.announce()
    publisher.play(encode_s16le(sound()), period=0.002)
    wait_until_processed(graph, node, outputs, len(sound()))
    check_windows(outputs, sound())


def test_late_publishers_and_subscribers_find_each_other(graph, outputs):
    """The publisher exists before the node, and published its format long ago."""
    early = AudioPublisher(graph)
    early.announce()
    node = graph.make(EmotionNode, **LARGE_BACKLOG)
    early.wait_for_subscriber(node)
    early.play(encode_s16le(sound()), period=0.001)
    wait_until_processed(graph, node, outputs, len(sound()))
    check_windows(outputs, sound())


def test_a_publisher_may_die_and_return_with_another_rate(graph, outputs, publisher):
    node = graph.make(EmotionNode, **LARGE_BACKLOG)
    publisher.wait_for_subscriber(node)
    publisher.announce()
    publisher.play(encode_s16le(sound(2)))
    graph.wait(
        lambda: reported(node)['samples'] == 2 * SAMPLE_RATE, 'the sound of the first publisher'
    )
    graph.destroy(publisher.audio)
    graph.destroy(publisher.info)
    graph.wait(
        lambda: not node.count_publishers('audio_stamped'), 'the end of the first publisher'
    )
    second = AudioPublisher(graph)
    second.wait_for_subscriber(node)
    second.announce(channels=2, rate=44_100)
    graph.wait(lambda: '44100' in reported(node)['format'], 'the new format')
    for messages in outputs.values():
        messages.clear()
    n_before = reported(node)['windows']
    later = soxr.resample(sound(), SAMPLE_RATE, 44_100)
    data = encode_s16le(np.repeat(later[:, None], 2, axis=1))
    for first in range(0, len(data), 441 * 4):
        stamp_ns = START + 3600 * SECOND + first // 4 * SECOND // 44_100
        second.publish_block(data[first : first + 441 * 4], stamp_ns)
    n_windows = sum(e.is_window for e in recognize(sound()))
    graph.wait(
        lambda: reported(node)['windows'] - n_before >= n_windows - 1,
        'the windows of the second publisher',
        60,
    )
    assert reported(node)['refused blocks'] == 0


def test_a_best_effort_audio_info_is_received(graph, publisher):
    node = graph.make(EmotionNode, **LARGE_BACKLOG)
    graph.destroy(publisher.info)
    publisher.info = graph.node.create_publisher(AudioInfo, 'audio_info', BEST_EFFORT)

    def is_announced():
        publisher.announce()  # repeatedly: nobody sends again what is lost
        return 'S16LE' in reported(node)['format']

    graph.wait(is_announced, 'its format')


def test_no_sound_replaces_an_earlier_problem_with_the_level(graph, publisher):
    node = graph.make(EmotionNode, **LARGE_BACKLOG)
    publisher.wait_for_subscriber(node)
    publisher.announce()
    publisher.play(bytes(3 * 2 * SAMPLE_RATE))
    graph.wait(lambda: 'muted' in node.diagnose().message, 'the warning of zeros')
    graph.wait(lambda: node.diagnose().level == b'\3', 'the status STALE')
    assert 'no sound has come on /audio_stamped' in node.diagnose().message


@pytest.mark.parametrize('message_type', [AudioDataStamped, AudioData])
def test_two_publishers_whose_sound_is_mixed_are_named(graph, message_type):
    stamped = message_type is AudioDataStamped
    topic = 'audio_stamped' if stamped else 'audio'
    node = graph.make(EmotionNode, **LARGE_BACKLOG, stamped=stamped, audio_topic=topic)
    other = graph.add(rclpy.create_node('other', namespace='robot', context=graph.context))
    audio = other.create_publisher(message_type, f'/{topic}', 1_000)
    publisher = AudioPublisher(graph, message_type)
    publisher.announce()
    graph.wait(lambda: node.count_publishers(topic) == 2, 'both publishers')
    numbers, loud = itertools.count(), encode_s16le(np.full(320, 0.1))

    def is_named():
        for _ in range(3):
            n = next(numbers)
            publisher.publish_block(loud, START + n * SECOND // 50)
            publisher.audio, own = audio, publisher.audio
            publisher.publish_block(loud, START + n * SECOND // 50 + 7_000_000)
            publisher.audio = own
        return '/robot/other and /test' in node.diagnose().message

    graph.wait(is_named, 'both names')
    assert node.diagnose().level == b'\1'


def test_sound_of_another_type_is_named(graph, domain_id):
    node = graph.make(EmotionNode, device='cpu', audio_topic='audio')
    graph.wait(lambda: node.diagnose().level == b'\3', 'the status STALE')
    assert 'nobody publishes there' in node.diagnose().message
    # A participant has one type for each topic.
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain_id)
    driver = rclpy.create_node('driver', context=context)
    driver.create_publisher(AudioData, 'audio', 1)
    what = '/driver publishes audio_common_msgs/msg/AudioData there'
    graph.wait(lambda: what in node.diagnose().message, 'its type')
    driver.destroy_node()
    rclpy.shutdown(context=context)


def test_the_status_is_stale_when_the_sound_stops(graph, publisher):
    node = graph.make(EmotionNode, **LARGE_BACKLOG)
    publisher.wait_for_subscriber(node)
    publisher.announce()
    publisher.publish_block(bytes(640))
    graph.wait(lambda: reported(node)['samples'] == 320, 'sound')
    assert node.diagnose().level == b'\0'
    graph.wait(lambda: node.diagnose().level == b'\3', 'the status STALE')
    assert 'no sound has come on /audio_stamped for' in node.diagnose().message

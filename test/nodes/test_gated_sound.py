"""Sound that comes only while somebody speaks: each utterance is decided when it stops."""

import time

import pytest

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2: . tools/ros_env.sh')

from audio_common_msgs.msg import AudioData  # noqa: E402
from feeding import (  # noqa: E402
    LARGE_BACKLOG,
    AudioPublisher,
    recognize,
    reported,
    speech_then_silence,
)
from hri_msgs.msg import Expression, IdsList  # noqa: E402

from ser_ros.audio import SAMPLE_RATE, SECOND  # noqa: E402
from ser_ros.audio.formats import encode_s16le  # noqa: E402
from ser_ros.nodes.emotion_node import EmotionNode  # noqa: E402
from ser_ros.nodes.messages import TRANSIENT_LOCAL, to_nanoseconds  # noqa: E402

DECIDING = {**LARGE_BACKLOG, 'threshold': 0.0}


def spoken():
    """Sound that ends in the middle of a word."""
    return speech_then_silence()[: 5 * SAMPLE_RATE // 2]


@pytest.mark.parametrize('block_frames', [320, len(spoken())])
def test_an_utterance_is_decided_when_its_sound_stops(graph, outputs, publisher, block_frames):
    """In blocks, or as one message for each utterance."""
    node = graph.make(EmotionNode, **DECIDING)
    publisher.wait_for_subscriber(node)
    publisher.announce()
    publisher.play(encode_s16le(spoken()), block_frames=block_frames)
    graph.wait(lambda: outputs['utterance'], 'the decision')
    (final,) = (e for e in recognize(spoken(), has_ended=True) if e.is_final)
    assert outputs['utterance'][0].confidence == pytest.approx(final.confidence, abs=1e-5)
    assert outputs['utterance'][0].header.frame_id == 'mic'
    graph.wait(lambda: not outputs['is_speaking'][-1].data, 'is_speaking to become false')
    assert reported(node)['broken utterances'] == 0


def test_utterances_without_stamps_are_told_apart(graph, outputs, publisher):
    """A stamp of zero is none."""
    graph.make(EmotionNode, **DECIDING)
    publisher.wait_for_subscriber()
    publisher.announce()
    data = encode_s16le(spoken())
    for n_decided in (1, 2):
        for first in range(0, len(data), 640):
            publisher.publish_block(data[first : first + 640], stamp_ns=0)
        graph.wait(lambda: len(outputs['utterance']) == n_decided, 'a decision')  # noqa: B023
        time.sleep(2.5)
    first, second = (to_nanoseconds(m.header.stamp) for m in outputs['utterance'])
    assert second - first > 2 * SECOND


def test_a_voice_that_disappears_is_decided(graph):
    utterances = graph.subscribe(Expression, '/humans/voices/anna/utterance')
    tracked = graph.node.create_publisher(IdsList, '/humans/voices/tracked', TRANSIENT_LOCAL)
    tracked.publish(IdsList(ids=['anna']))
    node = graph.make(EmotionNode, **DECIDING, ros4hri=True)
    graph.wait(lambda: reported(node)['voices'] == 'anna', 'the voice')
    anna = AudioPublisher(graph, AudioData, '/humans/voices/anna/audio')
    anna.wait_for_subscriber()
    graph.wait(lambda: graph.node.count_publishers('/humans/voices/anna/utterance'), 'discovery')
    n_blocks = len(spoken()) // 320
    anna.play(encode_s16le(spoken()))
    graph.wait(lambda: reported(node)['blocks'] == n_blocks, 'all blocks')
    tracked.publish(IdsList())
    graph.wait(lambda: utterances, 'the decision')


def test_a_node_that_is_deactivated_decides_what_it_received(graph, outputs, publisher):
    node = graph.make(EmotionNode, **DECIDING)
    publisher.wait_for_subscriber(node)
    publisher.announce()
    publisher.play(encode_s16le(spoken()))
    graph.wait(lambda: reported(node)['samples'] == len(spoken()), 'all samples')
    graph.run(node.trigger_deactivate)
    graph.wait(lambda: outputs['utterance'], 'the decision')
    assert not outputs['is_speaking'][-1].data

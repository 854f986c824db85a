"""ROS4HRI: several voices, each published under its own id."""

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2: . tools/ros_env.sh')

from audio_common_msgs.msg import AudioData  # noqa: E402
from feeding import (  # noqa: E402
    LARGE_BACKLOG,
    AudioPublisher,
    assert_logs_only,
    probabilities_by_stamp,
    recognize,
    reported,
    speech_then_silence,
)
from hri_msgs.msg import Expression, IdsList  # noqa: E402
from std_msgs.msg import Bool  # noqa: E402
from vision_msgs.msg import Classification  # noqa: E402

from ser_ros.audio import SAMPLE_RATE  # noqa: E402
from ser_ros.audio.formats import encode_s16le  # noqa: E402
from ser_ros.nodes.emotion_node import EmotionNode  # noqa: E402
from ser_ros.nodes.messages import TRANSIENT_LOCAL  # noqa: E402

TRACKED = '/humans/voices/tracked'


class VoiceMessages:
    """The messages that are published for one voice."""

    def __init__(self, graph, voice_id):
        def subscribe(message_type, name, qos=100):
            return graph.subscribe(message_type, f'/humans/voices/{voice_id}/{name}', qos)

        self.expressions = subscribe(Expression, 'expression')
        self.utterances = subscribe(Expression, 'utterance')
        self.probabilities = subscribe(Classification, 'probabilities')
        self.speaking = subscribe(Bool, 'is_speaking', TRANSIENT_LOCAL)

    @property
    def has_spoken(self):
        values = [message.data for message in self.speaking]
        return True in values and not values[-1]


@pytest.fixture
def tracker(graph):
    """A function that publishes the ids of the tracked voices, as another node would."""
    node = graph.add(rclpy.create_node('tracker', context=graph.context))
    publisher = node.create_publisher(IdsList, TRACKED, TRANSIENT_LOCAL)
    return lambda *ids: publisher.publish(IdsList(ids=list(ids)))


def voice_publisher(graph, voice_id):
    """A publisher of the unstamped sound of a voice."""
    publisher = AudioPublisher(graph, AudioData, f'/humans/voices/{voice_id}/audio')
    publisher.wait_for_subscriber()
    return publisher


def spoken(seconds=4):
    return speech_then_silence(seconds=seconds)


def test_each_voice_is_published_under_its_own_id(graph, tracker):
    tracker('anna', 'bob')
    voices = {name: VoiceMessages(graph, name) for name in ('anna', 'bob')}
    node = graph.make(EmotionNode, **LARGE_BACKLOG, ros4hri=True, threshold=0.0)
    graph.wait(lambda: reported(node)['voices'] == 'anna, bob', 'both voices')
    sound = spoken(5)
    voice_publisher(graph, 'anna').play(encode_s16le(sound))
    voice_publisher(graph, 'bob').play(encode_s16le(0.3 * sound[SAMPLE_RATE:]))
    graph.wait(lambda: all(voice.has_spoken for voice in voices.values()), 'both to have spoken')
    expected = [e for e in recognize(sound) if e.is_window]
    windows = voices['anna'].probabilities
    graph.wait(lambda: len(windows) == len(expected), 'the windows of anna')
    for message, estimate in zip(windows, expected):
        scores = [result.score for result in message.results]
        np.testing.assert_allclose(scores, estimate.probabilities, atol=1e-4)
    assert voices['bob'].probabilities
    assert voices['anna'].expressions
    assert voices['anna'].utterances


def test_voices_come_and_go(graph, tracker, endless_patience):
    tracker('anna')
    node = graph.make(EmotionNode, **LARGE_BACKLOG, ros4hri=True)
    graph.wait(lambda: reported(node)['voices'] == 'anna', 'one voice')
    anna = VoiceMessages(graph, 'anna')
    # It ends in the middle of a word, so that she still speaks when this is seen.
    sound = speech_then_silence()[: 5 * SAMPLE_RATE // 2]
    voice_publisher(graph, 'anna').play(encode_s16le(sound))
    graph.wait(lambda: [m.data for m in anna.speaking][-1:] == [True], 'anna to speak')
    tracker('bob')
    graph.wait(lambda: reported(node)['voices'] == 'bob', 'the other voice')
    topics = [name for name, _ in graph.node.get_topic_names_and_types()]
    assert '/humans/voices/bob/expression' in topics
    tracker()
    graph.wait(lambda: reported(node)['voices'] == 'none', 'no voice')
    assert node.diagnose().message == 'nobody is tracked'
    tracker('anna')
    graph.wait(lambda: reported(node)['voices'] == 'anna', 'the first voice again')


def test_more_voices_than_max_voices_are_a_warning(graph, tracker, capfd):
    tracker('anna', 'b ob', 'carl', 'dora', 'anna')
    node = graph.make(EmotionNode, device='cpu', ros4hri=True, max_voices=2)
    graph.wait(lambda: reported(node)['voices'] == 'anna, carl', 'the first two')
    err = capfd.readouterr().err
    assert '3 voices are tracked, only the first 2 are processed' in err
    assert "'b ob'" in err


def test_without_a_tracker_there_is_one_anonymous_voice(graph, publisher):
    tracked = graph.subscribe(IdsList, TRACKED, TRANSIENT_LOCAL)
    voice = VoiceMessages(graph, 'anonymous_speaker')
    node = graph.make(EmotionNode, **LARGE_BACKLOG, ros4hri=True, threshold=0.0)
    graph.wait(lambda: tracked and tracked[-1].ids == ['anonymous_speaker'], 'its id')
    publisher.wait_for_subscriber(node)
    publisher.announce()
    publisher.play(encode_s16le(spoken()), period=0.001)
    expected = {e.stamp_ns: e.probabilities for e in recognize(spoken()) if e.is_window}
    graph.wait(lambda: len(voice.probabilities) == len(expected), 'its windows')
    received = probabilities_by_stamp(voice.probabilities)
    assert received.keys() == expected.keys()
    assert voice.expressions[0].header.frame_id == 'mic'
    graph.run(node.trigger_deactivate)
    graph.wait(lambda: tracked[-1].ids == [], 'an empty list of voices')


def test_a_tracker_takes_over_until_it_ends(graph):
    node = graph.make(EmotionNode, device='cpu', ros4hri=True)
    graph.wait(lambda: reported(node)['voices'] == 'anonymous_speaker', 'the anonymous voice')
    other = graph.add(rclpy.create_node('tracker', context=graph.context))
    publisher = other.create_publisher(IdsList, TRACKED, TRANSIENT_LOCAL)
    publisher.publish(IdsList(ids=['anna']))
    graph.wait(lambda: reported(node)['voices'] == 'anna', 'the tracked voice')
    graph.wait(lambda: other.count_publishers(TRACKED) == 1, 'the node to stop publishing')
    graph.destroy(publisher)
    graph.wait(
        lambda: reported(node)['voices'] == 'anonymous_speaker', 'the anonymous voice again'
    )


def test_a_tracker_without_voices_takes_over_as_well(graph):
    node = graph.make(EmotionNode, device='cpu', ros4hri=True)
    graph.wait(lambda: reported(node)['voices'] == 'anonymous_speaker', 'the anonymous voice')
    other = graph.add(rclpy.create_node('tracker', context=graph.context))
    publisher = other.create_publisher(IdsList, TRACKED, TRANSIENT_LOCAL)
    publisher.publish(IdsList())
    graph.wait(lambda: reported(node)['voices'] == 'none', 'no voice')


def test_a_tracked_voice_may_have_the_anonymous_name(graph):
    """The node then subscribes to that voice's topic instead of the plain one."""
    node = graph.make(EmotionNode, device='cpu', ros4hri=True)
    graph.wait(lambda: node.count_subscribers('/audio_stamped') == 1, 'the plain topic')
    other = graph.add(rclpy.create_node('tracker', context=graph.context))
    publisher = other.create_publisher(IdsList, TRACKED, TRANSIENT_LOCAL)
    publisher.publish(IdsList(ids=['anonymous_speaker']))
    topic = '/humans/voices/anonymous_speaker/audio'
    graph.wait(lambda: node.count_subscribers(topic) == 1, 'the topic of the voice')
    graph.wait(
        lambda: node.count_subscribers('/audio_stamped') == 0, 'the end of the plain subscription'
    )
    graph.destroy(publisher)
    graph.wait(lambda: node.count_subscribers('/audio_stamped') == 1, 'the plain topic again')


def test_an_id_that_is_no_topic_name_is_skipped(graph, tracker, capfd):
    tracker('a' * 300, 'anna')
    node = graph.make(EmotionNode, device='cpu', ros4hri=True)
    graph.wait(lambda: reported(node)['voices'] == 'anna', 'the valid voice')
    assert 'cannot be part of a topic name' in capfd.readouterr().err


def test_the_anonymous_voice_can_be_renamed(graph):
    node = graph.make(EmotionNode, device='cpu', ros4hri=True)
    graph.wait(lambda: reported(node)['voices'] == 'anonymous_speaker', 'the anonymous voice')
    graph.run(lambda: node.set_parameters([rclpy.parameter.Parameter('voice_id', value='guest')]))
    graph.wait(lambda: reported(node)['voices'] == 'guest', 'the new id')


def test_an_invalid_format_of_voices_is_refused(graph, capfd):
    node = graph.make(EmotionNode, device='cpu', ros4hri=True, sample_format='MP3')
    assert node.failed
    assert_logs_only(graph, capfd, "sample_format 'MP3'")

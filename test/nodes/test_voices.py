"""ROS4HRI: several voices, each under its own name."""

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2: . tools/ros_env.sh')

from audio_common_msgs.msg import AudioData  # noqa: E402
from feeding import (  # noqa: E402
    PATIENT,
    Publisher,
    counters,
    direct,
    logged,
    probabilities_by_stamp,
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


class Heard:
    """What is published of one voice."""

    def __init__(self, graph, voice_id):
        def listen(message_type, name, qos=100):
            return graph.listen(message_type, f'/humans/voices/{voice_id}/{name}', qos)

        self.expressions = listen(Expression, 'expression')
        self.utterances = listen(Expression, 'utterance')
        self.probabilities = listen(Classification, 'probabilities')
        self.speaking = listen(Bool, 'is_speaking', TRANSIENT_LOCAL)

    @property
    def has_spoken(self):
        said = [message.data for message in self.speaking]
        return True in said and not said[-1]


@pytest.fixture
def tracker(graph):
    """A function that says who is tracked, as another node would."""
    node = graph.add(rclpy.create_node('tracker', context=graph.context))
    publisher = node.create_publisher(IdsList, TRACKED, TRANSIENT_LOCAL)
    return lambda *ids: publisher.publish(IdsList(ids=list(ids)))


def voice(graph, voice_id):
    """Plays unstamped sound of a voice."""
    publisher = Publisher(graph, AudioData, f'/humans/voices/{voice_id}/audio')
    graph.wait(publisher.audio.get_subscription_count, 'discovery')
    return publisher


def spoken(seconds=4):
    return speech_then_silence()[: seconds * SAMPLE_RATE]


def test_each_voice_is_heard_under_its_own_name(graph, tracker):
    tracker('anna', 'bob')
    heard = {name: Heard(graph, name) for name in ('anna', 'bob')}
    node = graph.make(EmotionNode, **PATIENT, ros4hri=True, threshold=0.0)
    graph.wait(lambda: counters(node)['voices'] == 'anna, bob', 'both voices')
    silence = np.zeros(SAMPLE_RATE, np.float32)
    sound = np.concatenate((spoken(), silence))
    voice(graph, 'anna').play(encode_s16le(sound))
    voice(graph, 'bob').play(encode_s16le(0.3 * sound[SAMPLE_RATE:]))
    graph.wait(lambda: all(h.has_spoken for h in heard.values()), 'both to have spoken')
    expected = [e for e in direct(sound) if e.is_window]
    windows = heard['anna'].probabilities
    graph.wait(lambda: len(windows) == len(expected), 'her windows')
    for message, estimate in zip(windows, expected):
        scores = [result.score for result in message.results]
        np.testing.assert_allclose(scores, estimate.probabilities, atol=1e-4)
    assert heard['bob'].probabilities
    assert heard['anna'].expressions
    assert heard['anna'].utterances


def test_voices_come_and_go(graph, tracker):
    tracker('anna')
    node = graph.make(EmotionNode, **PATIENT, ros4hri=True)
    graph.wait(lambda: counters(node)['voices'] == 'anna', 'one voice')
    of_anna = Heard(graph, 'anna')
    voice(graph, 'anna').play(encode_s16le(spoken(2)))
    graph.wait(lambda: [m.data for m in of_anna.speaking][-1:] == [True], 'her to speak')
    tracker('bob')
    graph.wait(lambda: counters(node)['voices'] == 'bob', 'the other voice')
    topics = [name for name, _ in graph.node.get_topic_names_and_types()]
    assert '/humans/voices/bob/expression' in topics
    tracker()
    graph.wait(lambda: counters(node)['voices'] == 'none', 'nobody')
    assert node.diagnose().message == 'nobody is tracked'
    tracker('anna')
    graph.wait(lambda: counters(node)['voices'] == 'anna', 'her again')


def test_more_voices_than_are_heard_are_warned_of(graph, tracker, capfd):
    tracker('anna', 'b ob', 'carl', 'dora', 'anna')
    node = graph.make(EmotionNode, device='cpu', ros4hri=True, max_voices=2)
    graph.wait(lambda: counters(node)['voices'] == 'anna, carl', 'the first two')
    err = capfd.readouterr().err
    assert '3 voices are tracked, only the first 2 are processed' in err
    assert "'b ob'" in err


def test_while_nobody_tracks_there_is_one_voice_without_a_name(graph, publisher):
    tracked = graph.listen(IdsList, TRACKED, TRANSIENT_LOCAL)
    heard = Heard(graph, 'anonymous_speaker')
    node = graph.make(EmotionNode, **PATIENT, ros4hri=True, threshold=0.0)
    graph.wait(lambda: tracked and tracked[-1].ids == ['anonymous_speaker'], 'its name')
    publisher.wait_for_listener(node)
    publisher.announce()
    publisher.play(encode_s16le(spoken()), period=0.001)
    expected = {e.stamp_ns: e.probabilities for e in direct(spoken()) if e.is_window}
    graph.wait(lambda: len(heard.probabilities) == len(expected), 'its windows')
    got = probabilities_by_stamp(heard.probabilities)
    assert got.keys() == expected.keys()
    assert heard.expressions[0].header.frame_id == 'mic'
    node.trigger_deactivate()
    graph.wait(lambda: tracked[-1].ids == [], 'that nobody is there')


def test_who_tracks_takes_over_and_hands_back(graph):
    node = graph.make(EmotionNode, device='cpu', ros4hri=True)
    graph.wait(lambda: counters(node)['voices'] == 'anonymous_speaker', 'the one voice')
    other = graph.add(rclpy.create_node('tracker', context=graph.context))
    publisher = other.create_publisher(IdsList, TRACKED, TRANSIENT_LOCAL)
    publisher.publish(IdsList(ids=['anna']))
    graph.wait(lambda: counters(node)['voices'] == 'anna', 'the tracked one')
    graph.wait(lambda: other.count_publishers(TRACKED) == 1, 'it to step back')
    other.destroy_publisher(publisher)
    graph.wait(lambda: counters(node)['voices'] == 'anonymous_speaker', 'the one voice again')


def test_a_tracker_that_knows_nobody_yet_is_believed(graph):
    node = graph.make(EmotionNode, device='cpu', ros4hri=True)
    graph.wait(lambda: counters(node)['voices'] == 'anonymous_speaker', 'the one voice')
    other = graph.add(rclpy.create_node('tracker', context=graph.context))
    publisher = other.create_publisher(IdsList, TRACKED, TRANSIENT_LOCAL)
    publisher.publish(IdsList())
    graph.wait(lambda: counters(node)['voices'] == 'none', 'nobody')


def test_a_tracked_voice_may_have_the_anonymous_name(graph):
    """Then it is heard where that voice is published, not on the plain topic."""
    node = graph.make(EmotionNode, device='cpu', ros4hri=True)
    graph.wait(lambda: node.count_subscribers('/audio_stamped') == 1, 'the plain topic')
    other = graph.add(rclpy.create_node('tracker', context=graph.context))
    publisher = other.create_publisher(IdsList, TRACKED, TRANSIENT_LOCAL)
    publisher.publish(IdsList(ids=['anonymous_speaker']))
    topic = '/humans/voices/anonymous_speaker/audio'
    graph.wait(lambda: node.count_subscribers(topic) == 1, 'its own topic')
    graph.wait(lambda: node.count_subscribers('/audio_stamped') == 0, 'the plain one no more')
    other.destroy_publisher(publisher)
    graph.wait(lambda: node.count_subscribers('/audio_stamped') == 1, 'the plain topic again')


def test_a_name_that_no_topic_can_have_ends_nothing(graph, tracker, capfd):
    tracker('a' * 300, 'anna')
    node = graph.make(EmotionNode, device='cpu', ros4hri=True)
    graph.wait(lambda: counters(node)['voices'] == 'anna', 'the other')
    assert 'cannot be part of a topic name' in capfd.readouterr().err


def test_the_one_voice_can_be_renamed(graph):
    node = graph.make(EmotionNode, device='cpu', ros4hri=True)
    graph.wait(lambda: counters(node)['voices'] == 'anonymous_speaker', 'the one voice')
    node.set_parameters([rclpy.parameter.Parameter('voice_id', value='guest')])
    graph.wait(lambda: counters(node)['voices'] == 'guest', 'its new name')


def test_a_format_for_voices_that_cannot_be(graph, capfd):
    node = graph.make(EmotionNode, device='cpu', ros4hri=True, sample_format='MP3')
    assert node.failed
    assert logged(graph, capfd, "sample_format 'MP3'")

"""A recorded bag leads to exactly the same messages, however it is replayed."""

import array
import time

import pytest

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2: . tools/ros_env.sh')
rosbag2 = pytest.importorskip('rosbags.rosbag2')

from audio_common_msgs.msg import AudioData, AudioDataStamped, AudioInfo  # noqa: E402
from feeding import (  # noqa: E402
    LARGE_BACKLOG,
    START,
    as_text,
    assert_logs_only,
    reported,
    speech_then_silence,
)
from hri_msgs.msg import Expression  # noqa: E402
from rclpy.serialization import serialize_message  # noqa: E402
from rosbags.typesys import Stores, get_types_from_msg, get_typestore  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from vision_msgs.msg import Classification  # noqa: E402

from ser_ros.audio import SAMPLE_RATE, SECOND  # noqa: E402
from ser_ros.audio.formats import PcmFormat, encode_s16le  # noqa: E402
from ser_ros.nodes.emotion_node import EmotionNode  # noqa: E402
from ser_ros.nodes.messages import TRANSIENT_LOCAL, to_audio_info, to_header, to_nanoseconds  # noqa: E402

SECONDS = 6
BLOCK = 640
RELIABLE = {**LARGE_BACKLOG, 'reliability': 'reliable'}
"""A best-effort subscriber may miss blocks that are sent before its publisher has matched it."""
TYPES = {'/audio_info': AudioInfo, '/audio_stamped': AudioDataStamped}
OUTPUTS = {
    'emotion': Expression,
    'emotion/utterance': Expression,
    'emotion/probabilities': Classification,
}


def typestore(root):
    """The message types of Jazzy and the definitions in this repository."""
    store = get_typestore(Stores.ROS2_JAZZY)
    types = {}
    for path in (root / 'tools' / 'ros_messages' / 'audio_common_msgs').rglob('*.msg'):
        types |= get_types_from_msg(path.read_text(), f'audio_common_msgs/msg/{path.stem}')
    store.register(types)
    return store


@pytest.fixture
def bag(root, tmp_path):
    """A bag of speech in MCAP, as `ros2 bag record -s mcap` writes it."""
    path = tmp_path / 'speech'
    store = typestore(root)
    samples = encode_s16le(speech_then_silence()[: SECONDS * SAMPLE_RATE])
    with rosbag2.Writer(path, version=9, storage_plugin=rosbag2.StoragePlugin.MCAP) as writer:
        info, audio = (
            writer.add_connection(topic, f'audio_common_msgs/msg/{kind.__name__}', typestore=store)
            for topic, kind in TYPES.items()
        )
        pcm = to_audio_info(PcmFormat('S16LE', 1, SAMPLE_RATE))
        writer.write(info, START, serialize_message(pcm))
        for first in range(0, len(samples) // 2, BLOCK):
            stamp_ns = START + first * SECOND // SAMPLE_RATE
            data = array.array('B', samples[2 * first : 2 * (first + BLOCK)])
            message = AudioDataStamped(
                header=to_header(stamp_ns, 'mic'), audio=AudioData(data=data)
            )
            writer.write(audio, stamp_ns, serialize_message(message))
    return path


class Player:
    """Publishes the messages of a bag, as `ros2 bag play` does."""

    def __init__(self, graph, path):
        self._graph, self._path = graph, path
        self._publishers = {
            '/audio_info': graph.node.create_publisher(AudioInfo, 'audio_info', TRANSIENT_LOCAL),
            '/audio_stamped': graph.node.create_publisher(
                AudioDataStamped, 'audio_stamped', 1_000
            ),
        }
        self._clock = graph.node.create_publisher(Clock, '/clock', 10)

    def play(self, rate, pause_at=None, has_clock=False):
        with rosbag2.Reader(self._path) as reader:
            start = time.monotonic()
            for connection, timestamp, data in reader.messages():
                elapsed = (timestamp - reader.start_time) / SECOND
                if pause_at is not None and elapsed >= pause_at:
                    time.sleep(1.5)
                    start += 1.5
                    pause_at = None
                time.sleep(max(0.0, start + elapsed / rate - time.monotonic()))
                if has_clock:
                    self._clock.publish(Clock(clock=to_header(timestamp, '').stamp))
                self._publishers[connection.topic].publish(data)


@pytest.mark.parametrize('uses_sim_time', [False, True])
def test_messages_are_the_same_at_any_speed_and_with_a_pause(graph, bag, uses_sim_time):
    messages = {topic: graph.subscribe(kind, topic, 1_000) for topic, kind in OUTPUTS.items()}
    player = Player(graph, bag)
    runs = []
    for replay in ({'rate': 1.0}, {'rate': 10.0}, {'rate': 10.0, 'pause_at': 2.5}):
        for received in messages.values():
            received.clear()
        node = graph.make(EmotionNode, **RELIABLE, threshold=0.0, use_sim_time=uses_sim_time)
        graph.wait(lambda: graph.node.count_subscribers('audio_stamped') == 1, 'discovery')
        player.play(**replay, has_clock=uses_sim_time)
        n_samples = SECONDS * SAMPLE_RATE
        graph.wait(lambda: reported(node)['samples'] == n_samples, 'all samples', 60)  # noqa: B023
        n_windows = reported(node)['windows']
        for topic in ('emotion', 'emotion/probabilities'):
            graph.wait(lambda: len(messages[topic]) == n_windows, topic)  # noqa: B023
        graph.wait(lambda: messages['emotion/utterance'], 'the decision for the utterance')
        runs.append({topic: as_text(received) for topic, received in messages.items()})
        graph.remove(node)
    assert len(runs[0]['emotion']) > 5
    assert runs[0] == runs[1] == runs[2]


def test_a_bag_that_starts_again_is_processed_from_the_start(graph, bag, capfd):
    """`ros2 bag play --loop` sets the clock back."""
    windows = graph.subscribe(Classification, 'emotion/probabilities')
    node = graph.make(EmotionNode, **RELIABLE, use_sim_time=True)
    player = Player(graph, bag)
    graph.wait(lambda: graph.node.count_subscribers('audio_stamped') == 1, 'discovery')
    for n_rounds in (1, 2):
        player.play(20.0, has_clock=True)
        n_samples = n_rounds * SECONDS * SAMPLE_RATE
        graph.wait(lambda: reported(node)['samples'] == n_samples, 'all samples', 60)  # noqa: B023
    graph.wait(lambda: len(windows) == reported(node)['windows'], 'all windows')
    assert reported(node)['time jumps'] == 1
    assert_logs_only(graph, capfd, 'the time jumped back by')
    stamps = [to_nanoseconds(window.header.stamp) for window in windows]
    assert stamps[: len(stamps) // 2] == stamps[len(stamps) // 2 :]

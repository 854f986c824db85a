"""A recorded bag gives the same messages however it is replayed, to the last bit."""

import array
import time

import pytest

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2: . tools/ros_env.sh')
rosbag2 = pytest.importorskip('rosbags.rosbag2')

from audio_common_msgs.msg import AudioData, AudioDataStamped, AudioInfo  # noqa: E402
from feeding import (  # noqa: E402
    PATIENT,
    START,
    counters,
    logged,
    speech_then_silence,
    to_the_last_bit,
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
RELIABLE = {**PATIENT, 'reliability': 'reliable'}
"""A best-effort subscriber may miss the first blocks, until the publisher has matched as well."""
TYPES = {'/audio_info': AudioInfo, '/audio_stamped': AudioDataStamped}
OUTPUTS = {
    'emotion': Expression,
    'emotion/utterance': Expression,
    'emotion/probabilities': Classification,
}


def typestore(root):
    """Jazzy's types, and those that are restated here."""
    store = get_typestore(Stores.ROS2_JAZZY)
    types = {}
    for path in (root / 'tools' / 'ros_messages' / 'audio_common_msgs').rglob('*.msg'):
        types |= get_types_from_msg(path.read_text(), f'audio_common_msgs/msg/{path.stem}')
    store.register(types)
    return store


@pytest.fixture
def bag(root, tmp_path):
    """An mcap of speech, as `ros2 bag record -s mcap` leaves it."""
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
    """Publishes what a bag holds, as `ros2 bag play` does."""

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
def test_it_is_the_same_at_any_speed_and_with_a_pause(graph, bag, uses_sim_time):
    messages = {topic: graph.listen(kind, topic, 1_000) for topic, kind in OUTPUTS.items()}
    player = Player(graph, bag)
    heard = []
    for how in ({'rate': 1.0}, {'rate': 10.0}, {'rate': 10.0, 'pause_at': 2.5}):
        for received in messages.values():
            received.clear()
        node = graph.make(EmotionNode, **RELIABLE, threshold=0.0, use_sim_time=uses_sim_time)
        graph.wait(lambda: graph.node.count_subscribers('audio_stamped') == 1, 'discovery')
        player.play(**how, has_clock=uses_sim_time)
        n_samples = SECONDS * SAMPLE_RATE
        graph.wait(lambda: counters(node)['samples'] == n_samples, 'all sound', 60)  # noqa: B023
        n_windows = counters(node)['windows']
        for topic in ('emotion', 'emotion/probabilities'):
            graph.wait(lambda: len(messages[topic]) == n_windows, topic)  # noqa: B023
        graph.wait(lambda: messages['emotion/utterance'], 'the decision')
        heard.append({topic: to_the_last_bit(received) for topic, received in messages.items()})
        graph.remove(node)
    assert len(heard[0]['emotion']) > 5
    assert heard[0] == heard[1] == heard[2]


def test_a_bag_that_begins_anew_is_heard_anew(graph, bag, capfd):
    """`ros2 bag play --loop` sets the clock back."""
    windows = graph.listen(Classification, 'emotion/probabilities')
    node = graph.make(EmotionNode, **RELIABLE, use_sim_time=True)
    player = Player(graph, bag)
    graph.wait(lambda: graph.node.count_subscribers('audio_stamped') == 1, 'discovery')
    for round_ in (1, 2):
        player.play(20.0, has_clock=True)
        n_samples = round_ * SECONDS * SAMPLE_RATE
        graph.wait(lambda: counters(node)['samples'] == n_samples, 'all sound', 60)  # noqa: B023
    graph.wait(lambda: len(windows) == counters(node)['windows'], 'all windows')
    assert counters(node)['time jumps'] == 1
    assert logged(graph, capfd, 'the time jumped back by')
    stamps = [to_nanoseconds(window.header.stamp) for window in windows]
    assert stamps[: len(stamps) // 2] == stamps[len(stamps) // 2 :]

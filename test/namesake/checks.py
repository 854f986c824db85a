"""Both nodes with the other package called audio_common_msgs; run by test/nodes/test_namesake.py.

In a process whose environment finds that package first.
"""

import array
import os
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'

import rclpy
from ament_index_python.packages import get_package_prefix
from audio_common_msgs.msg import Audio, AudioStamped
from discovery import have_matched
from hypothesis import given
from hypothesis import strategies as st
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rig import SpinThread
from vision_msgs.msg import Classification

from ser_ros.audio import SAMPLE_RATE, SECOND
from ser_ros.audio.formats import PcmFormat, encode_s16le
from ser_ros.bundle import load_bundle
from ser_ros.nodes.audio_capture_node import AudioCaptureNode
from ser_ros.nodes.audio_messages import SOUND
from ser_ros.nodes.emotion_node import EmotionNode
from ser_ros.nodes.messages import to_header, to_nanoseconds
from ser_ros.stream.recognizer import Recognizer

START = 1_700_000_000 * SECOND
TYPES = {  # PortAudio's flag → the array, its type code, full scale and offset
    1: ('float32_data', 'f', 1.0, 0),
    2: ('int32_data', 'i', 2.0**31, 0),
    8: ('int16_data', 'h', 2.0**15, 0),
    16: ('int8_data', 'b', 2.0**7, 0),
    32: ('uint8_data', 'B', 2.0**7, 128),
}


def make_audio(frames, flag, rate=SAMPLE_RATE, field=None):
    """A message of float (frames, channels), its samples in the array of its flag."""
    name, code, scale, offset = TYPES[field or flag]
    audio = Audio()
    values = np.asarray(frames, np.float64).ravel() * scale
    if code != 'f':
        limits = np.iinfo(np.dtype(code))
        values = np.clip(np.rint(values) + offset, limits.min, limits.max)
    setattr(audio.audio_data, name, array.array(code, values.astype(code).tobytes()))
    audio.info.format, audio.info.rate = flag, rate
    audio.info.channels, audio.info.chunk = frames.shape[1], len(frames)
    return audio


class Graph:
    """Nodes of this process, spun by one thread."""

    def __init__(self):
        self.context = Context()
        rclpy.init(context=self.context)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._nodes = []
        self.node = self.add(rclpy.create_node('test', context=self.context))
        self._thread = SpinThread(self._executor)
        self._thread.start()

    def add(self, node):
        self._nodes.append(node)
        self._executor.add_node(node)
        return node

    def make(self, cls, **parameters):
        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        node = cls(context=self.context, parameter_overrides=overrides)
        node.autostart()
        assert not node.failed
        return self.add(node)

    def subscribe(self, message_type, topic):
        messages = []
        self.node.create_subscription(message_type, topic, messages.append, 1_000)
        return messages

    def wait(self, condition, what, timeout=60.0):
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, what
            time.sleep(0.02)

    def wait_for_subscriber(self, publisher):
        """Wait until it has one, and all nodes of this graph have found each other."""
        self.wait(
            lambda: publisher.get_subscription_count() and have_matched(self._nodes), 'discovery'
        )

    def close(self):
        self._thread.stop()
        for node in self._nodes:
            node.destroy_node()
        rclpy.shutdown(context=self.context)


@pytest.fixture
def graph():
    graph = Graph()
    yield graph
    graph.close()


def start_emotion_node(graph, **parameters):
    node = graph.make(EmotionNode, device='cpu', max_backlog=60.0, queue_depth=2_000, **parameters)
    publisher = graph.node.create_publisher(AudioStamped, 'audio_stamped', 1_000)
    graph.wait_for_subscriber(publisher)
    return node, publisher


def publish(publisher, frames, flag=8, block=320, first_ns=START, **kwargs):
    for first in range(0, len(frames), block):
        stamp_ns = first_ns + first * SECOND // SAMPLE_RATE
        audio = make_audio(frames[first : first + block], flag, **kwargs)
        publisher.publish(AudioStamped(header=to_header(stamp_ns, 'mic'), audio=audio))
        time.sleep(0.001)


def values(node):
    return node.diagnose().values


@given(st.sampled_from(sorted(TYPES)), st.integers(1, 6), st.integers(0, 50))
def test_every_sample_format_is_decoded(flag, n_channels, n_frames):
    frames = np.random.default_rng(n_frames).uniform(-1, 0.99, (n_frames, n_channels))
    data, announced = SOUND.unpack(make_audio(frames, flag, 44_100))
    if not n_frames:
        assert (data, announced) == (b'', None)
        return
    name, channels, rate, coding = announced
    pcm_format = PcmFormat(name, channels, rate, coding)
    assert (pcm_format.channels, pcm_format.sample_rate) == (n_channels, 44_100)
    np.testing.assert_allclose(pcm_format.decode(data), frames, atol=1.01 / TYPES[flag][2] + 1e-6)


@given(st.binary(max_size=60), st.integers(1, 3))
def test_what_is_packed_is_unpacked(data, n_channels):
    data = data[: len(data) // (2 * n_channels) * 2 * n_channels]
    audio = SOUND.pack(data, PcmFormat('S16LE', n_channels, 48_000))
    assert SOUND.unpack(audio) == (data, ('S16LE', n_channels, 48_000, '') if data else None)
    assert audio.info.chunk * 2 * n_channels == len(data)
    assert audio.info.format == 8


def then_silence(sound):
    """With the end of its utterance, which so does not depend on when the node stops waiting."""
    return np.concatenate((sound, np.zeros(SAMPLE_RATE, np.float32)))


def check_windows(windows, samples):
    recognizer = Recognizer(load_bundle(), 'cpu')
    expected = [e for e in recognizer.push(samples, START) if e.is_window]
    assert [to_nanoseconds(m.header.stamp) for m in windows] == [e.stamp_ns for e in expected]
    for message, estimate in zip(windows, expected):
        scores = [result.score for result in message.results]
        np.testing.assert_allclose(scores, estimate.probabilities, atol=1e-5)
        assert message.header.frame_id == 'mic'


def test_the_emotion_node_recognises_what_another_microphone_publishes(graph, speech):
    windows = graph.subscribe(Classification, 'emotion/probabilities')
    node, publisher = start_emotion_node(graph)
    sound = then_silence(speech[: 4 * SAMPLE_RATE])
    publish(publisher, sound[:, None])
    graph.wait(
        lambda: values(node)['samples'] == len(sound) and values(node)['windows'] == len(windows),
        'all windows',
    )
    assert len(windows) > 3
    decoded = PcmFormat('S16LE', 1, SAMPLE_RATE).decode(encode_s16le(sound))[:, 0]
    check_windows(windows, decoded)


def test_one_channel_of_an_array_can_be_chosen(graph, speech):
    windows = graph.subscribe(Classification, 'emotion/probabilities')
    node, publisher = start_emotion_node(graph, channel=2)
    sound = then_silence(speech[: 3 * SAMPLE_RATE])
    frames = np.stack([0 * sound, sound[::-1], sound], axis=1)
    publish(publisher, frames, flag=1)
    graph.wait(
        lambda: values(node)['samples'] == len(sound) and values(node)['windows'] == len(windows),
        'all windows',
    )
    check_windows(windows, sound)


def without_channels():
    audio = make_audio(np.zeros((320, 1)), 8)
    audio.info.channels = 0
    return audio


@pytest.mark.parametrize(
    ('audio', 'reason'),
    [
        (make_audio(np.zeros((320, 1)), 8, field=1), 'int16_data with samples in float32_data'),
        (make_audio(np.zeros((320, 1)), 8, rate=-1), '-1 Hz'),
        (make_audio(np.zeros((320, 70)), 8), '70 channels'),
        (without_channels(), '0 channels'),
    ],
)
def test_what_cannot_be_decoded_is_refused_until_it_can(graph, audio, reason):
    node, publisher = start_emotion_node(graph)
    publisher.publish(AudioStamped(header=to_header(START, 'mic'), audio=audio))
    graph.wait(lambda: values(node)['refused blocks'] == 1, 'the refusal')
    assert reason in node.diagnose().message
    publish(publisher, np.zeros((320, 1)))
    graph.wait(lambda: values(node)['samples'] == 320, 'sound')
    assert 'refused' not in node.diagnose().message


def test_an_empty_message_interrupts_nothing(graph, speech):
    node, publisher = start_emotion_node(graph)
    publish(publisher, speech[:SAMPLE_RATE, None])
    publisher.publish(AudioStamped(header=to_header(START + SECOND, 'mic')))
    publish(publisher, speech[SAMPLE_RATE : 2 * SAMPLE_RATE, None], first_ns=START + SECOND)
    graph.wait(lambda: values(node)['samples'] == 2 * SAMPLE_RATE, 'all sound')
    assert values(node)['empty blocks'] == 1
    assert values(node)['broken utterances'] == values(node)['gaps'] == 0
    assert values(node)['refused blocks'] == 0


@pytest.mark.parametrize('number', [0, 3, 4, -1, 2**31 - 1])
def test_an_unknown_number_of_a_format_is_refused(graph, number):
    node, publisher = start_emotion_node(graph)
    audio = make_audio(np.zeros((320, 1)), 8)
    audio.info.format = number
    publisher.publish(AudioStamped(header=to_header(START, 'mic'), audio=audio))
    graph.wait(lambda: values(node)['refused blocks'] == 1, 'the refusal')
    assert f'number {number} of PortAudio' in node.diagnose().message


def test_the_capture_node_publishes_it_and_no_format_of_its_own(graph, tmp_path):
    frames = np.random.default_rng(0).uniform(-0.5, 0.5, (11_025, 2))
    soundfile.write(tmp_path / 'a.wav', frames, 22_050)
    stamped = graph.subscribe(AudioStamped, 'audio_stamped')
    unstamped = graph.subscribe(Audio, 'audio')
    node = graph.make(
        AudioCaptureNode,
        source='file',
        file=str(tmp_path / 'a.wav'),
        speed=10.0,
        publish_unstamped=True,
    )
    graph.wait(lambda: node.diagnose().message == 'end of file', 'the end of the file')
    n_blocks = values(node)['blocks']
    graph.wait(lambda: len(stamped) == len(unstamped) == n_blocks, 'every block')
    assert [m.audio for m in stamped] == unstamped
    infos = {(m.info.format, m.info.channels, m.info.rate) for m in unstamped}
    assert infos == {(8, 2, 22_050)}
    samples = np.concatenate([np.array(m.audio_data.int16_data) for m in unstamped])
    assert 2 * sum(m.info.chunk for m in unstamped) == len(samples)
    received = samples[: frames.size].reshape(-1, 2) / 2**15
    np.testing.assert_allclose(received, frames, atol=2**-14)
    assert not graph.node.count_publishers('/audio_info')


def test_both_nodes_understand_each_other(graph, speech_path):
    windows = graph.subscribe(Classification, 'emotion/probabilities')
    node = graph.make(EmotionNode, device='cpu', max_backlog=60.0, queue_depth=2_000)
    graph.make(AudioCaptureNode, source='file', file=str(speech_path), speed=20.0)
    graph.wait(lambda: len(windows) > 5, 'windows')
    assert 'S16LE' in values(node)['format']


def test_a_tracked_voice_is_heard_as_well(graph, speech):
    from hri_msgs.msg import IdsList

    from ser_ros.nodes.messages import TRANSIENT_LOCAL

    tracked = graph.node.create_publisher(IdsList, '/humans/voices/tracked', TRANSIENT_LOCAL)
    tracked.publish(IdsList(ids=['anna']))
    publisher = graph.node.create_publisher(AudioStamped, '/humans/voices/anna/audio', 1_000)
    node = graph.make(EmotionNode, device='cpu', ros4hri=True, max_backlog=60.0)
    graph.wait_for_subscriber(publisher)
    publish(publisher, speech[: 2 * SAMPLE_RATE, None])
    graph.wait(lambda: values(node)['samples'] == 2 * SAMPLE_RATE, 'its sound')


@pytest.mark.parametrize(
    ('executable', 'line'), [('emotion_node', 'listening to'), ('ser', 'capturing file')]
)
def test_the_executables_start(executable, line, speech_path):
    path = Path(get_package_prefix('ser_ros'), 'lib', 'ser_ros', executable)
    parameters = ('device:=cpu', 'source:=file', f'file:={speech_path}')
    process = subprocess.Popen(
        [path, '--ros-args', *(word for p in parameters for word in ('-p', p))],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        output = ''
        while line not in output:
            read = process.stderr.readline()
            assert read, output
            output += read
    finally:
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 0

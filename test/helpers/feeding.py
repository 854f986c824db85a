"""Sound as messages, and what the tests of the emotion node wait for."""

import array
import time
from pathlib import Path

import numpy as np
from audio_common_msgs.msg import AudioData, AudioDataStamped, AudioInfo

from ser_ros.audio import SAMPLE_RATE, SECOND
from ser_ros.audio.sources import read_audio
from ser_ros.bundle import load_bundle
from ser_ros.nodes.messages import TRANSIENT_LOCAL, to_header, to_nanoseconds
from ser_ros.stream.recognizer import Recognizer

SPEECH = Path(__file__).parents[2] / 'examples' / 'speech.flac'
START = 1_700_000_000 * SECOND
PATIENT = {'device': 'cpu', 'max_backlog': 60.0, 'queue_depth': 2000}
"""A node that a busy machine does not make drop what is played to it faster than it was said."""


class Publisher:
    """Plays samples to the node as a capture node of any make would."""

    def __init__(self, graph, message_type=AudioDataStamped, topic=None, qos=1000):
        self.graph = graph
        self.type = message_type
        topic = topic or ('audio_stamped' if message_type is AudioDataStamped else 'audio')
        self.audio = graph.node.create_publisher(message_type, topic, qos)
        self.info = graph.node.create_publisher(AudioInfo, 'audio_info', TRANSIENT_LOCAL)

    def announce(self, sample_format='S16LE', channels=1, rate=SAMPLE_RATE, coding='wave'):
        self.info.publish(
            AudioInfo(
                channels=channels,
                sample_rate=rate,
                sample_format=sample_format,
                coding_format=coding,
            )
        )

    def block(self, data, stamp_ns=START, frame_id='mic'):
        audio = AudioData(data=array.array('B', data))
        header = to_header(stamp_ns, frame_id)
        stamped = self.type is AudioDataStamped
        self.audio.publish(AudioDataStamped(header=header, audio=audio) if stamped else audio)

    def play(self, data, frame_bytes=2, rate=SAMPLE_RATE, block_frames=320, period=0.0):
        """Send blocks of `block_frames` (cycled through if several), `period` seconds apart."""
        sizes = [block_frames] if isinstance(block_frames, int) else block_frames
        first, n = 0, 0
        while first * frame_bytes < len(data):
            frames = sizes[n % len(sizes)]
            self.block(
                data[first * frame_bytes : (first + frames) * frame_bytes],
                START + first * SECOND // rate,
            )
            first, n = first + frames, n + 1
            time.sleep(period)

    def wait_for_listener(self, node):
        self.graph.wait(
            lambda: self.audio.get_subscription_count() and node.count_publishers('audio_info'),
            'discovery',
        )


def to_the_last_bit(messages):
    """All fields of messages; serialised, there is memory of anybody's between them."""
    return [repr(message) for message in messages]


def counters(node):
    return node.diagnose().values


def logged(graph, capfd, text):
    """Wait until the log says it; that it says nothing else is bad."""
    lines = []

    def is_there():
        lines.extend(capfd.readouterr().err.splitlines())
        return any(text in line for line in lines)

    graph.wait(is_there, text)
    return all(text in line for line in lines if '[WARN]' in line or '[ERROR]' in line)


def speech_then_silence(path=SPEECH, silence=1.0):
    return np.concatenate((read_audio(path), np.zeros(round(silence * SAMPLE_RATE), np.float32)))


def wait_until_heard(graph, node, outputs, n_samples):
    """Until the node has heard so much and all that it published has arrived."""
    graph.wait(
        lambda: (
            counters(node)['samples'] >= n_samples
            and counters(node)['windows'] == len(outputs['probabilities'])
        ),
        f'{n_samples} samples heard, of which {counters(node)}',
        60,
    )


def direct(samples):
    """What the recogniser itself says of 16 kHz samples."""
    recognizer = Recognizer(load_bundle(), 'cpu')
    return recognizer.push(samples, START)


def probabilities_by_stamp(messages):
    return {
        to_nanoseconds(message.header.stamp): np.array([r.score for r in message.results])
        for message in messages
    }

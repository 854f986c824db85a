"""Sound as messages, and helpers that wait for what the emotion node does with it."""

import array
import time
from pathlib import Path

import numpy as np
from audio_common_msgs.msg import AudioData, AudioDataStamped, AudioInfo

from ser_ros.audio import SAMPLE_RATE, SECOND
from ser_ros.audio.sources import read_audio
from ser_ros.backends import load_backend
from ser_ros.nodes.messages import TRANSIENT_LOCAL, to_header, to_nanoseconds
from ser_ros.stream.recognizer import Recognizer

SPEECH = Path(__file__).parents[2] / 'examples' / 'speech.flac'
START = 1_700_000_000 * SECOND
LARGE_BACKLOG = {'device': 'cpu', 'max_backlog': 60.0, 'queue_depth': 2000}
"""Parameters with which even a busy machine drops no sound that is played too fast."""


class AudioPublisher:
    """Publishes sound to the node, as any capture node would."""

    def __init__(
        self,
        graph,
        message_type=AudioDataStamped,
        topic=None,
        qos=1000,
        info_topic='audio_info',
    ):
        self.graph = graph
        self.type = message_type
        topic = topic or ('audio_stamped' if message_type is AudioDataStamped else 'audio')
        self.audio = graph.node.create_publisher(message_type, topic, qos)
        self.info = graph.node.create_publisher(AudioInfo, info_topic, TRANSIENT_LOCAL)

    def announce(self, sample_format='S16LE', channels=1, rate=SAMPLE_RATE, coding='wave'):
        self.info.publish(
            AudioInfo(
                channels=channels,
                sample_rate=rate,
                sample_format=sample_format,
                coding_format=coding,
            )
        )

    def publish_block(self, data, stamp_ns=START, frame_id='mic'):
        audio = AudioData(data=array.array('B', data))
        header = to_header(stamp_ns, frame_id)
        stamped = self.type is AudioDataStamped
        self.audio.publish(AudioDataStamped(header=header, audio=audio) if stamped else audio)

    def play(self, data, frame_bytes=2, rate=SAMPLE_RATE, block_frames=320, period=0.0):
        """Publish blocks of `block_frames` (a list is repeated), `period` seconds apart."""
        sizes = [block_frames] if isinstance(block_frames, int) else block_frames
        first, n = 0, 0
        while first * frame_bytes < len(data):
            frames = sizes[n % len(sizes)]
            self.publish_block(
                data[first * frame_bytes : (first + frames) * frame_bytes],
                START + first * SECOND // rate,
            )
            first, n = first + frames, n + 1
            time.sleep(period)

    def wait_for_subscriber(self, node=None, timeout=20.0):
        """Wait for a subscriber of the sound; `node`: that is to know of the format as well."""
        self.graph.wait_for_subscriber(self.audio, timeout)
        if node is not None:
            self.graph.wait(lambda: node.count_publishers('audio_info'), 'discovery')


def as_text(messages):
    """Messages in a form to compare: serialised, they hold padding bytes of any value."""
    return [repr(message) for message in messages]


def reported(node):
    """The values of the node's diagnostics."""
    return node.diagnose().values


def assert_logs_only(graph, capfd, text):
    """Wait until the log contains the text; fail if a warning or an error does not contain it."""
    lines = []

    def is_logged():
        lines.extend(capfd.readouterr().err.splitlines())
        return any(text in line for line in lines)

    graph.wait(is_logged, text)
    others = [n for n in lines if ('[WARN]' in n or '[ERROR]' in n) and text not in n]
    assert not others, others


def speech_then_silence(path=SPEECH, seconds=None):
    """Speech, or the beginning of it, and a second of silence: so many seconds in all.

    Its utterances end in the sound, and so do not depend on when the node stops waiting for more.
    """
    samples = read_audio(path)
    if seconds is not None:
        samples = samples[: (seconds - 1) * SAMPLE_RATE]
    return np.concatenate((samples, np.zeros(SAMPLE_RATE, np.float32)))


def wait_until_processed(graph, node, outputs, n_samples):
    """Wait until the node has processed so many samples and all its windows were received."""
    graph.wait(
        lambda: (
            reported(node)['samples'] >= n_samples
            and reported(node)['windows'] == len(outputs['probabilities'])
        ),
        f'{n_samples} samples processed; the node reports {reported(node)}',
        60,
    )


def recognize(samples, has_ended=False):
    """The estimates of a `Recognizer` for 16 kHz samples.

    `has_ended`: with those that come when the node stops waiting for more.
    """
    recognizer = Recognizer(load_backend(device='cpu'))
    return recognizer.push(samples, START) + (recognizer.flush() if has_ended else [])


def probabilities_by_stamp(messages):
    return {
        to_nanoseconds(message.header.stamp): np.array([r.score for r in message.results])
        for message in messages
    }

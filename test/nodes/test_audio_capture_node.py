"""The capture node with files; microphones are tested in test_virtual_microphone.py."""

import time

import numpy as np
import pytest
import soundfile

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2: . tools/ros_env.sh')

from audio_common_msgs.msg import AudioData, AudioDataStamped, AudioInfo  # noqa: E402

from ser_ros.audio import SECOND  # noqa: E402
from ser_ros.audio.formats import PcmFormat  # noqa: E402
from ser_ros.nodes.audio_capture_node import AudioCaptureNode  # noqa: E402
from ser_ros.nodes.emotion_diagnostics import STALE_AFTER  # noqa: E402
from ser_ros.nodes.emotion_node import EmotionNode  # noqa: E402
from ser_ros.nodes.messages import TRANSIENT_LOCAL, to_nanoseconds  # noqa: E402


def write(path, rate=22_050, channels=2, seconds=0.5, subtype='PCM_16'):
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (round(rate * seconds), channels))
    soundfile.write(path, samples, rate, subtype=subtype)
    return samples


def has_ended(node):
    return node.diagnose().message == 'end of file'


@pytest.mark.parametrize(
    ('rate', 'channels', 'subtype'),
    [(22_050, 2, 'PCM_16'), (48_000, 6, 'PCM_24'), (8_000, 1, 'PCM_U8'), (16_000, 1, 'FLOAT')],
)
def test_a_file_is_published_whole(graph, tmp_path, rate, channels, subtype):
    samples = write(tmp_path / 'a.wav', rate, channels, subtype=subtype)
    node = graph.make(AudioCaptureNode, source='file', file=str(tmp_path / 'a.wav'), speed=10.0)
    infos = graph.subscribe(AudioInfo, 'audio_info', TRANSIENT_LOCAL)
    blocks = graph.subscribe(AudioDataStamped, 'audio_stamped', 1000)
    graph.wait(lambda: has_ended(node), 'the end of the file')
    graph.wait(lambda: len(blocks) == node.diagnose().values['blocks'], 'every block')

    info = infos[0]
    pcm = PcmFormat(info.sample_format, info.channels, info.sample_rate, info.coding_format)
    assert (pcm.sample_format, pcm.channels, pcm.sample_rate) == ('S16LE', channels, rate)
    assert info.bitrate == rate * channels * 16
    received = pcm.decode(b''.join(block.audio.data.tobytes() for block in blocks))
    # A second of silence follows, so that the last utterance ends.
    assert len(received) == len(samples) + rate
    step = 2.0**-6 if subtype == 'PCM_U8' else 2.0**-14
    np.testing.assert_allclose(received[: len(samples)], samples, atol=step)
    assert not received[len(samples) :].any()
    # Stamps advance by the sample clock, whatever the speed.
    stamps = np.array([to_nanoseconds(block.header.stamp) for block in blocks])
    frames = np.cumsum([0] + [len(block.audio.data) // pcm.frame_bytes for block in blocks[:-1]])
    np.testing.assert_allclose(stamps - stamps[0], frames * SECOND / rate, atol=1.0)
    assert float(node.diagnose().values['first stamp']) == pytest.approx(
        stamps[0] / SECOND, abs=1e-3
    )
    assert {block.header.frame_id for block in blocks} == {'microphone'}


@pytest.mark.parametrize('size', [slice(40, 44), None], ids=['killed recorder', 'cut short'])
def test_a_file_that_is_not_whole_is_played_and_named(graph, capfd, tmp_path, size):
    samples = write(tmp_path / 'a.wav')
    data = bytearray((tmp_path / 'a.wav').read_bytes())
    n = len(samples)
    if size:
        data[size] = bytes(4)
    else:
        n //= 2
        del data[44 + 4 * n :]
    (tmp_path / 'a.wav').write_bytes(data)
    node = graph.make(AudioCaptureNode, source='file', file=str(tmp_path / 'a.wav'), speed=10.0)
    blocks = graph.subscribe(AudioDataStamped, 'audio_stamped', 1000)
    graph.wait(lambda: has_ended(node), 'the end of the file')
    graph.wait(lambda: len(blocks) == node.diagnose().values['blocks'], 'every block')
    assert sum(len(block.audio.data) for block in blocks) == 4 * (n + 22_050)
    message = 'recorder was not closed' if size else 'cut short: it holds 0.250 of the 0.500 s'
    warnings = [line for line in capfd.readouterr().err.splitlines() if '[WARN]' in line]
    assert [message in line for line in warnings] == [True]


def test_a_looped_file_continues_until_deactivated(graph, tmp_path):
    write(tmp_path / 'a.wav', seconds=0.1)
    node = graph.make(
        AudioCaptureNode, source='file', file=str(tmp_path / 'a.wav'), speed=100.0, loop=True
    )
    blocks = graph.subscribe(AudioDataStamped, 'audio_stamped', 1000)
    # 0.1 s and a second of silence, three times.
    graph.wait(lambda: len(blocks) > 3 * 55, 'three rounds')
    graph.run(node.trigger_deactivate)
    assert not has_ended(node)
    assert node.diagnose().message == 'not active'
    n_blocks = node.diagnose().values['blocks']
    graph.wait(lambda: len(blocks) == n_blocks, 'every block')
    graph.run(node.trigger_activate)
    graph.wait(lambda: len(blocks) > n_blocks + 55, 'more blocks')


def test_unstamped_copies_are_optional(graph, tmp_path):
    write(tmp_path / 'a.wav')
    stamped = graph.subscribe(AudioDataStamped, 'audio_stamped', 1000)
    unstamped = graph.subscribe(AudioData, 'audio', 1000)
    node = graph.make(
        AudioCaptureNode,
        source='file',
        file=str(tmp_path / 'a.wav'),
        speed=10.0,
        publish_unstamped=True,
    )
    graph.wait(lambda: has_ended(node), 'the end of the file')
    graph.wait(
        lambda: len(stamped) == len(unstamped) == node.diagnose().values['blocks'], 'every block'
    )
    assert [m.audio.data for m in stamped] == [m.data for m in unstamped]


def test_a_file_waits_for_a_subscriber_of_either_topic_and_names_both(graph, tmp_path, capfd):
    write(tmp_path / 'a.wav')
    node = graph.make(
        AudioCaptureNode,
        source='file',
        file=str(tmp_path / 'a.wav'),
        speed=10.0,
        publish_unstamped=True,
    )
    waiting = 'the file waits for a subscriber of /audio_stamped or /audio'
    graph.wait(lambda: node.diagnose().message == waiting, 'the wait')
    unstamped = graph.subscribe(AudioData, 'audio', 1000)
    graph.wait(lambda: has_ended(node), 'the end of the file')
    graph.wait(lambda: len(unstamped) == node.diagnose().values['blocks'], 'every block')
    log = capfd.readouterr().err
    assert waiting in log
    assert f'end of file {tmp_path / "a.wav"}' in log


def test_after_the_end_of_a_file_nobody_misses_sound(graph, tmp_path):
    """Nor does a node that starts later; when the file is played again, there is sound again."""
    write(tmp_path / 'a.wav')
    first = graph.make(EmotionNode, device='cpu')
    capture = graph.make(AudioCaptureNode, source='file', file=str(tmp_path / 'a.wav'), speed=10.0)
    graph.wait(lambda: has_ended(capture), 'the end of the file')
    later = graph.make(EmotionNode, namespace='later', device='cpu', info_topic='/audio_info')
    time.sleep(STALE_AFTER)
    for node in (first, later):
        graph.wait(lambda: 'the sound has ended' in node.diagnose().message, 'its end')  # noqa: B023
        assert node.diagnose().level == b'\0'
    n_samples = first.diagnose().values['samples']
    assert n_samples > 0
    graph.run(capture.trigger_deactivate)
    graph.run(capture.trigger_activate)
    graph.wait(lambda: first.diagnose().values['samples'] >= 2 * n_samples, 'the sound again')


@pytest.mark.parametrize(
    ('parameters', 'message'),
    [
        ({'source': 'file', 'file': '/nowhere.wav'}, '/nowhere.wav'),
        ({'source': 'file', 'file': ''}, 'no such file'),
        ({'source': 'radio'}, "'radio'"),
        ({'source': 'microphone', 'microphone': 'no such thing'}, "'no such thing'"),
        ({'source': 'microphone', 'microphone': 4711}, "'4711'"),
    ],
)
def test_an_invalid_source_is_reported_in_one_line(graph, capfd, parameters, message):
    node = graph.make(AudioCaptureNode, **parameters)
    assert node.failed
    errors = [line for line in capfd.readouterr().err.splitlines() if '[ERROR]' in line]
    assert len(errors) == 1
    assert message in errors[0]

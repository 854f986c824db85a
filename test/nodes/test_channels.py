"""Sound of several channels, and float sound beyond full scale, through the real nodes."""

import numpy as np
import pytest
import soundfile

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2: . tools/ros_env.sh')

from audio_common_msgs.msg import AudioDataStamped, AudioInfo  # noqa: E402
from feeding import (  # noqa: E402
    LARGE_BACKLOG,
    START,
    probabilities_by_stamp,
    recognize,
    reported,
    speech_then_silence,
    wait_until_processed,
)
from rcl_interfaces.srv import SetParameters  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402

from ser_ros.audio import SAMPLE_RATE, SECOND  # noqa: E402
from ser_ros.audio.formats import PcmFormat, encode_s16le  # noqa: E402
from ser_ros.nodes.audio_capture_node import AudioCaptureNode  # noqa: E402
from ser_ros.nodes.emotion_node import EmotionNode  # noqa: E402
from ser_ros.nodes.messages import TRANSIENT_LOCAL  # noqa: E402

WARN = b'\1'


def sound(seconds=4):
    return speech_then_silence(seconds=seconds)


def array_of_six():
    """A six-channel array: the processed voice in channel 0, what the robot plays in channel 5."""
    voice, music = sound(), speech_then_silence()[-4 * SAMPLE_RATE :]
    rng = np.random.default_rng(1)
    frames = 1e-3 * rng.standard_normal((len(voice), 6)).astype(np.float32)
    frames[:, 0], frames[:, 5] = voice, music
    return frames


def play(publisher, node, frames, sample_format='S16LE'):
    publisher.wait_for_subscriber(node)
    publisher.announce(sample_format, channels=frames.shape[1])
    pcm_format = str(PcmFormat(sample_format, frames.shape[1], SAMPLE_RATE))
    publisher.graph.wait(lambda: reported(node)['format'] == pcm_format, 'its format')
    is_float = sample_format == 'F32LE'
    data = frames.astype('<f4').tobytes() if is_float else encode_s16le(frames)
    publisher.play(data, frame_bytes=len(data) // len(frames), period=0.001)


def set_parameter(graph, node, **values):
    """Over the node's service, as `ros2 param set` does; returns why it was refused, or ''."""
    client = graph.node.create_client(SetParameters, f'{node.get_name()}/set_parameters')
    assert client.wait_for_service(20.0)
    parameters = [Parameter(k, value=v).to_parameter_msg() for k, v in values.items()]
    answer = client.call_async(SetParameters.Request(parameters=parameters))
    graph.wait(answer.done, 'the answer')
    (result,) = answer.result().results
    assert result.successful is not bool(result.reason)
    return result.reason


def test_the_chosen_channel_of_an_array_is_recognised(graph, outputs, publisher):
    node = graph.make(EmotionNode, **LARGE_BACKLOG, channel=0)
    play(publisher, node, array_of_six())
    wait_until_processed(graph, node, outputs, 4 * SAMPLE_RATE)
    decoded = PcmFormat('S16LE', 1, SAMPLE_RATE).decode(encode_s16le(sound()))[:, 0]
    expected = {e.stamp_ns: e.probabilities for e in recognize(decoded) if e.is_window}
    received = probabilities_by_stamp(outputs['probabilities'])
    assert received.keys() == expected.keys()
    for stamp, probabilities in expected.items():
        np.testing.assert_allclose(received[stamp], probabilities, atol=1e-5)
    assert 'channel' not in node.diagnose().message


def test_channels_that_differ_are_a_warning_that_names_the_parameter(
    graph, outputs, publisher, capfd
):
    node = graph.make(EmotionNode, **LARGE_BACKLOG)
    play(publisher, node, array_of_six())
    wait_until_processed(graph, node, outputs, 4 * SAMPLE_RATE)
    report = node.diagnose()
    assert report.level == WARN
    assert 'have different sound' in report.message
    assert 'the parameter channel' in report.message
    log = ''

    def is_said():
        nonlocal log
        log += capfd.readouterr().err
        return 'its 6 channels are averaged' in log

    graph.wait(is_said, 'a line about the average')
    # Chosen now, while the node runs: the problem is gone.
    assert set_parameter(graph, node, channel=0) == ''
    publisher.play(encode_s16le(array_of_six()), frame_bytes=12, period=0.001)
    wait_until_processed(graph, node, outputs, 8 * SAMPLE_RATE)
    assert 'channel' not in node.diagnose().message
    log += capfd.readouterr().err
    assert log.count('its 6 channels are averaged') == 1


def test_channels_that_cancel_are_not_called_silence(graph, outputs, publisher):
    node = graph.make(EmotionNode, **LARGE_BACKLOG)
    play(publisher, node, np.stack([sound(), -sound()], axis=1))
    wait_until_processed(graph, node, outputs, 4 * SAMPLE_RATE)
    report = node.diagnose()
    assert report.level == WARN
    assert 'its 2 channels cancel each other' in report.message
    assert 'the parameter channel' in report.message


def test_two_channels_that_agree_are_averaged_without_a_word(graph, outputs, publisher, capfd):
    node = graph.make(EmotionNode, **LARGE_BACKLOG)
    play(publisher, node, np.stack([sound(), 0.7 * sound()], axis=1))
    wait_until_processed(graph, node, outputs, 4 * SAMPLE_RATE)
    assert outputs['probabilities']
    assert 'channel' not in node.diagnose().message
    assert 'channel' not in capfd.readouterr().err


def test_a_channel_that_is_not_there_any_more_is_refused_until_it_is(graph, publisher):
    node = graph.make(EmotionNode, **LARGE_BACKLOG, channel=5)
    play(publisher, node, array_of_six()[:SAMPLE_RATE])
    graph.wait(lambda: reported(node)['samples'] == SAMPLE_RATE, 'the sound')
    publisher.announce(channels=2)
    publisher.publish_block(bytes(1280), START + SECOND)
    graph.wait(lambda: reported(node)['refused blocks'] == 1, 'the refusal')
    report = node.diagnose()
    assert report.level == WARN
    assert 'there is no channel 5: the sound has channels 0 to 1' in report.message
    assert 'no channel 4' in set_parameter(graph, node, channel=4)
    assert set_parameter(graph, node, channel=1) == ''
    publisher.publish_block(bytes(1280), START + SECOND)
    graph.wait(lambda: reported(node)['samples'] == SAMPLE_RATE + 320, 'sound of channel 1')
    assert reported(node)['refused blocks'] == 1


def errors_of(graph, capfd, cls, **parameters):
    node = graph.make(cls, **parameters)
    assert node.failed
    assert node.is_misconfigured  # ends the process for good: no other start would succeed
    return [line for line in capfd.readouterr().err.splitlines() if '[ERROR]' in line]


def test_a_channel_outside_the_stated_format_is_one_line(graph, capfd):
    parameters = {'sample_format': 'S16LE', 'channels': 2, 'channel': 2, 'device': 'cpu'}
    (error,) = errors_of(graph, capfd, EmotionNode, **parameters)
    assert 'there is no channel 2: the sound has channels 0 to 1' in error


def test_a_channel_that_a_file_does_not_have_is_one_line(graph, capfd, tmp_path):
    soundfile.write(tmp_path / 'a.wav', np.zeros((8_000, 2)), 16_000)
    file = {'source': 'file', 'file': str(tmp_path / 'a.wav')}
    (error,) = errors_of(graph, capfd, AudioCaptureNode, **file, channel=2)
    assert 'a.wav at 16000 Hz with 2 channels: there is no channel 2' in error


def test_one_channel_of_a_file_is_published(graph, tmp_path):
    frames = array_of_six()[:8_000]
    soundfile.write(tmp_path / 'a.wav', frames, SAMPLE_RATE)
    infos = graph.subscribe(AudioInfo, 'audio_info', TRANSIENT_LOCAL)
    blocks = graph.subscribe(AudioDataStamped, 'audio_stamped', 1000)
    file = {'source': 'file', 'file': str(tmp_path / 'a.wav'), 'speed': 10.0}
    node = graph.make(AudioCaptureNode, **file, channel=5)
    graph.wait(lambda: node.diagnose().message == 'end of file', 'the end of the file')
    graph.wait(lambda: len(blocks) == node.diagnose().values['blocks'], 'every block')
    assert infos[0].channels == 1
    data = b''.join(block.audio.data.tobytes() for block in blocks)
    received = PcmFormat('S16LE', 1, SAMPLE_RATE).decode(data)[:8_000, 0]
    np.testing.assert_allclose(received, frames[:, 5], atol=2**-14)


def test_the_capture_node_warns_of_channels_that_differ(graph, tmp_path):
    soundfile.write(tmp_path / 'a.wav', array_of_six(), SAMPLE_RATE)
    file = {'source': 'file', 'file': str(tmp_path / 'a.wav'), 'loop': True, 'speed': 10.0}
    graph.subscribe(AudioDataStamped, 'audio_stamped', 1000)
    node = graph.make(AudioCaptureNode, **file)
    graph.wait(lambda: 'different sound' in node.diagnose().message, 'the warning')
    assert node.diagnose().level == WARN
    assert 'the parameter channel' in node.diagnose().message


def test_float_sound_beyond_full_scale_is_a_warning_and_scaled_if_that_is_asked_for(
    graph, outputs, publisher
):
    loud = 32_768 * sound()[:, None]
    node = graph.make(EmotionNode, **LARGE_BACKLOG)
    play(publisher, node, loud, 'F32LE')
    wait_until_processed(graph, node, outputs, 4 * SAMPLE_RATE)
    report = node.diagnose()
    assert report.level == WARN
    assert 'beyond full scale' in report.message
    assert 'full_scale' in report.message
    assert report.values['samples beyond full scale'] > SAMPLE_RATE
    graph.remove(node)
    graph.wait(lambda: not publisher.audio.get_subscription_count(), 'the end of the first node')
    outputs['probabilities'].clear()
    node = graph.make(EmotionNode, **LARGE_BACKLOG, full_scale=32_768.0)
    play(publisher, node, loud, 'F32LE')
    wait_until_processed(graph, node, outputs, 4 * SAMPLE_RATE)
    assert reported(node)['samples beyond full scale'] == 0
    expected = {e.stamp_ns: e.probabilities for e in recognize(sound()) if e.is_window}
    received = probabilities_by_stamp(outputs['probabilities'])
    assert received.keys() == expected.keys()
    for stamp, probabilities in expected.items():
        np.testing.assert_allclose(received[stamp], probabilities, atol=1e-4)


def test_the_capture_node_counts_what_it_clips_in_a_float_file(graph, tmp_path):
    path = tmp_path / 'a.wav'
    soundfile.write(path, 32_768 * sound(), SAMPLE_RATE, subtype='FLOAT')
    graph.subscribe(AudioDataStamped, 'audio_stamped', 1000)
    file = {'source': 'file', 'file': str(path), 'loop': True, 'speed': 10.0}
    node = graph.make(AudioCaptureNode, **file)
    graph.wait(lambda: node.diagnose().level == WARN, 'the warning')
    assert 'beyond full scale' in node.diagnose().message
    assert node.diagnose().values['samples beyond full scale'] > 0

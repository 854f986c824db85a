"""The real path of sound: speech is played into a microphone and classified."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2: . tools/ros_env.sh')

from ament_index_python.packages import get_package_prefix  # noqa: E402
from audio_common_msgs.msg import AudioDataStamped, AudioInfo  # noqa: E402
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus  # noqa: E402
from std_msgs.msg import Bool  # noqa: E402
from vision_msgs.msg import Classification  # noqa: E402

from ser_ros.audio import SECOND  # noqa: E402
from ser_ros.audio.formats import PcmFormat  # noqa: E402
from ser_ros.nodes import CONFIGURATION_ERROR  # noqa: E402
from ser_ros.nodes.emotion_node import EmotionNode  # noqa: E402
from ser_ros.nodes.messages import TRANSIENT_LOCAL, to_nanoseconds  # noqa: E402

HERE = Path(__file__).parent
SLOWNESS = 2.0
"""Factor for the time limits, as the machine may do other things as well."""
SPEECH = HERE.parents[1] / 'examples' / 'speech.flac'


@pytest.fixture
def capture(virtual_microphone, domain_id):
    """Start the capture node as a process: PortAudio looks for devices once in each process."""
    processes = []

    def start(**parameters):
        ros_args = [
            argument
            for name, value in parameters.items()
            for argument in ('-p', f'{name}:={value}')
        ]
        executable = Path(get_package_prefix('ser_ros'), 'lib', 'ser_ros', 'audio_capture_node')
        process = subprocess.Popen(
            [executable, '--ros-args', *ros_args],
            env={**virtual_microphone.environment, 'ROS_DOMAIN_ID': str(domain_id)},
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.terminate()
        process.communicate(timeout=20)


def test_clicks_are_stamped_with_the_time_at_which_they_sound(graph, virtual_microphone, capture):
    infos = graph.subscribe(AudioInfo, 'audio_info', TRANSIENT_LOCAL)
    blocks = graph.subscribe(AudioDataStamped, 'audio_stamped', 10_000)
    capture(microphone='pulse', sample_rate=16_000)
    graph.wait(lambda: len(blocks) > 50, 'sound')
    played = subprocess.run(
        [sys.executable, HERE / 'play_clicks.py', '12'],
        env=virtual_microphone.environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    last = int(played[-1])
    graph.wait(lambda: to_nanoseconds(blocks[-1].header.stamp) > last + SECOND, 'the last click')

    info = infos[0]
    pcm = PcmFormat(info.sample_format, info.channels, info.sample_rate, info.coding_format)
    stamps = []
    for block in blocks:
        loud = np.flatnonzero(np.abs(pcm.decode(block.audio.data.tobytes())[:, 0]) > 0.3)
        stamp = to_nanoseconds(block.header.stamp)
        # A click of 1 ms may be cut in two by the end of a block.
        if len(loud) and (not stamps or stamp - stamps[-1] > SECOND // 10):
            stamps.append(stamp + int(loud[0]) * SECOND // pcm.sample_rate)
    played = np.array(played, dtype=np.int64)
    clicks = [int(abs(played - stamp).argmin()) for stamp in stamps]
    # On a busy machine the sound server may drop the first while it starts.
    assert clicks in (list(range(12)), list(range(1, 12)))
    errors = (np.array(stamps) - played[clicks]) / SECOND
    assert abs(np.median(errors)) < 0.05


def test_speech_into_the_microphone_is_classified(graph, virtual_microphone, capture):
    speaking = graph.subscribe(Bool, 'is_speaking', TRANSIENT_LOCAL)
    windows = graph.subscribe(Classification, 'emotion/probabilities')
    node = graph.make(EmotionNode, device='cpu')
    capture(microphone='pulse', sample_rate=44_100, channels=2)
    graph.wait(lambda: node.diagnose().values['samples'] > 8_000, 'sound')
    virtual_microphone.play_in_a_loop(SPEECH)
    graph.wait(lambda: node.diagnose().values['utterances'] >= 2, 'two utterances')
    graph.wait(lambda: len(windows) >= 4, 'their windows')
    assert True in [message.data for message in speaking]
    assert windows[0].header.frame_id == 'microphone'


def test_one_channel_of_the_microphone_is_published(graph, virtual_microphone, capture, tmp_path):
    """The second one is ten times as quiet, which an average would not be."""
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(32_000) / 16_000)
    soundfile.write(tmp_path / 'stereo.wav', np.stack([tone, 0.1 * tone], axis=1), 16_000)
    virtual_microphone.play_in_a_loop(tmp_path / 'stereo.wav')
    blocks = graph.subscribe(AudioDataStamped, 'audio_stamped', 10_000)
    infos = graph.subscribe(AudioInfo, 'audio_info', TRANSIENT_LOCAL)
    capture(microphone='pulse', sample_rate=16_000, channel=1)
    pcm = PcmFormat('S16LE', 1, 16_000)

    def loudest():
        sound = [pcm.decode(block.audio.data.tobytes()) for block in list(blocks)]
        return max((np.abs(samples).max() for samples in sound if len(samples)), default=0.0)

    graph.wait(lambda: loudest() > 0.025, 'the tone')
    n_before = len(blocks)
    graph.wait(lambda: len(blocks) > n_before + 50, 'a second of it')
    assert infos[0].channels == 1
    assert loudest() == pytest.approx(0.03, abs=0.003)


@pytest.mark.parametrize(
    ('parameters', 'message', 'status'),
    [
        ({'microphone': 'nobody'}, "no microphone 'nobody'; there are:", 1),
        ({'microphone': 'pulse', 'channels': 63}, '63 channels', CONFIGURATION_ERROR),
        ({'microphone': 'pulse', 'sample_rate': 500}, '500 Hz', CONFIGURATION_ERROR),
        (
            {'microphone': 'pulse', 'channels': 2, 'channel': 2},
            'there is no channel 2',
            CONFIGURATION_ERROR,
        ),
    ],
)
def test_an_unavailable_device_is_reported_with_the_available_ones(
    capture, parameters, message, status
):
    process = capture(**parameters)
    output = process.communicate(timeout=30)[1]
    assert process.returncode == status
    errors = [line for line in output.splitlines() if '[ERROR]' in line]
    assert len(errors) == 1
    assert message in errors[0]
    assert "'pulse'" in errors[0]


def test_no_microphone_at_all_is_reported_in_one_line(capture, virtual_microphone):
    virtual_microphone.close()
    process = capture()
    output = process.communicate(timeout=30)[1]
    assert process.returncode == 1
    errors = [line for line in output.splitlines() if '[ERROR]' in line]
    assert len(errors) == 1
    assert "no microphone 'default'; there are: no input devices at all" in errors[0]


def status_of(diagnostics, name):
    """The last status of a node; None before the first."""
    found = [s for message in diagnostics for s in message.status if s.name == name]
    return found[-1] if found else None


def test_an_unplugged_microphone_is_an_error_until_it_is_back(graph, virtual_microphone, capture):
    diagnostics = graph.subscribe(DiagnosticArray, '/diagnostics')
    blocks = graph.subscribe(AudioDataStamped, 'audio_stamped', 1_000)
    process = capture(microphone='pulse', sample_rate=16_000)

    def is_at(level, text):
        status = status_of(diagnostics, 'audio_capture_node')
        return status is not None and status.level == level and text in status.message

    # While nothing is played, a virtual microphone delivers only zeros.
    graph.wait(lambda: is_at(DiagnosticStatus.WARN, 'muted'), 'the warning that it is muted')
    virtual_microphone.play_in_a_loop(SPEECH)
    graph.wait(lambda: is_at(DiagnosticStatus.OK, 'capturing'), 'the status OK')
    virtual_microphone.unplug()
    graph.wait(lambda: is_at(DiagnosticStatus.ERROR, "'pulse'"), 'the error that it is gone')
    assert 'looking for it' in status_of(diagnostics, 'audio_capture_node').message
    n_blocks = len(blocks)
    virtual_microphone.plug()
    graph.wait(lambda: len(blocks) > n_blocks + 10, 'sound again', 5.0 * SLOWNESS)
    assert process.poll() is None
    graph.wait(lambda: is_at(DiagnosticStatus.OK, 'capturing'), 'the status OK again')
    process.terminate()
    assert "capturing; this is over: microphone 'pulse'" in process.communicate(timeout=20)[1]


def test_a_sound_server_that_hangs_ends_the_process_for_a_respawn(
    graph, virtual_microphone, capture
):
    blocks = graph.subscribe(AudioDataStamped, 'audio_stamped', 1_000)
    process = capture(microphone='pulse', sample_rate=16_000)
    graph.wait(lambda: blocks, 'sound')
    virtual_microphone.server.send_signal(signal.SIGSTOP)
    try:
        output = process.communicate(timeout=30)[1]
    finally:
        virtual_microphone.server.send_signal(signal.SIGCONT)
    assert process.returncode == 1
    assert 'PortAudio hangs' in output
    assert 'Traceback' not in output

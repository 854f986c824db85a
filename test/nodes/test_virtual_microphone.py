"""The real sound path: speech played into a microphone, emotions out."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2: . tools/ros_env.sh')

from ament_index_python.packages import get_package_prefix  # noqa: E402
from audio_common_msgs.msg import AudioDataStamped, AudioInfo  # noqa: E402
from std_msgs.msg import Bool  # noqa: E402
from vision_msgs.msg import Classification  # noqa: E402

from ser_ros.audio import SECOND  # noqa: E402
from ser_ros.audio.formats import PcmFormat  # noqa: E402
from ser_ros.nodes.emotion_node import EmotionNode  # noqa: E402
from ser_ros.nodes.messages import LATCHED, to_nanoseconds  # noqa: E402

HERE = Path(__file__).parent
SPEECH = HERE.parents[1] / 'examples' / 'speech.flac'


class VirtualMicrophone:
    """A PulseAudio server of the test's own: no sound card is needed.

    `play` speaks into the sink `virt`; PortAudio's device `pulse` hears it.
    """

    def __init__(self, folder):
        for program in ('pulseaudio', 'pactl', 'paplay'):
            if not shutil.which(program):
                pytest.skip(f'needs {program} (apt install pulseaudio pulseaudio-utils)')
        (folder / '.asoundrc').write_text('pcm.!default { type pulse }\n')
        self.environment = {
            **os.environ,
            'HOME': str(folder),
            'XDG_RUNTIME_DIR': str(folder),
            'PULSE_RUNTIME_PATH': str(folder / 'pulse'),
            'PULSE_LATENCY_MSEC': '20',
        }
        self._server = subprocess.Popen(
            [
                *('pulseaudio', '-n', '--daemonize=no', '--exit-idle-time=-1'),
                *('--load=module-native-protocol-unix', '--disable-shm=yes'),
                '--load=module-null-sink sink_name=virt',
                '--load=module-remap-source master=virt.monitor source_name=virtmic',
            ],
            env=self.environment,
            stderr=subprocess.DEVNULL,
        )
        self._wait_until_ready()
        self._control('set-default-source', 'virtmic')
        self._control('set-default-sink', 'virt')

    def _wait_until_ready(self):
        deadline = time.monotonic() + 20.0
        while self._control('info', check=False).returncode:
            assert self._server.poll() is None, 'pulseaudio did not start'
            assert time.monotonic() < deadline, 'pulseaudio does not answer'
            time.sleep(0.05)

    def _control(self, *arguments, check=True):
        return subprocess.run(
            ['pactl', *arguments], env=self.environment, capture_output=True, check=check
        )

    def play(self, path):
        subprocess.run(['paplay', '-d', 'virt', str(path)], env=self.environment, check=True)

    def close(self):
        self._server.terminate()
        self._server.wait()


@pytest.fixture
def virtual_microphone(tmp_path):
    microphone = VirtualMicrophone(tmp_path)
    yield microphone
    microphone.close()


@pytest.fixture
def capture(virtual_microphone, domain_id):
    """Start the capture node as a process of its own, as PortAudio looks for devices only once."""
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


def test_clicks_are_stamped_when_they_sound(graph, virtual_microphone, capture):
    infos = graph.listen(AudioInfo, 'audio_info', LATCHED)
    blocks = graph.listen(AudioDataStamped, 'audio_stamped', 10_000)
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
    heard = []
    for block in blocks:
        loud = np.flatnonzero(np.abs(pcm.decode(block.audio.data.tobytes())[:, 0]) > 0.3)
        stamp = to_nanoseconds(block.header.stamp)
        # A click of 1 ms may be cut in two by the end of a block.
        if len(loud) and (not heard or stamp - heard[-1] > SECOND // 10):
            heard.append(stamp + int(loud[0]) * SECOND // pcm.sample_rate)
    assert len(heard) == len(played) == 12
    errors = (np.array(heard) - np.array(played, dtype=np.int64)) / SECOND
    assert abs(np.median(errors)) < 0.05


def test_speech_into_the_microphone_is_answered(graph, virtual_microphone, capture):
    speaking = graph.listen(Bool, 'is_speaking', LATCHED)
    windows = graph.listen(Classification, 'emotion/probabilities')
    node = graph.make(EmotionNode, device='cpu')
    capture(microphone='pulse', sample_rate=44_100, channels=2)
    graph.wait(lambda: node.diagnose()[1]['samples'] > 8_000, 'sound')
    virtual_microphone.play(SPEECH)
    graph.wait(lambda: node.diagnose()[1]['utterances'] >= 2, 'two utterances')
    graph.wait(lambda: len(windows) >= 4, 'their windows')
    assert True in [message.data for message in speaking]
    assert windows[0].header.frame_id == 'microphone'


@pytest.mark.parametrize(
    ('parameters', 'said'),
    [
        ({'microphone': 'nobody'}, "no microphone 'nobody'; there are:"),
        ({'microphone': 'pulse', 'channels': 63}, '63 channels'),
        ({'microphone': 'pulse', 'sample_rate': 500}, '500 Hz'),
    ],
)
def test_what_is_not_there_is_said_with_what_is(capture, parameters, said):
    process = capture(**parameters)
    output = process.communicate(timeout=30)[1]
    assert process.returncode == 1
    errors = [line for line in output.splitlines() if '[ERROR]' in line]
    assert len(errors) == 1
    assert said in errors[0]
    assert "'pulse'" in errors[0]


def test_no_microphone_at_all_is_said_in_one_line(capture, virtual_microphone):
    virtual_microphone.close()
    process = capture()
    output = process.communicate(timeout=30)[1]
    assert process.returncode == 1
    errors = [line for line in output.splitlines() if '[ERROR]' in line]
    assert len(errors) == 1
    assert "no microphone 'default'; there are: no input devices at all" in errors[0]

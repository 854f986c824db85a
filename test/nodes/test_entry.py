"""The executables, run as processes."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2: . tools/ros_env.sh')

import numpy as np
from ament_index_python.packages import get_package_prefix
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from feeding import START, speech_then_silence
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from vision_msgs.msg import Classification

from ser_ros.bundle import load_bundle
from ser_ros.nodes import CONFIGURATION_ERROR
from ser_ros.stream.recognizer import Recognizer

SPEECH = Path(__file__).parents[2] / 'examples' / 'speech.flac'


def start(executable, *parameters, domain_id, **environment):
    path = Path(get_package_prefix('ser_ros'), 'lib', 'ser_ros', executable)
    arguments = [argument for parameter in parameters for argument in ('-p', parameter)]
    return subprocess.Popen(
        [path, '--ros-args', *arguments],
        env={**os.environ, 'ROS_DOMAIN_ID': str(domain_id), **environment},
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(process, text):
    watchdog = threading.Timer(60.0, process.kill)
    watchdog.start()
    output = ''
    while text not in output:
        line = process.stderr.readline()
        assert line, output
        output += line
    watchdog.cancel()


@pytest.mark.parametrize('name', ['emotion_node', 'ser'])
def test_a_missing_package_is_reported_in_one_line_with_the_remedy(name):
    code = (
        "import sys; sys.modules['onnxruntime'] = None; "
        f'from ser_ros.nodes.entry import {name}; {name}()'
    )
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert run.returncode == CONFIGURATION_ERROR
    assert run.stderr.count('\n') == 1
    assert 'onnxruntime' in run.stderr
    assert 'docs/installation.md' in run.stderr


@pytest.mark.parametrize('name', ['audio_capture_node', 'emotion_node'])
def test_another_package_of_the_same_name_is_reported_in_one_line(tmp_path, name):
    folder = tmp_path / 'audio_common_msgs'
    folder.mkdir()
    (folder / '__init__.py').touch()
    (folder / 'msg.py').write_text('class AudioData: ...\n')
    code = (
        f'import sys; sys.path.insert(0, {str(tmp_path)!r}); '
        f'from ser_ros.nodes.entry import {name}; {name}()'
    )
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert run.returncode == CONFIGURATION_ERROR
    assert run.stderr.count('\n') == 1
    assert "not ros-drivers'" in run.stderr


@pytest.mark.skipif(not Path('/proc/self/maps').exists(), reason='needs Linux')
@pytest.mark.parametrize(('backend', 'has_torch'), [('onnx', False), ('torch', True)])
def test_torch_is_loaded_by_its_own_backend_alone(domain_id, backend, has_torch):
    process = start('emotion_node', f'backend:={backend}', 'device:=cpu', domain_id=domain_id)
    wait_for(process, f'listening to /audio_stamped with {backend} on cpu')
    libraries = Path(f'/proc/{process.pid}/maps').read_text()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert 'onnxruntime' in libraries  # of voice activity detection, too
    assert ('libtorch' in libraries) == has_torch


@pytest.mark.parametrize('end', [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize('speed', ['1.0', '1000.0'], ids=['idle', 'during inference'])
def test_both_nodes_in_one_process_end_soon_after_a_signal(graph, domain_id, end, speed):
    windows = graph.subscribe(Classification, 'emotion/probabilities')
    process = start(
        *('ser', 'source:=file', f'file:={SPEECH}', 'loop:=true', 'device:=cpu'),
        *(f'speed:={speed}', 'max_backlog:=3600.0'),
        domain_id=domain_id,
    )
    wait_for(process, 'capturing file')
    if speed != '1.0':
        graph.wait(lambda: windows, 'a window', 60)
    process.send_signal(end)
    rest = process.communicate(timeout=20)[1]
    assert 'Traceback' not in rest
    # It would be 1 after `shutdown.TIMEOUT`, when `ros2 launch` sends the next signal.
    assert process.returncode == 0, rest


@pytest.mark.parametrize('name', ['audio_capture_node', 'ser'])
def test_signals_that_are_repeated_change_nothing(domain_id, name):
    """A person presses Ctrl-C again; `timeout -s INT` signals a whole group, and launch each node."""
    process = start(
        *(name, 'source:=file', f'file:={SPEECH}', 'loop:=true', 'device:=cpu'),
        domain_id=domain_id,
    )
    wait_for(process, 'capturing file')
    for number in 5 * (signal.SIGINT, signal.SIGINT, signal.SIGTERM):
        process.send_signal(number)
        time.sleep(0.02)
    rest = process.communicate(timeout=20)[1]
    assert 'Traceback' not in rest
    assert 'Exception ignored' not in rest
    assert process.returncode == 0


def test_sound_can_be_kept_within_the_process(graph, domain_id):
    windows = graph.subscribe(Classification, 'emotion/probabilities')
    diagnostics = graph.subscribe(DiagnosticArray, '/diagnostics')
    process = start(
        *('ser', 'source:=file', f'file:={SPEECH}', 'device:=cpu', 'publish_audio:=false'),
        *('speed:=4.0', 'max_backlog:=60.0'),
        domain_id=domain_id,
    )
    wait_for(process, 'capturing file')
    recognizer = Recognizer(load_bundle(), 'cpu')
    expected = [e for e in recognizer.push(speech_then_silence(), START) if e.is_window]

    def status():
        of_emotion_node = [
            status
            for message in diagnostics
            for status in message.status
            if status.name == 'emotion_node'
        ]
        return of_emotion_node[-1] if of_emotion_node else DiagnosticStatus()

    def n_windows():
        return int({pair.key: pair.value for pair in status().values}.get('windows', 0))

    graph.wait(lambda: n_windows() == len(expected), 'all windows', 60)
    graph.wait(lambda: 'the sound has ended' in status().message, 'the end of the file')
    assert windows[0].header.frame_id == 'microphone'
    for topic in ('/audio_stamped', '/audio', '/audio_info'):
        assert not graph.node.count_publishers(topic)
    # The first windows may have been published before this test was discovered.
    for message, estimate in zip(windows, expected[-len(windows) :]):
        scores = [result.score for result in message.results]
        np.testing.assert_allclose(scores, estimate.probabilities, atol=1e-4)
    process.terminate()
    process.communicate(timeout=20)


def test_a_capture_node_that_publishes_nothing_is_refused(domain_id):
    process = start(
        *('audio_capture_node', 'source:=file', f'file:={SPEECH}', 'publish_audio:=false'),
        domain_id=domain_id,
    )
    output = process.communicate(timeout=60)[1]
    assert process.returncode == CONFIGURATION_ERROR
    assert 'ros2 run ser_ros ser' in output


HANGS = """
import ctypes, sys
from ser_ros.nodes import audio_capture_node, process

class Hangs(audio_capture_node.AudioCaptureNode):
    def setup(self):
        self.get_logger().info('hanging')
        mutex = ctypes.create_string_buffer(64)  # zeros: one that is free
        for _ in range(2):  # the second hangs in C, as a call to a GPU or a sound server does
            ctypes.CDLL(None).pthread_mutex_lock(mutex)

sys.exit(process.run(Hangs))
"""


def test_a_process_ends_though_its_main_thread_hangs(domain_id):
    process = subprocess.Popen(
        [sys.executable, '-c', HANGS],
        env={**os.environ, 'ROS_DOMAIN_ID': str(domain_id)},
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(process, 'hanging')
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 1


@pytest.mark.parametrize(
    ('backend', 'library', 'statuses'),
    # The import of torch may take longer than a process has to end.
    [('onnx', 'onnxruntime', {0}), ('torch', 'libtorch', {0, 1})],
)
def test_a_signal_during_the_imports_ends_the_process(domain_id, backend, library, statuses):
    process = start('emotion_node', f'backend:={backend}', domain_id=domain_id)
    maps = Path(f'/proc/{process.pid}/maps')
    deadline = time.monotonic() + 60
    while library not in maps.read_text():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=60)[1]
    assert process.returncode in statuses
    assert 'Traceback' not in output
    assert 'listening' not in output


def test_a_node_whose_settings_are_wrong_has_a_status_of_its_own(domain_id):
    process = start('emotion_node', 'bundle:=/nowhere.safetensors', domain_id=domain_id)
    output = process.communicate(timeout=30)[1]
    assert process.returncode == CONFIGURATION_ERROR
    assert len(output.splitlines()) == 1
    assert '/nowhere.safetensors: no such file' in output


@pytest.mark.parametrize(
    ('executable', 'parameters'),
    [
        ('audio_capture_node', ('source:=file', f'file:={SPEECH}', 'channel:=1')),
        ('emotion_node', ('sample_format:=S16LE', 'channels:=1', 'channel:=1')),
    ],
)
def test_so_has_one_whose_channel_is_not_there(domain_id, executable, parameters):
    process = start(executable, *parameters, domain_id=domain_id)
    output = process.communicate(timeout=30)[1]
    assert process.returncode == CONFIGURATION_ERROR
    assert len(output.splitlines()) == 1
    assert 'there is no channel 1: the sound has one channel, 0' in output


def test_a_microphone_that_is_away_may_come_back(domain_id):
    process = start('audio_capture_node', 'microphone:=no such one', domain_id=domain_id)
    output = process.communicate(timeout=30)[1]
    assert process.returncode == 1
    assert "no microphone 'no such one'" in output


def test_arguments_that_ros_cannot_read_are_reported_without_a_traceback(domain_id):
    process = start('audio_capture_node', 'frame_id:=', domain_id=domain_id)
    output = process.communicate(timeout=30)[1]
    assert process.returncode == CONFIGURATION_ERROR
    assert 'frame_id:=' in output
    assert 'Traceback' not in output


def test_a_path_may_begin_with_the_home_folder(domain_id, tmp_path):
    shutil.copy(SPEECH, tmp_path / 'here.flac')
    process = start(
        *('audio_capture_node', 'source:=file', 'file:=~/here.flac'),
        domain_id=domain_id,
        HOME=str(tmp_path),
    )
    wait_for(process, f'capturing file {tmp_path}/here.flac')
    process.terminate()
    process.communicate(timeout=20)


@pytest.mark.parametrize('parameter', ['hop:=fast', 'hop:=100.0', 'num_threads:=0'])
def test_an_invalid_parameter_is_reported_in_one_line(domain_id, parameter):
    process = start('emotion_node', parameter, domain_id=domain_id)
    output = process.communicate(timeout=30)[1]
    assert process.returncode == CONFIGURATION_ERROR
    assert len(output.splitlines()) == 1
    assert parameter.split(':')[0] in output


BROKEN_GPU = """
import os, sys
from ser_ros.nodes import audio_capture_node, emotion_node, process

class Broken(emotion_node.EmotionNode):
    def start(self):
        super().start()
        def fail(*_):
            raise RuntimeError('CUDA error: an illegal memory access was encountered')
        self._backend.score = self._backend.to = fail

sys.exit(process.run(Broken, audio_capture_node.AudioCaptureNode))
"""


def test_a_sticky_error_ends_the_process_with_status_1(domain_id):
    """The model raises at every use, as it does on a GPU after an illegal access."""
    process = subprocess.Popen(
        [
            *(sys.executable, '-c', BROKEN_GPU, '--ros-args', '-p', 'device:=cpu'),
            *('-p', 'source:=file', '-p', f'file:={SPEECH}', '-p', 'speed:=10.0'),
        ],
        env={**os.environ, 'ROS_DOMAIN_ID': str(domain_id)},
        stderr=subprocess.PIPE,
        text=True,
    )
    output = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert output.count('[FATAL]') == 1
    assert 'Traceback' not in output


HANGING = """
import sys, threading
from ser_ros.nodes import audio_capture_node, emotion_node, managed_node, process
from ser_ros.stream import listener

managed_node.PATIENCE = listener.PATIENCE = 2.0

class Hanging(emotion_node.EmotionNode):
    def start(self):
        super().start()
        def hang(*_):
            print('hanging', file=sys.stderr, flush=True)
            threading.Event().wait()
        self._backend.score = hang

class HangingCapture(audio_capture_node.AudioCaptureNode):
    def work(self):
        super().every_second()
        print('hanging', file=sys.stderr, flush=True)
        threading.Event().wait()

process.PATIENCE = 5.0
class HangingCallback(audio_capture_node.AudioCaptureNode):
    def setup(self):
        print('hanging', file=sys.stderr, flush=True)
        threading.Event().wait()

sys.exit(process.run(*map(eval, sys.argv[1].split())))
"""


def start_hanging(nodes, *parameters, domain_id):
    parameters = ('device:=cpu', 'source:=file', f'file:={SPEECH}', 'speed:=10.0', *parameters)
    return subprocess.Popen(
        [
            *(sys.executable, '-c', HANGING, nodes, '--ros-args'),
            *(argument for parameter in parameters for argument in ('-p', parameter)),
        ],
        env={**os.environ, 'ROS_DOMAIN_ID': str(domain_id)},
        stderr=subprocess.PIPE,
        text=True,
    )


def assert_ends_with_one_line(process):
    output = process.communicate(timeout=30)[1]
    assert process.returncode == 1, output
    assert output.count('[FATAL]') == 1, output
    assert 'only a new process helps' in output
    assert 'Traceback' not in output


def test_a_model_that_never_returns_ends_the_process(domain_id):
    """Also if nobody asks anything of the node; test_hangs.py has what others may ask."""
    nodes = 'Hanging audio_capture_node.AudioCaptureNode'
    assert_ends_with_one_line(start_hanging(nodes, domain_id=domain_id))


@pytest.mark.parametrize('node', ['HangingCapture', 'HangingCallback'])
def test_any_work_that_hangs_ends_the_process(graph, domain_id, node):
    process = start_hanging(node, domain_id=domain_id)
    wait_for(process, 'hanging')
    if node == 'HangingCapture':
        client = graph.node.create_client(ChangeState, 'audio_capture_node/change_state')
        assert client.wait_for_service(60.0)
        deactivate = Transition(id=Transition.TRANSITION_DEACTIVATE)
        client.call_async(ChangeState.Request(transition=deactivate))
    assert_ends_with_one_line(process)


def test_the_commands_are_an_executable_as_well():
    path = Path(get_package_prefix('ser_ros'), 'lib', 'ser_ros', 'ser_ros')
    run = subprocess.run([path, 'devices'], capture_output=True, text=True, check=True)
    assert 'cpu' in run.stdout

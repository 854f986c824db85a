"""The executables, as processes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2: . tools/ros_env.sh')

from ament_index_python.packages import get_package_prefix

SPEECH = Path(__file__).parents[2] / 'examples' / 'speech.flac'


def start(executable, *parameters, domain_id):
    path = Path(get_package_prefix('ser_ros'), 'lib', 'ser_ros', executable)
    arguments = [argument for parameter in parameters for argument in ('-p', parameter)]
    return subprocess.Popen(
        [path, '--ros-args', *arguments],
        env={**os.environ, 'ROS_DOMAIN_ID': str(domain_id)},
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize('name', ['emotion_node', 'ser'])
def test_a_missing_package_is_one_line_with_the_cure(name):
    code = (
        "import sys; sys.modules['torch'] = None; "
        f'from ser_ros.nodes.entry import {name}; {name}()'
    )
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr.count('\n') == 1
    assert 'torch' in run.stderr
    assert 'README' in run.stderr


@pytest.mark.parametrize('end', [signal.SIGINT, signal.SIGTERM])
def test_both_nodes_in_one_process_hear_and_end_when_asked(domain_id, end):
    process = start(
        'ser', 'source:=file', f'file:={SPEECH}', 'loop:=true', 'device:=cpu', domain_id=domain_id
    )
    said = ''
    while 'capturing file' not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    process.send_signal(end)
    rest = process.communicate(timeout=20)[1]
    assert 'Traceback' not in rest
    assert process.returncode == 0


def test_a_node_that_cannot_start_exits_with_status_1(domain_id):
    process = start('emotion_node', 'bundle:=/nowhere.safetensors', domain_id=domain_id)
    output = process.communicate(timeout=30)[1]
    assert process.returncode == 1
    assert len(output.splitlines()) == 1
    assert '/nowhere.safetensors: no such file' in output

"""The launch file under the real launch_ros."""

import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2: . tools/ros_env.sh')
pytest.importorskip('launch_ros', reason='needs launch_ros, which PyPI does not have')

ROOT = Path(__file__).parents[2]
ARGUMENTS = (
    'namespace',
    'params_file',
    'bundle',
    'device',
    'source',
    'file',
    'microphone',
    'use_capture',
    'audio_topic',
    'autostart',
    'log_level',
    'use_sim_time',
)


def launch(*arguments, domain_id):
    return subprocess.Popen(
        ['ros2', 'launch', str(ROOT / 'launch' / 'ser.launch.py'), *arguments],
        env={**os.environ, 'ROS_DOMAIN_ID': str(domain_id), 'PYTHONUNBUFFERED': '1'},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_every_argument_is_described():
    shown = subprocess.run(
        ['ros2', 'launch', str(ROOT / 'launch' / 'ser.launch.py'), '--show-args'],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for argument in ARGUMENTS:
        assert f"'{argument}':\n        " in shown


@pytest.mark.parametrize('namespace', ['', 'robot'])
def test_both_nodes_come_up_and_go(domain_id, namespace):
    speech = ROOT / 'examples' / 'speech.flac'
    arguments = ['source:=file', f'file:={speech}', 'device:=cpu']
    if namespace:
        arguments.append(f'namespace:={namespace}')
    process = launch(*arguments, domain_id=domain_id)
    watchdog = threading.Timer(60.0, process.kill)
    watchdog.start()
    said = []
    try:
        for line in process.stdout:
            said.append(line)
            if all(word in ''.join(said) for word in ('listening to', 'capturing')):
                break
    finally:
        watchdog.cancel()
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=30)[0]
    output = ''.join(said) + rest
    prefix = f'/{namespace}/' if namespace else '/'
    assert f'listening to {prefix}audio_stamped on cpu' in output
    assert str(speech) in output
    assert 'process has died' not in output
    assert process.returncode == 0


def test_the_log_level_holds_in_a_namespace(domain_id):
    process = launch(
        'namespace:=robot',
        'log_level:=error',
        'source:=file',
        'file:=/nowhere.wav',
        'device:=cpu',
        domain_id=domain_id,
    )
    watchdog = threading.Timer(60.0, process.kill)
    watchdog.start()
    said = []
    try:
        for line in process.stdout:
            said.append(line)
            if '/nowhere.wav' in line:
                break
    finally:
        watchdog.cancel()
        process.send_signal(signal.SIGINT)
        said.append(process.communicate(timeout=30)[0])
    assert '/nowhere.wav' in ''.join(said)
    lines = ''.join(said).splitlines()
    assert not [line for line in lines if '_node]:' in line and '[INFO]' in line]

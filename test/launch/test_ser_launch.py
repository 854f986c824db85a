"""The launch file under the real launch_ros."""

import os
import re
import signal
import subprocess
import threading
from pathlib import Path

import pytest

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2: . tools/ros_env.sh')
pytest.importorskip('launch_ros', reason='needs launch_ros, which PyPI does not have')

from rclpy.context import Context  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.parameter_client import AsyncParameterClient  # noqa: E402

from ser_ros.nodes import CONFIGURATION_ERROR  # noqa: E402

ROOT = Path(__file__).parents[2]
SPEECH = ROOT / 'examples' / 'speech.flac'
ARGUMENTS = (
    'namespace',
    'params_file',
    'bundle',
    'device',
    'source',
    'file',
    'speed',
    'loop',
    'microphone',
    'use_capture',
    'audio_topic',
    'ros4hri',
    'publish_audio',
    'view',
    'view_host',
    'view_port',
    'foxglove_port',
    'enclave',
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


def until(process, *texts, end=True):
    """Its output until it contains these texts and, with `end`, the rest after SIGINT."""
    watchdog = threading.Timer(60.0, process.kill)
    watchdog.start()
    output = ''
    try:
        while any(x not in output for x in texts) and (line := process.stdout.readline()):
            output += line
    finally:
        watchdog.cancel()
        if end:
            # To all processes, as a terminal sends it: launch relies on that, and now and then does
            # not end nodes that have not received it.
            os.killpg(process.pid, signal.SIGINT)
            output += process.communicate(timeout=30)[0]
    return output


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
    output = until(process, 'listening to', 'capturing')
    prefix = f'/{namespace}/' if namespace else '/'
    assert f'listening to {prefix}audio_stamped with onnx on cpu' in output
    assert str(speech) in output
    assert 'process has died' not in output
    assert process.returncode == 0


@pytest.mark.parametrize('place', ['argument', 'params_file'])
def test_unpublished_sound_needs_one_process(domain_id, tmp_path, place):
    """The argument starts one process; a file cannot, and two processes cannot keep sound unpublished."""
    argument = 'publish_audio:=false'
    if place == 'params_file':
        path = tmp_path / 'private.yaml'
        path.write_text('/**/audio_capture_node: {ros__parameters: {publish_audio: false}}\n')
        argument = f'params_file:={path}'
    speech = ROOT / 'examples' / 'speech.flac'
    arguments = ['source:=file', f'file:={speech}', 'device:=cpu', argument]
    process = launch(*arguments, domain_id=domain_id)
    sign = 'capturing' if place == 'argument' else 'publish_audio is false and no emotion node'
    assert sign in until(process, sign)


def test_unpublished_sound_needs_the_capture_node(domain_id):
    process = launch('publish_audio:=false', 'use_capture:=false', domain_id=domain_id)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 1
    assert 'publish_audio:=false needs use_capture:=true' in output


def test_a_node_that_is_killed_is_started_again(domain_id):
    process = launch('use_capture:=false', 'device:=cpu', domain_id=domain_id)
    output = ''
    for _ in range(2):
        output += until(process, 'listening to', end=False)
        pid = re.findall(r'process started with pid \[(\d+)\]', output)[-1]
        os.kill(int(pid), signal.SIGKILL)
    assert 'process has died' in until(process, 'listening to')


@pytest.mark.parametrize(
    ('arguments', 'sign'),
    [
        (
            ['use_capture:=false', 'bundle:=~/no_such_bundle'],
            f'{Path.home()}/no_such_bundle: no such file; shipped: ',
        ),
        (['use_capture:=false', 'device:=cuda:99'], "device 'cuda:99' is not there"),
        (['source:=file', 'file:=/nowhere.wav'], 'sound file /nowhere.wav: no such file'),
        (['source:=file', f'file:={SPEECH}', 'speed:=-1'], 'speed'),
    ],
)
def test_wrong_settings_end_the_launch(domain_id, arguments, sign):
    process = launch(*arguments, domain_id=domain_id)
    output = process.communicate(timeout=60)[0]
    assert len([line for line in output.splitlines() if sign in line]) == 1
    assert 'is started again' not in output
    assert output.count('process started with pid') <= 2


def test_a_microphone_that_is_away_is_waited_for_longer_each_time(domain_id):
    process = launch('use_capture:=true', 'microphone:=no such one', domain_id=domain_id)
    output = until(process, 'is started again in 2 s', 'is started again in 4 s')
    assert 'process has died' in output
    assert 'at least 2 nodes' not in output
    assert "no microphone 'no such one'" in output


def test_speed_and_loop_are_arguments(domain_id):
    process = launch(
        *('source:=file', f'file:={SPEECH}', 'device:=cpu', 'speed:=2', 'loop:=true'),
        domain_id=domain_id,
    )
    until(process, 'listening to', 'capturing', end=False)
    context = Context()
    rclpy.init(context=context, domain_id=domain_id)
    node = rclpy.create_node('test', context=context)
    executor = SingleThreadedExecutor(context=context)
    client = AsyncParameterClient(node, 'audio_capture_node')
    assert client.wait_for_services(20.0)
    answer = client.get_parameters(['speed', 'loop'])
    executor.add_node(node)
    executor.spin_until_future_complete(answer, 20.0)
    rclpy.shutdown(context=context)
    until(process)
    speed, loop = answer.result().values
    assert speed.double_value == 2.0
    assert loop.bool_value


def test_a_misspelt_argument_is_named(domain_id):
    process = launch('devise:=cpu', 'use_capture:=false', 'bundle:=/nowhere', domain_id=domain_id)
    output = process.communicate(timeout=60)[0]
    assert "argument 'devise' is unknown and ignored; did you mean 'device'?" in output


def test_the_status_that_ends_the_launch_is_that_of_the_nodes():
    text = (ROOT / 'launch' / 'ser.launch.py').read_text()
    assert f'\nCONFIGURATION_ERROR = {CONFIGURATION_ERROR}\n' in text


def test_the_log_level_holds_in_a_namespace(domain_id):
    process = launch(
        'namespace:=robot',
        'log_level:=error',
        'source:=file',
        'file:=/nowhere.wav',
        'device:=cpu',
        domain_id=domain_id,
    )
    output = until(process, '/nowhere.wav')
    assert '/nowhere.wav' in output
    lines = output.splitlines()
    assert not [line for line in lines if '_node]:' in line and '[INFO]' in line]


def test_the_page_can_be_launched_with_them(domain_id):
    arguments = ['source:=file', f'file:={SPEECH}', 'device:=cpu', 'view:=true', 'view_port:=0']
    process = launch(*arguments, domain_id=domain_id)
    output = until(process, 'page: http://127.0.0.1:', 'capturing')
    assert '#token=' in output
    assert process.returncode == 0

"""`make demo`, three real processes."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip('rclpy', reason='needs ROS 2: . tools/ros_env.sh')

ROOT = Path(__file__).resolve().parents[2]


def demo(*arguments, domain_id):
    return subprocess.run(
        [sys.executable, ROOT / 'tools' / 'demo.py', *arguments],
        env={**os.environ, 'ROS_DOMAIN_ID': str(domain_id)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_it_shows_what_was_acted(domain_id):
    run = demo(domain_id=domain_id)
    assert run.returncode == 0, run.stderr
    assert 'BanglaSER by Das et al., CC BY 4.0' in run.stdout
    lines = run.stdout.splitlines()
    utterances = [line for line in lines if 'sounded' in line]
    ends = (2.3, 4.4, 6.6, 9.0, 11.1, 13.5)
    decisions = ('neutral', 'happy', 'angry', 'sad', 'uncertain', 'uncertain')
    assert len(utterances) == len(decisions)
    for line, decision, end in zip(utterances, decisions, ends):
        assert f' {decision} ' in line
        assert float(line.split(' s ')[0]) == pytest.approx(end, abs=0.4)
    summary = next(line for line in lines if line.startswith('6 utterances in 13.'))
    assert all(
        text in summary for text in ('2 uncertain', '1 neutral', '1 happy', '1 angry', '1 sad')
    )
    # By themselves one is not decided and another is wrong; compared they are as the nodes decided.
    table = [line.split() for line in lines[lines.index(summary) :] if line[:11].strip().isdigit()]
    assert [row[3] for row in table] == list(decisions)
    by_themselves = ['neutral', 'happy', 'angry', 'uncertain', 'happy', 'uncertain']
    assert [row[1] for row in table] == by_themselves
    assert '\033' not in run.stdout


def test_another_model_and_none(domain_id):
    run = demo('--bundle', 'companion_open', domain_id=domain_id)
    assert run.returncode == 0, run.stderr
    assert 'companion_open' in run.stderr
    run = demo('--bundle', 'no_such_model', domain_id=domain_id)
    assert run.returncode == 1
    assert run.stderr.startswith('demo: bundle no_such_model: no such file; shipped: companion')


def test_ones_own_sound(domain_id, tmp_path):
    samples, rate = soundfile.read(ROOT / 'examples' / 'speech.flac', frames=9 * 16_000)
    soundfile.write(tmp_path / 'own.wav', samples, rate)
    run = demo(tmp_path / 'own.wav', domain_id=domain_id)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count('sounded') >= 2
    assert 'BanglaSER' not in run.stdout


def test_silence_and_noise_are_no_speech(domain_id, tmp_path):
    noise = np.random.default_rng(0).normal(0.0, 0.05, 2 * 16_000)
    soundfile.write(tmp_path / 'sound.wav', np.concatenate((0 * noise, noise)), 16_000)
    run = demo(tmp_path / 'sound.wav', domain_id=domain_id)
    assert run.returncode == 1
    assert 'no speech was detected' in run.stderr


def test_a_missing_file_is_reported_at_once(domain_id):
    run = demo('/nowhere.wav', domain_id=domain_id)
    assert run.returncode == 1
    assert run.stderr == 'demo: sound file /nowhere.wav: no such file\n'


@pytest.fixture
def _usual_port_is_taken():
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # then another program has it
            stack.enter_context(socket.create_server(('127.0.0.1', 8790)))
        yield


@pytest.mark.usefixtures('_usual_port_is_taken')
def test_it_can_be_seen_until_it_is_interrupted(domain_id):
    process = subprocess.Popen(
        [sys.executable, ROOT / 'tools' / 'demo.py', '--view'],
        env={**os.environ, 'ROS_DOMAIN_ID': str(domain_id), 'PYTHONUNBUFFERED': '1'},
        stdout=subprocess.PIPE,
        text=True,
    )
    watchdog = threading.Timer(100.0, process.kill)
    watchdog.start()
    wanted, output = ['page: http://127.0.0.1:', 'sounded'], ''
    while any(text not in output for text in wanted) and (line := process.stdout.readline()):
        output += line
    process.send_signal(signal.SIGINT)
    output += process.communicate(timeout=60)[0]
    watchdog.cancel()
    assert all(text in output for text in wanted)
    assert process.returncode == 0

"""`make demo`, three real processes."""

import os
import subprocess
import sys
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


def test_speech_is_detected(domain_id):
    run = demo(domain_id=domain_id)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count('the utterance as a whole') >= 3
    assert run.stdout.count(' s  ') >= 20


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

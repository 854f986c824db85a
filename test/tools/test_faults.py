"""`make faults` with fewer garbage messages."""

import shutil
import subprocess
import sys

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2: . tools/ros_env.sh')


@pytest.mark.skipif(not shutil.which('pulseaudio'), reason='needs pulseaudio')
def test_after_each_fault_the_expected_emotion_is_received_again(root, domain_id):
    run = subprocess.run(
        [
            sys.executable,
            root / 'tools' / 'faults.py',
            '--fuzz',
            '2000',
            '--recovery',
            '20',  # the machine may be slow
            '--domain-id',
            str(domain_id),
        ],
        capture_output=True,
        text=True,
        timeout=800,
    )
    print(run.stdout)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count('| yes ') == 12
    assert run.stdout.endswith('faults: passed\n')

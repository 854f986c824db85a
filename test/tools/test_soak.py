"""`make soak` with half a minute of speech."""

import subprocess
import sys

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2: . tools/ros_env.sh')


def test_half_a_minute_of_speech_is_processed_without_loss(root, domain_id):
    run = subprocess.run(
        [
            sys.executable,
            root / 'tools' / 'soak.py',
            '--minutes',
            '0.5',
            '--domain-id',
            str(domain_id),
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    print(run.stdout)
    assert run.returncode == 0, run.stderr
    rows = [[cell.strip() for cell in row.split('|')] for row in run.stdout.splitlines()]
    seconds = {row[1]: float(row[2]) for row in rows if len(row) == 5 and row[3].endswith('%')}
    assert seconds['sent'] > 30
    assert abs(seconds['unexplained']) <= 0.01
    rest = sum(seconds.values()) - seconds['sent']
    assert rest == pytest.approx(seconds['sent'], abs=0.01)
    assert run.stdout.endswith('soak: passed\n')

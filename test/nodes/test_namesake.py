"""The other package called audio_common_msgs, mgonzs13's, in an environment of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2: . tools/ros_env.sh')

CHECKS = Path(__file__).parents[1] / 'namesake' / 'checks.py'
INSTALLED = Path(sys.prefix, 'namesake', 'install')
PYTHON = f'python{sys.version_info.major}.{sys.version_info.minor}'


def before(variable, folder):
    """The variable with a folder before all others."""
    return os.pathsep.join([str(folder), *filter(None, [os.environ.get(variable)])])


@pytest.mark.skipif(not INSTALLED.is_dir(), reason='needs what tools/setup.sh builds without apt')
def test_both_nodes_work_with_it(domain_id):
    run = subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', '-x', '-p', 'no:cacheprovider', '-n', '0', CHECKS],
        env={
            **os.environ,
            'ROS_DOMAIN_ID': str(domain_id),
            'AMENT_PREFIX_PATH': before('AMENT_PREFIX_PATH', INSTALLED),
            'LD_LIBRARY_PATH': before('LD_LIBRARY_PATH', INSTALLED / 'lib'),
            'PYTHONPATH': before('PYTHONPATH', INSTALLED / 'lib' / PYTHON / 'site-packages'),
        },
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert ' passed' in run.stdout

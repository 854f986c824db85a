"""ROS and pip see one package, and ROS sees it as one of its own."""

import configparser
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def manifest():
    # An invalid one does not fail a build: colcon takes the package for plain Python.
    return pytest.importorskip('catkin_pkg.package').parse_package(ROOT / 'package.xml')


def test_manifest_is_valid(manifest):
    warnings = []
    manifest.validate(warnings=warnings)
    assert not warnings
    assert manifest.get_build_type() == 'ament_python'


def test_setup_agrees_with_the_manifest(manifest):
    told = subprocess.run(
        [sys.executable, 'setup.py', '--name', '--version', '--license'],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    assert told.stdout.split()[-3:] == [manifest.name, manifest.version, manifest.licenses[0]]


def test_executables_go_where_ros_looks(manifest):
    setup = configparser.ConfigParser()
    setup.read(ROOT / 'setup.cfg')
    assert setup['develop']['script_dir'] == f'$base/lib/{manifest.name}'
    assert setup['install']['install_scripts'] == f'$base/lib/{manifest.name}'

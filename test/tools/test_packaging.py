"""ROS and pip see one package, and ROS sees it as one of its own."""

import ast
import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pages import table

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
    printed = subprocess.run(
        [sys.executable, 'setup.py', '--name', '--version', '--license'],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    assert printed.stdout.split()[-3:] == [manifest.name, manifest.version, manifest.licenses[0]]


def test_executables_go_where_ros_looks(manifest):
    setup = configparser.ConfigParser()
    setup.read(ROOT / 'setup.cfg')
    assert setup['develop']['script_dir'] == f'$base/lib/{manifest.name}'
    assert setup['install']['install_scripts'] == f'$base/lib/{manifest.name}'


def requirements_of_setup():
    """The names that setup.py requires: of the package itself ('') and of each extra."""
    call = ast.parse((ROOT / 'setup.py').read_text()).body[-1].value
    values = {k.arg: k.value for k in call.keywords}
    groups = {
        '': ast.literal_eval(values['install_requires']),
        **ast.literal_eval(values['extras_require']),
    }
    return {
        group: {re.match(r'[\w-]+', requirement)[0] for requirement in requirements}
        for group, requirements in groups.items()
    }


def test_the_manual_lists_the_requirements():
    listed = {}
    for packages, _ in table('dependencies.md', 'package', 'what for'):
        names, _, group = packages.rstrip(')*').partition(' *(')
        listed.setdefault(group, set()).update(names.split(', '))
    development = listed.pop('development')
    assert listed == requirements_of_setup()
    names = {name.removesuffix('-common-extensions') for name in pinned('dev', 'build')}
    assert development == names - listed['test'] - listed['cluster'] - listed['foxglove']


def pinned(*files):
    """The names in files of tools/requirements, but for those that they include."""
    lines = [
        line
        for file in files
        for line in (ROOT / 'tools' / 'requirements' / f'{file}.in').read_text().splitlines()
    ]
    return {line.split('==')[0] for line in lines if not line.startswith(('#', '-r'))}


def test_the_lists_of_a_robot_are_the_requirements_of_setup():
    light = pinned('light', 'silero_vad')
    assert light | pinned('core') == requirements_of_setup()['']
    locked = (ROOT / 'tools' / 'requirements' / 'light.txt').read_text()
    names = {re.match(r'[\w-]+', line)[0] for line in locked.splitlines()}
    assert light <= names
    assert not {'torch', 'torchaudio'} & names

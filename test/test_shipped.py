"""Shipped files are found where ROS, pip or git put them."""

import sys

import pytest

from ser_ros.shipped import shipped_file


@pytest.fixture
def no_ament(monkeypatch):
    monkeypatch.delenv('AMENT_PREFIX_PATH', raising=False)


def test_the_checkout_has_the_recipes(no_ament, monkeypatch, root, tmp_path):
    monkeypatch.setattr(sys, 'prefix', str(tmp_path))
    relative = 'config/recipes/base.yaml'
    assert shipped_file(relative) == root / relative


def test_a_missing_file_is_named_in_the_checkout(no_ament, root):
    assert shipped_file('bundles/no such.safetensors') == root / 'bundles' / 'no such.safetensors'


def test_the_installation_comes_before_the_checkout(no_ament, monkeypatch, tmp_path):
    installed = tmp_path / 'share' / 'ser_ros' / 'config' / 'ser.yaml'
    installed.parent.mkdir(parents=True)
    installed.touch()
    monkeypatch.setattr(sys, 'prefix', str(tmp_path))
    assert shipped_file('config/ser.yaml') == installed


def make_ament_prefix(folder):
    """An ament prefix with this package and one of its files."""
    index = folder / 'share' / 'ament_index' / 'resource_index' / 'packages' / 'ser_ros'
    index.parent.mkdir(parents=True)
    index.touch()
    installed = folder / 'share' / 'ser_ros' / 'config' / 'ser.yaml'
    installed.parent.mkdir(parents=True)
    installed.touch()
    return installed


def test_ament_comes_first(monkeypatch, tmp_path):
    pytest.importorskip('ament_index_python', reason='needs ROS 2: . tools/ros_env.sh')
    installed = make_ament_prefix(tmp_path / 'ament')
    make_ament_prefix(tmp_path / 'prefix')
    monkeypatch.setattr(sys, 'prefix', str(tmp_path / 'prefix'))
    monkeypatch.setenv('AMENT_PREFIX_PATH', str(tmp_path / 'ament'))
    assert shipped_file('config/ser.yaml') == installed


@pytest.mark.parametrize('prefix_path', ['', '/nowhere'])
def test_ament_without_the_package(monkeypatch, root, tmp_path, prefix_path):
    """ROS is installed but not sourced, or it is sourced without this package."""
    pytest.importorskip('ament_index_python', reason='needs ROS 2: . tools/ros_env.sh')
    monkeypatch.setenv('AMENT_PREFIX_PATH', prefix_path)
    monkeypatch.setattr(sys, 'prefix', str(tmp_path))
    assert shipped_file('config/ser.yaml') == root / 'config' / 'ser.yaml'

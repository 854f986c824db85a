"""The example that prints emotions: examples/print_emotions.py; see also test/tools/test_demo.py."""

import importlib.util
import sys
from pathlib import Path

import pytest

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2: . tools/ros_env.sh')

from ser_ros.emotions import EMOTIONS  # noqa: E402

PATH = Path(__file__).parents[2] / 'examples' / 'print_emotions.py'


@pytest.fixture
def module():
    spec = importlib.util.spec_from_file_location('print_emotions', PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def in_terminal(monkeypatch):
    monkeypatch.setattr(sys.stdout, 'isatty', lambda: True)
    monkeypatch.setenv('TERM', 'xterm-256color')
    monkeypatch.delenv('NO_COLOR', raising=False)


def test_every_shipped_expression_has_its_colour_in_a_terminal(module, in_terminal):
    names = {EMOTIONS[name].expression for name in ('neutral', 'happy', 'sad', 'angry')}
    names |= {EMOTIONS[name].expression for name in ('fearful', 'disgust', 'surprised')}
    assert names == set(module.COLORS)
    colored = {module._in_color(name, 10) for name in names}
    assert len({text.split('m')[0] for text in colored}) == 7
    assert all('\033[0m' in text for text in colored)
    assert module._in_color('uncertain') == 'uncertain'


@pytest.mark.parametrize('variable, value', [('NO_COLOR', ''), ('TERM', 'dumb')])
def test_no_colour_where_it_is_not_wanted(module, in_terminal, monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    assert module._in_color('sad') == 'sad'


@pytest.mark.parametrize(
    'value, words',
    [
        (-0.7, 'very low'),
        (-0.4, 'low'),
        (0.1, 'neither low nor high'),
        (0.5, 'high'),
        (0.9, 'very high'),
    ],
)
def test_valence_and_arousal_in_words(module, value, words):
    assert module._level(value, 'low', 'high') == words

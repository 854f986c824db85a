"""The executables. A missing package is one line that names the cure, not a traceback."""

import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from ser_ros.nodes import NAMESAKE, ending

_CURE = (
    'install it where {python} finds it and build again there: '
    'see "On the robot" in the README of ser_ros'
)


def _run(*names: str, connect: Callable[..., Sequence[Callable]] = lambda *classes: classes):
    ending.listen()  # torch takes seconds to import
    try:
        from ser_ros.nodes.managed_node import run

        classes = []
        for name in names:
            module, cls = name.split(':')
            classes.append(getattr(importlib.import_module(f'ser_ros.nodes.{module}'), cls))
    except ModuleNotFoundError as error:
        sys.exit(f'{error}; {_CURE.format(python=sys.executable)}')
    except ImportError as error:
        if 'audio_common_msgs' not in str(error.name):
            raise
        sys.exit(f'{error}; {NAMESAKE}')
    sys.exit(run(*connect(*classes)))


def audio_capture_node() -> None:
    """Capture sound."""
    _run('audio_capture_node:AudioCaptureNode')


def emotion_node() -> None:
    """Recognise emotions."""
    _run('emotion_node:EmotionNode')


def ser() -> None:
    """Do both in one process; the emotion node first, so that it hears the first block."""
    _run(
        'emotion_node:EmotionNode', 'audio_capture_node:AudioCaptureNode', connect=_within_process
    )


def _within_process(emotion: type, capture: type) -> Sequence[Callable]:
    """Have the one hear what the other does not publish."""
    nodes = []

    def make_emotion() -> Any:
        nodes.append(emotion())
        return nodes[0]

    def make_capture() -> Any:
        node = capture()
        node.hearer = nodes[0].hear
        return node

    return make_emotion, make_capture

"""The executables. A missing package is one line that names the remedy, not a traceback."""

import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from ser_ros.nodes import CONFIGURATION_ERROR, NAMESAKE, shutdown

_REMEDY = (
    'install it where {python} finds it and build again there: see docs/installation.md of ser_ros'
)


def _run(*names: str, connect: Callable[..., Sequence[Callable]] = lambda *classes: classes):
    shutdown.install_signal_handlers()  # torch takes seconds to import
    try:
        from ser_ros.nodes.process import run

        classes = []
        for name in names:
            module, cls = name.split(':')
            classes.append(getattr(importlib.import_module(f'ser_ros.nodes.{module}'), cls))
    except ModuleNotFoundError as error:
        _refuse(f'{error}; {_REMEDY.format(python=sys.executable)}')
    except ImportError as error:
        if 'audio_common_msgs' not in str(error.name):
            raise
        _refuse(f'{error}; {NAMESAKE}')
    sys.exit(run(*connect(*classes)))


def _refuse(reason: str) -> None:
    print(reason, file=sys.stderr)
    sys.exit(CONFIGURATION_ERROR)


def audio_capture_node() -> None:
    """Run the node that captures sound."""
    _run('audio_capture_node:AudioCaptureNode')


def emotion_node() -> None:
    """Run the node that recognizes emotions."""
    _run('emotion_node:EmotionNode')


def view_node() -> None:
    """Run the node that serves the page."""
    _run('view_node:ViewNode')


def ser() -> None:
    """Run both in one process; the emotion node first, so that it receives the first block."""
    _run(
        'emotion_node:EmotionNode', 'audio_capture_node:AudioCaptureNode', connect=_within_process
    )


def _within_process(emotion: type, capture: type) -> Sequence[Callable]:
    """Make the emotion node receive what the capture node does not publish."""
    nodes = []

    def make_emotion() -> Any:
        nodes.append(emotion())
        nodes[0].shares_process = True
        return nodes[0]

    def make_capture() -> Any:
        node = capture()
        node.receiver, node.on_end = nodes[0].receive, nodes[0].receive_end
        return node

    return make_emotion, make_capture

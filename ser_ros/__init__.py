"""Speech emotion recognition for companion robots: a ROS 2 graph, and plain Python without it."""

import os

# onnxruntime keeps an identifier and what it ran in the user's cache, and sends it to its maker. It reads
# this when it is imported; a function of its own comes too late for the files.
os.environ.setdefault('ORT_DISABLE_TELEMETRY', '1')

__version__ = '0.1.0'


class SerError(Exception):
    """A fault the user can act on; its message is one line saying what, where and what to do."""


class TransientError(SerError):
    """A fault that may pass by itself, such as a microphone that is not plugged in."""


class HangError(TransientError):
    """Work that does not return and cannot be ended: only a new process helps."""

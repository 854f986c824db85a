"""A microphone or a file, recognised in this process and shown."""

import threading
from concurrent.futures import Future
from typing import Any

from ser_ros import SerError
from ser_ros.audio import SAMPLE_RATE
from ser_ros.audio.channels import AVERAGE
from ser_ros.audio.level import LevelMeter
from ser_ros.audio.sources import Source
from ser_ros.audio.stream import PcmStream
from ser_ros.stream.backend import Backend
from ser_ros.stream.recognizer import Recognizer
from ser_ros.view.model import Model, Topics
from ser_ros.view.server import Command

VOICE = ''
"""The name of the one voice."""


class LiveSession:
    """Feeds a model with the sound of a source and what a recogniser says of it."""

    def __init__(self, source: Source, backend: Backend, model: Model, channel: int = AVERAGE):
        """`model`: gets one voice. `channel`: of the source, or the average of all."""
        self._source, self._model = source, model
        self._recognizer = Recognizer(backend)
        self._stream = PcmStream(source.format, channel=channel)
        self._lock = threading.Lock()
        self._is_enabled = True
        self._meter = LevelMeter(SAMPLE_RATE)
        model.set_lanes({VOICE: Topics(sound=source.description)})

    @property
    def commands(self) -> dict[str, Command]:
        """For a `Server`."""
        return {'enable': self._enable, 'reset': self._reset}

    def run(self) -> None:
        """Process the source until it is closed or has ended."""
        for block in self._source.blocks():
            for samples, stamp_ns in self._stream.push(block.data, block.stamp_ns):
                with self._lock:
                    self._process(samples, stamp_ns)
        with self._lock:
            self._add(self._recognizer.flush())

    def report(self) -> None:
        """Tell the model what is wrong with the source; to be called often, from any thread."""
        problem = self._source.problem or self._meter.problem or self._stream.channel_problem
        self._model.set_reasons({VOICE: problem or ''})

    def _process(self, samples: Any, stamp_ns: int) -> None:
        self._model.add_sound(VOICE, samples, stamp_ns)
        self._meter.push(samples)
        if self._is_enabled:
            self._add(self._recognizer.push(samples, stamp_ns))

    def _add(self, estimates: list) -> None:
        self._model.set_speaking(VOICE, self._recognizer.is_speaking)
        for estimate in estimates:
            self._model.add_estimate(VOICE, estimate, self._recognizer.info.class_names)

    def _enable(self, value: Any) -> 'Future[tuple[bool, str]]':
        if not isinstance(value, bool):
            raise SerError('enable needs true or false')
        with self._lock:
            self._is_enabled = value
            self._recognizer.voice.reset()
            self._model.set_speaking(VOICE, False)
        return _done('listening' if value else 'not listening')

    def _reset(self, _: Any) -> 'Future[tuple[bool, str]]':
        with self._lock:
            self._recognizer.reset()
            self._model.forget()
        return _done('the voice is forgotten, with its sound')


def _done(message: str) -> 'Future[tuple[bool, str]]':
    future: Future[tuple[bool, str]] = Future()
    future.set_result((True, message))
    return future

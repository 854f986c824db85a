"""The stream on sound that is there already: its share of a core, and how fast it can be."""

import functools
import multiprocessing
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from measure import (
    Row,
    Settings,
    cpu_seconds,
    is_installed,
    silent,
    speaking,
    take_turns,
    wall_seconds,
)

from ser_ros.audio import SAMPLE_RATE, SECOND
from ser_ros.audio.reading import DEFAULT_READING
from ser_ros.backends import load_backend
from ser_ros.commands.file_predictor import FilePredictor
from ser_ros.stream.backend import Backend
from ser_ros.stream.recognizer import Recognizer
from ser_ros.stream.types import StreamConfig
from ser_ros.stream.voice import Voice

SIZES = (1, 2, 4, 8, 16, 32, 64)
"""Voices in a batch."""
TWO_CORES = 'two processes of 64 each'
SECONDS = (15, 30, 60)
"""Lengths of the files that are predicted."""


def backends(bundle: str) -> Iterator[Backend]:
    """Those that run on this CPU."""
    yield load_backend(bundle, 'onnx')
    if is_installed('torch'):
        yield load_backend(bundle, 'torch', 'cpu')


def stream(settings: Settings) -> list[Row]:
    """The share of a core that one voice takes without ROS, in blocks of 20 ms."""
    sounds = {'silent': silent(5), 'speaking': speaking(5)}
    alternatives = {
        f'{state}, {backend.name}': functools.partial(_push, backend, sound)
        for backend in backends(settings.bundle)
        for state, sound in sounds.items()
    }
    values = take_turns(alternatives, max(3, settings.rounds // 5))
    return [row_of_share(name, found, 5) for name, found in values.items()]


def row_of_share(name: str, milliseconds: list[float], seconds: float) -> Row:
    """Processor time for so many seconds of sound, as a share of a core."""
    return Row(name, '% of a core', [value / 10 / seconds for value in milliseconds])


def _push(backend: Backend, sound: np.ndarray, block: int = 320) -> None:
    recognizer = Recognizer(backend)
    for start in range(0, len(sound), block):
        recognizer.push(sound[start : start + block], start * SECOND // SAMPLE_RATE)


# --- Voices --------------------------------------------------------------------------------------


def voices(settings: Settings) -> list[Row]:
    """How many voices that all speak are processed in real time, as their number doubles.

    By one thread, and by two processes that run at the same time. If the last column does not fall,
    cost grows at most linearly.
    """
    backend, rounds = load_backend(settings.bundle, 'onnx'), max(3, settings.rounds // 10)
    rows = voices_of(backend, SIZES, rounds, cpu_seconds)
    if (os.cpu_count() or 1) > 1:
        rows.append(_in_processes(settings.bundle, 2, rounds))
    return rows


def voices_of(backend: Backend, sizes: tuple[int, ...], rounds: int, seconds: Any) -> list[Row]:
    """Voices in real time, in batches of these sizes; `seconds` measures a call."""
    sound, rows = speaking(3), []
    for n in sizes:
        push = functools.partial(push_together, backend, sound, n)
        push()
        values = [n * 3 / seconds(push) for _ in range(rounds)]
        ratio = float(np.median(values)) / rows[0].median if rows else 1.0
        rows.append(Row(f'{n} in a batch', 'voices', values, ratio))
    return rows


def push_together(backend: Backend, sound: np.ndarray, n: int, block: int = 1_600) -> None:
    """Voices that begin one after another, so that their windows are not all due at once."""
    together = [Voice(backend, StreamConfig()) for _ in range(n)]
    sounds = [np.roll(sound, i * len(sound) // n) for i in range(n)]
    for start in range(0, len(sound), block):
        stamp = start * SECOND // SAMPLE_RATE
        backend.run([v.push(s[start : start + block], stamp) for v, s in zip(together, sounds)])


def _in_processes(bundle: str, n_processes: int, rounds: int) -> Row:
    """The sum over processes that run at the same time, by the time that passes."""
    context = multiprocessing.get_context('spawn')
    barrier = context.Barrier(n_processes)
    with ProcessPoolExecutor(n_processes, context, _set_barrier, (barrier,)) as pool:
        found = list(
            pool.map(_voices_of_a_process, [bundle] * n_processes, [rounds] * n_processes)
        )
    return Row(TWO_CORES, 'voices', [sum(values) for values in zip(*found)])


def _set_barrier(barrier: Any) -> None:
    global _barrier
    _barrier = barrier


def _voices_of_a_process(bundle: str, rounds: int) -> list[float]:
    backend, sound = load_backend(bundle, 'onnx'), speaking(3)
    push = functools.partial(push_together, backend, sound, 64)
    push()
    values = []
    for _ in range(rounds):
        _barrier.wait(120)  # all of them measure at the same time
        values.append(64 * 3 / wall_seconds(push))
    return values


# --- Files ---------------------------------------------------------------------------------------


def offline(settings: Settings) -> list[Row]:
    """Hours of speech that `predict` processes in a minute, in one process, from longer and longer files.

    If the last column does not fall, cost grows at most linearly.
    """
    predict = FilePredictor(settings.bundle, 'onnx', 'cpu', DEFAULT_READING, StreamConfig())()
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for seconds in SECONDS:
            files[seconds] = str(Path(folder, f'{seconds}.wav'))
            soundfile.write(files[seconds], speaking(seconds), SAMPLE_RATE)
        alternatives = {
            str(seconds): functools.partial(predict, file) for seconds, file in files.items()
        }
        values = take_turns(alternatives, max(3, settings.rounds // 10))
    hours = {
        seconds: [seconds / 3600 / (value / 6e4) for value in values[str(seconds)]]
        for seconds in SECONDS
    }
    first = float(np.median(hours[SECONDS[0]]))
    return [
        Row(f'{seconds} s of speech', 'hours a minute', found, float(np.median(found)) / first)
        for seconds, found in hours.items()
    ]

"""The nodes as processes in real time: processor, memory, start, latency; and the environment's size."""

import contextlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

import numpy as np
import soundfile
from measure import ROOT, Row, Settings, is_installed, silent, speaking

from ser_ros.audio import SAMPLE_RATE, SECOND

sys.path.insert(0, str(ROOT / 'tools'))

LIGHT = ROOT / '.venv-light'
EMOTION, CAPTURE = 'emotion_node', 'audio_capture_node'
SPAN = 4.0
"""Seconds over which processor time is counted: it comes in hundredths of a second."""


def nodes(settings: Settings) -> list[Row]:
    """Processes in real time, each with the sound of a file that is played again and again.

    "Microphone" is PulseAudio's virtual one. Latencies are from the end of a window, in capture time,
    until another process has received its probabilities; windows that wait for `end_silence` are
    left out.
    """
    if not is_installed('rclpy'):
        return []
    rows, rounds = [], max(2, settings.rounds // 10)
    for backend in ('onnx', *(['torch'] if is_installed('torch') else [])):
        starts = [_start_seconds(settings, backend) for _ in range(rounds)]
        rows.append(Row(f'start until listening, {backend}', 's', starts))
        for state, sound in (('silent', silent(20)), ('speaking', speaking(20))):
            label = f'{state}, {backend}'
            rows += _nodes(settings, label, backend, sound, is_speaking=state == 'speaking')
    return [*rows, *_with_microphone(settings)]


def _with_microphone(settings: Settings) -> list[Row]:
    from virtual_microphone import VirtualMicrophone, missing_packages

    label = 'microphone, onnx'
    if missing := missing_packages():
        note = f'needs a virtual microphone: apt install {" ".join(missing)}'
        return [Row(f'{CAPTURE}, {label}', '% of a core', note=note)]
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.closing(VirtualMicrophone(Path(folder))) as microphone,
    ):
        return _nodes(settings, label, 'onnx', speaking(20), True, microphone)


def _nodes(
    settings: Settings,
    label: str,
    backend: str,
    sound: np.ndarray,
    is_speaking: bool,
    microphone: Optional[Any] = None,
) -> list[Row]:
    """Both nodes with one sound; from a file, or played into a virtual microphone."""
    from hri_msgs.msg import Expression
    from rig import Rig
    from vision_msgs.msg import Classification

    windows, finals = {}, {}

    def store_in(received: dict[int, float]) -> Callable[[Any], Any]:
        return lambda message: received.setdefault(_stamp_ns(message), time.time())

    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.closing(Rig()) as rig,
    ):
        path = Path(folder, 'sound.wav')
        soundfile.write(path, sound, SAMPLE_RATE)
        rig.subscribe(Classification, 'emotion/probabilities', store_in(windows))
        rig.subscribe(Expression, 'emotion/utterance', store_in(finals))
        # Without a threshold, so that each utterance has a message by which it is known.
        parameters = {'backend': backend, 'device': 'cpu', 'threshold': 0.0}
        if settings.bundle:
            parameters['bundle'] = settings.bundle
        rig.start(EMOTION, parameters)
        if microphone is None:
            rig.start(CAPTURE, {'source': 'file', 'file': path, 'loop': True})
        else:
            rig.start(
                CAPTURE,
                {'source': 'microphone', 'microphone': 'pulse', 'sample_rate': SAMPLE_RATE},
                environment=microphone.environment,
            )
            microphone.play_in_a_loop(path)
        if rig.wait(lambda: float(rig.values(EMOTION).get('seconds', 0)) > 5, 60) is None:
            raise RuntimeError(f'{label}: no five seconds of sound within a minute')
        windows.clear()
        shares, notes = _shares(rig, max(2, settings.rounds // 10)), _threads(rig)
        rows = [
            *(
                Row(f'{name}, {label}', '% of a core', values, note=notes[name])
                for name, values in shares.items()
            ),
            Row(f'memory of {EMOTION}, {label}', 'MB resident', [rig.memory(EMOTION)]),
        ]
    if is_speaking:
        late = [1e3 * (at - ns / SECOND) for ns, at in windows.items() if ns not in finals]
        p95 = [float(np.quantile(late, 0.95))] if late else []
        rows += [
            Row(f'window end until received, {label}', 'ms', late),
            Row(f'window end until received, p95, {label}', 'ms', p95, note=_block()),
        ]
    return rows


def _block() -> str:
    """What a window waits for even where nothing takes time."""
    from ser_ros.nodes.parameters import CAPTURE as CAPTURE_PARAMETERS

    values = {spec.name: spec.default for spec in CAPTURE_PARAMETERS}
    return f'sound comes in blocks of {1e3 * values["block_duration"]:.0f} ms'


def _start_seconds(settings: Settings, backend: str) -> float:
    """From the start of the emotion node's process until its log says that it listens."""
    from ament_index_python.packages import get_package_prefix

    executable = Path(get_package_prefix('ser_ros'), 'lib', 'ser_ros', EMOTION)
    parameters = [f'backend:={backend}', 'device:=cpu']
    if settings.bundle:
        parameters.append(f'bundle:={settings.bundle}')
    arguments = [argument for parameter in parameters for argument in ('-p', parameter)]
    environment = {
        **os.environ,
        'ROS_DOMAIN_ID': str(random.randrange(1, 100)),  # that of the shell may be a robot's
        'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
    }
    start = time.monotonic()
    with subprocess.Popen(
        [executable, '--ros-args', *arguments],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            for line in process.stderr:
                if 'listening to' in line:
                    return time.monotonic() - start
        finally:
            process.terminate()
    raise RuntimeError(f'{EMOTION} with {backend} ended before it listened')


def _stamp_ns(message: Any) -> int:
    return message.header.stamp.sec * SECOND + message.header.stamp.nanosec


def _shares(rig: Any, rounds: int) -> dict[str, list[float]]:
    """Processor time of each node, in percent of the time that passes."""
    shares: dict[str, list[float]] = {EMOTION: [], CAPTURE: []}
    for _ in range(rounds):
        before = {name: _cpu_seconds(rig.processes[name].pid) for name in shares}
        since = time.monotonic()
        time.sleep(SPAN)
        passed = time.monotonic() - since
        for name, values in shares.items():
            used = _cpu_seconds(rig.processes[name].pid) - before[name]
            values.append(100 * used / passed)
    return shares


def _cpu_seconds(pid: int, task: str = '') -> float:
    """Processor time that a process has used, or one of its threads (`/task/ID`)."""
    fields = Path(f'/proc/{pid}{task}/stat').read_text().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def _threads(rig: Any) -> dict[str, str]:
    """How each node's processor time is shared by its threads, over `SPAN` seconds."""

    def read(pid: int) -> dict[str, tuple[str, float]]:
        return {
            folder.name: ((folder / 'comm').read_text(), _cpu_seconds(pid, f'/task/{folder.name}'))
            for folder in Path(f'/proc/{pid}/task').iterdir()
        }

    pids = {name: rig.processes[name].pid for name in (EMOTION, CAPTURE)}
    before, start = {name: read(pid) for name, pid in pids.items()}, time.monotonic()
    time.sleep(SPAN)
    passed, texts = time.monotonic() - start, {}
    for name, pid in pids.items():
        shares: dict[str, list[float]] = {'main': [], 'middleware': [], 'others': []}
        for thread, (command, seconds) in read(pid).items():
            used = 100 * (seconds - before[name].get(thread, ('', 0.0))[1]) / passed
            kind = 'main' if thread == str(pid) else 'middleware' if 'dds' in command else 'others'
            shares[kind] += [used] if used > 0.1 else []
        texts[name] = 'by threads: ' + ', '.join(
            f'{kind} {" + ".join(f"{share:.2g}" for share in sorted(found, reverse=True))} %'
            for kind, found in shares.items()
            if found
        )
    return texts


# --- The environment -----------------------------------------------------------------------------


def environment(settings: Settings) -> list[Row]:
    """What the environment without torch takes on disk (`LIGHT=1 tools/setup.sh` makes it)."""
    if not LIGHT.is_dir():
        return []
    return [Row('environment without torch', 'MB', [folder_megabytes(LIGHT)])]


def folder_megabytes(folder: Path) -> float:
    """Blocks of all files, each once however many links it has."""
    found = {}
    for path in folder.rglob('*'):
        status = path.lstat()
        found[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(found.values()) / 1e6

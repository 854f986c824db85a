"""Play a sound file to the nodes: capture, recognition and a behaviour node, three processes.

    python tools/demo.py [--view] [--bundle NAME] [WAV]

The default is examples/demo.flac, see examples/README.md.

Runs the launch file if `ros2 launch` exists, else the same executables directly. The exit status is
0 if speech was detected, even if the model was uncertain about all of it. With --view it also serves the
page, and plays the file again and again until it is interrupted.
"""

import argparse
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from ser_ros import SerError
from ser_ros.audio.sources import FileSource, read_audio
from ser_ros.backends import load_backend
from ser_ros.shipped import shipped_file
from ser_ros.stream.backend import Backend
from ser_ros.stream.recognizer import Recognizer
from ser_ros.stream.types import Estimate, StreamConfig

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / 'examples' / 'demo.flac'
CONTENTS = (
    'a Bengali speaker on whom the model was not trained: neutral, happy, angry, sad, neutral, sad\n'
    '(BanglaSER by Das et al., CC BY 4.0)'
)
START_UP = 60.0
"""Seconds that the nodes may take in addition to the sound itself."""


def main() -> int:
    """Run it; return the exit status."""
    parser = argparse.ArgumentParser(prog='make demo')
    parser.add_argument('wav', nargs='?', type=Path, default=EXAMPLE)
    parser.add_argument('--view', action='store_true', help='show it on a page, until Ctrl-C')
    parser.add_argument('--bundle', default='', help='a path or the name of a shipped model')
    options = parser.parse_args()
    wav = options.wav.resolve()
    try:
        source = FileSource(wav)
        backend = load_backend(options.bundle)
    except SerError as error:
        print(f'demo: {error}', file=sys.stderr)
        return 1
    # A domain of its own, on this machine only, so that no other robot is received.
    os.environ.setdefault('ROS_DOMAIN_ID', str(random.randrange(1, 100)))
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    print(f'playing {wav} ({source.duration:.1f} s)', flush=True)
    if wav == EXAMPLE:
        print(CONTENTS, flush=True)
    if options.view:
        print('open the address below in a browser; Ctrl-C ends it', flush=True)
    listener = subprocess.Popen(
        [
            *(sys.executable, ROOT / 'examples' / 'print_emotions.py'),
            *([] if options.view else ['--until-end-of-file']),
        ]
    )
    commands = _commands(wav, backend.path.resolve(), options.view)
    nodes = [subprocess.Popen(command) for command in commands]
    limit = math.inf if options.view else source.duration + START_UP
    try:
        status = _wait(listener, nodes, limit)
    except KeyboardInterrupt:
        status = 0 if options.view else 130
    finally:
        for process in (*nodes, listener):
            process.send_signal(signal.SIGINT)
        for process in (*nodes, listener):
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
    if status == 0 and not options.view:
        _show_adaptation(read_audio(wav), backend)
    if status == 0 and wav == EXAMPLE:
        print('Your own sound: make demo WAV=path/to/sound.wav')
    if status == 1:
        print('demo: no speech was detected in this sound', file=sys.stderr)
    return status


def _show_adaptation(samples: np.ndarray, backend: Backend) -> None:
    """Print the decision of each utterance by itself, and compared with those before it."""
    adaptation = backend.info.adaptation
    by_itself, adapted = (
        [_decision(e) for e in _estimates(samples, backend, config) if e.is_final]
        for config in (StreamConfig.by_itself(adaptation), StreamConfig())
    )
    if adaptation.adapts and len(adapted) > 1:
        print(
            '\nA voice becomes known while it speaks; utterances are compared with earlier ones:'
        )
        print(f'\n  {"utterance":9}  {"by itself":17}  compared')
        for number, texts in enumerate(zip(by_itself, adapted), 1):
            print(f'{number:11}  {texts[0]:17}  {texts[1]}')
        print()


def _estimates(samples: np.ndarray, backend: Backend, config: StreamConfig) -> list[Estimate]:
    recognizer = Recognizer(backend, config=config)
    return recognizer.push(samples, 0) + recognizer.flush()


def _decision(estimate: Estimate) -> str:
    return f'{estimate.expression or "uncertain"} {estimate.confidence:.2f}'


def _commands(wav: Path, bundle: Path, has_view: bool) -> list[list[str]]:
    parameters = shipped_file('config/ser.yaml')
    if shutil.which('ros2') and _has_launch():
        launch = ['ros2', 'launch', 'ser_ros', 'ser.launch.py', 'source:=file', f'file:={wav}']
        launch.append(f'bundle:={bundle}')
        return [[*launch, *(['view:=true', 'view_port:=0', 'loop:=true'] if has_view else [])]]
    from ament_index_python.packages import get_package_prefix

    executables = Path(get_package_prefix('ser_ros'), 'lib', 'ser_ros')
    ros_args = ['--ros-args', '--params-file', str(parameters)]
    return [
        [str(executables / 'emotion_node'), *ros_args, '-p', f'bundle:={bundle}'],
        [
            str(executables / 'audio_capture_node'),
            *ros_args,
            *('-p', 'source:=file', '-p', f'file:={wav}'),
            *(('-p', 'loop:=true') if has_view else ()),
        ],
        # Any port that is free: another program, or another demo, may have the usual one.
        *([[str(executables / 'view_node'), *ros_args, '-p', 'port:=0']] if has_view else []),
    ]


def _has_launch() -> bool:
    return subprocess.run(['ros2', 'launch', '--help'], capture_output=True).returncode == 0


def _wait(listener: subprocess.Popen, nodes: list[subprocess.Popen], limit: float) -> int:
    """The listener's exit status; 2 if a node ended, or the listener did not end in time."""
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        if listener.poll() is not None:
            return listener.returncode
        if any(node.poll() is not None for node in nodes):
            print('demo: a node ended; its last line has the reason', file=sys.stderr)
            return 2
        time.sleep(0.1)
    print(f'demo: not finished after {limit:.0f} s', file=sys.stderr)
    return 2


if __name__ == '__main__':
    sys.exit(main())

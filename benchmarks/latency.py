"""End-to-end latency: from the end of a window, in capture time, to its message received.

    . tools/ros_env.sh && python benchmarks/latency.py [SOUND] [--rounds N]

Both nodes run as processes of their own and the sound is played in real time, so that a latency
includes everything: capture blocks, middleware, voice activity, features, model, and the way back.
The last window of an utterance and its decision wait for `end_silence` (0.5 s) by design; they are
reported separately.
"""

import argparse
import json
import os
import platform
import subprocess
import time
from pathlib import Path

import numpy as np
import rclpy
import torch
from ament_index_python.packages import get_package_prefix
from hri_msgs.msg import Expression
from vision_msgs.msg import Classification

from ser_ros.audio.sources import FileSource

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('sound', nargs='?', type=Path, default=ROOT / 'examples' / 'speech.flac')
    parser.add_argument('--rounds', type=int, default=3, help='times the sound is played')
    parser.add_argument('--device', default='auto')
    options = parser.parse_args()
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    rclpy.init()
    node = rclpy.create_node('latency')
    windows, finals = {}, {}

    def store_in(received):
        return lambda message: received.setdefault(_stamp(message), time.time())

    node.create_subscription(Classification, 'emotion/probabilities', store_in(windows), 100)
    node.create_subscription(Expression, 'emotion/utterance', store_in(finals), 100)
    duration = (FileSource(options.sound).duration + 1.0) * options.rounds
    processes = [
        _start('emotion_node', f'device:={options.device}', 'threshold:=0.0'),
        _start('audio_capture_node', 'source:=file', f'file:={options.sound}', 'loop:=true'),
    ]
    try:
        while not windows:
            rclpy.spin_once(node)
        end = time.monotonic() + duration
        while time.monotonic() < end:
            rclpy.spin_once(node, timeout_sec=0.1)
    finally:
        for process in processes:
            process.terminate()
            process.wait()
    running = [
        received_at - stamp for stamp, received_at in windows.items() if stamp not in finals
    ]
    decided = [received_at - stamp for stamp, received_at in finals.items()]
    print(
        json.dumps(
            {
                'machine': f'{platform.machine()}, {os.cpu_count()} CPUs',
                'python': platform.python_version(),
                'torch': torch.__version__,
                'device': options.device,
                'running windows': _milliseconds(running),
                'utterances': _milliseconds(decided),
            },
            indent=2,
        )
    )


def _start(executable: str, *parameters: str) -> subprocess.Popen:
    path = Path(get_package_prefix('ser_ros'), 'lib', 'ser_ros', executable)
    arguments = [argument for parameter in parameters for argument in ('-p', parameter)]
    return subprocess.Popen([path, '--ros-args', *arguments])


def _stamp(message) -> float:
    return message.header.stamp.sec + message.header.stamp.nanosec * 1e-9


def _milliseconds(seconds: list) -> dict:
    p50, p95 = np.quantile(seconds, (0.5, 0.95)) * 1e3
    return {
        'n': len(seconds),
        'p50_ms': round(p50, 1),
        'p95_ms': round(p95, 1),
        'max_ms': round(max(seconds) * 1e3, 1),
    }


if __name__ == '__main__':
    main()

"""What bounds a metric, from a profile: measured only for metrics that miss their target."""

import cProfile
import functools
import json
import pstats
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import decision
import onnxruntime
from measure import SPEECH, Settings, is_installed, speaking, take_turns
from safetensors import safe_open
from streams import push_together

from ser_ros.audio.sources import read_audio
from ser_ros.backends import load_backend
from ser_ros.programs import pop_programs

CALLS = 30


def of_decision(settings: Settings) -> str:
    """Frames and model in milliseconds, and the shares of the model's operators."""
    backend = load_backend(settings.bundle, 'onnx')
    sound = read_audio(SPEECH)[: decision.WINDOW]
    whole = decision.stream(backend, sound)
    window = decision.window(backend, sound)
    values = take_turns({'all': whole, 'model': lambda: backend.score([window])}, CALLS)
    total, model = (sorted(found)[len(found) // 2] for found in values.values())
    with safe_open(backend.path, framework='np') as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        programs = pop_programs(file.metadata(), tensors)
    shares = operator_shares(programs.score, decision.inputs(backend, sound))
    return f'{model:.2f} of {total:.2f} ms are the model: {percentages(shares)}'


def operator_shares(program: bytes, inputs: Any) -> dict[str, float]:
    """Operator of an ONNX program → its share of the time on one thread."""
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_profiling, options.profile_file_prefix = True, str(Path(folder, 'profile'))
        session = onnxruntime.InferenceSession(program, options, ['CPUExecutionProvider'])
        for _ in range(CALLS):
            session.run(None, inputs)
        events = json.loads(Path(session.end_profiling()).read_text())
    durations = Counter()
    for event in events:
        if event.get('cat') == 'Node' and event['name'].endswith('_kernel_time'):
            durations[event['args']['op_name']] += event['dur']
    return {name: duration / durations.total() for name, duration in durations.items()}


def percentages(shares: dict[str, float], n: int = 4) -> str:
    """The largest shares in words."""
    largest = sorted(shares.items(), key=lambda pair: -pair[1])[:n]
    return ', '.join(f'{name} {share:.0%}' for name, share in largest)


def of_voices(settings: Settings) -> str:
    """The shares of voice activity, frames, model, and Python's own."""
    backend = load_backend(settings.bundle, 'onnx')
    push = functools.partial(push_together, backend, speaking(3), 64)
    names = {'detect_speech': 'voice activity', 'spectrum': 'frames', 'score': 'model'}
    shares = function_shares(push, tuple(names))
    found = {words: shares[name] for name, words in names.items()}
    return percentages({**found, 'what is kept of each voice, in Python': 1 - sum(found.values())})


def function_shares(function: Callable[[], Any], names: Sequence[str]) -> dict[str, float]:
    """Shares of the time that passes inside the functions of these names, which call none other of them."""
    profiler = cProfile.Profile()
    profiler.runcall(function)
    stats = pstats.Stats(profiler)
    seconds = dict.fromkeys(names, 0.0)
    for (_, _, name), (_, _, _, cumulative, _) in stats.stats.items():
        if name in seconds:
            seconds[name] += cumulative
    return {name: value / stats.total_tt for name, value in seconds.items()}


def of_start(settings: Settings) -> str:
    """The packages whose imports take longest, in the emotion node."""
    if not is_installed('rclpy'):
        return ''
    run = subprocess.run(
        [sys.executable, '-X', 'importtime', '-c', 'import ser_ros.nodes.emotion_node'],
        capture_output=True,
        text=True,
        check=True,
    )
    return f'imports: {import_seconds(run.stderr)}'


def import_seconds(text: str, n: int = 4) -> str:
    """The output of `-X importtime`, summed up by package."""
    packages = Counter()
    for line in text.splitlines():
        parts = line.removeprefix('import time:').split('|')
        if len(parts) == 3 and parts[0].strip().isdigit():
            packages[parts[2].strip().split('.')[0]] += int(parts[0]) / 1e6
    largest = ', '.join(f'{name} {seconds:.2f} s' for name, seconds in packages.most_common(n))
    return f'{packages.total():.2f} s, of which {largest}'

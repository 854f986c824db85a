"""Speed and memory, side by side in one run: a table in Markdown, and the numbers in JSON.

    . tools/ros_env.sh && python benchmarks/bench.py [--out docs/PERFORMANCE.md] [--only NAME ...]

The parts: decision (one decision of the stream against other ways to make it), stream (share of a
core, silent and speaking), voices (in real time as their number doubles), nodes (processes in real
time: share of a core, memory, start, latency). Alternatives take turns, so that what else the machine
does slows all of them; numbers are medians with the middle half of the values. What needs torch is
left out where there is none.
"""

import argparse
import functools
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ser_ros.audio import SAMPLE_RATE, SECOND
from ser_ros.audio.sources import read_audio
from ser_ros.backends import load_backend
from ser_ros.files import write_atomically
from ser_ros.stream.backend import Backend
from ser_ros.stream.recognizer import Recognizer
from ser_ros.stream.types import StreamConfig, Window
from ser_ros.stream.voice import Voice

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / 'tools'))

SPEECH = ROOT / 'examples' / 'speech.flac'
WINDOW = 3 * SAMPLE_RATE
HAS_TORCH = importlib.util.find_spec('torch') is not None

Row = dict[str, Any]
"""What was measured, its unit, and the values."""


def row(what: str, unit: str, values: list[float], **more: Any) -> Row:
    """The median of values and their quartiles."""
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
    return {'what': what, 'unit': unit, 'median': middle, 'low': low, 'high': high} | {
        'n': len(values),
        **more,
    }


def cpu_milliseconds(function: Callable[[], Any]) -> float:
    """Processor time of one call."""
    start = time.process_time()
    function()
    return 1e3 * (time.process_time() - start)


def take_turns(
    alternatives: Mapping[str, Callable[[], Any]], rounds: int
) -> dict[str, list[float]]:
    """Processor milliseconds of each alternative, one after another in each round."""
    for function in alternatives.values():
        function()
    values: dict[str, list[float]] = {name: [] for name in alternatives}
    for _ in range(rounds):
        for name, function in alternatives.items():
            values[name].append(cpu_milliseconds(function))
    return values


def backends() -> dict[str, Backend]:
    """Those that run here."""
    found = {'onnx': load_backend(backend='onnx')}
    if HAS_TORCH:
        found['torch'] = load_backend(backend='torch', device='cpu')
    return found


# --- One decision --------------------------------------------------------------------------------


def decision(rounds: int) -> list[Row]:
    """One decision about three seconds, a hop of 0.25 s after the last one."""
    sound = read_audio(SPEECH)[:WINDOW]
    alternatives = {
        f'stream, {name}': functools.partial(_hop, backend, sound)
        for name, backend in backends().items()
    }
    if HAS_TORCH:
        alternatives = {'original pipeline': _original(), **alternatives}
        alternatives['whole window, torch'] = _whole(sound)
    values = take_turns(alternatives, rounds)
    base = statistics.median(next(iter(values.values())))
    return [
        row(name, 'ms', found, ratio=base / statistics.median(found))
        for name, found in values.items()
    ]


def _hop(backend: Backend, sound: np.ndarray) -> None:
    """The frames of the last hop, and the model on the window."""
    geometry = backend.geometry
    frames = np.lib.stride_tricks.sliding_window_view(sound, geometry.frame_length)
    frames = frames[:: geometry.hop_length]
    spectrum = np.zeros((geometry.n_rows, len(frames)), np.float32)
    n_new = round(StreamConfig().hop * SAMPLE_RATE / geometry.hop_length)
    spectrum[:, -n_new:] = backend.spectrum(frames[-n_new:])
    backend.score([Window(spectrum, len(sound), None)])


def _original() -> Callable[[], Any]:
    """The research's own way: librosa's mel spectrogram at 48 kHz, and its model on all of it."""
    import librosa
    import torch

    from ser_ros.models import build_model
    from ser_ros.training.recipe import load_recipe

    torch.set_num_threads(1)
    recipe = load_recipe('research/parallel_cnn_transformer')
    config = recipe.frontend
    sound = np.resize(read_audio(SPEECH, config.sample_rate), 3 * config.sample_rate)
    model = build_model(recipe.architecture, config.n_mels, 8, **recipe.hyperparameters).eval()

    @torch.inference_mode()
    def decide() -> Any:
        mel = librosa.feature.melspectrogram(
            y=sound,
            sr=config.sample_rate,
            n_fft=config.n_fft,
            win_length=config.win_length,
            hop_length=config.hop_length,
            n_mels=config.n_mels,
            window='hamming',
            fmax=config.sample_rate / 2,
        )
        decibels = librosa.power_to_db(mel, ref=np.max).astype(np.float32)
        return model(torch.from_numpy(decibels)[None]).softmax(dim=-1)

    return decide


def _whole(sound: np.ndarray) -> Callable[[], Any]:
    import torch

    from ser_ros.bundle import load_bundle

    bundle, waveform = load_bundle(), torch.from_numpy(sound)
    return lambda: bundle.classify(waveform)


# --- The stream ----------------------------------------------------------------------------------


def speaking(seconds: float) -> np.ndarray:
    """Speech without long pauses."""
    speech = read_audio(SPEECH)
    loud = np.abs(speech).reshape(-1)[: len(speech) // 160 * 160].reshape(-1, 160).max(axis=1)
    kept = speech[: len(loud) * 160].reshape(-1, 160)[loud > 0.01].reshape(-1)
    return np.resize(kept, round(seconds * SAMPLE_RATE))


def silent(seconds: float) -> np.ndarray:
    """A quiet room."""
    noise = np.random.default_rng(0).normal(0, 1e-3, round(seconds * SAMPLE_RATE))
    return noise.astype(np.float32)


def stream(rounds: int) -> list[Row]:
    """The share of a core that one voice takes, in blocks of 20 ms."""
    sounds = {'silent': silent(5), 'speaking': speaking(5)}
    alternatives = {
        f'{state}, {name}': functools.partial(_push, backend, sound)
        for name, backend in backends().items()
        for state, sound in sounds.items()
    }
    values = take_turns(alternatives, max(3, rounds // 5))
    return [row(name, '% of a core', [v / 50 for v in found]) for name, found in values.items()]


def _push(backend: Backend, sound: np.ndarray, block: int = 320) -> None:
    recognizer = Recognizer(backend)
    for start in range(0, len(sound), block):
        recognizer.push(sound[start : start + block], start * SECOND // SAMPLE_RATE)


def voices(rounds: int) -> list[Row]:
    """How many voices that all speak one thread keeps up with, as their number doubles."""
    backend, sound, rows = load_backend(backend='onnx'), speaking(3), []
    for n in (1, 2, 4, 8, 16, 32, 64):
        values = [
            cpu_milliseconds(functools.partial(_push_together, backend, sound, n))
            for _ in range(max(3, rounds // 10))
        ]
        in_real_time = [n * 3e3 / value for value in values]
        rows.append(row(f'{n} in a batch', 'voices a core', in_real_time))
    return rows


def _push_together(backend: Backend, sound: np.ndarray, n: int, block: int = 1_600) -> None:
    """Voices that begin one after another, so that their windows are not all due at once."""
    together = [Voice(backend, StreamConfig()) for _ in range(n)]
    sounds = [np.roll(sound, i * len(sound) // n) for i in range(n)]
    for start in range(0, len(sound), block):
        stamp = start * SECOND // SAMPLE_RATE
        backend.run([v.push(s[start : start + block], stamp) for v, s in zip(together, sounds)])


# --- The nodes -----------------------------------------------------------------------------------


def nodes(rounds: int) -> list[Row]:
    """Processes in real time, each with the sound of a file that is played again and again."""
    if importlib.util.find_spec('rclpy') is None:
        return []
    rows = []
    for backend in backends():
        for state, make in (('silent', silent), ('speaking', speaking)):
            rows += _nodes(backend, state, make(20), max(3, rounds // 5))
    return rows


def _nodes(backend: str, state: str, sound: np.ndarray, rounds: int) -> list[Row]:
    import tempfile

    import soundfile
    from rig import Rig
    from vision_msgs.msg import Classification

    rows, latencies = [], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'sound.wav')
        soundfile.write(path, sound, SAMPLE_RATE)
        rig = Rig()
        try:
            rig.subscribe(
                Classification,
                'emotion/probabilities',
                lambda m: latencies.append(
                    1e3 * (time.time() - m.header.stamp.sec - m.header.stamp.nanosec / SECOND)
                ),
            )
            start = time.monotonic()
            rig.start('emotion_node', {'backend': backend, 'device': 'cpu'})
            rig.wait(lambda: rig.values('emotion_node').get('backend'), 60)
            seconds = time.monotonic() - start
            rig.start('audio_capture_node', {'source': 'file', 'file': path, 'loop': True})
            rig.wait(lambda: float(rig.values('emotion_node').get('seconds', 0)) > 5, 60)
            names, shares = ('emotion_node', 'audio_capture_node'), {}
            for _ in range(rounds):
                before = {name: _cpu_seconds(rig.processes[name].pid) for name in names}
                since = time.monotonic()
                time.sleep(2.0)
                passed = time.monotonic() - since
                for name in names:
                    used = _cpu_seconds(rig.processes[name].pid) - before[name]
                    shares.setdefault(name, []).append(100 * used / passed)
            for name, values in shares.items():
                rows.append(row(f'{name}, {state}, {backend}', '% of a core', values))
            rows.append(
                row(f'emotion_node, {state}, {backend}', 'MB resident', [rig.memory(names[0])])
            )
            rows.append(row(f'start until its first status, {backend}', 's', [seconds]))
        finally:
            rig.close()
    if latencies[4:]:
        late = np.quantile(latencies[4:], 0.95)
        rows.append(row(f'window end until received, p95, {backend}', 'ms', [float(late)]))
    return rows


def _cpu_seconds(pid: int) -> float:
    fields = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


# --- The report ----------------------------------------------------------------------------------

PARTS: dict[str, Callable[[int], list[Row]]] = {
    'decision': decision,
    'stream': stream,
    'voices': voices,
    'nodes': nodes,
}


def machine() -> dict[str, Any]:
    """What it was measured on."""
    model = platform.processor() or platform.machine()
    info = Path('/proc/cpuinfo')
    if info.exists():
        lines = [line for line in info.read_text().splitlines() if line.startswith('model name')]
        model = lines[0].partition(': ')[2] if lines else model
    commit = subprocess.run(
        ['git', 'rev-parse', '--short', 'HEAD'], cwd=ROOT, capture_output=True, text=True
    )
    return {
        'processor': model,
        'cores': os.cpu_count(),
        'python': platform.python_version(),
        'commit': commit.stdout.strip(),
        'date': time.strftime('%Y-%m-%d'),
    }


def page(results: Mapping[str, list[Row]], where: Mapping[str, Any]) -> Iterator[str]:
    """Lines of Markdown."""
    yield '# Performance'
    yield ''
    yield (
        f'{where["processor"]}, {where["cores"]} cores, Python {where["python"]}; commit '
        f'{where["commit"]}, {where["date"]}. Made by `make bench`: medians, in brackets the middle '
        'half of the values.'
    )
    for name, rows in results.items():
        yield from ('', f'## {name.capitalize()}', '', PARTS[name].__doc__.splitlines()[0], '')
        has_ratio = any('ratio' in r for r in rows)
        header = ['what', 'median', *(['times as fast as the first'] if has_ratio else [])]
        yield f'| {" | ".join(header)} |'
        yield '|---' * len(header) + '|'
        for r in rows:
            cell = f'{r["median"]:.3g} {r["unit"]}'
            if r['n'] > 1:
                cell += f' [{r["low"]:.3g}, {r["high"]:.3g}]'
            cells = [r['what'], cell, *([f'{r["ratio"]:.1f}'] if has_ratio else [])]
            yield f'| {" | ".join(cells)} |'


def main() -> None:
    """Measure, print the page, and write it with its numbers if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--only', nargs='+', choices=PARTS, default=list(PARTS))
    parser.add_argument('--rounds', type=int, default=30, help='of each measurement (default 30)')
    parser.add_argument(
        '--out', type=Path, help='Markdown file; the numbers go beside it, in JSON'
    )
    options = parser.parse_args()
    results = {name: PARTS[name](options.rounds) for name in options.only}
    where = machine()
    text = '\n'.join(page(results, where)) + '\n'
    print(text)
    if options.out:
        numbers = {'machine': where, **results}
        write_atomically(options.out.with_suffix('.json'), json.dumps(numbers, indent=1) + '\n')
        write_atomically(options.out, text)


if __name__ == '__main__':
    main()

"""Speed and memory, side by side in one run: a table in Markdown, and the numbers in JSON.

    . tools/ros_env.sh && python benchmarks/bench.py [--out docs/PERFORMANCE.md] [--only PART ...]

Each part is a function, whose docstring says what it measures. What a machine lacks (torch, ROS, a
microphone, a GPU) is left out.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from decision import decision
from gpu import gpu
from measure import ROOT, Row, Settings, has_gpu, with_programs
from processes import environment, nodes
from report import numbers, page
from streams import offline, stream, voices
from targets import compare
from trainings import training

from ser_ros import SerError
from ser_ros.bundle_info import find_bundle, load_info
from ser_ros.files import write_atomically
from ser_ros.machine import processor

PARTS: dict[str, Callable[[Settings], list[Row]]] = {
    function.__name__: function
    for function in (decision, stream, voices, offline, nodes, environment, training, gpu)
}


def machine(bundle: str) -> dict[str, Any]:
    """What is measured, and on what."""
    commit = subprocess.run(
        ['git', 'rev-parse', '--short', 'HEAD'], cwd=ROOT, capture_output=True, text=True
    )
    return {
        'processor': processor(),
        'cores': os.cpu_count(),
        'gpu': _gpu_name(),
        'python': platform.python_version(),
        'bundle': find_bundle(bundle).stem,
        'architecture': load_info(bundle).architecture,
        'commit': commit.stdout.strip(),
        'date': time.strftime('%Y-%m-%d'),
    }


def _gpu_name() -> str:
    if not has_gpu():
        return ''
    import torch

    return torch.cuda.get_device_name()


def measure(parts: list[str], settings: Settings) -> dict[str, list[Row]]:
    """The rows of each part; its seconds are on stderr."""
    results = {}
    for name in parts:
        start = time.monotonic()
        results[name] = PARTS[name](settings)
        print(f'bench: {name}, {time.monotonic() - start:.0f} s', file=sys.stderr, flush=True)
    return results


def main() -> int:
    """Measure, print the page, and write it with its numbers if asked to."""
    parser = argparse.ArgumentParser(prog='make bench', description=__doc__.splitlines()[0])
    parser.add_argument('--only', nargs='+', choices=PARTS, default=list(PARTS), metavar='PART')
    parser.add_argument('--bundle', default='', help='name or path (default: the shipped one)')
    parser.add_argument('--rounds', type=int, default=30, help='of each measurement (default 30)')
    parser.add_argument(
        '--out', type=Path, help='Markdown file; the numbers go beside it, in JSON'
    )
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as folder:
            settings = Settings(with_programs(options.bundle, Path(folder)), options.rounds)
            results = measure(options.only, settings)
            comparisons = compare(results, settings)
        where = machine(options.bundle)
    except SerError as error:
        print(f'bench: {error}', file=sys.stderr)
        return 1
    descriptions = {name: ' '.join(PARTS[name].__doc__.split()) for name in results}
    text = page(results, comparisons, where, descriptions)
    print(text)
    if options.out:
        values = json.dumps(numbers(results, comparisons, where), indent=1, allow_nan=False)
        write_atomically(options.out.with_suffix('.json'), values + '\n')
        write_atomically(options.out, text)
    return 0


if __name__ == '__main__':
    sys.exit(main())

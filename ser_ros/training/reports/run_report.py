"""What is written beside the bundle of a finished run: its card, its figures, its report."""

import dataclasses
import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ser_ros import __version__
from ser_ros.bundle import Bundle, load_bundle, save_bundle
from ser_ros.models import count_parameters
from ser_ros.models.transfer import freeze
from ser_ros.stream.engine import select_device
from ser_ros.training.data.dataset import one_thread
from ser_ros.training.evaluation.metrics import ClipResult, manner, record_part
from ser_ros.training.evaluation.rejection import hear_nonspeech, rejection
from ser_ros.training.learning.fit import Compute
from ser_ros.training.learning.train import Run
from ser_ros.training.reports.card import write_card
from ser_ros.training.reports.html import write_report, write_results
from ser_ros.training.reports.results import REFITTED


def write_run_report(
    run: Run, heard: Mapping[str, Sequence[ClipResult]], compute: Compute
) -> dict[str, Any]:
    """Write the card, results.json and report.html beside the bundle; return the results.

    `heard`: what the bundle made of each part. The figures go into the bundle, too; the last
    part's hardest clips into the report.
    """
    bundle = load_bundle(run.bundle)
    info = bundle.info
    sounds = hear_nonspeech(bundle, compute.device)
    parts = {}
    for name, clips in heard.items():
        is_before = info.recipe['refit'] and name == 'validation'
        refit = [f'before the model was {REFITTED}' if is_before else REFITTED]
        protocol = [run.split.protocol, *refit * info.recipe['refit'], manner(bundle)]
        parts[name] = record_part(clips, info.class_names, '; '.join(protocol))
        # What another model made of speech is not to be compared with.
        speech = [] if is_before else clips
        parts[name]['figures']['nonspeech'] = rejection(bundle, speech, sounds)
    metrics = {name: part['figures'] for name, part in parts.items()}
    bundle.info = dataclasses.replace(info, metrics={**info.metrics, **metrics})
    save_bundle(bundle.path, bundle.info, bundle.frontend, bundle.model)
    write_card(bundle)
    results = {
        'title': f'{info.recipe["name"]}, fold {info.recipe["split"]["fold"]}, seed {info.seed}',
        'facts': {
            'recipe': info.recipe['name'],
            'architecture': info.architecture,
            'classes': list(info.class_names),
            'parameters': f'{count_parameters(bundle.model):,}',
            'epochs': len(run.history),
            'seconds per epoch': round(seconds_per_epoch(run), 1),
            'machine': machine(compute),
            'versions': versions(),
            'speakers': info.corpora,
            'settings': info.recipe,
        },
        'parts': parts,
        'history': run.history,
    }
    write_results(run.bundle.with_name('results.json'), results)
    write_report(run.bundle.with_name('report.html'), results, list(heard.values())[-1])
    return results


def trainable_parameters(bundle: Bundle) -> int:
    """Those that its recipe did not freeze."""
    model = bundle.model.requires_grad_(True)
    freeze(model, bundle.info.recipe['freeze'])
    n = sum(p.numel() for p in model.parameters() if p.requires_grad)
    model.requires_grad_(False)
    return n


def seconds_per_epoch(run: Run) -> float:
    """The median of all epochs."""
    return statistics.median(row['seconds'] for row in run.history)


def machine(compute: Compute) -> dict[str, Any]:
    """What a training runs on: processor, threads, device."""
    device = select_device(compute.device)
    return {
        'processor': _processor(),
        'threads': torch.get_num_threads(),
        'device': torch.cuda.get_device_name(device) if device.type == 'cuda' else 'cpu',
    }


def _processor() -> str:
    """Its model, as Linux calls it; elsewhere as Python does."""
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return names[0] if names else platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Of what decides the figures."""
    return {
        'ser_ros': __version__,
        'python': platform.python_version(),
        'torch': torch.__version__,
        'lightning': version('lightning'),
    }


@one_thread()
def milliseconds_per_window(bundle: Bundle, calls: int = 30) -> float:
    """Median time of front-end and model on one thread of the processor.

    For the longest window of the stream, or for a clip as long as the front-end hears of one.
    """
    frontend = bundle.frontend
    seconds = bundle.info.window
    if not frontend.is_streaming:
        seconds = frontend.config.offset + frontend.config.duration
    n_samples = round(seconds * frontend.sample_rate)
    noise = 0.1 * torch.randn(n_samples, generator=torch.Generator().manual_seed(1))
    times = []
    for _ in range(calls + 1):  # the first one sets up
        start = time.perf_counter()
        bundle.classify(noise)
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times[1:])

"""The files beside the bundle of a finished run: its card, its metrics, its report."""

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
from ser_ros.machine import processor
from ser_ros.models import count_parameters
from ser_ros.models.transfer import freeze
from ser_ros.stream.torch_backend import select_device
from ser_ros.training.data.splits import QUICK, QUICK_MEANS
from ser_ros.training.evaluation.clip_result import ClipResult
from ser_ros.training.evaluation.known_voices import evaluate_known_voices
from ser_ros.training.evaluation.metrics import subset_results
from ser_ros.training.evaluation.prediction import describe_method, one_thread
from ser_ros.training.evaluation.rejection import evaluate_nonspeech, nonspeech_metrics
from ser_ros.training.reports.card import write_card
from ser_ros.training.reports.html import write_report, write_results
from ser_ros.training.reports.results import REFITTED


def write_run_report(
    path: Path,
    protocol: str,
    history: Sequence[Mapping[str, float]],
    results: Mapping[str, Sequence[ClipResult]],
    device: str = 'auto',
) -> dict[str, Any]:
    """Write the card, results.json and report.html beside the bundle `path`; return the subsets.

    `protocol`: of the split. `history`: one row an epoch. `results`: subset → results of its
    clips; a subset without clips is left out. The metrics are also stored in the bundle; the report
    contains the hardest clips of the last subset.
    """
    bundle = load_bundle(path)
    info = bundle.info
    is_quick = info.recipe.get('quick', False)
    results = {name: clips for name, clips in results.items() if clips}
    sounds = None if is_quick or not results else evaluate_nonspeech(bundle, device)
    subsets = {}
    for name, clips in results.items():
        is_before = info.recipe['refit'] and name == 'validation'
        refit = [f'before the model was {REFITTED}' if is_before else REFITTED]
        sentences = [protocol, *refit * info.recipe['refit'], describe_method(bundle)]
        subsets[name] = subset_results(clips, info.class_names, '; '.join(sentences))
        if sounds is not None:
            # Speech that another model classified is no comparison for this one's sounds.
            speech = [] if is_before else clips
            subsets[name]['metrics']['nonspeech'] = nonspeech_metrics(bundle, speech, sounds)
            known = evaluate_known_voices(bundle, [r.clip for r in speech], device)
            if known is not None:
                subsets[name]['metrics']['known_voices'] = known
    metrics = {name: subset['metrics'] for name, subset in subsets.items()}
    bundle.info = dataclasses.replace(info, metrics={**info.metrics, **metrics})
    save_bundle(bundle.path, bundle.info, bundle.frontend, bundle.model, bundle.programs)
    write_card(bundle)
    page = {
        'title': f'{QUICK}: ' * is_quick
        + f'{info.recipe["name"]}, fold {info.recipe["split"]["fold"]}, seed {info.seed}',
        'facts': {
            **({'quick trial': QUICK_MEANS} if is_quick else {}),
            'recipe': info.recipe['name'],
            'architecture': info.architecture,
            'classes': list(info.class_names),
            'parameters': f'{count_parameters(bundle.model):,}',
            'epochs': len(history),
            'seconds per epoch': round(seconds_per_epoch(history), 1),
            'machine': machine(device),
            'versions': versions(),
            'speakers': info.corpora,
            'settings': info.recipe,
        },
        'subsets': subsets,
        'history': list(history),
    }
    write_results(path.with_name('results.json'), page)
    write_report(path.with_name('report.html'), page, next(reversed(results.values()), ()))
    return subsets


def trainable_parameters(bundle: Bundle) -> int:
    """Number of parameters that the bundle's recipe did not freeze."""
    model = bundle.model.requires_grad_(True)
    freeze(model, bundle.info.recipe['freeze'])
    n = sum(p.numel() for p in model.parameters() if p.requires_grad)
    model.requires_grad_(False)
    return n


def seconds_per_epoch(history: Sequence[Mapping[str, float]]) -> float:
    """The median of all epochs."""
    return statistics.median(row['seconds'] for row in history)


def machine(device: str) -> dict[str, Any]:
    """Processor, threads and device of a training."""
    selected = select_device(device)
    return {
        'processor': processor(),
        'threads': torch.get_num_threads(),
        'device': torch.cuda.get_device_name(selected) if selected.type == 'cuda' else 'cpu',
    }


def versions() -> dict[str, str]:
    """Versions of the software that the metrics depend on."""
    return {
        'ser_ros': __version__,
        'python': platform.python_version(),
        'torch': torch.__version__,
        'lightning': version('lightning'),
    }


@one_thread()
def milliseconds_per_window(bundle: Bundle, calls: int = 30) -> float:
    """Median time of front-end and model on one CPU thread.

    For the longest window of the stream, or for a clip as long as the part that the front-end
    reads of it.
    """
    frontend = bundle.frontend
    seconds = bundle.info.window
    if not frontend.is_streaming:
        seconds = frontend.config.offset + frontend.config.duration
    n_samples = round(seconds * frontend.sample_rate)
    noise = 0.1 * torch.randn(n_samples, generator=torch.Generator().manual_seed(1))
    times = []
    for _ in range(calls + 1):  # the first call also allocates
        start = time.perf_counter()
        bundle.classify(noise)
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times[1:])

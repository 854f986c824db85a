"""Training on generated clips, so that no corpus is needed: an epoch, and its batches alone."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from measure import SPEECH, Row, Settings, cpu_seconds, is_installed, wall_seconds

from ser_ros.audio.sources import read_audio
from ser_ros.bundle_info import load_info

if TYPE_CHECKING:
    from ser_ros.training.data.dataset import Utterance
    from ser_ros.training.recipe import Recipe

RECIPE, ORIGINAL = 'companion', 'research/parallel_cnn_transformer'
CLIPS = {ORIGINAL: 32, RECIPE: 256}
"""For a few batches each: an epoch of the original recipe takes two minutes of a fold."""
EPOCHS = 2
FOLD = 1_000
"""Clips of an epoch as it is stated: about those of one fold of RAVDESS."""


def training(settings: Settings, device: str = 'cpu') -> list[Row]:
    """Seconds of an epoch over a thousand clips of three seconds; on a CPU those of one thread.

    "Loading" makes the batches alone. "Copies" are the features of augmented clips that the recipe
    computes once, before its first epoch. The original recipe is the research's, which adds two noisy
    copies of each clip. "bf16" is for the processors that have it; the others compute with 32 bits.
    """
    if not (is_installed('torch') and is_installed('lightning')):
        return []
    from ser_ros.training.learning.fit import is_slow_in_bf16

    rows = [row for name in CLIPS for row in _rows(name, device)]
    if device == 'cpu' and not is_slow_in_bf16(device):
        rows += [r for r in _rows(RECIPE, device, 'bf16-mixed') if r.what.startswith('epoch')]
    first = {row.what.partition(',')[0]: row for row in reversed(rows)}
    return [
        replace(row, ratio=first[kind].median / row.median)
        if (kind := row.what.partition(',')[0]) in ('epoch', 'loading')
        else row
        for row in rows
    ]


def _rows(name: str, device: str, precision: str = '') -> Iterator[Row]:
    """Rows of a recipe; on a CPU with 32 bits by default."""
    import torch

    from ser_ros.training.learning.fit import Compute
    from ser_ros.training.learning.train import fit_task, prepare_fit

    recipe, n = _recipe(name, device, precision), CLIPS[name] * (1 if device == 'cpu' else 8)
    class_names = load_info().class_names
    clips = generated_clips(recipe, n, len(class_names))
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several wait for each other where other processes run
    measure = cpu_seconds if device == 'cpu' else wall_seconds
    try:
        compute, made = Compute(device), []
        seconds = measure(
            lambda: made.extend(prepare_fit(recipe, class_names, clips, [], compute))
        )
        task, data = made
        if recipe.voice.copies:
            yield Row(f'copies, {name}', f's for {FOLD:,} clips', [seconds * FOLD / n])
        loading = [measure(lambda: _load(data)) for _ in range(EPOCHS)]
        yield Row(f'loading, {name}', f's for {FOLD:,} clips', [s * FOLD / n for s in loading])
        clock = time.process_time if device == 'cpu' else time.perf_counter
        starts, ends = [], []
        task.on_train_epoch_start = lambda: starts.append(clock())
        task.on_train_epoch_end = lambda: ends.append(clock())
        with tempfile.TemporaryDirectory() as folder:
            fit_task(task, data, Path(folder), compute)
    finally:
        torch.set_num_threads(n_threads)
    epochs = [end - start for start, end in zip(starts, ends)]
    share = np.median(loading) / np.median(epochs)
    yield Row(
        f'epoch, {name}' + (', bf16' if precision else ''),
        f's for {FOLD:,} clips',
        [s * FOLD / n for s in epochs],
        note=f'{data.n_batches / np.median(epochs):.1f} batches of {data.batch_size} a second; '
        f'loading is {share:.0%} of an epoch, the rest is augmentation, model and optimiser',
    )


def _recipe(name: str, device: str, precision: str) -> 'Recipe':
    """A shipped recipe for a few epochs over each clip once."""
    from ser_ros.training.recipe import load_recipe

    overrides = [f'optimization.epochs={EPOCHS}', 'data.epoch_clips=0', 'refit=false']
    if device == 'cpu':  # processors without bf16 would take several times as long with it
        precision = precision or '32-true'
    if precision:
        overrides.append(f'optimization.precision={precision}')
    return load_recipe(name, overrides)


def generated_clips(recipe: 'Recipe', n: int, n_classes: int) -> 'Sequence[Utterance]':
    """Three seconds of speech each, of eight voices and all classes, each with noise of its own."""
    from ser_ros.audio.vad import Segment
    from ser_ros.training.data.dataset import Utterance

    rate, rng = recipe.frontend.sample_rate, np.random.default_rng(0)
    speech = read_audio(SPEECH, rate)
    clips = []
    for index in range(n):
        start = rng.integers(len(speech) - 3 * rate)
        noise = rng.normal(0, 1e-3, 3 * rate).astype(np.float32)
        samples = speech[start : start + 3 * rate] + noise
        segment = Segment(0, len(samples))
        voice = f'voice {index % 8}'
        clips.append(Utterance(samples, segment, index % n_classes, rate, 0, voice))
    return clips


def _load(data: Any) -> None:
    """All batches of an epoch."""
    from torch.utils.data import DataLoader

    from ser_ros.training.data.batches import EvenBatches

    batches = EvenBatches(data.order, data.batch_size)
    for _ in DataLoader(data.items, batch_sampler=batches, collate_fn=data.collate):
        pass

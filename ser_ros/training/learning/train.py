"""From a recipe and clips to trained weights."""

import copy
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Optional

import lightning
import torch
from torch import Tensor, nn

from ser_ros import SerError
from ser_ros.audio.vad import Segment
from ser_ros.bundle import Bundle
from ser_ros.features import build_frontend, fit_frontend
from ser_ros.files import user_path
from ser_ros.models import build_model
from ser_ros.models.transfer import freeze, load_published
from ser_ros.stream.types import StreamConfig
from ser_ros.training.data.batches import EmotionData, EpochOrder
from ser_ros.training.data.copies import compute_copies, pad_copies
from ser_ros.training.data.dataset import (
    Item,
    TrainingWindows,
    Utterance,
    WholeClips,
    load_utterances,
    pad,
    stream_windows,
)
from ser_ros.training.data.splits import SUBSETS, Split
from ser_ros.training.learning.distillation import make_teacher
from ser_ros.training.learning.fit import Compute, Fit, fit, read_checkpoint
from ser_ros.training.learning.pretrained import NO_SOURCES, Sources, copy_weights
from ser_ros.training.learning.task import EmotionTask
from ser_ros.training.recipe import DataConfig, Recipe

logger = logging.getLogger(__name__)


def load_subset(
    recipe: Recipe, split: Split, subset: str, cache: Optional[Path] = None
) -> list[Utterance]:
    """Load the clips of the subset train or validation into memory.

    Clips too short for the model are left out and logged. SerError if a class has no others, or
    if the recipe's windows are too short as well.
    """
    clips, frontend = getattr(split, subset), build_frontend(recipe.frontend)
    rate, crop = frontend.sample_rate, recipe.augmentation.crop[0]
    fastest = recipe.augmentation.speed[1]
    model = build_model(
        recipe.architecture,
        frontend.n_features,
        len(split.class_names),
        **recipe.hyperparameters,
    )
    least = fastest * frontend.n_samples(model.min_frames)
    needed = f'{recipe.architecture} needs at least {least / rate:.2f} s with this recipe'
    if frontend.is_streaming and round(crop * rate) < least:
        raise SerError(f'augmentation.crop begins at {crop} s, but {needed}')
    utterances = load_utterances(clips, split.class_names, rate, cache, recipe.data.corpora)
    kept, short = [], []
    for clip, utterance in zip(clips, utterances):
        speech = utterance.speech if frontend.is_streaming else Segment(0, len(utterance.samples))
        (kept if speech.end - speech.start >= least else short).append((clip, utterance))
    if short:
        names = ', '.join(clip.name for clip, _ in short[:3])
        more = ' and others' if len(short) > 3 else ''
        logger.warning(
            '%d %s clips are left out: %s%s; %s', len(short), SUBSETS[subset], names, more, needed
        )
    if lost := {clip.emotion for clip in clips} - {clip.emotion for clip, _ in kept}:
        raise SerError(
            f'no {SUBSETS[subset]} clip of class {", ".join(sorted(lost))} is long enough: {needed}'
        )
    return [utterance for _, utterance in kept]


def prepare_fit(
    recipe: Recipe,
    class_names: Sequence[str],
    training: Sequence[Utterance],
    validation: Sequence[Utterance],
    compute: Compute,
    sources: Sources = NO_SOURCES,
) -> tuple[EmotionTask, EmotionData]:
    """The untrained task and its batches; nothing is written. Seeds torch, NumPy and Python.

    SerError if the clips are too few for the processes.
    """
    lightning.seed_everything(recipe.seed, workers=True, verbose=False)
    task = make_task(recipe, class_names, training, sources)
    data = make_data(recipe, task, training, validation, compute.workers)
    data.check(compute.devices * compute.nodes)
    return task, data


def fit_task(task: EmotionTask, data: EmotionData, out: Path, compute: Compute) -> Fit:
    """Train the task; it gets the weights of the best epoch by validation.

    If the recipe refits, it gets those of the last epoch: the refit has no validation set to
    choose an epoch by, and temperature and threshold must fit weights like its own.
    """
    frontend = copy.deepcopy(task.frontend)
    fitted = fit(task, data, out, compute)
    path = fitted.last if task.recipe.refit else fitted.best
    task.model.load_state_dict(_model_weights(path))
    task.frontend = frontend  # weight averaging also changes its statistics
    return fitted


def make_task(
    recipe: Recipe,
    class_names: Sequence[str],
    training: Sequence[Utterance],
    sources: Sources = NO_SOURCES,
) -> EmotionTask:
    """The front-end and the model before the first step.

    The front-end is fitted on the training set, but of the bundle to start from, if there is
    one: its weights need features that are standardised by its statistics.
    """
    n_classes = len(class_names)
    frontend = (
        copy.deepcopy(sources.start.frontend)
        if sources.start
        else fit_frontend(
            recipe.frontend, _sounds(recipe, training), _corpus_weights(recipe, training)
        )
    )
    weights = class_weights(training, n_classes) if recipe.optimization.class_weights else None
    model = make_model(recipe, class_names, sources.start)
    known = corpus_classes(recipe.data, training, n_classes)
    teacher = make_teacher(recipe, class_names, sources.teacher)
    return EmotionTask(recipe, frontend, model, n_classes, weights, known, teacher)


def make_model(
    recipe: Recipe, class_names: Sequence[str], source: Optional[Bundle] = None
) -> nn.Module:
    """The model with the weights that it starts from: those of `source`, or published ones.

    SerError if they are missing.
    """
    n_features = build_frontend(recipe.frontend).n_features
    model = build_model(
        recipe.architecture, n_features, len(class_names), **recipe.hyperparameters
    )
    if source:
        copy_weights(source, model, class_names)
    elif recipe.pretrained:
        load_published(model, user_path(recipe.pretrained))
    elif recipe.freeze:
        logger.warning(
            f'freeze={recipe.freeze} without pretrained: those stages keep their random weights'
        )
    freeze(model, recipe.freeze)
    return model


def _sounds(recipe: Recipe, training: Sequence[Utterance]) -> Iterator[Tensor]:
    """The sounds for the front-end's statistics: speech without its silent edges, at the mean gain.

    For a front-end that reads whole clips all items of an epoch, with the noisy copies: in bands
    above those of the recordings there is nothing but the copies' noise.
    """
    gain = 10 ** (sum(recipe.augmentation.gain_db) / 2 / 20)
    if build_frontend(recipe.frontend).is_streaming:
        for utterance in training:
            spoken = utterance.samples[utterance.speech.start : utterance.speech.end]
            yield torch.from_numpy(spoken) * gain
        return
    items = WholeClips(training, recipe.data, recipe.augmentation, recipe.seed)
    for index in range(len(items)):
        samples, *_ = items[0, index]
        yield samples * gain


def _corpus_weights(recipe: Recipe, training: Sequence[Utterance]) -> Optional[list[float]]:
    """Of each clip, with a mean of 1 over all speech, if the recipe lets corpora count alike."""
    if not recipe.data.balance_corpora:
        return None
    lengths = Counter()
    for utterance in training:
        lengths[utterance.corpus] += utterance.speech.end - utterance.speech.start
    mean = lengths.total() / len(lengths)
    return [mean / lengths[utterance.corpus] for utterance in training]


def class_weights(training: Sequence[Utterance], n_classes: int) -> Tensor:
    """(n_classes,) weights inverse to the classes' shares; their mean over the clips is 1."""
    counts = torch.bincount(torch.tensor([u.label for u in training]), minlength=n_classes)
    return len(training) / (n_classes * counts.clamp(min=1))


def corpus_classes(
    data: DataConfig, training: Sequence[Utterance], n_classes: int
) -> Optional[Tensor]:
    """(n_corpora, n_classes), True for the classes that a corpus has; None if none are masked."""
    if not data.mask_absent_classes:
        return None
    known = torch.zeros(len(data.corpora), n_classes, dtype=torch.bool)
    for utterance in training:
        known[utterance.corpus, utterance.label] = True
    return known


def make_data(
    recipe: Recipe,
    task: EmotionTask,
    training: Sequence[Utterance],
    validation: Sequence[Utterance],
    workers: int = 0,
) -> EmotionData:
    """Batches of windows as the stream cuts them, or of whole clips if the front-end reads those."""
    items_of = TrainingWindows if task.frontend.is_streaming else WholeClips
    items = items_of(training, recipe.data, recipe.augmentation, recipe.seed)
    order = EpochOrder(
        recipe.data.epoch_clips or len(items), recipe.seed, draw_weights(recipe.data, items)
    )
    collate = pad
    if n_copies := recipe.voice.copies:
        if not task.frontend.is_streaming:
            raise SerError(
                f'voice.copies is for windows of a stream, and {recipe.frontend.kind} reads whole '
                'clips: set voice.copies to 0'
            )
        items = compute_copies(
            items,
            task.frontend,
            task.augment,
            n_copies,
            task.model.min_frames,
            recipe.voice.clean_probability,
        )
        collate = pad_copies
    return EmotionData(
        items,
        [_validation_windows(recipe, task, utterance) for utterance in validation],
        recipe.optimization.batch_size,
        order,
        workers,
        collate,
    )


def draw_weights(data: DataConfig, items: WholeClips) -> Optional[Tensor]:
    """(n,) probabilities with which the items are drawn; None to take each once an epoch."""
    if not data.draws:
        return None
    corpora = torch.tensor([items.corpus(index) for index in range(len(items))])
    labels = torch.tensor([items.label(index) for index in range(len(items))])
    if not data.balance_corpora:
        corpora = torch.zeros_like(corpora)
    weights = torch.zeros(len(items))
    for corpus in corpora.unique().tolist():
        members = corpora == corpus
        groups = labels[members] if data.balance_classes else torch.zeros(int(members.sum()))
        _, group, counts = groups.unique(return_inverse=True, return_counts=True)
        own = len(items) / (len(counts) * counts[group])
        weights[members] = own * (data.weight(corpus) if data.balance_corpora else 1.0)
    return weights


def _validation_windows(recipe: Recipe, task: EmotionTask, utterance: Utterance) -> list[Item]:
    if not task.frontend.is_streaming:
        return [(torch.from_numpy(utterance.samples), utterance.label, utterance.corpus)]
    stream = StreamConfig()
    least = task.frontend.n_samples(task.model.min_frames) / task.frontend.sample_rate
    first = max(stream.first_estimate, least)
    windows = stream_windows(utterance, recipe.augmentation.crop[1], stream.hop, first)
    longest = max(map(len, windows))
    return [
        (torch.from_numpy(window), utterance.label, utterance.corpus)
        for window in windows
        if len(window) == longest
    ]


def _model_weights(checkpoint: Path) -> dict[str, Tensor]:
    """The model's weights in a checkpoint of its task."""
    state = read_checkpoint(checkpoint)['state_dict']
    return {k.removeprefix('model.'): v for k, v in state.items() if k.startswith('model.')}

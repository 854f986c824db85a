"""From a recipe and corpora to a bundle."""

import contextlib
import copy
import dataclasses
import json
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import lightning
import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn

from ser_ros import SerError
from ser_ros.audio.vad import Segment
from ser_ros.bundle import Bundle, BundleInfo, load_bundle, save_bundle
from ser_ros.emotions import EMOTIONS
from ser_ros.features import build_frontend, fit_frontend
from ser_ros.files import make_folder, write_atomically
from ser_ros.models import build_model, default_hyperparameters, model_class
from ser_ros.models.transfer import TransferModel, freeze, load_published
from ser_ros.settings import from_dict
from ser_ros.stream.types import StreamConfig
from ser_ros.training.data.batches import EmotionData
from ser_ros.training.data.corpora import (
    Clip,
    Corpus,
    CorpusPath,
    license_of,
    merge_labels,
    read_corpora,
)
from ser_ros.training.data.dataset import (
    TrainingWindows,
    Utterance,
    WholeClips,
    load_utterances,
    stream_windows,
)
from ser_ros.training.data.splits import Split, split_clips
from ser_ros.training.evaluation.metrics import (
    ClipResult,
    fit_temperature,
    fit_threshold,
    listen,
    measure,
)
from ser_ros.training.learning.fit import Compute, Fit, fit, read_checkpoint
from ser_ros.training.learning.task import EmotionTask
from ser_ros.training.recipe import Recipe
from ser_ros.training.reports.results import differences

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """A finished training."""

    bundle: Path
    split: Split
    history: list[dict[str, float]]
    """One row an epoch, see `fit.Fit`."""
    validation: list[ClipResult]


def train(
    recipe: Recipe, corpora: Sequence[CorpusPath], out: Path, compute: Optional[Compute] = None
) -> Optional[Run]:
    """Train on the corpora in these folders; write bundle, checkpoints and logs to `out`.

    A run that was interrupted goes on from its last whole epoch. Returns None in all processes
    but the first. Raises SerError for a corpus, a split or a device that is not there, a folder
    that holds another run, and a loss that is not finite.
    """
    _check_recipe(out, recipe)
    return train_split(recipe, recipe_split(recipe, open_corpora(corpora)), out, compute)


def train_split(
    recipe: Recipe, split: Split, out: Path, compute: Optional[Compute] = None
) -> Optional[Run]:
    """`train` with the recipe's split already made."""
    compute = compute or Compute()
    if not split.validation:
        raise SerError('no speaker validates, by whom to calibrate: set split.n_validation')
    # What cannot be built is told before the sound is read, which takes minutes.
    make_model(recipe, len(present_classes(split.train)))
    _check_claim(out, recipe, split)
    training, validation = (
        _load(recipe, split, part, compute.cache) for part in ('train', 'validation')
    )
    with _locked(out):
        return _train(recipe, split, training, validation, out, compute)


def _train(
    recipe: Recipe,
    split: Split,
    training: list[Utterance],
    validation: list[Utterance],
    out: Path,
    compute: Compute,
) -> Optional[Run]:
    """`train_split` with its sound in memory."""
    task, fitted = _fit(recipe, split, training, validation, out, compute)
    refitted = None
    if recipe.refit:
        refitted = _fit(recipe, split, [*training, *validation], [], out / 'refit', compute)
    if not fitted.is_first_process:
        return None
    path = out / f'{recipe.name.replace("/", "_")}.safetensors'
    info = BundleInfo(
        architecture=recipe.architecture,
        # Defaults, too: a bundle must load when another version has others.
        hyperparameters={
            **default_hyperparameters(recipe.architecture),
            **recipe.hyperparameters,
        },
        frontend=recipe.frontend,
        class_names=present_classes(split.train),
        window=recipe.augmentation.crop[1],
        temperature=1.0,
        threshold=0.0,
        corpora=split.speakers(),
        recipe=dataclasses.asdict(recipe),
        seed=recipe.seed,
        metrics={},
        license=license_of(recipe.data.corpora),
        recordings=tuple(sorted({c.fingerprint for c in (*split.train, *split.validation)})),
    )
    results = calibrate(info, task, split.validation, path, compute.device)
    if refitted:
        info = load_bundle(path).info
        learnt = {
            corpus: {'train': sorted(p['train'] + p['validation']), 'test': p['test']}
            for corpus, p in info.corpora.items()
        }
        task, _ = refitted
        info = dataclasses.replace(info, corpora=learnt)
        save_bundle(path, info, task.frontend, task.model)
    return Run(path, split, fitted.history, results)


def _load(recipe: Recipe, split: Split, part: str, cache: Optional[Path]) -> list[Utterance]:
    """A part's clips in memory, but for those too short for the model, which are told in the log.

    SerError where they are all that there is of a class, or windows would be too short as well.
    """
    clips, frontend = getattr(split, part), build_frontend(recipe.frontend)
    rate, crop = frontend.sample_rate, recipe.augmentation.crop[0]
    fastest = recipe.augmentation.speed[1]
    least = fastest * frontend.n_samples(model_class(recipe.architecture).min_frames)
    takes = f'{recipe.architecture} takes at least {least / rate:.2f} s by this recipe'
    if frontend.is_streaming and round(crop * rate) < least:
        raise SerError(f'augmentation.crop begins at {crop} s, and {takes}')
    utterances = load_utterances(clips, present_classes(split.train), rate, cache)
    kept, short = [], []
    for clip, utterance in zip(clips, utterances):
        speech = utterance.speech if frontend.is_streaming else Segment(0, len(utterance.samples))
        (kept if speech.end - speech.start >= least else short).append((clip, utterance))
    if short:
        names = ', '.join(clip.name for clip, _ in short[:3])
        more = ' and others' if len(short) > 3 else ''
        logger.warning(
            '%d clips of the %s part are left out: %s%s; %s', len(short), part, names, more, takes
        )
    if lost := {clip.emotion for clip in clips} - {clip.emotion for clip, _ in kept}:
        raise SerError(
            f'no {part} clip of class {", ".join(sorted(lost))} is long enough: {takes}'
        )
    return [utterance for _, utterance in kept]


def _fit(
    recipe: Recipe,
    split: Split,
    training: Sequence[Utterance],
    validation: Sequence[Utterance],
    out: Path,
    compute: Compute,
) -> tuple[EmotionTask, Fit]:
    """Train; the task has the weights of the best epoch by validation.

    Of the last one where the recipe refits: so does the refit, which has nothing to choose by, and
    temperature and threshold must be of weights like its own.
    """
    lightning.seed_everything(recipe.seed, workers=True, verbose=False)
    task = make_task(recipe, len(present_classes(split.train)), training)
    frontend = copy.deepcopy(task.frontend)
    data = make_data(recipe, task, training, validation, compute.workers)
    data.check(compute.devices * compute.nodes)
    _claim(out, recipe, split)
    fitted = fit(task, data, out, compute)
    task.model.load_state_dict(_model_weights(fitted.last if recipe.refit else fitted.best))
    task.frontend = frontend  # what it was, whatever averaging made of its numbers
    return task, fitted


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Keep a run's folder to this training; SerError where another one is at it."""
    if {'LOCAL_RANK', 'NODE_RANK'} & os.environ.keys():  # one process of several, which share it
        yield
        return
    make_folder(out)
    try:
        # The lock ends with the process that holds it, however that ends; its file may stay.
        with FileLock(out / 'run.lock', timeout=0):
            yield
    except Timeout as error:
        raise SerError(f'{out}: another process is training there; give another --out') from error


def _claim(out: Path, recipe: Recipe, split: Split) -> None:
    """Say in the folder of a run what it is of."""
    _check_claim(out, recipe, split)
    make_folder(out)
    write_atomically(out / RECIPE_FILE, json.dumps(dataclasses.asdict(recipe), indent=2))
    write_atomically(out / SPLIT_FILE, split.digest)


RECIPE_FILE, SPLIT_FILE = 'recipe.json', 'split.sha256'


def _check_claim(out: Path, recipe: Recipe, split: Split) -> None:
    """SerError for a folder of another run: a bundle must not name what did not make it."""
    _check_recipe(out, recipe)
    path = out / SPLIT_FILE
    if path.is_file() and path.read_text() != split.digest:
        raise SerError(
            f'{out} holds a run of other clips: the corpus is not what it was; give another '
            '--out, or remove it'
        )


def _check_recipe(out: Path, recipe: Recipe) -> None:
    path = out / RECIPE_FILE
    if not path.is_file():
        return
    try:
        changed = differences(from_dict(Recipe, json.loads(path.read_text())), recipe, ignored=())
    except (SerError, ValueError) as error:
        changed = [str(error)]
    if changed:
        raise SerError(
            f'{out} holds a run of another recipe ({", ".join(changed)}); give another --out, '
            'or remove it'
        )


def open_corpora(paths: Sequence[CorpusPath]) -> list[Corpus]:
    """`read_corpora`; how many of their files cannot be used is told in the log."""
    corpora = read_corpora(paths)
    for corpus in corpora:
        if corpus.left_out:
            logger.warning(corpus.left_out)
    return corpora


def recipe_split(recipe: Recipe, corpora: Sequence[Corpus]) -> Split:
    """The recipe's split of these corpora; SerError where it is of others."""
    found = {corpus.name: corpus for corpus in corpora}
    wanted = recipe.data.corpora
    if set(found) != set(wanted):
        raise SerError(
            f'the recipe learns from {", ".join(wanted)}, and --corpus gives {", ".join(found)}: '
            f"they must be the same (--set 'data.corpora={json.dumps(list(found))}')"
        )
    clips = [clip for name in wanted for clip in found[name].clips]
    return split_clips(merge_labels(clips, recipe.data.merge), recipe.split)


def present_classes(clips: Sequence[Clip]) -> tuple[str, ...]:
    """The classes of these clips, in the vocabulary's order."""
    present = {clip.emotion for clip in clips}
    return tuple(name for name in EMOTIONS if name in present)


def make_task(recipe: Recipe, n_classes: int, training: Sequence[Utterance]) -> EmotionTask:
    """Front-end, fitted on the training part, and model, untrained."""
    frontend = fit_frontend(recipe.frontend, _heard(recipe, training))
    weights = class_weights(training, n_classes) if recipe.optimization.class_weights else None
    return EmotionTask(recipe, frontend, make_model(recipe, n_classes), n_classes, weights)


def make_model(recipe: Recipe, n_classes: int) -> nn.Module:
    """The model, with its published weights where the recipe asks for them; SerError without."""
    n_features = build_frontend(recipe.frontend).n_features
    model = build_model(recipe.architecture, n_features, n_classes, **recipe.hyperparameters)
    if isinstance(model, TransferModel):
        if recipe.pretrained:
            load_published(model, recipe.pretrained)
        freeze(model, recipe.freeze)
    elif recipe.pretrained or recipe.freeze:
        raise SerError(
            f'{recipe.architecture} has no published weights: leave out pretrained, freeze'
        )
    return model


def _heard(recipe: Recipe, training: Sequence[Utterance]) -> Iterator[Tensor]:
    """What the front-end's statistics are of: the spoken parts; at the mean gain.

    For one that hears whole clips all items of an epoch, noisy copies among them: in bands that
    the recordings do not reach, a copy's noise is all there is.
    """
    gain = 10 ** (sum(recipe.augmentation.gain_db) / 2 / 20)
    if build_frontend(recipe.frontend).is_streaming:
        for utterance in training:
            spoken = utterance.samples[utterance.speech.start : utterance.speech.end]
            yield torch.from_numpy(spoken) * gain
        return
    items = WholeClips(training, recipe.data, recipe.augmentation, recipe.seed)
    for index in range(len(items)):
        samples, _ = items[0, index]
        yield samples * gain


def class_weights(training: Sequence[Utterance], n_classes: int) -> Tensor:
    """(n_classes,) weights inverse to each class's share; their mean over the clips is 1."""
    counts = torch.bincount(torch.tensor([u.label for u in training]), minlength=n_classes)
    return len(training) / (n_classes * counts.clamp(min=1))


def make_data(
    recipe: Recipe,
    task: EmotionTask,
    training: Sequence[Utterance],
    validation: Sequence[Utterance],
    workers: int = 0,
) -> EmotionData:
    """Batches of windows as the stream cuts them, or of whole clips where the front-end asks so."""
    items_of = TrainingWindows if task.frontend.is_streaming else WholeClips
    items = items_of(training, recipe.data, recipe.augmentation, recipe.seed)
    weights = None
    if recipe.data.balance_classes:
        labels = torch.tensor([items.label(index) for index in range(len(items))])
        weights = class_weights(training, task.n_classes)[labels]
    return EmotionData(
        items,
        [_validation_windows(recipe, task, utterance) for utterance in validation],
        recipe.optimization.batch_size,
        recipe.seed,
        weights,
        workers,
    )


def _validation_windows(
    recipe: Recipe, task: EmotionTask, utterance: Utterance
) -> list[tuple[Tensor, int]]:
    if not task.frontend.is_streaming:
        return [(torch.from_numpy(utterance.samples), utterance.label)]
    stream = StreamConfig()
    least = task.frontend.n_samples(task.model.min_frames) / task.frontend.sample_rate
    first = max(stream.first_estimate, least)
    windows = stream_windows(utterance, recipe.augmentation.crop[1], stream.hop, first)
    longest = max(map(len, windows))
    return [(torch.from_numpy(w), utterance.label) for w in windows if len(w) == longest]


def _model_weights(checkpoint: Path) -> dict[str, Tensor]:
    """Those of the model in a checkpoint of its task."""
    state = read_checkpoint(checkpoint)['state_dict']
    return {k.removeprefix('model.'): v for k, v in state.items() if k.startswith('model.')}


def calibrate(
    info: BundleInfo, task: EmotionTask, clips: Sequence[Clip], path: Path, device: str = 'auto'
) -> list[ClipResult]:
    """Write the bundle with temperature, threshold and figures of the validation `clips`.

    Returns what the finished bundle makes of them.
    """
    names = info.class_names

    bundle = Bundle(info, task.frontend.eval(), task.model.eval(), path)
    results = listen(bundle, clips, device)
    temperature = fit_temperature(results, names)
    results = [result.at_temperature(temperature) for result in results]
    threshold = fit_threshold(results, names, info.recipe['target_accuracy'])
    bundle.info = dataclasses.replace(info, temperature=temperature, threshold=threshold)
    results = listen(bundle, clips, device)
    metrics = {'validation': measure(results, names)}
    save_bundle(
        path, dataclasses.replace(bundle.info, metrics=metrics), bundle.frontend, bundle.model
    )
    return results

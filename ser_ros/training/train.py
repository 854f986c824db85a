"""From a recipe and a corpus to a bundle."""

import dataclasses
import json
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.utils.data import DataLoader

from ser_ros import SerError
from ser_ros.bundle import BundleInfo, load_bundle, save_bundle
from ser_ros.emotions import EMOTIONS
from ser_ros.features import LogMel
from ser_ros.recognizer import Recognizer, RecognizerConfig, select_device
from ser_ros.training.corpora import read_ravdess
from ser_ros.training.dataset import (
    TrainingWindows,
    Utterance,
    load_utterances,
    pad,
    stream_windows,
)
from ser_ros.training.evaluation import fit_temperature, fit_threshold, hear, measure
from ser_ros.training.recipe import Recipe
from ser_ros.training.splits import RAVDESS_FOLDS, Split, speaker_split
from ser_ros.training.task import EmotionTask

RAVDESS_LICENSE = 'CC-BY-NC-SA-4.0'


def train(recipe: Recipe, corpus: Path, out: Path, device: str = 'auto') -> Path:
    """Train on RAVDESS below `corpus`; return the bundle written into the folder `out`.

    A run that was interrupted goes on from its last whole epoch. Raises SerError for a corpus, a
    split or a device that is not there, a folder that holds another run, and a loss that is not
    finite.
    """
    compute = select_device(device)
    _claim(out, recipe)
    logging.getLogger('lightning.pytorch').setLevel(logging.WARNING)
    # Lightning 2.6 with torch 2.11; nothing a user can do about it.
    warnings.filterwarnings('ignore', message='.*LeafSpec')
    lightning.seed_everything(recipe.seed, workers=True, verbose=False)
    split = recipe_split(recipe, corpus)
    class_names = tuple(EMOTIONS)
    training = load_utterances(split.train, class_names)
    validation = load_utterances(split.validation, class_names)
    task = EmotionTask(recipe, class_names, *decibel_statistics(recipe, training))
    best = _fit(task, recipe, training, validation, out, compute)
    task.load_state_dict(torch.load(best, weights_only=True, map_location='cpu')['state_dict'])
    info = BundleInfo(
        architecture=recipe.architecture,
        hyperparameters=recipe.hyperparameters,
        frontend=recipe.frontend,
        mean=tuple(task.frontend.mean.flatten().tolist()),
        std=tuple(task.frontend.std.flatten().tolist()),
        class_names=class_names,
        window=recipe.augmentation.crop[1],
        temperature=1.0,
        threshold=0.0,
        corpora={'RAVDESS speech': split.speakers()},
        recipe=dataclasses.asdict(recipe),
        seed=recipe.seed,
        metrics={},
        license=RAVDESS_LICENSE,
    )
    return calibrate(info, task.model, split, out / f'{recipe.name}.safetensors')


def _claim(out: Path, recipe: Recipe) -> None:
    """Make the folder of a run; a bundle must not name a recipe that its weights were not made by."""
    text = json.dumps(dataclasses.asdict(recipe), indent=2)
    path = out / 'recipe.json'
    if path.is_file() and path.read_text() != text:
        raise SerError(f'{out} holds a run of another recipe; give another folder, or remove it')
    out.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def recipe_split(recipe: Recipe, corpus: Path) -> Split:
    """The recipe's split of RAVDESS; SerError for a fold that there is not."""
    fold = recipe.split.fold
    if fold not in RAVDESS_FOLDS:
        raise SerError(f'fold {fold} is not one of {", ".join(map(str, RAVDESS_FOLDS))}')
    clips = read_ravdess(corpus)
    return speaker_split(clips, RAVDESS_FOLDS[fold], recipe.split.validation_speakers)


def decibel_statistics(recipe: Recipe, utterances: Sequence[Utterance]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (n_mels,) of the spoken parts, at the mean training gain."""
    frontend = LogMel(recipe.frontend)
    gain = 10 ** (sum(recipe.augmentation.gain_db) / 2 / 20)
    decibels = [
        frontend.decibels(torch.from_numpy(u.samples[u.speech.start : u.speech.end]) * gain)
        for u in utterances
    ]
    frames = torch.cat(decibels, dim=1)
    return frames.mean(dim=1), frames.std(dim=1)


def _fit(
    task: EmotionTask,
    recipe: Recipe,
    training: Sequence[Utterance],
    validation: Sequence[Utterance],
    out: Path,
    device: torch.device,
) -> Path:
    """Train; return the checkpoint of the best epoch by validation."""
    config, stream = recipe.optimization, RecognizerConfig()
    if len(training) < config.batch_size:
        raise SerError(
            f'{len(training)} training clips do not fill a batch of {config.batch_size}'
        )
    train_batches = DataLoader(
        TrainingWindows(training, recipe.augmentation),
        config.batch_size,
        shuffle=True,
        drop_last=True,
        collate_fn=pad,
    )
    validation_batches = DataLoader(
        [
            [
                (torch.from_numpy(window), utterance.label)
                for window in stream_windows(
                    utterance, recipe.augmentation.crop[1], 2 * stream.hop, stream.first_estimate
                )
            ]
            for utterance in validation
        ],
        batch_size=None,
        collate_fn=pad,
    )
    trainer = lightning.Trainer(
        accelerator='gpu' if device.type == 'cuda' else 'cpu',
        devices=[device.index or 0] if device.type == 'cuda' else 1,
        precision=config.precision,
        max_epochs=config.epochs,
        callbacks=[
            ModelCheckpoint(
                out, 'best', monitor='val_accuracy', mode='max', enable_version_counter=False
            ),
            ModelCheckpoint(out, 'last', enable_version_counter=False),
            EMAWeightAveraging(decay=config.ema_decay),
            LearningRateMonitor('epoch'),
        ],
        logger=TensorBoardLogger(out, name=None, version=''),
        log_every_n_steps=10,
        num_sanity_val_steps=0,
        enable_model_summary=False,
    )
    last = out / 'last.ckpt'
    trainer.fit(
        task,
        train_batches,
        validation_batches,
        ckpt_path=last if last.is_file() else None,
        weights_only=True,
    )
    return out / 'best.ckpt'


def calibrate(info: BundleInfo, model: torch.nn.Module, split: Split, path: Path) -> Path:
    """Write the bundle with temperature, threshold and metrics of the validation part."""
    save_bundle(path, info, model)
    results = hear(Recognizer(load_bundle(path), 'cpu'), split.validation)
    temperature = fit_temperature(results, info.class_names)
    threshold = fit_threshold(
        [result.at_temperature(temperature) for result in results],
        info.class_names,
        info.recipe['target_accuracy'],
    )
    info = dataclasses.replace(info, temperature=temperature, threshold=threshold)
    save_bundle(path, info, model)
    recognizer = Recognizer(load_bundle(path), 'cpu')
    metrics = {'validation': measure(hear(recognizer, split.validation), info.class_names)}
    save_bundle(path, dataclasses.replace(info, metrics=metrics), model)
    return path

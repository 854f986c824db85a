"""The recipe by which `train --from` fine-tunes a bundle on other corpora."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ser_ros.bundle import load_bundle
from ser_ros.bundle_info import BundleInfo
from ser_ros.training.adjustment import choose_split, log_choice
from ser_ros.training.data.batches import count_batches
from ser_ros.training.data.corpora import Corpus, merge_labels
from ser_ros.training.recipe import (
    FOLDERS,
    Recipe,
    SplitConfig,
    explicit_settings,
    make_recipe,
)

NAME = 'finetune'

STEPS = 400
"""Steps in which all clips would be trained on; those of the test set are not."""

OPTIMIZATION = {
    'batch_size': 16,
    'optimizer': 'adamw',
    'learning_rate': 5e-4,
    'schedule': 'one_cycle',  # it warms up, however many epochs there are
    'average': 'ema',
    'ema_decay': 0.98,
    'early_stopping': 0,
    'precision': '32-true',  # bf16 takes seven times as long on a CPU that does not support it
}

KEPT_DATA = (
    'labels',
    'merge',
    'balance_classes',
    'balance_corpora',
    'mask_absent_classes',
    'noisy_copies',
    'nonspeech',
)
"""Settings of the data that are the bundle's."""


def finetuning_labels(info: BundleInfo, overrides: Sequence[str]) -> dict[str, Any]:
    """The labels by which corpora are read: the bundle's, and those of the overrides."""
    labels = info.recipe.get('data', {}).get('labels', {})
    own = [override for override in overrides if override.startswith(('data.labels', 'data='))]
    return make_recipe(NAME, {'data': {'labels': labels}}, own).data.labels


def finetuning_recipe(
    bundle: str, corpora: Sequence[Corpus], overrides: Sequence[str] = ()
) -> Recipe:
    """The bundle's own recipe with these corpora, a short schedule, and a split that they allow.

    The split is by speaker: a fifth of them for the test set, and as many, or more if needed, for
    validation; with one or two speakers by clip. Merged classes stay merged. `overrides`: as in
    `load_recipe`. SerError for a bundle that cannot be loaded, and an invalid override.
    """
    info = load_bundle(bundle).info
    own = info.recipe
    # How corpora were weighted against each other does not fit others.
    data = {key: own['data'][key] for key in KEPT_DATA if key in own.get('data', {})}
    data['corpora'] = [corpus.name for corpus in corpora]
    # Folders are those of the machine on which the bundle was trained.
    augmentation = {k: v for k, v in own.get('augmentation', {}).items() if k not in FOLDERS}
    n_speakers = min(len({clip.speaker for clip in corpus.clips}) for corpus in corpora)
    n_clips = sum(len(corpus.clips) for corpus in corpora)
    epochs = math.ceil(STEPS / count_batches(n_clips, OPTIMIZATION['batch_size']))
    values = {
        **own,
        'architecture': info.architecture,
        'hyperparameters': info.hyperparameters,
        'pretrained': str(bundle),
        'freeze': 0,
        'frontend': asdict(info.frontend),
        'data': data,
        'split': {'protocol': 'speakers', 'n_validation': max(1, n_speakers // 5)},
        'augmentation': augmentation,
        'distillation': {},  # its teacher is a file of that machine, and may have other classes
        'optimization': {
            **own.get('optimization', {}),
            **OPTIMIZATION,
            'epochs': epochs,
        },
        'refit': True,
        'quick': False,
    }
    values.pop('name', None)
    recipe = make_recipe(NAME, values, overrides)
    clips = merge_labels([c for corpus in corpora for c in corpus.clips], recipe.data.merge)
    explicit = explicit_settings('', overrides)
    numbers = range(max(1, n_speakers // 5), n_speakers // 2 + 1)
    chosen = dataclasses.replace(
        recipe, split=choose_split(clips, recipe.split, explicit, numbers)
    )
    log_choice(chosen, dataclasses.replace(recipe, split=SplitConfig()), clips)
    return chosen

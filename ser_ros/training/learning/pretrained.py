"""A training that starts from a bundle: its weights, its features, and what it was trained on."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Optional

import torch
from torch import nn

from ser_ros import SerError
from ser_ros.bundle import Bundle, load_bundle
from ser_ros.bundle_info import BundleInfo, find_bundle
from ser_ros.models import build_model
from ser_ros.training.data.corpora import joint_license
from ser_ros.training.data.splits import Split
from ser_ros.training.recipe import Recipe, differences


def load_source(recipe: Recipe) -> Optional[Bundle]:
    """The bundle that the recipe's `pretrained` names; None if it names none.

    BundleError for one that cannot be loaded; SerError for one whose architecture,
    hyperparameters (but dropout, which changes no weights) or front-end are not the recipe's.
    """
    if not recipe.pretrained or find_bundle(recipe.pretrained).suffix != '.safetensors':
        return None
    source = load_bundle(recipe.pretrained)
    info = source.info
    # Hyperparameters of another architecture cannot be compared.
    changes = [f'architecture={info.architecture}']
    if recipe.architecture == info.architecture:
        fitting = dataclasses.replace(
            recipe, hyperparameters=info.hyperparameters, frontend=info.frontend
        )
        changes = [
            change
            for change in differences(fitting, recipe)
            if not change.startswith('no ') and not change.split('=')[0].endswith('dropout')
        ]
    if changes:
        raise SerError(
            f'the recipe cannot start from {source.path}, whose settings differ: set '
            f'{", ".join(changes)}'
        )
    return source


def run_digest(split: Split, source: Optional[Bundle]) -> str:
    """Hash of the clips, and of the weights and statistics that a training starts from."""
    if source is None:
        return split.digest
    digest = hashlib.sha256(split.digest.encode())
    for part in (source.frontend, source.model):
        for tensor in part.state_dict().values():
            digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def copy_weights(source: Bundle, model: nn.Module, class_names: Sequence[str]) -> None:
    """Copy the weights of a bundle to a model of its architecture for other classes.

    Tensors whose shape depends on the number of classes have a row for each of them: only the
    rows of the classes that both have are copied. The others keep their values.
    """
    info = source.info
    with torch.device('meta'):
        two, three = (
            build_model(info.architecture, source.frontend.n_features, n, **info.hyperparameters)
            for n in (2, 3)
        )
    two, three = two.state_dict(), three.state_dict()
    common = [name for name in class_names if name in info.class_names]
    rows = [list(class_names).index(name) for name in common]
    known = [info.class_names.index(name) for name in common]
    weights = model.state_dict()
    for name, tensor in source.model.state_dict().items():
        if two[name].shape == three[name].shape:
            weights[name].copy_(tensor)
        else:
            weights[name][rows] = tensor[known]


def mark_known(split: Split, source: BundleInfo) -> Split:
    """The split, which states that the bundle was trained on some of its held-out speakers.

    A speaker is known by its name or by a recording; those that the bundle was calibrated on
    count as well.
    """
    trained = {
        f'{corpus}:{speaker}'
        for corpus, subsets in source.corpora.items()
        for subset in ('train', 'validation')
        for speaker in subsets.get(subset, ())
    }
    recordings = set(source.recordings)
    held_out = [*split.validation, *split.test]
    known = {c.voice for c in held_out if c.voice in trained or c.fingerprint in recordings}
    if not known:
        return split
    rest = split.protocol.removeprefix('NOT ').removeprefix('speaker-independent: ')
    protocol = (
        f'NOT speaker-independent: the training started from a bundle that was trained on '
        f'{len(known)} of the {len({c.voice for c in held_out})} validation and test speakers; '
        f'{rest}'
    )
    return dataclasses.replace(split, protocol=protocol, known=frozenset(known))


def joined(info: BundleInfo, source: BundleInfo) -> BundleInfo:
    """The metadata of a bundle that started from `source`, with all that `source` was trained on.

    Speakers that `source` was calibrated on count as trained on.
    """
    corpora = dict(info.corpora)
    for name, subsets in source.corpora.items():
        own = corpora.get(name, {})
        trained = (
            *own.get('train', ()),
            *subsets.get('train', ()),
            *subsets.get('validation', ()),
        )
        corpora[name] = {**own, 'train': sorted(set(trained))}
    return dataclasses.replace(
        info,
        corpora=corpora,
        recordings=tuple(sorted({*info.recordings, *source.recordings})),
        license=joint_license(source.license, info.license),
    )

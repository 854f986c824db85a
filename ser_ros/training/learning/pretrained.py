"""The bundles that a training starts from and learns from, and what they were trained on."""

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Optional

import torch
from torch import nn

from ser_ros import SerError
from ser_ros.bundle import Bundle, load_bundle
from ser_ros.bundle_info import BundleInfo, find_bundle
from ser_ros.models import build_model
from ser_ros.training.data.corpora import joint_license
from ser_ros.training.data.splits import Split
from ser_ros.training.learning.distillation import load_teacher
from ser_ros.training.recipe import Recipe, differences


@dataclass(frozen=True)
class Sources:
    """The bundles that a training needs."""

    start: Optional[Bundle] = None
    """Whose weights and front-end it starts from."""
    teacher: Optional[Bundle] = None
    """Whose probabilities are targets, see `distillation`."""

    def __iter__(self) -> Iterator[Bundle]:
        """Iterate over those that there are."""
        return (bundle for bundle in (self.start, self.teacher) if bundle)


NO_SOURCES = Sources()


def load_sources(recipe: Recipe) -> Sources:
    """Both; errors as in `load_source` and `load_teacher`."""
    return Sources(load_source(recipe), load_teacher(recipe))


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


def run_digest(split: Split, sources: Sources) -> str:
    """Hash of the clips, and of the weights and statistics of the bundles."""
    parts = [part for bundle in sources for part in (bundle.frontend, bundle.model)]
    if not parts:
        return split.digest
    digest = hashlib.sha256(split.digest.encode())
    for part in parts:
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


def mark_known(split: Split, *sources: BundleInfo) -> Split:
    """The split, which states that a bundle was trained on some of its held-out speakers.

    A speaker is known by its name or by a recording. Those that the bundle was calibrated on count
    as well, but not in the validation set, which calibrates the new one in the same way.
    """
    trained, calibrated = (
        {
            f'{corpus}:{speaker}'
            for source in sources
            for corpus, subsets in source.corpora.items()
            for speaker in subsets.get(subset, ())
        }
        for subset in ('train', 'validation')
    )
    recordings = {recording for source in sources for recording in source.recordings}
    held_out = [
        *(clip for clip in split.validation if clip.voice not in calibrated - trained),
        *split.test,
    ]
    known = {
        clip.voice
        for clip in held_out
        if clip.voice in trained | calibrated or clip.fingerprint in recordings
    }
    if not known:
        return split
    voices = split.voices()
    rest = split.protocol.removeprefix('NOT ').replace('speaker-independent: ', '')
    protocol = (
        f'NOT speaker-independent: the training used a bundle that was trained on '
        f'{len(known)} of the {len({*voices["validation"], *voices["test"]})} validation and test '
        f'speakers; '
        f'{rest}'
    )
    return dataclasses.replace(split, protocol=protocol, known=frozenset(known))


def joined(info: BundleInfo, source: BundleInfo) -> BundleInfo:
    """The metadata of a bundle that `source` was used for, with all that `source` was trained on.

    Speakers that `source` was calibrated on count as trained on, but those that this one was
    calibrated on, too.
    """
    corpora = dict(info.corpora)
    for name, subsets in source.corpora.items():
        own = corpora.get(name, {})
        calibrated = set(subsets.get('validation', ())) - set(own.get('validation', ()))
        trained = {*own.get('train', ()), *subsets.get('train', ()), *calibrated}
        corpora[name] = {**own, 'train': sorted(trained)}
    return dataclasses.replace(
        info,
        corpora=corpora,
        recordings=tuple(sorted({*info.recordings, *source.recordings})),
        license=joint_license(source.license, info.license),
    )

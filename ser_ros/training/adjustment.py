"""A recipe for other corpora than its own: which ones it trains on, and how they are split.

Only what the user did not set is changed, see `recipe.explicit_settings`.
"""

import contextlib
import dataclasses
import logging
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Optional

from ser_ros import SerError
from ser_ros.emotions import LABELS
from ser_ros.training.data.corpora import Clip, Corpus, merge_labels
from ser_ros.training.data.splits import FOLDS, count_folds, split_clips
from ser_ros.training.recipe import Recipe, SplitConfig, differences

logger = logging.getLogger(__name__)

ADJUSTED = ('data.corpora', 'split.protocol', 'split.n_folds', 'split.n_validation')
"""Settings that are chosen where the user sets none."""


def adjust_recipe(
    recipe: Recipe,
    corpora: Sequence[Corpus],
    explicit: Collection[str],
    folds: Optional[Sequence[int]] = None,
) -> Recipe:
    """The recipe with these corpora, and a split that they allow; what is chosen is logged.

    Unchanged if the corpora are its own and have published folds. Otherwise the recipe's split
    where it is possible, else one by speaker, with as many of the recipe's `n_validation` speakers
    as there can be, and more where these lack a class. `explicit`: settings that stay as they are;
    `folds`: those that will be trained (None: the recipe's; empty: all). If no split is possible,
    `split_corpora` reports why.
    """
    adjusted = adjust_corpora(recipe, corpora, explicit)
    names = adjusted.data.corpora
    is_own = set(names) == set(recipe.data.corpora)
    if {corpus.name for corpus in corpora} != set(names) or (is_own and set(names) <= set(FOLDS)):
        return recipe
    clips = merge_labels(_clips(corpora), recipe.data.merge)
    n_speakers = max(len({clip.speaker for clip in corpus.clips}) for corpus in corpora)
    n_most = max(1, (n_speakers - 1) // 2)  # half of those that are not tested
    wanted = min(recipe.split.n_validation, n_most)
    numbers = [wanted, *range(wanted + 1, n_most + 1), *range(wanted - 1, 0, -1)]
    split = choose_split(clips, recipe.split, explicit, numbers, folds)
    adjusted = dataclasses.replace(adjusted, split=split)
    log_choice(adjusted, recipe, clips)
    return adjusted


def adjust_corpora(recipe: Recipe, corpora: Sequence[Corpus], explicit: Collection[str]) -> Recipe:
    """The recipe with these corpora, unless they are its own, or it names others explicitly."""
    names = tuple(corpus.name for corpus in corpora)
    if 'data.corpora' in explicit or set(names) == set(recipe.data.corpora):
        return recipe
    weights = recipe.data.corpus_weights
    weights = {name: weights[name] for name in weights if name in names or name in LABELS}
    data = dataclasses.replace(recipe.data, corpora=names, corpus_weights=weights)
    return dataclasses.replace(recipe, data=data)


def choose_split(
    clips: Sequence[Clip],
    split: SplitConfig,
    explicit: Collection[str],
    numbers: Sequence[int],
    folds: Optional[Sequence[int]] = None,
) -> SplitConfig:
    """`split` if it is possible, else the first possible one of those that are.

    Published folds where there are any, else folds of speakers; with one or two speakers folds of
    clips, fewer if a class has few clips. `numbers`: of validation speakers, the best first.
    `explicit`, `folds`: see `adjust_recipe`. If no split is possible for all folds, one for some
    of them.
    """
    candidates = [split, *_candidates(clips, split, explicit, numbers)]
    possible = [
        [_is_possible(clips, c, fold) for fold in _folds(clips, c, folds)] for c in candidates
    ]
    for is_enough in (all, any):
        for candidate, outcomes in zip(candidates, possible):
            if outcomes and is_enough(outcomes):
                return candidate
    return (candidates[1:] or candidates)[0]


def _candidates(
    clips: Sequence[Clip],
    split: SplitConfig,
    explicit: Collection[str],
    numbers: Sequence[int],
) -> list[SplitConfig]:
    speakers: dict[str, set[str]] = {}
    for clip in clips:
        speakers.setdefault(clip.corpus, set()).add(clip.speaker)
    n_speakers = min(map(len, speakers.values()))
    protocols = ['speakers'] if n_speakers >= 3 else ['random']
    if split.protocol.startswith('folds') and not FOLDS.keys().isdisjoint(speakers):
        protocols.insert(0, 'folds_or_speakers')
    if 'split.protocol' in explicit:
        protocols = [split.protocol]
    if 'split.n_validation' in explicit or split.validation_speakers:
        numbers = [split.n_validation]
    candidates = []
    for protocol in protocols:
        if protocol == 'random':
            fewest = min(Counter((clip.corpus, clip.emotion) for clip in clips).values())
            n_folds, counts = max(3, min(split.n_folds, fewest)), [split.n_validation]
        else:
            n_folds, counts = min(split.n_folds, n_speakers), numbers
        if 'split.n_folds' in explicit:
            n_folds = split.n_folds
        candidates += [
            dataclasses.replace(split, protocol=protocol, n_folds=n_folds, n_validation=n)
            for n in counts
        ]
    return candidates


def _folds(
    clips: Sequence[Clip], split: SplitConfig, folds: Optional[Sequence[int]]
) -> Sequence[int]:
    if folds is None:
        return (split.fold,)
    with contextlib.suppress(SerError):
        return folds or range(1, count_folds(Recipe(split=split), clips) + 1)
    return ()


def _is_possible(clips: Sequence[Clip], split: SplitConfig, fold: int) -> bool:
    with contextlib.suppress(SerError):
        split_clips(clips, dataclasses.replace(split, fold=fold))
        return True
    return False


def _clips(corpora: Sequence[Corpus]) -> list[Clip]:
    return [clip for corpus in corpora for clip in corpus.clips]


def log_choice(chosen: Recipe, recipe: Recipe, clips: Sequence[Clip]) -> None:
    """Log in one line where the chosen recipe differs from this one, and the split's protocol.

    Nothing if it does not differ, or cannot split the clips.
    """
    changed = differences(chosen, recipe, ignored=())
    with contextlib.suppress(SerError):
        protocol = split_clips(clips, chosen.split).protocol
        if changed:
            logger.warning(
                'recipe %s, chosen for these corpora: %s (%s); set others with --set',
                recipe.name,
                ' '.join(changed),
                protocol,
            )

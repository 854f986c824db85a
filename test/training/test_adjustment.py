"""Recipes for other corpora than their own."""

import dataclasses
import logging
from pathlib import Path

import pytest

from ser_ros import SerError
from ser_ros.shipped import shipped_file, shipped_recipes
from ser_ros.training.adjustment import adjust_corpora, adjust_recipe
from ser_ros.training.data.corpora import Clip, Corpus
from ser_ros.training.data.splits import FOLDS, split_clips, split_corpora
from ser_ros.training.recipe import (
    DataConfig,
    Recipe,
    SplitConfig,
    explicit_settings,
    load_recipe,
    plain_recipe,
)


def corpus_of(n, name='mine', classes='happy sad calm', **others):
    """`n` speakers with one clip of each class; `others`: speaker → their classes instead."""
    speakers = {**{f's{i:02}': classes for i in range(n)}, **others}
    clips = [
        Clip(Path(f'{s}{e}.wav'), e, s, name, digest=f'{name}{s}{e}')
        for s, emotions in speakers.items()
        for e in emotions.split()
    ]
    return Corpus(name, clips, [], {})


def published(name):
    clips = [
        Clip(Path(f'{s}{e}.wav'), e, s, name, digest=f'{name}{s}{e}')
        for fold in FOLDS[name]
        for s in fold
        for e in ('happy', 'sad', 'calm')
    ]
    return Corpus(name, clips, [], {})


@pytest.mark.parametrize(
    'recipe', ['parallel_fusion', 'companion', 'companion_open', 'research/vgg']
)
@pytest.mark.parametrize(
    ('n', 'subsets'),
    [(3, (1, 1, 1)), (4, (2, 1, 1)), (6, (2, 2, 2)), (9, (4, 3, 2)), (30, (20, 4, 6))],
)
def test_shipped_recipes_take_other_corpora(recipe, n, subsets, caplog):
    corpora, recipe = [corpus_of(n)], load_recipe(recipe)
    if recipe.split.n_validation < subsets[1]:
        recipe = dataclasses.replace(
            recipe, split=dataclasses.replace(recipe.split, n_validation=4)
        )
    with caplog.at_level(logging.WARNING):
        adjusted = adjust_recipe(recipe, corpora, frozenset())
    assert adjusted.data.corpora == ('mine',)
    split = split_corpora(adjusted, corpora)
    assert split.is_speaker_independent
    assert tuple(len(voices) for voices in split.voices().values()) == subsets
    (record,) = caplog.records
    said = record.getMessage()
    assert '\n' not in said
    assert 'data.corpora=["mine"]' in said
    assert f'{subsets[2]} test, {subsets[1]} validation and {subsets[0]} training' in said
    # Nothing else changes.
    for section in ('augmentation', 'optimization', 'frontend', 'voice'):
        assert getattr(adjusted, section) == getattr(recipe, section)
    assert dataclasses.replace(adjusted.data, corpora=recipe.data.corpora) == recipe.data


@pytest.mark.parametrize('n', [1, 2])
def test_few_speakers_are_split_by_clip_and_told_so(n, caplog):
    corpora = [corpus_of(n)]
    for take in range(4):
        clips = [
            dataclasses.replace(c, path=Path(f'{take}{c.path}'), digest=f'{take}{c.digest}')
            for c in corpora[0].clips
        ]
        corpora[0].clips.extend(clips)
    adjusted = adjust_recipe(Recipe(), corpora, ())
    assert adjusted.split.protocol == 'random'
    assert not split_corpora(adjusted, corpora).is_speaker_independent
    assert 'NOT speaker-independent' in caplog.text


def test_more_speakers_validate_if_they_lack_a_class_and_fewer_if_training_does():
    lacking = {f's{i:02}': 'happy sad' for i in (1, 3, 4)}
    recipe = Recipe(split=SplitConfig(n_validation=1))
    adjusted = adjust_recipe(recipe, [corpus_of(6, **lacking)], ())
    assert adjusted.split.n_validation == 2
    # Only two speakers have the class that training needs, too.
    rare = {f's{i:02}': 'happy sad' for i in range(8) if i not in (2, 4, 6)}
    corpora = [corpus_of(8, **rare)]
    adjusted = adjust_recipe(Recipe(), corpora, ())
    assert split_corpora(adjusted, corpora).validation


def test_the_recipes_own_corpora_keep_its_split(caplog):
    corpora = [published('RAVDESS')]
    recipe = Recipe(split=SplitConfig(n_validation=3))
    assert adjust_recipe(recipe, corpora, ()) == recipe
    assert not caplog.records
    # One that is incomplete is reported, not split in another way.
    clips = [clip for clip in corpora[0].clips if clip.speaker != '20']
    corpora = [dataclasses.replace(corpora[0], clips=clips)]
    assert adjust_recipe(recipe, corpora, ()) == recipe
    with pytest.raises(SerError, match='tests speakers 20'):
        split_corpora(recipe, corpora)


def test_published_folds_are_used_where_there_are_any():
    assert adjust_recipe(Recipe(), [published('SAVEE')], ()).split == Recipe().split
    corpora = [published('RAVDESS'), corpus_of(7)]
    adjusted = adjust_recipe(Recipe(), corpora, ())
    assert adjusted.split.protocol == 'folds_or_speakers'
    assert set(FOLDS['RAVDESS'][0]) <= {
        clip.speaker for clip in split_corpora(adjusted, corpora).test
    }
    incomplete = [clip for clip in published('RAVDESS').clips if clip.speaker != '20']
    corpora[0] = dataclasses.replace(corpora[0], clips=incomplete)
    assert adjust_recipe(Recipe(), corpora, ()).split.protocol == 'speakers'


@pytest.mark.parametrize(
    ('overrides', 'n', 'split'),
    [
        (['split.n_folds=3'], 6, ('speakers', 3, 2)),
        (['split.n_validation=1'], 6, ('speakers', 5, 1)),
        (['split.protocol=leave_one_speaker_out'], 6, ('leave_one_speaker_out', 5, 4)),
        (['split.protocol=speakers'], 4, ('speakers', 4, 1)),
        (['split.protocol=random'], 6, ('random', 5, 4)),
        (['data.corpora=[mine]'], 4, ('speakers', 4, 1)),
        (['split.validation_speakers=[s03]'], 4, ('speakers', 4, 4)),
    ],
)
def test_what_is_set_explicitly_stays(overrides, n, split):
    recipe, corpora = load_recipe('vgg', overrides), [corpus_of(n)]
    adjusted = adjust_recipe(recipe, corpora, explicit_settings('vgg', overrides))
    assert (
        adjusted.split.protocol,
        adjusted.split.n_folds,
        adjusted.split.n_validation,
    ) == split
    assert split_corpora(adjusted, corpora).validation


def test_corpora_that_are_named_explicitly_must_be_given():
    overrides = ['data.corpora=[theirs]']
    recipe, corpora = load_recipe('vgg', overrides), [corpus_of(5)]
    adjusted = adjust_recipe(recipe, corpora, explicit_settings('vgg', overrides))
    assert adjusted == recipe
    with pytest.raises(SerError, match='trains on theirs, but --corpus names mine'):
        split_corpora(adjusted, corpora)


@pytest.mark.parametrize(('folds', 'n_validation'), [(None, 1), ((), 2), ((1,), 1), ((1, 2), 2)])
def test_the_split_suits_all_folds_that_are_trained(folds, n_validation):
    # The only validation speaker of fold 2 lacks a class.
    corpora = [corpus_of(8)]
    recipe = Recipe(split=SplitConfig(protocol='speakers', n_folds=2, n_validation=1))
    second = dataclasses.replace(recipe.split, fold=2)
    (validation,) = split_clips(corpora[0].clips, second).voices()['validation']
    speaker = validation.removeprefix('mine:')
    corpora = [corpus_of(8, **{speaker: 'happy sad sad'})]
    adjusted = adjust_recipe(recipe, corpora, (), folds)
    assert adjusted.split.n_validation == n_validation


def test_what_cannot_be_split_is_reported_for_the_corpora_given(caplog):
    corpora = [corpus_of(4, s09='angry')]
    adjusted = adjust_recipe(Recipe(), corpora, ())
    with pytest.raises(SerError, match='class angry has one speaker, mine:s09'):
        split_corpora(adjusted, corpora)
    assert not caplog.records


def test_weights_of_other_corpora_are_dropped():
    weights = {'RAVDESS': 0.5, 'mine': 2.0, 'theirs': 3.0}
    data = DataConfig(corpora=('mine', 'theirs'), corpus_weights=weights)
    adjusted = adjust_corpora(Recipe(data=data), [corpus_of(3)], ())
    assert adjusted.data.corpora == ('mine',)
    assert adjusted.data.corpus_weights == {'RAVDESS': 0.5, 'mine': 2.0}


def test_settings_of_shipped_recipes_are_not_explicit(tmp_path):
    for name in shipped_recipes():
        assert explicit_settings(name) == frozenset()
    shipped = shipped_file('config/recipes/companion.yaml')
    assert explicit_settings(shipped) == frozenset()
    copy = tmp_path / 'base.yaml'
    copy.write_bytes(shipped_file('config/recipes/base.yaml').read_bytes())
    (tmp_path / 'mine.yaml').write_text('inherit: base.yaml\nsplit: {n_validation: 2}\nseed: 3\n')
    (tmp_path / 'heir.yaml').write_text('inherit: mine.yaml\n')
    assert explicit_settings(tmp_path / 'heir.yaml', ['split.fold=2']) == {
        *('split.n_validation', 'seed', 'split.fold')
    }
    inherited = load_recipe(tmp_path / 'heir.yaml')
    assert plain_recipe(inherited)['split']['n_validation'] == 2

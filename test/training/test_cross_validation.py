"""Which folds there are, and where their results belong."""

import dataclasses
from pathlib import Path

import pytest

from ser_ros import SerError
from ser_ros.training.cross_validation import count_folds, results_folder
from ser_ros.training.data.corpora import Clip
from ser_ros.training.recipe import Recipe, SplitConfig


def clips(**speakers):
    return [
        Clip(Path(f'{speaker}.wav'), 'happy', str(speaker), corpus)
        for corpus, n in speakers.items()
        for speaker in range(n)
    ]


@pytest.mark.parametrize(
    ('split', 'corpora', 'expected'),
    [
        ({}, {'RAVDESS': 24}, 6),
        ({}, {'RAVDESS': 24, 'BanglaSER': 34}, 5),
        ({'protocol': 'leave_one_speaker_out'}, {'mine': 7}, 7),
        ({'protocol': 'leave_one_speaker_out'}, {'mine': 7, 'yours': 3}, 3),
        ({'protocol': 'speakers', 'n_folds': 4}, {'mine': 9}, 4),
        ({'protocol': 'random', 'n_folds': 3}, {'RAVDESS': 24}, 3),
    ],
)
def test_the_folds_that_all_corpora_have(split, corpora, expected):
    recipe = Recipe(split=SplitConfig(**split))
    assert count_folds(recipe, clips(**corpora)) == expected


def test_a_corpus_without_published_folds():
    with pytest.raises(SerError, match='mine.*leave_one_speaker_out'):
        count_folds(Recipe(), clips(RAVDESS=24, mine=7))


def test_results_of_a_random_split_do_not_lie_among_the_others():
    recipe = Recipe(name='research/vgg')
    assert results_folder(Path('docs'), recipe) == Path('docs/research_vgg')
    random = dataclasses.replace(recipe, split=SplitConfig(protocol='random'))
    assert results_folder(Path('docs'), random) == Path('docs/research_vgg_random')

"""Which folds there are, and where their results belong."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ser_ros import SerError
from ser_ros.training.cross_validation import count_folds, cross_validate, results_folder
from ser_ros.training.data.corpora import Clip, read_corpus
from ser_ros.training.data.splits import split_corpora
from ser_ros.training.evaluation.clip_result import ClipResult, to_records
from ser_ros.training.evaluation.metrics import compute_metrics
from ser_ros.training.recipe import Recipe, SplitConfig, load_recipe, plain_recipe
from ser_ros.training.reports.results import FoldResult, to_columns, write_fold


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


SETTINGS = (
    'data.corpora=[mine]',
    'data.merge={}',
    'split={protocol: speakers, n_folds: 3, n_validation: 1}',
)


def test_clips_whose_files_have_one_name_are_pooled(tmp_path):
    """All folds are finished, and no clip is taken for another."""
    rng = np.random.default_rng(1)
    for emotion in ('angry', 'sad'):
        for speaker in ('ann', 'bob', 'cem'):
            path = tmp_path / 'mine' / emotion / speaker / '1.wav'
            path.parent.mkdir(parents=True)
            soundfile.write(path, rng.uniform(-0.5, 0.5, 4_000), 8_000)
    corpus = read_corpus(tmp_path / 'mine')
    for fold in (1, 2, 3):
        recipe = load_recipe('parallel_fusion', (*SETTINGS, f'split.fold={fold}'))
        split = split_corpora(recipe, [corpus])
        rows = np.log([[0.6, 0.4]])
        results = [ClipResult(clip, rows, [None]) for clip in split.test]
        records = to_records(results, split.class_names)
        assert {record['name'] for record in records} == {c.name for c in split.test}
        metrics = compute_metrics(results, split.class_names)
        result = FoldResult(
            recipe=plain_recipe(recipe),
            n_folds=3,
            protocol=split.protocol,
            is_speaker_independent=True,
            class_names=list(split.class_names),
            parameters=1,
            trainable_parameters=1,
            epochs=1,
            seconds_per_epoch=1.0,
            milliseconds_per_window=1.0,
            source_rate=8_000,
            machine={'processor': 'A processor', 'threads': 2, 'device': 'cpu'},
            versions={'torch': '2'},
            temperature=1.0,
            threshold=0.5,
            validation=metrics,
            test={**metrics, 'nonspeech': {'rows': {}}},
            predictions=to_columns(records),
            date='2020-02-02',
            split_digest=split.digest,
        )
        write_fold(tmp_path / 'runs' / f'fold{fold}_seed{recipe.seed}.json', result)
    outcome = cross_validate(
        load_recipe('parallel_fusion', SETTINGS), [tmp_path / 'mine'], tmp_path / 'runs'
    )
    assert outcome.attempts.failures == {}
    assert outcome.summary.pooled['metrics']['clips'] == 6
    assert (tmp_path / 'runs' / 'table.md').is_file()
    shown = re.findall(r'<h3>(.*\.wav)</h3>', (tmp_path / 'runs' / 'report.html').read_text())
    assert len(shown) >= 3
    assert len(set(shown)) == len(shown)
    assert set(shown) <= {clip.name for clip in corpus.clips}

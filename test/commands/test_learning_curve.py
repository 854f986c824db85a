"""`learning-curve`: a small bundle, and a corpus that it does not know."""

import dataclasses
import json
from collections import Counter
from pathlib import Path

import pytest

from ser_ros import SerError
from ser_ros.__main__ import main
from ser_ros.bundle import load_bundle, save_bundle
from ser_ros.training import finetuning
from ser_ros.training.data.corpora import Clip, read_corpus
from ser_ros.training.learning_curve import TESTED, divide
from ser_ros.training.reports.learning_curve import curve_table, read_curves
from ser_ros.training.reports.results_page import _learning_curve

RECIPE = """
architecture: perceptron
frontend: {kind: log_mel}
data: {corpora: [A, B], mask_absent_classes: true, balance_corpora: true, epoch_clips: 32}
split: {protocol: speakers, n_folds: 2, n_validation: 0}
voice: {copies: 1}
augmentation: {crop: [0.3, 1.0], mixup_alpha: 0.0}
optimization: {epochs: 1, batch_size: 16}
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('learning_curve')


@pytest.fixture(scope='module')
def bundle(folder, three_corpora, cache):
    path = folder / 'theirs.yaml'
    path.write_text(RECIPE)
    sources = [f'--corpus={three_corpora / name}.csv' for name in 'AB']
    arguments = ['--device', 'cpu', '--cache', str(cache), '--out', str(folder / 'theirs')]
    assert main(['train', str(path), *sources, *arguments]) == 0
    return folder / 'theirs' / 'theirs.safetensors'


@pytest.fixture
def run(bundle, folder, three_corpora, monkeypatch):
    monkeypatch.setattr(finetuning, 'STEPS', 2)

    def run_command(*arguments, corpus='C'):
        own = ['--corpus', str(three_corpora / f'{corpus}.csv'), '--device', 'cpu']
        runs = ['--out', str(folder / 'runs'), '--results', str(folder)]
        few = ['--clips', '2', '1', '--speakers', '1', '--seeds', '1', '2']
        return main(['learning-curve', str(bundle), *own, *runs, *few, *arguments])

    return run_command


def test_each_method_is_tested_and_finished_runs_are_not_repeated(run, folder, capsys):
    assert run() == 0
    assert 'from_scratch_2_seed2: 8 clips' in capsys.readouterr().out
    (curve,) = read_curves(folder)
    assert (curve.bundle, curve.trained_on, curve.corpus) == ('theirs', ('A', 'B'), 'C')
    assert curve.n_tested == 8
    assert [row[:3] for row in curve_table(curve)] == [
        ('as it is', '0', '2'),
        ('fine-tuned', '1', '2'),
        ('from scratch', '1', '2'),
        ('fine-tuned', '2', '2'),
        ('from scratch', '2', '2'),
    ]
    assert all(0 <= point.unknown <= 1 and 0 <= point.known <= 1 for point in curve.points)
    assert '| fine-tuned | 1 | 2 |' in _learning_curve(curve)['table']
    recipes = [
        json.loads((folder / 'runs' / name / 'recipe.json').read_text())
        for name in ('fine-tuned_1_seed1', 'from_scratch_1_seed1')
    ]
    assert [bool(recipe['pretrained']) for recipe in recipes] == [True, False]
    before = (folder / 'runs' / 'fine-tuned_1_seed1' / 'last.ckpt').stat().st_mtime_ns
    assert run() == 0
    assert (folder / 'runs' / 'fine-tuned_1_seed1' / 'last.ckpt').stat().st_mtime_ns == before
    assert read_curves(folder)[0].points == curve.points


@pytest.mark.parametrize(
    ('arguments', 'corpus', 'said'),
    [
        ((), 'A', 'was trained on A: name a corpus that it does not know'),
        (('--speakers', '2'), 'C', 'the corpus has 2 speakers: with 2 to train on none is left'),
        (('--clips', '0'), 'C', '--clips and --speakers are numbers from 1'),
        (('--corpus', 'x.csv'), 'C', '--corpus names 2 corpora'),
    ],
)
def test_what_has_no_curve_is_one_line(run, capsys, arguments, corpus, said):
    assert run(*arguments, corpus=corpus) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith('ser_ros: ')
    assert said in error


def test_a_corpus_that_was_left_out_may_be_tested(bundle, three_corpora, tmp_path, monkeypatch):
    monkeypatch.setattr(finetuning, 'STEPS', 2)
    left_out = load_bundle(bundle)
    corpora = {**left_out.info.corpora, 'C': {'train': [], 'test': ['1', '2']}}
    info = dataclasses.replace(left_out.info, corpora=corpora)
    save_bundle(tmp_path / 'b.safetensors', info, left_out.frontend, left_out.model)
    arguments = ['--corpus', str(three_corpora / 'C.csv'), '--out', str(tmp_path / 'runs')]
    arguments += ['--device', 'cpu', '--results', str(tmp_path)]
    few = ['--clips', '1', '--speakers', '1', '--seeds', '1']
    assert main(['learning-curve', str(tmp_path / 'b.safetensors'), *arguments, *few]) == 0
    assert read_curves(tmp_path)[0].trained_on == ('A', 'B')


@pytest.mark.parametrize(
    ('knows', 'said'),
    [
        (True, 'was trained or calibrated on 16 of its 16 recordings'),
        (False, 'holds a learning curve of another bundle, corpus or number of speakers'),
    ],
)
def test_another_bundle_is_not_mistaken_for_it(
    bundle, three_corpora, tmp_path, monkeypatch, capsys, knows, said
):
    """One that knows the recordings by another name, or whose folder has another's results."""
    monkeypatch.setattr(finetuning, 'STEPS', 2)
    theirs, path = load_bundle(bundle), tmp_path / 'other.safetensors'
    clips = read_corpus(three_corpora / 'C.csv').clips if knows else ()
    info = dataclasses.replace(theirs.info, temperature=2.0)
    if knows:
        info = dataclasses.replace(info, recordings=tuple(clip.fingerprint for clip in clips))
    save_bundle(path, info, theirs.frontend, theirs.model)
    arguments = ['--corpus', str(three_corpora / 'C.csv'), '--out', str(tmp_path / 'runs')]
    arguments += ['--device', 'cpu', '--clips', '1', '--speakers', '1', '--seeds', '1']
    if not knows:
        assert main(['learning-curve', str(bundle), *arguments]) == 0
    assert main(['learning-curve', str(path), *arguments]) == 1
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_a_bundle_that_does_not_adapt_is_refused(bundle_path, three_corpora, tmp_path, capsys):
    arguments = ['--corpus', str(three_corpora / 'C.csv'), '--out', str(tmp_path)]
    assert main(['learning-curve', str(bundle_path), *arguments]) == 1
    assert 'it does not adapt to voices' in capsys.readouterr().err


# --- How clips are divided


def clips(n_speakers, n_takes, classes=('happy', 'sad')):
    return [
        Clip(Path(f'{speaker}{emotion}{take}.wav'), emotion, f's{speaker}', 'C')
        for speaker in range(n_speakers)
        for emotion in classes
        for take in range(n_takes)
    ]


def test_smaller_sets_are_parts_of_larger_ones_and_of_as_many_speakers_as_possible():
    train, test = divide(clips(6, 30), 4, 10, seed=1)
    assert [len(members) for members in train] == [10, 10]
    for members in train:
        assert len({clip.voice for clip in members[:4]}) == 4
        assert len({clip.emotion for clip in members}) == 1
    trained = {clip.voice for members in train for clip in members}
    assert trained.isdisjoint({clip.voice for clip in test})
    assert set(Counter((clip.voice, clip.emotion) for clip in test).values()) == {TESTED}
    assert divide(clips(6, 30), 4, 5, seed=1) == ([members[:5] for members in train], test)
    assert divide(clips(6, 30), 4, 5, seed=2) != divide(clips(6, 30), 4, 5, seed=1)


def test_a_class_that_the_training_speakers_lack_is_named():
    odd = [*clips(3, 2, ('happy',)), *clips(1, 2, ('sad',))]
    with pytest.raises(SerError, match='have no clips of sad: set more --speakers'):
        for seed in range(20):
            divide(odd, 1, 2, seed)

"""From corpora to a bundle: runs of two epochs on a few seconds of speech."""

import dataclasses
import json
import os
import resource
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
import soundfile
import torch
import yaml
from filelock import FileLock

from ser_ros import SerError, models
from ser_ros.__main__ import main
from ser_ros.bundle import load_bundle, save_bundle
from ser_ros.bundle_info import AdaptationInfo
from ser_ros.frontend_config import SpeechEncoderConfig
from ser_ros.models.parallel_cnn_transformer import ParallelCnnTransformer
from ser_ros.stream.recognizer import Recognizer
from ser_ros.training.data.corpora import read_corpus
from ser_ros.training.evaluation.calibration import fit_temperature
from ser_ros.training.evaluation.prediction import predict_clips
from ser_ros.training.evaluation.selection import select
from ser_ros.training.learning import train as learning_train
from ser_ros.training.learning.fit import Compute
from ser_ros.training.recipe import (
    AugmentationConfig,
    DataConfig,
    OptimizationConfig,
    Recipe,
    SplitConfig,
    VoiceConfig,
    load_recipe,
)
from ser_ros.training.reports.card import card
from ser_ros.training.run import finetune, train

# Sixteen clips to train on, in batches of four.
BATCHES = 4
RECIPE = Recipe(
    name='tiny',
    seed=3,
    hyperparameters={'conv_dropout': 0.2},
    split=SplitConfig(validation_speakers=('03',)),
    augmentation=AugmentationConfig(crop=(1.0, 1.5)),
    optimization=OptimizationConfig(epochs=2, batch_size=4),
)


def changed(**optimization):
    return dataclasses.replace(
        RECIPE, optimization=dataclasses.replace(RECIPE.optimization, **optimization)
    )


# A warning that a user can do nothing about is an error.
pytestmark = pytest.mark.filterwarnings('error::UserWarning', 'error::FutureWarning')


@pytest.fixture(scope='session')
def cpu(cache):
    """The device, and a cache: no test waits for clips that another has decoded."""
    return Compute('cpu', cache=cache)


@pytest.fixture(scope='module')
def finished(tiny_corpus, tmp_path_factory, cpu):
    """The folder of a training run, and the run."""
    out = tmp_path_factory.mktemp('runs') / 'tiny'
    return out, train(RECIPE, [tiny_corpus], out, cpu)


@pytest.fixture
def steps():
    """Counts the training steps; at one of them a function may be called with the model."""
    counter = Counter()
    counter.at, counter.call = None, None

    def hook(module, inputs):
        if isinstance(module, ParallelCnnTransformer) and module.training:
            if counter['steps'] == counter.at:
                counter.call(module)
            counter['steps'] += 1

    handle = torch.nn.modules.module.register_module_forward_pre_hook(hook)
    yield counter
    handle.remove()


def assert_equal_weights(one, other):
    for name, weight in one.model.state_dict().items():
        assert torch.equal(other.model.state_dict()[name], weight), name


def without_time(history):
    return [{k: v for k, v in row.items() if k != 'seconds'} for row in history]


def test_the_bundle_states_how_it_was_trained(finished):
    out, run = finished
    assert run.bundle == out / 'tiny.safetensors'
    info = load_bundle(run.bundle).info
    assert info.architecture == 'parallel_cnn_transformer'
    # With defaults: those of another version may differ.
    assert info.hyperparameters == {
        'conv_dropout': 0.2,
        'encoder_dropout': 0.4,
        'level_invariant': True,
    }
    assert info.frontend == RECIPE.frontend
    assert info.window == 1.5
    assert info.seed == 3
    assert info.recipe['optimization']['epochs'] == 2
    assert info.license == 'CC-BY-NC-SA-4.0'
    assert info.corpora == {
        'RAVDESS': {
            'train': ['02', '04'],
            'validation': ['03'],
            'test': ['01', '11', '20', '21'],
        }
    }
    assert 0.1 <= info.temperature <= 10
    assert 0 < info.threshold < 1
    assert list(info.metrics) == ['validation']
    assert info.metrics['validation']['clips'] == len(run.validation) == 8
    assert info.metrics['validation']['speakers'] == ['RAVDESS:03']


def test_the_bundle_runs(finished, utterance):
    recognizer = Recognizer(load_bundle(finished[1].bundle), 'cpu')
    estimates = recognizer.push(utterance, 0) + recognizer.flush()
    assert sum(estimate.is_final for estimate in estimates) == 1
    assert recognizer.counters.windows > 5


def test_the_run_leaves_logs_and_checkpoints(finished):
    out, run = finished
    assert list(out.glob('events.out.tfevents.*'))
    checkpoint = torch.load(out / 'last.ckpt', weights_only=True, map_location='cpu')
    assert checkpoint['global_step'] == 2 * BATCHES
    assert (out / 'best.ckpt').is_file()
    assert [row['epoch'] for row in run.history] == [0, 1]
    for row in run.history:
        assert {'train_loss', 'val_loss', 'val_accuracy', 'learning_rate', 'seconds'} <= set(row)


def test_the_same_seed_has_the_same_result_to_the_last_digit(finished, tiny_corpus, tmp_path):
    _, run = finished
    again = train(RECIPE, [tiny_corpus], tmp_path, Compute('cpu', workers=1))
    assert without_time(again.history) == without_time(run.history)
    first, second = load_bundle(run.bundle), load_bundle(again.bundle)
    assert second.info == first.info
    assert_equal_weights(first, second)


def test_another_seed_has_another_result(finished, tiny_corpus, tmp_path, cpu):
    other = train(dataclasses.replace(RECIPE, seed=4), [tiny_corpus], tmp_path, cpu)
    assert without_time(other.history) != without_time(finished[1].history)


def power_cut(model):
    raise RuntimeError('power cut')


@pytest.fixture(scope='module')
def averaged(finished, tiny_corpus, tmp_path_factory, cpu):
    """Kind of weight average → recipe and finished run; that of `finished` is ema."""
    runs = {'ema': (RECIPE, finished[1])}
    for average in ('none', 'swa'):
        recipe = changed(average=average, swa_start=0.25)
        out = tmp_path_factory.mktemp(average)
        runs[average] = recipe, train(recipe, [tiny_corpus], out, cpu)
    return runs


@pytest.mark.parametrize('average', ['ema', 'swa', 'none'])
def test_a_resumed_run_ends_like_an_uninterrupted_one(
    tiny_corpus, tmp_path, steps, averaged, average, cpu
):
    recipe, whole = averaged[average]
    steps.at, steps.call = BATCHES + 2, power_cut
    with pytest.raises(RuntimeError, match='power cut'):
        train(recipe, [tiny_corpus], tmp_path / 'broken', cpu)
    assert not (tmp_path / 'broken' / 'tiny.safetensors').exists()
    steps.at = None
    steps.clear()
    resumed = train(recipe, [tiny_corpus], tmp_path / 'broken', cpu)
    assert steps['steps'] == BATCHES  # only the interrupted epoch is repeated
    assert without_time(resumed.history) == without_time(whole.history)
    assert_equal_weights(load_bundle(whole.bundle), load_bundle(resumed.bundle))


def test_a_run_whose_folder_was_moved_knows_its_best_epoch(tiny_corpus, tmp_path, steps, cpu):
    recipe = changed(average='none', learning_rate=0.0)
    steps.at, steps.call = BATCHES + 2, power_cut
    with pytest.raises(RuntimeError, match='power cut'):
        train(recipe, [tiny_corpus], tmp_path / 'here', cpu)
    steps.at = None
    moved = (tmp_path / 'here').rename(tmp_path / 'there')
    train(recipe, [tiny_corpus], moved, cpu)
    # The weights do not change, so that no epoch is better than the first one.
    assert torch.load(moved / 'best.ckpt', weights_only=True)['epoch'] == 0


def test_a_finished_run_writes_its_bundle_again(finished, tiny_corpus, steps, cpu):
    out, run = finished
    before = load_bundle(run.bundle)
    run.bundle.unlink()
    again = train(RECIPE, [tiny_corpus], out, cpu)
    assert steps['steps'] == 0
    assert again.history == run.history
    after = load_bundle(again.bundle)
    assert after.info == before.info
    assert_equal_weights(before, after)


def test_a_bundle_that_was_calibrated_since_is_kept(finished, tiny_corpus, tmp_path, cpu, caplog):
    out = shutil.copytree(finished[0], tmp_path / 'run')
    bundle = load_bundle(out / finished[1].bundle.name)
    info = dataclasses.replace(bundle.info, temperature=0.5)
    save_bundle(bundle.path, info, bundle.frontend, bundle.model)
    train(RECIPE, [tiny_corpus], out, cpu)
    assert load_bundle(bundle.path).info == info
    assert 'was changed since: it is kept' in caplog.text
    # Of other weights it is not of this run.
    bundle.model.classifier.bias += 1
    save_bundle(bundle.path, info, bundle.frontend, bundle.model)
    train(RECIPE, [tiny_corpus], out, cpu)
    assert load_bundle(bundle.path).info == load_bundle(finished[1].bundle).info


def test_a_run_of_another_recipe_is_not_continued(finished, tiny_corpus, cpu):
    """The bundle would name a recipe that its weights were not trained with."""
    other = dataclasses.replace(RECIPE, seed=4)
    with pytest.raises(SerError, match='tiny'):
        train(other, [tiny_corpus], finished[0], cpu)


def test_a_run_on_a_changed_corpus_is_not_continued(finished, tiny_corpus, tmp_path, cpu):
    corpus = shutil.copytree(tiny_corpus, tmp_path / 'corpus')
    next(corpus.glob('Actor_02/*')).unlink()
    with pytest.raises(SerError, match='tiny .*the corpus has changed since'):
        train(RECIPE, [corpus], finished[0], cpu)


@pytest.mark.parametrize(
    ('values', 'said'),
    [({'seed': 9}, 'seed=3'), ({'split': SplitConfig(fold=2)}, 'split.fold=1')],
)
def test_another_recipes_run_is_reported_before_anything_is_read(finished, values, said, cpu):
    with pytest.raises(SerError, match=rf'another recipe \(.*{said}'):
        train(dataclasses.replace(RECIPE, **values), ['nowhere'], finished[0], cpu)


def test_two_trainings_do_not_share_a_folder(tiny_corpus, tmp_path, cpu):
    tmp_path.joinpath('run').mkdir()
    with (
        FileLock(tmp_path / 'run' / 'run.lock'),
        pytest.raises(SerError, match='run: another process is training there'),
    ):
        train(RECIPE, [tiny_corpus], tmp_path / 'run', cpu)
    assert [path.name for path in tmp_path.joinpath('run').iterdir()] == ['run.lock']


def test_a_bundle_knows_the_recordings_it_was_trained_on(finished, tiny_corpus):
    _, run = finished
    used = {clip.fingerprint for clip in (*run.split.train, *run.split.validation)}
    assert set(load_bundle(run.bundle).info.recordings) == used
    assert len(used) == len(run.split.train) + len(run.split.validation)


def test_a_run_that_cannot_start_makes_no_folder(tiny_corpus, tmp_path, cpu):
    recipe = dataclasses.replace(RECIPE, hyperparameters={'conv_dropuot': 0.1})
    with pytest.raises(SerError, match='conv_dropout'):
        train(recipe, [tiny_corpus], tmp_path / 'run', cpu)
    assert not (tmp_path / 'run').exists()


def test_a_file_where_the_folder_should_be(tiny_corpus, tmp_path, cpu):
    (tmp_path / 'run').write_text('')
    with pytest.raises(SerError, match='run cannot be made: File exists'):
        train(RECIPE, [tiny_corpus], tmp_path / 'run', cpu)


def with_front_end(recipe=RECIPE, crop=(1.0, 1.5), **settings):
    return dataclasses.replace(
        recipe,
        frontend=dataclasses.replace(recipe.frontend, **settings),
        augmentation=AugmentationConfig(crop=crop),
    )


def test_clips_too_short_for_the_model_are_left_out_by_name(tiny_corpus, tmp_path, caplog, cpu):
    corpus = shutil.copytree(tiny_corpus, tmp_path / 'corpus')
    for name, seconds in (('01-02', 0.1), ('02-02', 0.25), ('01-03', 0.3)):
        path = corpus / f'03-01-01-01-02-{name}.wav'
        noise = np.random.default_rng(1).standard_normal(round(seconds * 16_000))
        soundfile.write(path, 0.1 * noise, 16_000)
    # 16 frames of it are 0.364 s, and speech may be played faster by 1.12.
    recipe = with_front_end(changed(epochs=1), n_fft=1024, hop_length=320)
    run = train(recipe, [corpus], tmp_path / 'run', cpu)
    assert len(run.history) == 1
    assert [result.has_speech for result in run.validation].count(False) == 1
    logged = [r.getMessage() for r in caplog.records if r.name.startswith('ser_ros')]
    assert logged == [
        'RAVDESS: files left out: 1 too short (the command corpus names them)',
        '1 training clips are left out: 03-01-01-01-02-02-02.wav; parallel_cnn_transformer needs at '
        'least 0.41 s with this recipe',
        '1 validation clips are left out: 03-01-01-01-02-01-03.wav; parallel_cnn_transformer needs at '
        'least 0.41 s with this recipe',
    ]


@pytest.mark.parametrize(
    ('crop', 'said'),
    [
        ((1.0, 3.0), 'augmentation.crop begins at 1.0 s, but .* at least 2.17 s'),
        ((2.5, 3.0), 'no training clip of class angry, .* is long enough: .* 2.17 s'),
    ],
)
def test_a_model_for_which_all_clips_are_too_short(tiny_corpus, tmp_path, crop, said, cpu):
    recipe = with_front_end(crop=crop, n_fft=16_000, win_length=16_000, hop_length=1_000)
    with pytest.raises(SerError, match=said):
        train(recipe, [tiny_corpus], tmp_path / 'run', cpu)
    assert not (tmp_path / 'run').exists()


def break_weights(model):
    with torch.no_grad():
        model.classifier.bias.fill_(torch.nan)


@pytest.mark.parametrize('step', [0, BATCHES], ids=['at once', 'after an epoch'])
def test_a_loss_that_is_not_finite_is_an_error(tiny_corpus, tmp_path, steps, step, cpu):
    steps.at, steps.call = step, break_weights
    with pytest.raises(SerError, match='finite'):
        train(RECIPE, [tiny_corpus], tmp_path, cpu)
    assert not list(tmp_path.glob('*.safetensors*'))


def test_early_stopping(tiny_corpus, tmp_path, cpu):
    # With a learning rate of 0 no epoch is better than the first.
    recipe = changed(epochs=9, early_stopping=1, learning_rate=0.0)
    run = train(recipe, [tiny_corpus], tmp_path, cpu)
    assert len(run.history) == 2
    assert train(recipe, [tiny_corpus], tmp_path, cpu).history == run.history


def test_averages_differ_from_the_last_weights(averaged):
    bundles = [load_bundle(run.bundle) for _, run in averaged.values()]
    weights = [bundle.model.classifier.weight for bundle in bundles]
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[1], weights[2])


def test_a_refit_is_trained_on_the_validation_speakers_too(finished, tiny_corpus, tmp_path, cpu):
    recipe = dataclasses.replace(changed(early_stopping=5), refit=True)
    run = train(recipe, [tiny_corpus], tmp_path, cpu)
    before, after = load_bundle(finished[1].bundle), load_bundle(run.bundle)
    assert after.info.corpora == {
        'RAVDESS': {'train': ['02', '03', '04'], 'test': ['01', '11', '20', '21']}
    }
    assert not torch.equal(before.model.classifier.weight, after.model.classifier.weight)
    assert not torch.equal(before.frontend.mean, after.frontend.mean)


def test_a_refit_is_calibrated_with_the_last_epoch(tiny_corpus, tmp_path, cpu):
    # With this seed the last epoch is not the best.
    recipe = dataclasses.replace(changed(epochs=3, learning_rate=0.01), refit=True, seed=4)
    run = train(recipe, [tiny_corpus], tmp_path, cpu)
    best, last = (
        torch.load(tmp_path / f'{name}.ckpt', weights_only=True)['epoch']
        for name in ('best', 'last')
    )
    assert best < last
    without = load_bundle(
        train(dataclasses.replace(recipe, refit=False), [tiny_corpus], tmp_path / 'b', cpu).bundle
    )
    weights = torch.load(tmp_path / 'last.ckpt', weights_only=True)['state_dict']
    without.model.load_state_dict(
        {k.removeprefix('model.'): v for k, v in weights.items() if k.startswith('model.')}
    )
    without.info = dataclasses.replace(without.info, temperature=1.0)
    results = predict_clips(without, run.split.validation, 'cpu')
    temperature = fit_temperature(results, without.info.class_names)
    assert load_bundle(run.bundle).info.temperature == pytest.approx(temperature)


def test_balanced_classes_with_weights_and_copies_train(tiny_corpus, tmp_path, cpu):
    recipe = dataclasses.replace(
        changed(epochs=1, class_weights=True, loss='focal', optimizer='sgd', schedule='cosine'),
        data=DataConfig(
            balance_classes=True, noisy_copies=1, nonspeech=0.2, merge={'calm': 'neutral'}
        ),
    )
    info = load_bundle(train(recipe, [tiny_corpus], tmp_path, cpu).bundle).info
    assert 'calm' not in info.class_names
    assert len(info.class_names) == 7


def test_a_fold_that_does_not_exist(tiny_corpus, tmp_path, cpu):
    recipe = dataclasses.replace(RECIPE, split=SplitConfig(fold=7))
    with pytest.raises(SerError, match='fold 7'):
        train(recipe, [tiny_corpus], tmp_path, cpu)


def test_an_empty_validation_set(tiny_corpus, tmp_path, cpu):
    recipe = dataclasses.replace(RECIPE, split=SplitConfig(n_validation=0))
    with pytest.raises(
        SerError, match='validation set is empty; calibration needs it: set split.n_validation'
    ):
        train(recipe, [tiny_corpus], tmp_path / 'run', cpu)
    assert not (tmp_path / 'run').exists()


def test_a_recipe_by_voice_needs_no_validation_set(tiny_corpus, tmp_path, cpu, caplog):
    recipe = dataclasses.replace(
        changed(epochs=1), split=SplitConfig(n_validation=0), voice=VoiceConfig(copies=2)
    )
    info = load_bundle(train(recipe, [tiny_corpus], tmp_path, cpu).bundle).info
    assert (info.calibration, info.temperature, info.threshold) == ('nothing', 1.0, 0.0)
    assert 'decides every expression until `calibrate` sets' in caplog.text


def test_a_recipe_by_answers_gives_a_bundle_that_adapts(tiny_corpus, tmp_path, cpu):
    recipe = dataclasses.replace(changed(epochs=1), voice=VoiceConfig(by_answers=True, memory=8.0))
    run = train(recipe, [tiny_corpus], tmp_path, cpu)
    assert load_bundle(run.bundle).info.adaptation == AdaptationInfo(by_answers=True, memory=8.0)


def test_the_licence_covers_published_weights_of_the_front_end(tiny_corpus, tmp_path, cpu):
    recipe = dataclasses.replace(
        changed(epochs=1),
        architecture='perceptron',
        hyperparameters={},
        frontend=SpeechEncoderConfig(),
    )
    info = load_bundle(train(recipe, [tiny_corpus], tmp_path, cpu).bundle).info
    assert info.license == 'CC-BY-NC-SA-4.0 AND BSD-2-Clause AND MIT'


def test_a_last_step_that_diverges_is_an_error_too(tiny_corpus, tmp_path, cpu):
    recipe = changed(
        epochs=1, batch_size=16, optimizer='sgd', schedule='constant', learning_rate=1e38
    )
    with pytest.raises(SerError, match='finite'):
        train(recipe, [tiny_corpus], tmp_path, cpu)
    assert not list(tmp_path.glob('*.safetensors*'))


def test_another_corpus_than_the_recipes(tiny_corpus, tmp_path, cpu):
    recipe = dataclasses.replace(RECIPE, data=DataConfig(corpora=('RAVDESS', 'BanglaSER')))
    with pytest.raises(SerError, match='RAVDESS, BanglaSER'):
        train(recipe, [tiny_corpus], tmp_path, cpu)


def test_weights_that_are_not_published(tiny_corpus, tmp_path):
    """It is reported before the sound is read, which takes minutes."""
    recipe = dataclasses.replace(RECIPE, pretrained='published')
    with pytest.raises(SerError, match='no published weights'):
        train(recipe, [tiny_corpus], tmp_path / 'run', Compute('cpu', cache=tmp_path / 'cache'))
    assert not list(tmp_path.iterdir())


# --- From a bundle -----------------------------------------------------------------------------


@pytest.fixture(scope='module')
def source(finished):
    """The bundle of a run on RAVDESS: actors 02 and 04 are trained on, 03 validated."""
    return finished[1].bundle


@pytest.fixture(scope='module')
def tuned(source, own_corpus, tmp_path_factory, cpu):
    """A run that started from it, on a user's clips, with two of its five stages frozen."""
    out = tmp_path_factory.mktemp('tuned') / 'run'
    overrides = ('optimization.epochs=2', 'freeze=2', 'optimization.batch_size=4')
    return finetune(str(source), [own_corpus], overrides, out, cpu)


def test_a_bundle_is_fine_tuned_on_other_clips_and_classes(source, tuned, utterance):
    before, after = load_bundle(source), load_bundle(tuned.bundle)
    assert tuned.bundle.name == 'finetune.safetensors'
    assert after.info.class_names == ('calm', 'happy', 'sad')
    assert [row['epoch'] for row in tuned.history] == [0, 1]
    assert torch.equal(after.frontend.mean, before.frontend.mean)
    assert torch.equal(after.frontend.std, before.frontend.std)
    for name, weight in before.model.state_dict().items():
        # Also the statistics of the norms. Weight averaging rounds.
        is_frozen = name.startswith(('cnn.blocks.0.', 'cnn.blocks.1.'))
        if not name.startswith('classifier.') and weight.is_floating_point():
            is_kept = torch.allclose(after.model.state_dict()[name], weight, rtol=1e-6)
            assert is_kept == is_frozen, name
    recognizer = Recognizer(after, 'cpu')
    assert recognizer.push(utterance, 0) + recognizer.flush()


def test_a_fine_tuned_bundle_states_what_both_were_trained_on(source, tuned, tiny_corpus):
    before, info = load_bundle(source).info, load_bundle(tuned.bundle).info
    mine = info.corpora['mine']
    assert sorted(mine['train'] + mine['test']) == ['ann', 'bob', 'cem', 'dua']
    assert info.corpora['RAVDESS'] == {'train': ['02', '03', '04']}
    used = {clip.fingerprint for clip in (*tuned.split.train, *tuned.split.validation)}
    assert set(info.recordings) == used | set(before.recordings)
    assert info.license == 'CC-BY-NC-SA-4.0 AND LicenseRef-mine'
    assert info.recipe['pretrained'] == source.name
    assert tuned.split.is_speaker_independent
    # Not as its own corpus, and not under another name.
    corpus = read_corpus(tiny_corpus)
    with pytest.raises(SerError, match='RAVDESS: there are no clips of the test speakers mine:'):
        select(info, [corpus], 'test')
    with pytest.raises(SerError, match='was trained or calibrated on 24 of its'):
        select(info, [dataclasses.replace(corpus, name='other')], 'test')


def test_without_a_validation_set_the_bundle_states_the_same(
    source, own_corpus, tiny_corpus, tmp_path, cpu
):
    recipe = dataclasses.replace(
        changed(epochs=1),
        pretrained=str(source),
        data=DataConfig(('mine', 'RAVDESS')),
        split=SplitConfig('corpora', left_out=('RAVDESS',)),
    )
    run = train(recipe, [own_corpus, tiny_corpus], tmp_path / 'run', cpu)
    before, info = load_bundle(source).info, load_bundle(run.bundle).info
    assert set(info.recordings) >= set(before.recordings)
    assert info.license == 'CC-BY-NC-SA-4.0 AND LicenseRef-mine'
    assert info.corpora['RAVDESS']['train'] == ['02', '03', '04']
    assert not run.split.is_speaker_independent
    assert (info.temperature, info.threshold, info.calibration) == (1.0, 0.0, 'nothing')


def test_speakers_that_the_source_was_trained_on_are_no_strangers(
    source, tiny_corpus, tmp_path, cpu
):
    recipe = dataclasses.replace(
        changed(epochs=1),
        pretrained=str(source),
        split=SplitConfig('speakers', 2, n_folds=2, validation_speakers=('21',)),
    )
    run = train(recipe, [tiny_corpus], tmp_path / 'run', cpu)
    tested = {clip.speaker for clip in run.split.test}
    assert (known := tested & {'02', '03', '04'})
    assert not run.split.is_speaker_independent
    assert f'was trained on {len(known)} of the {len(tested) + 1}' in run.split.protocol
    bundle = load_bundle(run.bundle)
    info = bundle.info
    assert 'the training used a bundle that was trained on' in card(bundle)
    with pytest.raises(SerError, match='also trained on test speakers'):
        select(info, [read_corpus(tiny_corpus)], 'test')


def test_a_bundle_of_other_settings_is_reported_before_anything_is_read(source, tmp_path, cpu):
    recipe = dataclasses.replace(RECIPE, pretrained=str(source), architecture='cnn_lstm')
    with pytest.raises(SerError, match='set architecture=parallel_cnn_transformer$'):
        train(recipe, ['nowhere'], tmp_path / 'run', cpu)
    with pytest.raises(SerError, match='bundle nothing: no such file'):
        finetune('nothing', ['nowhere'], (), tmp_path / 'run', cpu)
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('freeze', [-1, 6])
def test_more_stages_than_there_are(tiny_corpus, tmp_path, freeze, cpu):
    recipe = dataclasses.replace(RECIPE, freeze=freeze)
    with pytest.raises(SerError, match=f'^{freeze} stages cannot be frozen: .* has 5$'):
        train(recipe, [tiny_corpus], tmp_path / 'run', cpu)
    assert not (tmp_path / 'run').exists()


def test_a_run_from_a_changed_bundle_is_not_continued(source, tuned, own_corpus, tmp_path, cpu):
    path, before = tmp_path / 'source.safetensors', load_bundle(source)
    expected = AdaptationInfo(neutral_share=0.6, rare_ratio=0.25)
    info = dataclasses.replace(before.info, adaptation=expected)
    save_bundle(path, info, before.frontend, before.model)
    overrides = ('optimization.epochs=1', 'refit=false')
    run = finetune(str(path), [own_corpus], overrides, tmp_path / 'run', cpu)
    adaptation = load_bundle(run.bundle).info.adaptation
    assert (adaptation.neutral_share, adaptation.rare_ratio) == (0.6, 0.25)
    other = load_bundle(path)
    other.model.classifier.bias += 1
    save_bundle(path, other.info, other.frontend, other.model)
    with pytest.raises(SerError, match=r'run holds a run .* from other weights'):
        finetune(str(path), [own_corpus], overrides, tmp_path / 'run', cpu)


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a CUDA device')
@pytest.mark.parametrize('device', ['cuda', 'cuda:1', 'tpu'])
def test_a_missing_device(tiny_corpus, tmp_path, device):
    with pytest.raises(SerError, match=device):
        train(RECIPE, [tiny_corpus], tmp_path, Compute(device))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@pytest.mark.filterwarnings('default')
def test_on_a_gpu(tiny_corpus, tmp_path, utterance):
    bundle = load_bundle(train(RECIPE, [tiny_corpus], tmp_path, Compute('cuda')).bundle)
    recognizer = Recognizer(bundle, 'cuda')
    assert recognizer.push(utterance, 0) + recognizer.flush()


# --- Other processes ---------------------------------------------------------------------------

PLAIN = {
    'seed': 3,
    'architecture': 'parallel_cnn_transformer',
    'split': {'validation_speakers': ['03']},
    'optimization': {'epochs': 2, 'batch_size': 4},
}


def command(tmp_path, corpus, recipe, cache):
    path = tmp_path / 'recipe.yaml'
    path.write_text(yaml.safe_dump(recipe))
    return [
        *(sys.executable, '-m', 'ser_ros', 'train', path, '--corpus', corpus, '--cache', cache),
        *('--device', 'cpu', '--out', tmp_path / 'run'),
    ]


@pytest.mark.parametrize('end', [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_its_last_epoch(tiny_corpus, tmp_path, cache, end):
    recipe = {**PLAIN, 'optimization': {'epochs': 2000, 'batch_size': 4}}
    process = subprocess.Popen(
        command(tmp_path, tiny_corpus, recipe, cache),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
    )
    last = tmp_path / 'run' / 'last.ckpt'
    while not last.is_file():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(end)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 128 + end
    assert 'Traceback' not in err
    assert err.splitlines()[-1].startswith('ser_ros: interrupted; the same command continues')
    checkpoint = torch.load(last, weights_only=True, map_location='cpu')
    assert checkpoint['global_step'] % BATCHES == 0
    assert not list((tmp_path / 'run').glob('*.safetensors*'))


@pytest.mark.parametrize(
    ('name', 'keep'),
    [('last.ckpt', 0), ('last.ckpt', 1000), ('best.ckpt', 0), ('best.ckpt', None)],
)
def test_a_damaged_checkpoint_is_named(finished, tiny_corpus, tmp_path, name, keep, cpu):
    out, _ = finished
    shutil.copytree(out, tmp_path / 'run')
    path = tmp_path / 'run' / name
    if keep is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(
        SerError, match=rf'{name} cannot be read \(.*train from the start'
    ) as refusal:
        train(RECIPE, [tiny_corpus], tmp_path / 'run', cpu)
    assert '\n' not in str(refusal.value)


def test_a_checkpoint_of_another_release_is_named(finished, tiny_corpus, tmp_path, cpu):
    out, _ = finished
    shutil.copytree(out, tmp_path / 'run')
    path = tmp_path / 'run' / 'last.ckpt'
    checkpoint = torch.load(path, weights_only=True)
    checkpoint['state_dict']['frontend.old'] = checkpoint['state_dict'].pop('frontend.mean')
    torch.save(checkpoint, path)
    with pytest.raises(SerError, match=r'last.ckpt was written by another release') as refusal:
        train(RECIPE, [tiny_corpus], tmp_path / 'run', cpu)
    assert '\n' not in str(refusal.value)


@pytest.mark.parametrize(
    ('size', 'said'), [(300_000, '.ckpt cannot be written'), (100, '/run')], ids=['model', 'logs']
)
def test_a_full_disk_leaves_the_last_checkpoint(
    tiny_corpus, tmp_path, cpu, steps, capsys, size, said
):
    """No file may become larger than `size` bytes from the second epoch on."""
    recipe = tmp_path / 'recipe.yaml'
    recipe.write_text(yaml.safe_dump(PLAIN))
    out = tmp_path / 'run'
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    steps.at = BATCHES
    steps.call = lambda _: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        arguments = ('--corpus', tiny_corpus, '--out', out, '--cache', cpu.cache)
        status = main(['train', str(recipe), *map(str, arguments), '--device', 'cpu'])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    err = capsys.readouterr().err
    assert status == 1, err
    assert 'Traceback' not in err
    (line,) = (line for line in err.splitlines() if 'File too large' in line)
    assert line.startswith('ser_ros: ')
    assert said in line
    assert not list(out.glob('*.part'))
    checkpoint = torch.load(out / 'last.ckpt', weights_only=True, map_location='cpu')
    assert checkpoint['global_step'] == BATCHES
    # The disk has space again.
    steps.at = None
    steps.clear()
    resumed = train(load_recipe(recipe), [tiny_corpus], out, cpu)
    assert steps['steps'] == BATCHES
    assert [row['epoch'] for row in resumed.history] == [0, 1]


PROBE = """
import json, os, sys
from pathlib import Path

import torch
from torch import nn

from ser_ros import models
from ser_ros.training.learning import train
from ser_ros.training.learning.fit import Compute
from ser_ros.training.learning.task import EmotionTask
from ser_ros.training.recipe import load_recipe
from ser_ros.training.run import train as run_training


class Mean(nn.Module):
    min_frames = 1

    def __init__(self, n_features, n_classes):
        super().__init__()
        torch.manual_seed(1)
        self.linear = nn.Linear(n_features, n_classes)

    def forward(self, x, lengths):
        is_sound = torch.arange(x.shape[2]) < lengths[:, None, None]
        return self.linear((x * is_sound).sum(dim=2) / lengths[:, None])


seen, gradients = [], []


class Watched(EmotionTask):
    def losses(self, batch):
        seen.append((self.current_epoch, batch[0].sum(dim=1).tolist()))
        return super().losses(batch)

    def on_before_optimizer_step(self, optimizer):
        gradients.append(self.model.linear.weight.grad.flatten().tolist())


torch.set_num_threads(1)
models.MODELS['mean'] = Mean
train.EmotionTask = Watched
recipe, corpus, out, devices = sys.argv[1:]
run = run_training(
    load_recipe(recipe), [Path(corpus)], Path(out), Compute('cpu', devices=int(devices))
)
rank = os.environ.get('LOCAL_RANK', '0')
history = run and [{k: r[k] for k in ('train_loss', 'val_loss', 'val_accuracy')} for r in run.history]
Path(out, f'rank{rank}.json').write_text(
    json.dumps({'seen': seen, 'gradients': gradients, 'history': history})
)
"""


def test_two_processes_learn_what_one_does(tiny_corpus, tmp_path, monkeypatch):
    """Over gloo: each clip once an epoch, the same gradients, exact validation metrics."""
    recipe = tmp_path / 'recipe.yaml'
    plain = {
        **PLAIN,
        'architecture': 'mean',
        'augmentation': {'noise_probability': 0.0, 'gain_db': [0, 0], 'mel_masks': 0}
        | {'time_masks': 0, 'mixup_alpha': 0.0},
        # Sixteen clips in five batches: the processes' shares are not all alike.
        'optimization': {'epochs': 2, 'batch_size': 3, 'average': 'none'},
    }
    recipe.write_text(yaml.safe_dump(plain))
    probe = tmp_path / 'probe.py'
    probe.write_text(PROBE)
    process = subprocess.Popen(
        [sys.executable, probe, recipe, tiny_corpus, tmp_path / 'run2', '2'],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    monkeypatch.setitem(models.MODELS, 'mean', None)
    monkeypatch.setattr(learning_train, 'EmotionTask', learning_train.EmotionTask)
    arguments = (probe, recipe, tiny_corpus, tmp_path / 'run1', '1')
    monkeypatch.setattr(sys, 'argv', [str(argument) for argument in arguments])
    runpy.run_path(str(probe))
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert 'Warning' not in err
    ranks = {}
    for devices in (1, 2):
        files = sorted((tmp_path / f'run{devices}').glob('rank*.json'))
        ranks[devices] = [json.loads(path.read_text()) for path in files]
        assert len(files) == devices
    (one,), two = ranks[1], ranks[2]
    for epoch in (0, 1):
        alone = sorted(s for e, batch in one['seen'] if e == epoch for s in batch)
        together = sorted(s for r in two for e, batch in r['seen'] if e == epoch for s in batch)
        assert len(alone) == 16
        assert together == pytest.approx(alone, abs=1e-3)
    for rank in two:
        torch.testing.assert_close(
            torch.tensor(rank['gradients']), torch.tensor(one['gradients']), atol=1e-5, rtol=1e-4
        )
    assert two[1]['history'] is None
    for row, other in zip(two[0]['history'], one['history'], strict=True):
        assert row == pytest.approx(other, abs=1e-5)

"""Start from a bundle: its weights, its statistics, and what it was trained on."""

import dataclasses
from pathlib import Path

import pytest
import torch

from ser_ros import SerError
from ser_ros.bundle import load_bundle, save_bundle
from ser_ros.bundle_info import BundleError
from ser_ros.frontend_config import LogMelConfig, MfccConfig
from ser_ros.models import MODELS, build_model
from ser_ros.training.data.corpora import Clip
from ser_ros.training.data.splits import Split
from ser_ros.training.learning.pretrained import (
    Sources,
    copy_weights,
    joined,
    load_source,
    mark_known,
    run_digest,
)
from ser_ros.training.learning.train import make_model, make_task
from ser_ros.training.recipe import Recipe

SMALL = {
    'stacked_cnn_lstm': {'chunk_frames': 32, 'chunk_stride': 16},
    'stacked_cnn_attention_lstm': {'chunk_frames': 32, 'chunk_stride': 16},
    'vgg': {'chunk_frames': 32, 'chunk_stride': 32},
}


@pytest.fixture
def recipe(bundle_path):
    """A recipe that fits the bundle."""
    return Recipe(pretrained=str(bundle_path), hyperparameters={'conv_dropout': 0.2})


# The bundle that a recipe names.


def test_a_recipe_names_a_bundle_or_something_else(recipe, bundle_path):
    assert load_source(recipe).path == bundle_path
    for other in ('', 'published', 'weights.pth'):
        assert load_source(dataclasses.replace(recipe, pretrained=other)) is None


def test_a_shipped_bundle_by_its_name():
    info = load_bundle('companion').info
    recipe = Recipe(
        pretrained='companion',
        architecture=info.architecture,
        hyperparameters=info.hyperparameters,
        frontend=info.frontend,
    )
    assert load_source(recipe).info == info


def test_defaults_need_not_be_written(recipe, bundle_path):
    hyperparameters = {'level_invariant': True}
    recipe = dataclasses.replace(recipe, hyperparameters=hyperparameters)
    assert load_source(recipe).path == bundle_path


@pytest.mark.parametrize(
    'hyperparameters', [{}, {'conv_dropout': 0.5}, {'conv_dropout': 0.2, 'encoder_dropout': 0.1}]
)
def test_another_dropout_is_no_other_model(recipe, bundle_path, hyperparameters):
    recipe = dataclasses.replace(recipe, hyperparameters=hyperparameters)
    assert load_source(recipe).path == bundle_path


@pytest.mark.parametrize(
    ('changes', 'said'),
    [
        ({'architecture': 'cnn_lstm'}, 'architecture=parallel_cnn_transformer'),
        (
            {'hyperparameters': {'level_invariant': False, 'conv_dropout': 0.3}},
            'hyperparameters.level_invariant=true',
        ),
        (
            {'frontend': LogMelConfig(n_mels=80, hop_length=200)},
            'frontend.hop_length=160, frontend.n_mels=64',
        ),
        ({'frontend': MfccConfig()}, 'frontend.kind=log_mel'),
    ],
)
def test_other_settings_are_named_with_what_to_set(recipe, bundle_path, changes, said):
    with pytest.raises(SerError) as caught:
        load_source(dataclasses.replace(recipe, **changes))
    assert str(caught.value) == (
        f'the recipe cannot start from {bundle_path}, whose settings differ: set {said}'
    )


def test_a_bundle_that_cannot_be_loaded_is_named(recipe, bundle_path, tmp_path):
    path = tmp_path / 'mine.safetensors'
    missing = dataclasses.replace(recipe, pretrained=str(path))
    with pytest.raises(BundleError, match=r'mine\.safetensors: no such file'):
        load_source(missing)
    path.write_bytes(bundle_path.read_bytes()[:1000])
    with pytest.raises(BundleError, match=r'mine\.safetensors: damaged'):
        load_source(missing)


def test_published_weights_are_not_a_bundle(recipe):
    other = dataclasses.replace(recipe, pretrained='published')
    with pytest.raises(SerError, match='ParallelCnnTransformer has no published weights'):
        make_model(other, ('happy', 'sad'))


# Weights and statistics.


@pytest.mark.parametrize('name', MODELS)
def test_the_rows_of_common_classes_and_all_else_are_copied(
    name, bundle_info, untrained_frontend, tmp_path
):
    torch.manual_seed(1)
    small, config = SMALL.get(name, {}), LogMelConfig(n_mels=32)
    info = dataclasses.replace(
        bundle_info,
        architecture=name,
        hyperparameters=small,
        frontend=config,
        class_names=('happy', 'sad', 'angry'),
    )
    path = tmp_path / 'source.safetensors'
    trained = build_model(name, 32, 3, **small)
    for value in trained.state_dict().values():
        value.copy_(0.01 * torch.randint(1, 9, value.shape))  # variances are positive
    save_bundle(path, info, untrained_frontend(config), trained)
    source = load_bundle(path)
    path.unlink()  # hundreds of megabytes, and pytest keeps the folder
    model = build_model(name, 32, 4, **small)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    copy_weights(source, model, ('neutral', 'sad', 'fearful', 'happy'))
    of_classes = 0
    for key, value in model.state_dict().items():
        old = source.model.state_dict()[key]
        if value.shape == old.shape:
            assert torch.equal(value, old), key
            continue
        of_classes += 1
        assert torch.equal(value[[1, 3]], old[[1, 0]]), key
        assert torch.equal(value[[0, 2]], before[key][[0, 2]]), key
    assert of_classes >= 2  # weight and bias


def test_without_common_classes_the_classifier_is_new(bundle_path, write_bundle, tmp_path):
    path = write_bundle(tmp_path / 'two.safetensors', class_names=('happy', 'sad'))
    source, target = load_bundle(path), load_bundle(path)
    target.model.classifier.weight.zero_()
    copy_weights(source, target.model, ('angry', 'fearful'))
    assert not target.model.classifier.weight.any()
    copy_weights(source, target.model, ('sad', 'happy'))
    rows = source.model.classifier.weight
    assert torch.equal(target.model.classifier.weight, rows[[1, 0]])


def test_the_statistics_are_the_bundles(recipe, bundle, speech):
    source = load_source(recipe)
    task = make_task(recipe, ('happy', 'sad'), [], Sources(source))
    assert torch.equal(task.frontend.mean, bundle.frontend.mean)
    assert torch.equal(task.frontend.std, bundle.frontend.std)
    # Weight averaging changes a task's statistics.
    task.frontend.mean.zero_()
    assert torch.equal(source.frontend.mean, bundle.frontend.mean)
    kept = bundle.model.encoder.layers[0].linear1.weight
    assert torch.equal(task.model.encoder.layers[0].linear1.weight, kept)
    assert all(parameter.requires_grad for parameter in task.model.parameters())


# What it was trained on.


def clips_of(corpus, *speakers, digest=''):
    return [
        Clip(Path(f'{speaker}.wav'), 'happy', speaker, corpus, digest=digest or speaker * 12)
        for speaker in speakers
    ]


SPLIT = Split(
    clips_of('mine', 'a'),
    clips_of('mine', 'b'),
    clips_of('mine', 'c', 'd'),
    'speaker-independent: 3 folds',
)


def test_unknown_speakers_change_nothing(bundle_info):
    assert mark_known(SPLIT, bundle_info) is SPLIT
    assert SPLIT.is_speaker_independent


@pytest.mark.parametrize(
    ('changes', 'n_known'),
    [
        ({'corpora': {'mine': {'train': ['a', 'b', 'c'], 'test': ['d']}}}, 2),
        ({'corpora': {'mine': {'train': ['a'], 'validation': ['c', 'd']}}}, 2),
        ({'corpora': {}, 'recordings': ('d' * 12,)}, 1),
    ],
)
def test_speakers_that_the_bundle_knows_are_stated(bundle_info, changes, n_known):
    split = mark_known(SPLIT, dataclasses.replace(bundle_info, **changes))
    assert not split.is_speaker_independent
    assert split.protocol == (
        'NOT speaker-independent: the training used a bundle that was trained on '
        f'{n_known} of the 3 validation and test speakers; 3 folds'
    )
    assert split.digest == SPLIT.digest
    quick = dataclasses.replace(SPLIT, protocol=f'QUICK TRIAL; {SPLIT.protocol}')
    protocol = mark_known(quick, dataclasses.replace(bundle_info, **changes)).protocol
    assert protocol.count('speaker-independent') == 1


def test_the_same_validation_speakers_are_not_known(bundle_info):
    own = {'mine': {'train': ['a'], 'validation': ['b'], 'test': ['c', 'd']}}
    info = dataclasses.replace(bundle_info, corpora=own, recordings=('a' * 12, 'b' * 12))
    assert mark_known(SPLIT, info) is SPLIT
    # Another bundle was trained on them.
    refitted = dataclasses.replace(info, corpora={'mine': {'train': ['a', 'b']}})
    assert mark_known(SPLIT, info, refitted).known == {'mine:b'}


def test_speakers_that_either_bundle_knows_count(bundle_info):
    infos = [
        dataclasses.replace(bundle_info, corpora={'mine': {'train': [speaker]}}, recordings=())
        for speaker in 'bd'
    ]
    assert mark_known(SPLIT, *infos).known == {'mine:b', 'mine:d'}


def test_the_metadata_of_both_are_joined(bundle_info):
    corpora = {'mine': {'train': ['a'], 'validation': ['b'], 'test': ['c']}}
    own = dataclasses.replace(
        bundle_info,
        corpora={**corpora, 'RAVDESS': {'train': ['01'], 'test': ['02', '05']}},
        recordings=('9' * 12, '5' * 12),
        license='CC-BY-NC-SA-4.0 AND LicenseRef-mine',
    )
    source = dataclasses.replace(
        bundle_info, recordings=('5' * 12, '1' * 12), license='CC-BY-4.0 AND CC-BY-NC-SA-4.0'
    )
    info = joined(own, source)
    # The source was tested on 01 and 11, and calibrated on 03.
    assert info.corpora == {
        **corpora,
        'RAVDESS': {'train': ['01', '02', '03', '04'], 'test': ['02', '05']},
    }
    assert info.recordings == ('1' * 12, '5' * 12, '9' * 12)
    assert info.license == 'CC-BY-4.0 AND CC-BY-NC-SA-4.0 AND LicenseRef-mine'


def test_speakers_that_calibrate_both_stay_validation_speakers(bundle_info):
    def calibrated_on(*speakers):
        corpora = {'mine': {'train': ['a'], 'validation': list(speakers)}}
        return dataclasses.replace(bundle_info, corpora=corpora)

    corpora = joined(calibrated_on('b'), calibrated_on('b', 'c')).corpora
    assert corpora == {'mine': {'train': ['a', 'c'], 'validation': ['b']}}


def test_the_digest_changes_with_the_weights(bundle_path):
    assert run_digest(SPLIT, Sources()) == SPLIT.digest
    source = load_bundle(bundle_path)
    before = run_digest(SPLIT, Sources(source))
    assert before == run_digest(SPLIT, Sources(load_bundle(bundle_path))) != SPLIT.digest
    assert run_digest(SPLIT, Sources(source, load_bundle(bundle_path))) != before
    source.frontend.mean[0] += 1
    assert run_digest(SPLIT, Sources(teacher=source)) != before

"""The recipe by which a bundle is fine-tuned."""

import dataclasses
from pathlib import Path

import pytest

from ser_ros import SerError
from ser_ros.bundle_info import BundleError
from ser_ros.frontend_config import LogMelConfig
from ser_ros.training.data.corpora import Clip, Corpus
from ser_ros.training.data.splits import split_corpora
from ser_ros.training.finetuning import (
    OPTIMIZATION,
    STEPS,
    finetuning_labels,
    finetuning_recipe,
)
from ser_ros.training.recipe import (
    AugmentationConfig,
    DataConfig,
    DistillationConfig,
    OptimizationConfig,
    Recipe,
)

OWN = Recipe(
    name='theirs',
    data=DataConfig(
        corpora=('A', 'B'),
        merge={'calm': 'neutral'},
        nonspeech=0.1,
        mask_absent_classes=True,
    ),
    augmentation=AugmentationConfig(crop=(1.0, 2.0), noise_folder='/theirs', reverb_folder='/x'),
    optimization=OptimizationConfig(epochs=160, label_smoothing=0.05, warmup_epochs=3),
    target_accuracy=0.8,
    freeze=2,
    pretrained='published',
    distillation=DistillationConfig('theirs_teacher.safetensors'),
)


@pytest.fixture(scope='module')
def source(write_bundle, tmp_path_factory):
    recipe = dataclasses.asdict(OWN)
    recipe['data']['corpus_weights'] = {'A': 0.5}
    return write_bundle(
        tmp_path_factory.mktemp('source') / 'theirs.safetensors',
        recipe=recipe,
        frontend=LogMelConfig(n_mels=40),
    )


def corpus_of(classes, name='mine', takes=1):
    """`classes`: speaker → classes of their clips."""
    clips = [
        Clip(Path(f'{s}{e}{t}.wav'), e, s, name, digest=f'{name}{s}{e}{t}')
        for s, emotions in classes.items()
        for e in emotions.split()
        for t in range(takes)
    ]
    return Corpus(name, clips, [], {})


def speakers(n, emotions='happy sad calm'):
    return {f's{i:02}': emotions for i in range(n)}


def test_the_recipe_is_the_bundles_own_with_another_corpus_and_schedule(source):
    recipe = finetuning_recipe(str(source), [corpus_of(speakers(10), takes=8)])
    assert recipe.name == 'finetune'
    assert recipe.pretrained == str(source)
    assert (recipe.architecture, recipe.freeze) == ('parallel_cnn_transformer', 0)
    assert recipe.hyperparameters == {'conv_dropout': 0.2}
    assert recipe.frontend == LogMelConfig(n_mels=40)
    assert recipe.target_accuracy == 0.8
    # How its corpora were weighted, and the folders and files of its machine, are left out.
    assert recipe.data == dataclasses.replace(OWN.data, corpora=('mine',))
    assert recipe.augmentation == AugmentationConfig(crop=(1.0, 2.0))
    assert recipe.distillation == DistillationConfig()
    # 240 clips are 15 batches.
    epochs = -(-STEPS // 15)
    schedule = {**OPTIMIZATION, 'epochs': epochs}
    assert recipe.optimization == dataclasses.replace(OWN.optimization, **schedule)
    assert (recipe.optimization.label_smoothing, recipe.refit) == (0.05, True)


def test_a_quick_bundle_is_fine_tuned_in_full(write_bundle, tmp_path):
    recipe = dataclasses.asdict(dataclasses.replace(OWN, quick=True, freeze=0))
    path = write_bundle(tmp_path / 'quick.safetensors', recipe=recipe)
    assert not finetuning_recipe(str(path), [corpus_of(speakers(3))]).quick


def test_labels_are_those_of_the_bundle_unless_set(bundle_info):
    info = dataclasses.replace(bundle_info, recipe={'data': {'labels': {'boredom': 'bored'}}})
    assert finetuning_labels(info, ()) == {'boredom': 'bored'}
    for override in ('data.labels={irritated: angry}', 'data={labels: {irritated: angry}}'):
        assert finetuning_labels(info, [override])['irritated'] == 'angry'


def test_overrides_come_last(source):
    overrides = ['optimization.epochs=3', 'freeze=1', 'data.nonspeech=0']
    recipe = finetuning_recipe(str(source), [corpus_of(speakers(3))], overrides)
    assert (recipe.optimization.epochs, recipe.freeze, recipe.data.nonspeech) == (3, 1, 0.0)
    for override, said in (('freze=1', "did you mean 'freeze'"), ('name=x', 'not a setting')):
        with pytest.raises(SerError, match=f'^recipe finetune: .*{said}'):
            finetuning_recipe(str(source), [corpus_of(speakers(3))], [override])


@pytest.mark.parametrize(
    ('counts', 'n_folds', 'subsets'),
    [([3], 3, (1, 1, 1)), ([5], 5, (3, 1, 1)), ([24], 5, (15, 4, 5)), ([24, 4], 4, (19, 2, 7))],
)
def test_speakers_are_kept_apart_where_there_are_three(source, counts, n_folds, subsets):
    corpora = [corpus_of(speakers(n), f'c{n}') for n in counts]
    recipe = finetuning_recipe(str(source), corpora)
    assert (recipe.split.protocol, recipe.split.n_folds) == ('speakers', n_folds)
    split = split_corpora(recipe, corpora)
    assert split.is_speaker_independent
    assert tuple(len(voices) for voices in split.voices().values()) == subsets


def test_more_speakers_validate_if_one_lacks_a_class(source):
    corpus = corpus_of({**speakers(6), 's01': 'happy sad', 's03': 'happy sad', 's04': 'happy sad'})
    recipe = finetuning_recipe(str(source), [corpus])
    assert recipe.split.n_validation == 2
    assert {clip.emotion for clip in split_corpora(recipe, [corpus]).validation} == {
        'happy',
        'sad',
        'neutral',
    }


@pytest.mark.parametrize(('n', 'takes', 'n_folds'), [(1, 3, 3), (1, 40, 5), (2, 2, 4)])
def test_the_clips_of_one_or_two_speakers_are_split_at_random(source, n, takes, n_folds):
    corpus = corpus_of(speakers(n), takes=takes)
    recipe = finetuning_recipe(str(source), [corpus])
    assert (recipe.split.protocol, recipe.split.n_folds) == ('random', n_folds)
    split = split_corpora(recipe, [corpus])
    assert split.protocol.startswith('NOT speaker-independent')
    assert set(split.class_names) == {clip.emotion for clip in split.test}


@pytest.mark.parametrize(
    ('classes', 'said'),
    [
        (speakers(1), 'leaves no clips of class happy.*; record more of them, or merge'),
        (speakers(5, 'happy'), 'all clips are of class happy; a model needs two or more classes'),
        # Calm is merged into neutral.
        (speakers(1, 'neutral calm'), 'all clips are of class neutral'),
        (speakers(2), 'leaves no clips of class happy.*; record more of them, or merge'),
        ({**speakers(4), 's09': 'angry'}, 'class angry has one speaker, mine:s09'),
        (
            {**speakers(4), 's00': 'happy angry', 's02': 'happy angry'},
            'leaves no clips of class neutral, sad to validate on; name other speakers',
        ),
    ],
)
def test_a_corpus_that_cannot_be_split_is_one_line(source, classes, said):
    corpus = corpus_of(classes)
    recipe = finetuning_recipe(str(source), [corpus])
    with pytest.raises(SerError, match=said) as caught:
        split_corpora(recipe, [corpus])
    assert '\n' not in str(caught.value)


def test_a_missing_bundle(tmp_path):
    with pytest.raises(BundleError, match='bundle companian: no such file'):
        finetuning_recipe('companian', [corpus_of(speakers(3))])

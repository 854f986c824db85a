"""Recipes: inheritance, overrides, and errors."""

import dataclasses

import pytest
import yaml

from ser_ros import SerError
from ser_ros.models import default_hyperparameters
from ser_ros.settings import from_dict
from ser_ros.shipped import shipped_file, shipped_recipes
from ser_ros.training.recipe import (
    AugmentationConfig,
    Recipe,
    differences,
    load_recipe,
    plain_recipe,
    shared_recipe,
)


@pytest.fixture
def write(tmp_path):
    def write_recipe(text, name='mine'):
        path = tmp_path / f'{name}.yaml'
        path.write_text(text)
        return path

    return write_recipe


def test_an_empty_recipe_has_all_defaults(write):
    assert load_recipe(write('')) == Recipe(name='mine')


def test_a_recipe_overrides_what_it_inherits(write):
    write(
        'seed: 5\nfrontend: {n_mels: 80, hop_length: 200}\noptimization: {epochs: 9}\n'
        'hyperparameters: {conv_dropout: 0.1}\n',
        'base',
    )
    write('inherit: base.yaml\nfrontend: {n_mels: 40}\n', 'middle')
    path = write(
        'inherit: middle.yaml\noptimization: {batch_size: 4}\n'
        'hyperparameters: {encoder_dropout: 0.2}\naugmentation: {crop: [1, 2.5]}\n'
    )
    recipe = load_recipe(path)
    assert (recipe.name, recipe.seed) == ('mine', 5)
    assert (recipe.frontend.n_mels, recipe.frontend.hop_length) == (40, 200)
    assert (recipe.optimization.epochs, recipe.optimization.batch_size) == (9, 4)
    assert recipe.hyperparameters == {'conv_dropout': 0.1, 'encoder_dropout': 0.2}
    assert recipe.augmentation.crop == (1, 2.5)
    defaults = Recipe()
    assert recipe.augmentation.speed == defaults.augmentation.speed
    assert recipe.split == defaults.split


@pytest.mark.parametrize(
    ('text', 'near'),
    [
        ('sed: 1', "sed'.*seed'"),
        ('frontend: {n_mel: 64}', "n_mel'.*n_mels'"),
        ('augmentation: {mixup: 0.1}', "mixup'.*mixup_alpha'"),
        ('optimization: {epoch: 1}', "epoch'.*epochs'"),
        ('split: {folds: 1}', "folds'.*fold'"),
        ('5: 1', '5'),
    ],
)
def test_an_unknown_key_names_the_nearest(write, text, near):
    with pytest.raises(SerError, match=near) as refusal:
        load_recipe(write(text))
    assert 'mine.yaml' in str(refusal.value)
    assert '\n' not in str(refusal.value)


@pytest.mark.parametrize(
    ('text', 'key'),
    [
        ('seed: one', 'seed'),
        ('seed: 1.5', 'seed'),
        ('seed: true', 'seed'),
        ('seed: null', 'seed'),
        ('architecture: 3', 'architecture'),
        ('target_accuracy: high', 'target_accuracy'),
        ('frontend: 64', 'frontend'),
        ('frontend: {n_mels: 64.5}', 'n_mels'),
        ('augmentation: {crop: 3}', 'crop'),
        ('augmentation: {crop: [1]}', 'crop'),
        ('augmentation: {crop: [1, 2, 3]}', 'crop'),
        ('augmentation: {crop: [short, long]}', 'crop'),
        ('augmentation: {crop: [3, 1]}', 'crop'),
        ('hyperparameters: [1]', 'hyperparameters'),
        ('split: {validation_speakers: 3}', 'validation_speakers'),
        ('split: {validation_speakers: [3, 8]}', 'validation_speakers'),
    ],
)
def test_a_value_of_the_wrong_type_names_the_key(write, text, key):
    with pytest.raises(SerError, match=key) as refusal:
        load_recipe(write(text))
    assert 'mine.yaml' in str(refusal.value)
    assert '\n' not in str(refusal.value)


@pytest.mark.parametrize(
    ('weights', 'said'),
    [
        ('{B: 0.5}', 'corpus_weights has B, which is not in corpora'),
        ('{RAVDESS: 0}', 'the weight of RAVDESS is 0.0, not positive'),
    ],
)
def test_invalid_corpus_weights(write, weights, said):
    with pytest.raises(SerError, match=said):
        load_recipe(write(f'data: {{corpora: [RAVDESS, SAVEE], corpus_weights: {weights}}}'))


def test_a_recipe_of_fewer_corpora_keeps_the_weights(write):
    path = write('data: {corpora: [SAVEE, A], corpus_weights: {RAVDESS: 0.5, A: 2.0}}')
    assert [load_recipe(path).data.weight(n) for n in range(2)] == [1.0, 2.0]


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('voice: {copies: -1}', 'copies is -1'),
        ('voice: {copies: 8, memory: 0}', 'memory is 0.0, not positive'),
        ('voice: {copies: 8, history: [0, 9]}', 'history is from 0 to 9, not rising from 1'),
        ('voice: {copies: 8, history: [9, 1]}', 'history is from 9 to 1, not rising from 1'),
        ('{voice: {copies: 8}, data: {noisy_copies: 1}}', 'noisy_copies cannot be used with'),
        ('data: {epoch_clips: 64}', 'epoch_clips is for clips drawn with replacement'),
        ('split: {protocol: corpora}', 'set left_out with the protocol corpora'),
        ('split: {left_out: [A]}', 'set left_out with the protocol corpora'),
        ('split: {protocol: corpora, left_out: [A, B, A]}', 'left_out has A more than once'),
        (
            'split: {validation_speakers: ["03", "03"]}',
            'validation_speakers has 03 more than once',
        ),
        ('data: {corpora: [A, B, A, B]}', 'corpora has A, B more than once'),
    ],
)
def test_settings_that_do_not_fit_together(write, text, said):
    with pytest.raises(SerError, match=said):
        load_recipe(write(text))


def test_integers_are_accepted_as_floats(write):
    recipe = load_recipe(write('optimization: {learning_rate: 1}\naugmentation: {mixup_alpha: 0}'))
    assert isinstance(recipe.optimization.learning_rate, float)
    assert recipe.augmentation.mixup_alpha == 0.0


@pytest.mark.parametrize(
    'text',
    [
        '- 1\n- 2',
        'just text',
        'seed: [',
        'seed: 1\nseed: 2',
        'name: yours',
        'inherit: no_such.yaml',
        'inherit: mine.yaml',
        'inherit: ../{folder}/mine.yaml',
    ],
)
def test_a_file_that_is_not_a_recipe_is_named_in_one_line(write, tmp_path, text):
    with pytest.raises(SerError, match=r'(mine|no_such)\.yaml') as refusal:
        load_recipe(write(text.format(folder=tmp_path.name)))
    assert '\n' not in str(refusal.value)


def test_a_missing_recipe_is_named(tmp_path):
    with pytest.raises(SerError, match=r'missing\.yaml'):
        load_recipe(tmp_path / 'missing.yaml')


def test_bytes_that_are_not_text(tmp_path):
    path = tmp_path / 'bytes.yaml'
    path.write_bytes(b'\xff\xfe\x00\x01')
    with pytest.raises(SerError, match=r'bytes\.yaml'):
        load_recipe(path)


def test_a_recipe_can_be_read_back_from_plain_values(write):
    recipe = dataclasses.replace(Recipe(), name='mine', seed=3, hyperparameters={'a': 1})
    plain = {key: value for key, value in dataclasses.asdict(recipe).items() if key != 'name'}
    text = yaml.safe_dump(yaml.safe_load(yaml.dump(plain, Dumper=TupleDumper)))
    assert load_recipe(write(text)) == recipe


class TupleDumper(yaml.SafeDumper):
    """Writes tuples as lists."""


TupleDumper.add_representer(tuple, yaml.SafeDumper.represent_list)


@pytest.mark.parametrize(
    ('text', 'value'), [('1e-3', 1e-3), ('0.002', 0.002), ('2E+1', 20.0), ('3', 3.0)]
)
def test_overrides_come_last_and_numbers_are_numbers(write, text, value):
    path = write(f'optimization: {{learning_rate: {text}, epochs: 9}}\n')
    assert load_recipe(path).optimization.learning_rate == value
    recipe = load_recipe(path, ['optimization.learning_rate=5e-1', f'optimization.epochs={7}'])
    assert recipe.optimization.learning_rate == 0.5
    assert recipe.optimization.epochs == 7
    assert load_recipe(path, [f'optimization.learning_rate={text}']) == load_recipe(path)


def test_overrides_take_lists_and_mappings():
    recipe = load_recipe(
        'parallel_fusion',
        ['data.corpora=[RAVDESS, SAVEE]', 'data.merge={calm: neutral}', 'seed=7'],
    )
    assert recipe.data.corpora == ('RAVDESS', 'SAVEE')
    assert recipe.data.merge == {'calm': 'neutral'}
    assert recipe.seed == 7
    assert recipe.name == 'parallel_fusion'


def test_an_empty_mapping_replaces_another(write):
    assert load_recipe('companion', ['data.merge={}']).data.merge == {}
    write('hyperparameters: {conv_dropout: 0.1}\n', 'base')
    assert load_recipe(write('inherit: base.yaml\nhyperparameters: {}\n')).hyperparameters == {}


@pytest.mark.parametrize(
    ('override', 'wrong'),
    [
        ('optimization.epoch=3', 'optimization.epochs'),
        ('epochs', 'KEY=VALUE'),
        ('=3', 'KEY=VALUE'),
        ('seed=[', 'seed='),
        ('optimization.loss=hinge', 'cross_entropy, focal'),
        ('optimization.batch_size=0', 'batch_size'),
        ('augmentation.speed=[0, 1]', 'speed'),
        ('augmentation.noise_probability=1.5', 'noise_probability'),
        ('augmentation.mixup_alpha=-0.1', 'mixup_alpha is -0.1, not 0 or more'),
        ('augmentation.time_masks=-1', 'time_masks is -1, not 0 or more'),
        ('augmentation.silence=[-1, 1]', 'silence begins at -1.0'),
        ('data.noisy_copies=-1', 'noisy_copies is -1, not 0 or more'),
        ('data.nonspeech=1.1', 'nonspeech is 1.1, not between 0 and 1'),
        ('optimization.precision=foo', "'foo', not one of 32-true, bf16-mixed, 16-mixed"),
        ('optimization.epochs=0', 'epochs is 0, not 1 or more'),
        ('optimization.learning_rate=-1e-3', 'learning_rate is -0.001, not 0 or more'),
        ('optimization.weight_decay=-1', 'weight_decay is -1.0, not 0 or more'),
        ('optimization.early_stopping=-1', 'early_stopping is -1, not 0 or more'),
        ('optimization.label_smoothing=1', 'label_smoothing is 1.0, not from 0 to below 1'),
        ('optimization.ema_decay=1.0', 'ema_decay is 1.0, not from 0 to below 1'),
        ('optimization.ema_decay=-0.1', 'ema_decay is -0.1, not from 0 to below 1'),
        ('optimization.swa_start=1.5', 'swa_start is 1.5, not between 0 and 1'),
        ('seed=-1', 'seed is -1, not from 0 to 4294967295'),
        ('seed=4294967296', 'seed is 4294967296'),
        ('target_accuracy=75', 'target_accuracy is 75.0, not between 0 and 1'),
        ('hyperparameters={5: 1}', 'a key of hyperparameters is 5'),
        ('split.protocol=fold', 'leave_one_speaker_out'),
        ('frontend.kind=log_mels', 'log_mel'),
        ('frontend.n_mels=100000', 'n_mels is 100000, not from 1 to half of n_fft, 512'),
        ('augmentation.crop=[0.2, 0.4]', 'crop ends at 0.4 s'),
        ('augmentation.crop=[1, 61]', 'crop ends at 61.0 s'),
        ('name=mine', 'name is not a setting'),
        ('hyperparameters={a: 1, a: 2}', 'the key a is repeated'),
    ],
)
def test_an_invalid_override_is_an_error_of_one_line(override, wrong):
    with pytest.raises(SerError) as caught:
        load_recipe('parallel_fusion', [override])
    assert wrong in str(caught.value)
    assert '\n' not in str(caught.value)


def test_an_unknown_name_comes_with_the_known_ones():
    with pytest.raises(SerError, match=r"'parallel_fusions'.*research/vgg"):
        load_recipe('parallel_fusions')


def test_a_file_has_its_own_name(write):
    assert load_recipe(write('seed: 5', 'other')).name == 'other'
    # Folders of results are named like it: research/vgg must not be confused with vgg.
    for name in ('vgg', 'research/vgg'):
        path = shipped_file(f'config/recipes/{name}.yaml')
        assert load_recipe(path, ['seed=5']) == load_recipe(name, ['seed=5'])


@pytest.mark.parametrize('name', ['vgg', 'research_vgg'])
def test_a_file_does_not_take_a_shipped_recipes_name(write, name):
    with pytest.raises(SerError, match=f'{name}.yaml.*rename the file') as caught:
        load_recipe(write('seed: 5', name))
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('name', shipped_recipes())
def test_shipped_recipes_can_be_read(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.split.fold == 1
    assert recipe.split.protocol == (
        'folds_or_speakers' if name.startswith('companion') else 'folds'
    )
    is_research = name.startswith('research/')
    kind = 'speech_encoder' if name.startswith('companion') else 'log_mel'
    assert recipe.frontend.kind == kind or is_research or 'vggish' in name or 'mfcc' in name
    assert recipe.optimization.optimizer == ('sgd' if is_research else 'adamw')


def test_a_stored_recipe_does_not_tell_where_files_are():
    augmentation = AugmentationConfig(noise_folder='/home/me/noise', reverb_folder='~/rooms')
    recipe = Recipe(name='a', augmentation=augmentation, pretrained='/home/me/runs/a.safetensors')
    stored = shared_recipe(recipe)
    assert stored['pretrained'] == 'a.safetensors'
    assert stored['augmentation']['noise_folder'] == 'noise'
    assert '/' not in stored['augmentation']['reverb_folder']
    assert shared_recipe(Recipe(name='a')) == plain_recipe(Recipe(name='a'))


def test_plain_values_have_the_defaults_of_the_architecture():
    recipe = Recipe(name='a', architecture='cnn_lstm', hyperparameters={'level_invariant': False})
    kept = plain_recipe(recipe)['hyperparameters']
    assert kept == {**default_hyperparameters('cnn_lstm'), 'level_invariant': False}
    # They stay even if the defaults change.
    assert from_dict(Recipe, plain_recipe(recipe)).hyperparameters == kept


def test_differences_are_named():
    recipe = Recipe(name='a', seed=1)
    other = dataclasses.replace(recipe, name='b', seed=2)
    assert differences(recipe, other) == []
    values = plain_recipe(recipe)
    values['optimization'] |= {'epochs': 6, 'optimizer': 'sgd'}
    values['hyperparameters'] = {'width': 64}
    values['augmentation']['crop'] = [2.0, 3.0]
    changed = from_dict(Recipe, values)
    assert differences(changed, recipe) == [
        'hyperparameters.width=64',
        'augmentation.crop=[2.0, 3.0]',
        'optimization.epochs=6',
        'optimization.optimizer=sgd',
    ]
    assert differences(recipe, changed)[-1] == 'no hyperparameters.width'

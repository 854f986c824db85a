"""Recipes: what they inherit, and what is wrong with them."""

import dataclasses

import pytest
import yaml

from ser_ros import SerError
from ser_ros.training.recipe import Recipe, load_recipe


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


def test_whole_numbers_serve_as_floats(write):
    recipe = load_recipe(write('optimization: {learning_rate: 1}\naugmentation: {mixup_alpha: 0}'))
    assert isinstance(recipe.optimization.learning_rate, float)
    assert recipe.augmentation.mixup_alpha == 0.0


@pytest.mark.parametrize(
    'text', ['- 1\n- 2', 'just text', 'seed: [', 'inherit: no_such.yaml', 'inherit: mine.yaml']
)
def test_what_is_no_recipe_is_named_in_one_line(write, text):
    with pytest.raises(SerError, match=r'(mine|no_such)\.yaml') as refusal:
        load_recipe(write(text))
    assert '\n' not in str(refusal.value)


def test_a_missing_recipe_is_named(tmp_path):
    with pytest.raises(SerError, match=r'missing\.yaml'):
        load_recipe(tmp_path / 'missing.yaml')


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / 'bytes.yaml'
    path.write_bytes(b'\xff\xfe\x00\x01')
    with pytest.raises(SerError, match=r'bytes\.yaml'):
        load_recipe(path)


def test_a_recipe_survives_as_plain_values(write):
    recipe = dataclasses.replace(Recipe(), name='mine', seed=3, hyperparameters={'a': 1})
    plain = {key: value for key, value in dataclasses.asdict(recipe).items() if key != 'name'}
    text = yaml.safe_dump(yaml.safe_load(yaml.dump(plain, Dumper=TupleDumper)))
    assert load_recipe(write(text)) == recipe


class TupleDumper(yaml.SafeDumper):
    """Writes tuples as lists."""


TupleDumper.add_representer(tuple, yaml.SafeDumper.represent_list)


def shipped():
    from pathlib import Path

    folder = Path(__file__).resolve().parents[2] / 'config' / 'recipes'
    return [pytest.param(path, id=path.stem) for path in sorted(folder.glob('*.yaml'))]


@pytest.mark.parametrize('path', shipped())
def test_shipped_recipes_are_right(path):
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    assert recipe.split.fold == 1
    assert recipe.frontend.sample_rate == 16_000
    assert recipe.frontend.n_mels == 64
    assert recipe.frontend.win_length == 400

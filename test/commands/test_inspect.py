"""The command `inspect`."""

import dataclasses

import numpy as np
import pytest
import soundfile

from ser_ros.frontend_config import ResearchConfig
from ser_ros.training.recipe import AugmentationConfig

PNG = b'\x89PNG'


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to work in."""
    folder = tmp_path / 'here'
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def written(folder):
    return sorted(path.name for path in folder.iterdir())


def test_it_plots_predictions(run, here, wav, write_bundle, tmp_path):
    path = write_bundle(
        tmp_path / 'attentive.safetensors',
        architecture='parallel_cnn_attention_lstm',
        hyperparameters={},
    )
    status, out, err = run('inspect', wav, '--bundle', path)
    assert (status, out, err) == (0, ['speech.png'], [])
    assert (here / 'speech.png').read_bytes().startswith(PNG)
    assert written(here) == ['speech.png']


def test_a_plot_of_another_file_is_kept(run, here, wav, bundle_path, tmp_path):
    other = tmp_path / 'other' / wav.name
    other.parent.mkdir()
    other.write_bytes(wav.read_bytes())
    for file, plot in ((wav, 'speech.png'), (other, 'speech_2.png'), (wav, 'speech.png')):
        assert run('inspect', file, '--bundle', bundle_path)[1] == [plot]
    assert written(here) == ['speech.png', 'speech_2.png']


def test_it_says_where_there_is_no_attention(run, here, wav, bundle_path):
    status, out, err = run('inspect', wav, '--bundle', bundle_path, '--out', 'a.svg')
    assert (status, out) == (0, ['a.svg'])
    (line,) = err
    assert 'parallel_cnn_transformer has no attention' in line
    text = (here / 'a.svg').read_text()
    assert 'emotions' not in text
    assert 'voice activity' in text


def test_it_plots_a_bundle_that_adapts_before_and_after(run, here, speech_path, by_voice_path):
    status, out, _ = run('inspect', speech_path, '--bundle', by_voice_path, '--out', 'a.svg')
    assert (status, out) == (0, ['a.svg'])
    text = (here / 'a.svg').read_text()
    assert text.index('without adaptation') < text.index('with adaptation')


def test_it_plots_a_file_classified_as_a_whole(run, here, wav, write_bundle, tmp_path):
    path = write_bundle(tmp_path / 'whole.safetensors', frontend=ResearchConfig())
    status, out, _ = run('inspect', wav, '--bundle', path)
    assert (status, out) == (0, ['speech.png'])


def test_it_plots_augmented_versions(run, here, wav, write_bundle, tmp_path):
    config = AugmentationConfig(reverb_probability=0.5, mel_masks=0, time_masks=0)
    path = write_bundle(
        tmp_path / 'augmented.safetensors', recipe={'augmentation': dataclasses.asdict(config)}
    )
    # As a bundle says it after it was read: tuples are lists by then.
    status, out, err = run('inspect', wav, '--augment', '--bundle', path, '--out', 'a.svg')
    assert (status, out, err) == (0, ['a.svg'], [])
    text = (here / 'a.svg').read_text()
    for title in ('as recorded', 'speed ×', 'room, RT60', 'noise, SNR', 'gain', 'all together, 1'):
        assert title in text
    assert 'masks' not in text


def test_it_plots_versions_of_a_recipe(run, here, wav, tmp_path):
    recipe = tmp_path / 'loud.yaml'
    recipe.write_text(
        'augmentation: {gain_db: [6.0, 6.0], speed: [1.0, 1.0], noise_probability: 0.0,'
        ' mel_masks: 0, time_masks: 0}'
    )
    status, out, err = run('inspect', wav, '--augment', recipe)
    assert (status, out, err) == (0, ['speech-augmented.png'], [])
    status, out, err = run('inspect', wav, '--augment', recipe, '--out', 'a.svg')
    text = (here / 'a.svg').read_text()
    assert 'gain +6 dB' in text
    assert 'speed' not in text


def test_only_the_beginning_of_a_long_file_is_plotted(run, here, speech, bundle_path, tmp_path):
    path = tmp_path / 'long.wav'
    soundfile.write(path, speech, 16_000)
    recipe = tmp_path / 'none.yaml'
    recipe.write_text(
        'augmentation: {gain_db: [0.0, 0.0], speed: [1.0, 1.0], noise_probability: 0.0,'
        ' mel_masks: 0, time_masks: 0}'
    )
    status, _, err = run('inspect', path, '--augment', recipe)
    assert status == 0
    assert 'only its first 8 s' in err[0]


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('--out', 'a.xyz'), 'a.xyz'),
        (('--out', 'nowhere/a.png'), 'nowhere/a.png'),
        (('--bundle', '/nowhere/b.safetensors'), '/nowhere/b.safetensors'),
        (('--augment', 'no_such_recipe'), 'no_such_recipe'),
    ],
)
def test_errors_are_one_line(run, here, wav, bundle_path, arguments, message):
    if '--bundle' not in arguments:
        arguments = (*arguments, '--bundle', bundle_path)
    status, out, err = run('inspect', wav, *arguments)
    assert (status, out) == (1, [])
    assert err[-1].startswith('ser_ros: ')
    assert message in err[-1]
    assert written(here) == []


@pytest.mark.parametrize('seconds', [0.02, 0.1])
def test_a_file_too_short_to_be_trained_on_is_not_augmented(run, here, tmp_path, seconds):
    short = tmp_path / 'short.wav'
    soundfile.write(short, np.full(round(seconds * 16_000), 0.1), 16_000)
    status, out, err = run('inspect', short, '--augment', 'parallel_fusion')
    assert (status, out) == (1, [])
    assert err == [f'ser_ros: {short}: shorter than 0.2 s, the least for a training clip']
    soundfile.write(short, np.full(round(0.21 * 16_000), 0.1), 16_000)
    status, _, err = run('inspect', short, '--augment', 'parallel_fusion')
    assert (status, err) == (0, [])


def test_a_file_that_is_not_there(run, here, bundle_path):
    status, out, err = run('inspect', 'missing.wav', '--bundle', bundle_path)
    assert (status, out, len(err)) == (1, [], 1)
    assert 'missing.wav' in err[0]

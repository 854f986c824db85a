"""Each augmentation is shown by itself, with the value in its title."""

import dataclasses
import re

import numpy as np
import pytest
import torch

from ser_ros.training.recipe import AugmentationConfig
from ser_ros.training.reports.augmented import N_TOGETHER, OFF, versions
from ser_ros.training.reports.plots import versions as draw

EVERYTHING = AugmentationConfig(
    pitch_probability=0.1,
    silence_probability=0.1,
    reverb_probability=0.1,
    noise_probability=0.1,
    mel_shift=2.0,
)


def only(**settings):
    return dataclasses.replace(OFF, **settings)


def number(title):
    return float(re.search(r'[-+]?\d+(\.\d+)?', title).group())


def alone(samples, **settings):
    """The version of one augmentation: what comes after the recording."""
    made = versions(samples, only(**settings))
    assert len(made) == 2 + N_TOGETHER
    return made[1]


def test_what_is_off_does_nothing(utterance):
    made = versions(utterance, OFF)
    assert [version.title for version in made[:1]] == ['as recorded']
    assert len(made) == 1 + N_TOGETHER
    np.testing.assert_array_equal(made[0].samples, utterance)


def test_each_augmentation_has_a_version(utterance):
    made = versions(utterance, EVERYTHING)
    titles = [version.title for version in made]
    words = (
        'recorded',
        'speed',
        'pitch',
        'silence',
        'room',
        'noise',
        'gain',
        'mel bands',
        'masks',
    )
    assert len(titles) == len(words) + N_TOGETHER
    for title, word in zip(titles, words):
        assert word in title
    assert all(title.startswith('all together') for title in titles[-N_TOGETHER:])
    with_features = [version.features is not None for version in made]
    assert with_features == [False] * 7 + [True] * (2 + N_TOGETHER)
    assert {version.samples.dtype for version in made} == {np.dtype('float32')}
    draw([(v.title, v.samples, v.features) for v in made[:2]])


def test_the_same_seed_draws_the_same(utterance):
    one, same, other = (versions(utterance, EVERYTHING, seed) for seed in (1, 1, 2))
    for version, again in zip(one, same):
        assert version.title == again.title
        np.testing.assert_array_equal(version.samples, again.samples)
    assert [v.title for v in one] != [v.title for v in other]


def test_nobody_elses_draws_are_changed(utterance):
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    versions(utterance, only(noise_probability=1.0))
    torch.testing.assert_close(torch.rand(3), expected)


def test_gain_is_as_in_the_title(utterance):
    version = alone(utterance, gain_db=(-12.0, -3.0))
    ratio = np.linalg.norm(version.samples) / np.linalg.norm(utterance)
    assert -12 <= number(version.title) <= -3
    assert 20 * np.log10(ratio) == pytest.approx(number(version.title), abs=0.6)


def test_noise_is_as_in_the_title(utterance):
    version = alone(utterance, noise_probability=0.01, noise_snr_db=(5.0, 25.0))
    noise = version.samples - utterance
    ratio = np.linalg.norm(utterance) / np.linalg.norm(noise)
    assert 20 * np.log10(ratio) == pytest.approx(number(version.title), abs=1)


def test_speed_is_as_in_the_title(utterance):
    version = alone(utterance, speed=(0.8, 0.9))
    factor = len(utterance) / len(version.samples)
    assert 0.8 <= factor <= 0.9
    assert number(version.title) == pytest.approx(factor, abs=0.01)


def test_silence_is_as_in_the_title(speech, segments):
    spoken = speech[segments[0].start : segments[0].end]
    version = alone(spoken, silence_probability=0.01, silence=(0.2, 0.4))
    changed = np.flatnonzero(np.abs(version.samples - spoken) > 1e-3)
    assert np.ptp(changed) / 16_000 == pytest.approx(number(version.title), abs=0.05)


def test_all_together_is_cut_as_for_training(utterance):
    config = dataclasses.replace(EVERYTHING, crop=(1.0, 1.5))
    for version in versions(utterance, config)[-N_TOGETHER:]:
        assert 0.9 <= len(version.samples) / 16_000 <= 1.5

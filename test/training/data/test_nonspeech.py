"""Generated sounds without a voice vary in level, spectrum and time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_ros.audio import SAMPLE_RATE
from ser_ros.training.data.nonspeech import FAMILIES, HELD_OUT, LEVEL_DB, generate, generate_one

family = pytest.mark.parametrize(
    'family', (*FAMILIES, *HELD_OUT), ids=lambda family: family.__name__
)


@pytest.fixture(scope='module')
def sounds():
    n = 3 * SAMPLE_RATE // 2
    return [generate(np.random.default_rng(seed), n, SAMPLE_RATE) for seed in range(100)]


def decibels(sound):
    return 10 * np.log10(np.mean(np.square(sound, dtype=float)))


def centroid(sound, sample_rate=SAMPLE_RATE):
    power = np.abs(np.fft.rfft(sound * np.hanning(len(sound)))) ** 2
    return power @ np.fft.rfftfreq(len(sound), 1 / sample_rate) / power.sum()


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 40_000), st.sampled_from([8_000, 16_000, 48_000]))
def test_any_length_at_any_rate(seed, n, sample_rate):
    sound = generate(np.random.default_rng(seed), n, sample_rate)
    assert sound.shape == (n,)
    assert sound.dtype == np.float32
    assert np.isfinite(sound).all()
    assert np.abs(sound).max() <= 1


def test_the_generator_decides():
    first, again, other = (
        generate(np.random.default_rng(seed), 20_000, SAMPLE_RATE) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(np.corrcoef(first, other)[0, 1]) < 0.5


def test_levels_are_like_those_of_speech(sounds):
    levels = [decibels(sound) for sound in sounds]
    # Less is possible: no peak is cut off at full scale.
    assert max(np.abs(sound).max() for sound in sounds) == 1
    assert LEVEL_DB[0] - 10 < min(levels)
    assert max(levels) < LEVEL_DB[1] + 0.1
    assert np.ptp(levels) > 30


def test_spectra_vary(sounds):
    centroids = np.array([centroid(sound) for sound in sounds])
    low, high = np.percentile(centroids, (10, 90))
    assert high > 6 * low
    octaves = np.unique(np.floor(np.log2(centroids)))
    assert len(octaves) >= 5


def test_some_are_steady_and_some_are_not(sounds):
    ratios = []
    for sound in sounds:
        parts = [decibels(part + 1e-6) for part in np.array_split(sound, 40)]
        ratios.append(np.ptp(parts))
    assert min(ratios) < 3
    assert max(ratios) > 30


@family
def test_one_of_a_family_is_as_loud_as_the_others(family):
    sounds = [
        generate_one(family, np.random.default_rng(seed), 24_000, SAMPLE_RATE)
        for seed in range(20)
    ]
    assert {sound.dtype for sound in sounds} == {np.dtype('float32')}
    assert max(np.abs(sound).max() for sound in sounds) <= 1
    assert max(map(decibels, sounds)) < LEVEL_DB[1] + 0.1
    assert np.ptp([decibels(sound) for sound in sounds]) > 15


def test_held_out_families_are_in_no_training():
    assert not set(HELD_OUT) & set(FAMILIES)


@family
@pytest.mark.parametrize('sample_rate', [16_000, 48_000])
def test_every_family_returns_sound(family, sample_rate):
    for seed in range(10):
        sound = family(np.random.default_rng(seed), 3 * sample_rate, sample_rate)
        assert sound.shape == (3 * sample_rate,)
        assert np.isfinite(sound).all()
        assert sound.std() > 0


@family
def test_no_two_of_a_family_are_alike(family):
    first, second = (family(np.random.default_rng(seed), 32_000, SAMPLE_RATE) for seed in (3, 4))
    spectra = [
        np.abs(np.fft.rfft(sound))[:8_000].reshape(-1, 40).sum(axis=1) for sound in (first, second)
    ]
    shares = [spectrum / spectrum.sum() for spectrum in spectra]
    assert np.abs(shares[0] - shares[1]).sum() > 0.05

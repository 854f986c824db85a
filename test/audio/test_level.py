"""The level meter distinguishes a muted, a silent and a clipping microphone."""

import math

import numpy as np
import pytest

from ser_ros.audio.level import LevelMeter

RATE = 16_000


@pytest.fixture
def meter():
    return LevelMeter(RATE)


def push(meter, samples, block=320):
    for first in range(0, len(samples), block):
        meter.push(samples[first : first + block].astype(np.float32))


def noise(seconds, decibels, channels=1):
    shape = (round(seconds * RATE), channels)
    return 10 ** (decibels / 20) * np.random.default_rng(1).standard_normal(shape)


@pytest.mark.parametrize('decibels', [-60, -40, -20])
def test_normal_levels_are_no_problem(meter, decibels):
    push(meter, noise(12, decibels))
    assert meter.problem is None
    assert meter.decibels == pytest.approx(decibels, abs=0.5)


def test_zeros_are_muted_and_a_single_bit_is_not(meter):
    push(meter, np.zeros(round(1.9 * RATE)))
    assert meter.problem is None
    push(meter, np.zeros(round(0.2 * RATE)))
    assert 'muted' in meter.problem
    assert meter.decibels == -math.inf
    push(meter, np.array([2.0**-15]))
    assert meter.problem is None


def test_noise_of_the_lowest_bit_is_silence(meter):
    bits = np.round(np.random.default_rng(1).random(round(11 * RATE))) * 2.0**-15
    push(meter, bits[: 9 * RATE])
    assert meter.problem is None
    push(meter, bits[9 * RATE :])
    assert 'silent' in meter.problem


def test_a_loud_voice_clips_until_the_gain_is_reduced(meter):
    loud = noise(3, -10)
    push(meter, np.clip(4 * loud, -1, 1 - 2.0**-15))
    assert 'clipped' in meter.problem
    assert '%' in meter.problem
    push(meter, np.concatenate([loud] * 6) / 4)
    assert meter.problem is None


def test_each_channel_counts(meter):
    sound = noise(12, -30, channels=2)
    sound[:, 1] = 0
    push(meter, sound)
    assert meter.problem is None
    assert meter.decibels == pytest.approx(-33, abs=0.5)


def test_an_empty_block_changes_nothing(meter):
    meter.push(np.zeros((0, 2), np.float32))
    assert meter.problem is None
    assert meter.decibels == -math.inf

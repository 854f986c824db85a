"""One channel of several: a chosen one, their average, and whether they can be averaged."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ser_ros.audio.channels import (
    AVERAGE,
    ChannelError,
    ChannelMeter,
    averaging,
    check_channel,
    mix,
    pick,
)
from ser_ros.audio.reading import OF_A_WHOLE

RATE = 16_000


def together(*channels):
    n = min(map(len, channels))
    return np.stack([np.asarray(c[:n], np.float32) for c in channels], axis=1)


def problem_of(frames, rate=RATE, block=None, **settings):
    meter = ChannelMeter(frames.shape[1], rate, **settings)
    for first in range(0, len(frames), block or len(frames)):
        meter.push(frames[first : first + (block or len(frames))])
    return meter.problem


def noise(seed, seconds=3, decibels=-20):
    samples = np.random.default_rng(seed).standard_normal(round(seconds * RATE))
    return (10 ** (decibels / 20) * samples).astype(np.float32)


@pytest.fixture(scope='module')
def halves(speech):
    """Two different stretches of speech."""
    half = len(speech) // 2
    return speech[:half], speech[half : 2 * half]


@given(st.integers(1, 64), st.integers(-3, 70))
def test_a_channel_that_the_sound_does_not_have_is_named(n_channels, channel):
    if -1 <= channel < n_channels:
        check_channel(channel, n_channels)
        return
    with pytest.raises(ChannelError) as error:
        check_channel(channel, n_channels)
    assert f'no channel {channel}:' in str(error.value)
    assert '\n' not in str(error.value)


@given(st.integers(1, 64), st.data())
def test_one_channel_or_the_average_is_used(n_channels, data):
    frames = np.random.default_rng(n_channels).uniform(-1, 1, (50, n_channels)).astype(np.float32)
    channel = data.draw(st.integers(AVERAGE, n_channels - 1))
    expected = frames.mean(axis=1) if channel == AVERAGE else frames[:, channel]
    mono = mix(pick(frames, channel))
    assert mono.dtype == np.float32
    np.testing.assert_array_equal(mono, expected)


@pytest.mark.parametrize('n_channels', [1, 2])
def test_few_channels_need_no_choice(n_channels):
    assert averaging(n_channels) is None


def test_more_than_two_do():
    assert 'its 6 channels are averaged' in averaging(6)


@pytest.mark.parametrize('block', [None, 16, 320, 4_000])
@pytest.mark.parametrize('delay', [0, 1, 8, 20])
def test_channels_of_one_source_agree(speech, delay, block):
    """Whatever the distance of the microphones: 20 samples are 43 cm."""
    assert problem_of(together(speech[delay:], 0.5 * speech), block=block) is None


def test_a_room_and_the_noise_of_the_microphones_are_no_difference(speech):
    rng = np.random.default_rng(1)
    heard = []
    for delay in (0, 5, 9):
        tail = rng.standard_normal(6_400) * np.exp(-np.arange(6_400) / 900)
        tail /= np.linalg.norm(tail)  # as loud as the direct sound
        tail[delay] += 1.0
        sound = np.convolve(speech, tail)
        heard.append(sound + 1e-3 * rng.standard_normal(len(sound)))
    assert problem_of(together(*heard)) is None


@pytest.mark.parametrize('block', [None, 16, 320, 4_000])
def test_different_sound_is_named(halves, block):
    voice, music = halves
    problem = problem_of(together(voice, voice, 0.3 * voice, music), block=block)
    assert 'and 3 have different sound' in problem


@pytest.mark.parametrize('seconds', [0.2, 0.5, 1, 3])
@pytest.mark.parametrize('gain', [1.0, 0.3])
def test_short_sound_is_compared_as_well(halves, seconds, gain):
    n = round(seconds * RATE)
    first, second = (half[np.abs(half).argmax() :][:n] for half in halves)
    problem = problem_of(together(first, gain * second), **OF_A_WHOLE)
    assert 'different sound' in problem or 'silent beside' in problem


@pytest.mark.parametrize('rate', [8_000, 44_100, 48_000, 192_000])
def test_any_rate_will_do(rate):
    time = np.arange(2 * rate) / rate
    a, b = np.sin(2 * np.pi * 440 * time), np.sin(2 * np.pi * 550 * time)
    assert 'different sound' in problem_of(together(a, b), rate)
    assert problem_of(together(a, 0.7 * a), rate) is None


@pytest.mark.parametrize(
    'channels',
    [
        lambda s: together(s, -s),
        lambda s: together(s, -0.6 * s),
        lambda s: together(s, s, -s, -s),
        lambda s: together(s, -s, 0 * s, 0 * s, 0 * s, 0 * s),
    ],
)
def test_channels_that_cancel_are_named(speech, channels):
    assert 'cancel each other in their average' in problem_of(channels(speech))


def test_a_silent_channel_is_named(speech):
    problem = problem_of(together(speech, 1e-3 * speech))
    assert 'channel 1 is silent beside channel 0' in problem


def test_what_the_robot_plays_is_named_while_nobody_speaks(speech):
    quiet = [noise(seed, len(speech) / RATE, -70) for seed in range(5)]
    problem = problem_of(together(*quiet, speech), block=320)
    assert 'channel 0 is silent beside channel 5' in problem


def test_the_noise_of_two_microphones_is_not_compared():
    assert problem_of(together(noise(1, decibels=-55), noise(2, decibels=-55))) is None


@pytest.mark.parametrize('frames', [np.zeros((8_000, 2)), np.full((8_000, 2), [0.3, -0.2])])
def test_silence_and_an_offset_say_nothing(frames):
    assert problem_of(frames.astype(np.float32), **OF_A_WHOLE) is None


def test_it_follows_the_sound(halves):
    voice, music = halves
    meter = ChannelMeter(2, RATE, memory=1.5)
    for channels, is_problem in (
        ((voice, voice), False),
        ((voice, music), True),
        ((music, music), False),
        ((voice, 0 * voice), True),
        ((0 * voice, voice), True),
        ((voice, voice), False),
    ):
        meter.push(together(*channels))
        assert bool(meter.problem) is is_problem


def test_one_channel_is_not_compared(speech):
    assert problem_of(speech[:, None]) is None


@given(
    st.integers(2, 8),
    st.sampled_from([1_000, 8_000, 16_000, 44_100]),
    st.lists(st.integers(0, 3_000), min_size=1, max_size=8),
)
def test_the_verdict_does_not_depend_on_the_blocks(n_channels, rate, sizes):
    frames = np.random.default_rng(0).uniform(-1, 1, (sum(sizes), n_channels)).astype(np.float32)
    meter, first = ChannelMeter(n_channels, rate, **OF_A_WHOLE), 0
    for size in sizes:
        meter.push(frames[first : first + size])
        first += size
    whole = ChannelMeter(n_channels, rate, **OF_A_WHOLE)
    whole.push(frames)
    assert (meter.problem is None) == (whole.problem is None)

"""Stamps advance with the samples and follow the measured time without its jitter."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ser_ros.audio import SECOND
from ser_ros.audio.clock import SampleClock

RATE, BLOCK = 16_000, 320
BLOCK_NS = BLOCK * SECOND // RATE
START = 1_700_000_000 * SECOND


def run(clock, measured):
    return np.array([clock.stamp(int(ns), BLOCK) for ns in measured]) - START


def test_exact_measurements_are_not_changed():
    measured = START + np.arange(500) * BLOCK_NS
    np.testing.assert_array_equal(run(SampleClock(RATE), measured), measured - START)


def test_jitter_is_smoothed():
    jitter = np.random.default_rng(1).uniform(-0.02, 0.02, 1_000) * SECOND
    jitter[0] = 0
    true = np.arange(1_000) * BLOCK_NS
    error = run(SampleClock(RATE), START + true + jitter.astype(int)) - true
    assert np.abs(error).max() < 0.2 * np.abs(jitter).max()


def test_a_constant_offset_is_followed():
    offset = SECOND // 20
    true = np.arange(600) * BLOCK_NS
    measured = START + true + offset * (np.arange(600) > 0)
    error = measured - START - run(SampleClock(RATE, time_constant=2.0), measured)
    # About a third of the offset remains after one time constant, almost nothing after six.
    assert error[100] == pytest.approx(offset * np.exp(-1), rel=0.05)
    assert abs(error[-1]) < 0.01 * offset


def test_a_clock_that_runs_fast_is_followed():
    """Ten minutes of a sound card that is wrong by 200 ppm never count as a gap."""
    true = np.arange(30_000) * (BLOCK_NS + BLOCK_NS // 5_000)
    error = true - run(SampleClock(RATE), START + true)
    assert np.abs(error).max() < 0.001 * SECOND


@pytest.mark.parametrize('jump', [-SECOND, SECOND // 5, 3_600 * SECOND])
def test_a_jump_is_followed_at_once(jump):
    clock = SampleClock(RATE)
    clock.stamp(START, BLOCK)
    assert clock.stamp(START + BLOCK_NS + jump, BLOCK) == START + BLOCK_NS + jump
    assert clock.stamp(START + 2 * BLOCK_NS + jump, BLOCK) == START + 2 * BLOCK_NS + jump


@given(
    st.lists(st.integers(-25_000_000, 25_000_000), min_size=1, max_size=200),
    st.sampled_from([8_000, 44_100, 48_000]),
)
def test_jitter_causes_neither_overlaps_nor_gaps(jitter, rate):
    clock = SampleClock(rate)
    n = rate // 50
    previous = None
    for i, deviation in enumerate(jitter):
        stamp = clock.stamp(START + i * n * SECOND // rate + deviation, n)
        if previous is not None:
            # One block corrects at most a hundredth of the error: 20 ms of a time constant of 2 s.
            assert abs(stamp - previous - n * SECOND // rate) <= 1_000_000
        previous = stamp

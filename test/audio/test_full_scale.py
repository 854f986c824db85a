"""Float sound beyond full scale is scaled if that is asked for, else counted."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ser_ros.audio.full_scale import SLACK, FullScale

FLOATS = st.floats(width=32, allow_subnormal=False)


@given(st.lists(arrays(np.float32, st.integers(0, 40), elements=FLOATS), max_size=4))
def test_it_counts_and_leaves_the_samples_as_they_are(blocks):
    full_scale = FullScale()
    for block in blocks:
        np.testing.assert_array_equal(full_scale.scale(block), block)
    samples = np.concatenate([*blocks, np.zeros(0, np.float32)])
    assert full_scale.samples == len(samples)
    assert full_scale.beyond == sum(abs(x) > 1 + SLACK for x in samples.tolist())
    assert full_scale.not_numbers == np.isnan(samples).sum()
    assert (full_scale.problem is None) == (not full_scale.beyond and not full_scale.not_numbers)


def test_within_full_scale_there_is_no_problem():
    full_scale = FullScale()
    full_scale.scale(np.array([-1.0, 1.0, -32768 / 32767], np.float32))
    assert full_scale.problem is None


@pytest.mark.parametrize(('bits', 'hint'), [(16, 2**15), (24, 2**23), (32, 2**31)])
def test_integers_are_recognised(bits, hint):
    full_scale = FullScale()
    full_scale.scale(np.float32(0.7 * 2 ** (bits - 1)) * np.array([0.1, -1.0], np.float32))
    assert full_scale.is_unscaled
    assert f'integers with a full scale of {hint}' in full_scale.problem
    assert '2 of its 2 samples' in full_scale.problem


def test_a_little_too_loud_is_not_unscaled():
    full_scale = FullScale()
    full_scale.scale(np.array([0.5, 1.3], np.float32))
    assert not full_scale.is_unscaled
    assert 'beyond full scale and clipped (the largest is 1.3)' in full_scale.problem


def test_it_scales_when_asked_to():
    full_scale = FullScale(32768.0)
    scaled = full_scale.scale(np.array([16384.0, -32768.0], np.float32))
    assert scaled.tolist() == [0.5, -1.0]
    assert full_scale.problem is None

"""How long to wait for the next block before the sound has ended."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ser_ros.audio import SECOND
from ser_ros.audio.pace import LIVE_PATIENCE, MAX_PAUSE, REPLAY_PATIENCE, Pace

START = 1_700_000_000 * SECOND


def play(duration, speed=1.0, n=400, jitter=lambda i: 0.0, stamped=True):
    """The pace after `n` blocks of `duration` seconds each."""
    pace = Pace()
    for i in range(n):
        arrived = 50.0 + (i + 1) * duration / speed + jitter(i)
        end_ns = START + round((i + 1) * duration * SECOND)
        pace.add(arrived, end_ns if stamped else None, continues=i > 0)
    return pace


def test_before_any_sound_and_after_one_block_it_waits_for_a_second():
    assert Pace().patience == LIVE_PATIENCE
    assert play(4.0, n=1).patience == LIVE_PATIENCE


@given(st.lists(st.floats(0.0, 0.9), min_size=400, max_size=400))
def test_jitter_is_no_replay(jitter):
    assert play(0.02, jitter=jitter.__getitem__).is_live


@pytest.mark.parametrize('speed', [0.01, 0.5, 2.0, 10.0, 1_000.0])
def test_a_replay_is_waited_for(speed):
    pace = play(0.02, speed)
    assert not pace.is_live
    assert pace.patience >= REPLAY_PATIENCE
    assert pace.patience > 2 * 0.02 / speed  # a slow one is waited for between its blocks


@pytest.mark.parametrize('stamped', [True, False])
@pytest.mark.parametrize('duration', [0.02, 0.5, 3.0])
def test_long_blocks_are_waited_for(duration, stamped):
    pace = play(duration, stamped=stamped)
    assert pace.is_live
    assert pace.patience == pytest.approx(LIVE_PATIENCE + duration)


def test_bursts_are_waited_for():
    """A hundred blocks at once, every two seconds."""
    pace = Pace()
    for i in range(1_000):
        pace.add(100.0 + i // 100 * 2.0, None, continues=i > 0)
        assert i < 100 or LIVE_PATIENCE + 1.7 < pace.patience <= LIVE_PATIENCE + 2.0


@pytest.mark.parametrize('speed', [1.0, 100.0])
def test_sound_without_stamps_is_live(speed):
    pace = play(0.02, speed, stamped=False)
    assert pace.is_live
    assert pace.patience <= LIVE_PATIENCE + 0.021


def test_utterances_with_silence_between_them_are_not_waited_for():
    pace = Pace()
    for i in range(20):
        pace.add(100.0 + 10 * i, START + (10 * i + 3) * SECOND, continues=False)
    assert pace.is_live
    assert pace.patience == LIVE_PATIENCE


def test_a_long_pause_is_limited_and_forgotten():
    pace = play(0.02, stamped=False)
    arrived = 3_600.0
    pace.add(arrived, None, continues=True)
    assert pace.patience == LIVE_PATIENCE + MAX_PAUSE
    for i in range(1, 6_000):
        pace.add(arrived + i * 0.02, None, continues=True)
    assert pace.patience == pytest.approx(LIVE_PATIENCE + 0.02)

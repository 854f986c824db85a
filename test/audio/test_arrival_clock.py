"""Stamps of blocks that come without any stay near the time of their capture."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_ros.audio import SECOND
from ser_ros.audio.arrival_clock import PAUSE, WINDOW, ArrivalClock

START = 1_700_000_000.0


@dataclass(frozen=True)
class Transport:
    """What happens to blocks on their way, apart from their delay of nought at least."""

    duration: float = 0.02
    seconds: float = 60.0
    ppm: float = 0.0
    """By which the sender's clock is slow."""
    jitter: float = 0.0
    """Seconds; of each block by itself."""
    lost: float = 0.0
    """Share of the blocks."""
    stalls: tuple[float, ...] = ()
    """Seconds from the start; nothing arrives for 0.8 s, and then all at once.

    Not of a block by which a stream starts: see `test_a_first_block_that_came_late_is_corrected`.
    """
    pauses: tuple[float, ...] = ()
    """Seconds from the start; then nothing is captured for 12 s."""
    seed: int = 0

    def run(self):
        """Captured, arrived (n,) seconds of the ends of all blocks, and which of them arrive."""
        rng = np.random.default_rng(self.seed)
        n = round(self.seconds / self.duration)
        captured = (1 + np.arange(n)) * self.duration * (1 + self.ppm * 1e-6)
        for pause in self.pauses:
            captured[captured > pause] += 12.0
        arrived = captured + rng.uniform(0, self.jitter, n)
        starts = np.diff(captured, prepend=-np.inf) > PAUSE
        for stall in self.stalls:
            during = (captured > stall) & (arrived < stall + 0.8) & ~starts
            arrived[during] = stall + 0.8
        is_there = rng.random(n) >= self.lost
        is_there[starts] = True
        return captured, np.maximum.accumulate(arrived), is_there


def errors(transport):
    """Seconds by which the stamp of each block that arrives is late, and when it was captured."""
    captured, arrived, is_there = transport.run()
    clock, duration_ns = ArrivalClock(), round(transport.duration * SECOND)
    stamps = [
        clock.stamp(round((START + a) * SECOND), duration_ns) - round(START * SECOND)
        for a in arrived[is_there]
    ]
    ends = captured[is_there]
    return np.array(stamps) / SECOND + transport.duration - ends, ends


TRANSPORTS = st.builds(
    Transport,
    duration=st.sampled_from([0.005, 0.02, 0.064, 0.1]),
    ppm=st.floats(-200, 200),
    jitter=st.floats(0, 0.05),
    lost=st.floats(0, 0.02),
    stalls=st.lists(st.floats(2, 58), max_size=3).map(tuple),
    pauses=st.lists(st.floats(2, 58), max_size=2).map(tuple),
    seed=st.integers(0, 2**32 - 1),
)


@settings(max_examples=60)
@given(TRANSPORTS)
def test_stamps_stay_near_the_capture(transport):
    """Never later than the jitter, and earlier only by what was lost in the last two windows."""
    late, ends = errors(transport)
    assert late.max() <= transport.jitter + 0.006
    captured, _, is_there = transport.run()
    lost_at = captured[~is_there]
    windows = 2 * WINDOW + 2 * 0.8 + transport.duration
    n_lost = np.searchsorted(lost_at, ends) - np.searchsorted(lost_at, ends - windows)
    assert (late >= -n_lost * transport.duration - 0.006).all()


@pytest.mark.parametrize('ppm', [-200, 200])
def test_ten_hours_of_a_clock_that_drifts(ppm):
    late, _ = errors(Transport(duration=0.1, seconds=36_000, ppm=ppm, jitter=0.02))
    assert np.abs(late).max() < 0.025


@pytest.mark.parametrize('lost', [0.01, 0.05])
def test_ten_minutes_of_losses(lost):
    late, _ = errors(Transport(seconds=600, lost=lost, jitter=0.02))
    assert np.abs(late).max() < 0.02 + 4 * lost * 2 * WINDOW
    assert abs(np.median(late)) < 0.02 + lost * 2 * WINDOW


def test_a_first_block_that_came_late_is_corrected():
    captured = np.arange(1, 3_001) * 0.02
    arrived = np.maximum(captured, captured[0] + 0.5)
    clock = ArrivalClock()
    late = [
        clock.stamp(round(a * SECOND), SECOND // 50) / SECOND + 0.02 - c
        for a, c in zip(arrived, captured)
    ]
    steps = np.diff(late)
    assert late[0] == pytest.approx(0.5)
    assert steps.min() > -0.06  # without a gap: by less than the tolerance
    assert late[-1] < 0.5 - 50 * 0.004


def test_a_stall_longer_than_a_pause_is_corrected_after_its_burst():
    """Until it ends it cannot be told from a pause."""
    captured = np.arange(1, 1_001) * 0.02
    arrived = np.where((captured > 5) & (captured < 8), 8.0, captured)
    clock = ArrivalClock()
    late = [
        clock.stamp(round(a * SECOND), SECOND // 50) / SECOND + 0.02 - c
        for a, c in zip(arrived, captured)
    ]
    assert max(late) == pytest.approx(3.0, abs=0.03)
    assert np.abs(late[-400:]).max() < 0.005


@given(st.floats(PAUSE + 0.001, 3_600))
def test_after_a_pause_the_arrival_counts(pause):
    clock = ArrivalClock()
    for i in range(100):
        clock.stamp(i * SECOND // 50, SECOND // 50)
    arrival = 2 * SECOND + round(pause * SECOND)
    assert clock.stamp(arrival, SECOND // 50) == arrival - SECOND // 50


@pytest.mark.parametrize('speed', [2.0, 20.0, 1_000.0])
def test_a_replay_that_is_faster_than_real_time_is_counted(speed):
    clock = ArrivalClock()
    arrivals = [round(SECOND + i * 0.02 / speed * SECOND) for i in range(20_000)]
    stamps = [clock.stamp(arrival, SECOND // 50) for arrival in arrivals]
    assert set(np.diff(stamps)) == {SECOND // 50}


def test_a_clock_that_stands_still_or_jumps_back():
    clock = ArrivalClock()
    stamps = [clock.stamp(0, SECOND // 50) for _ in range(1_000)]
    assert set(np.diff(stamps)) == {SECOND // 50}
    clock.stamp(100 * SECOND, SECOND // 50)
    assert clock.stamp(10 * SECOND, SECOND // 50) == 10 * SECOND - SECOND // 50


def test_a_block_continues_unless_it_is_later_than_others():
    """In bursts of two seconds all do; of messages with half a second between them none does."""
    clock, continues = ArrivalClock(), []
    for i in range(100_000):
        clock.stamp((2 + i // 100 * 2) * SECOND, SECOND // 50)
        continues.append(clock.continues)
    assert continues == [False] + [True] * 99_999
    clock, continues = ArrivalClock(), []
    for i in range(20):
        clock.stamp(round(i * 3.5 * SECOND), 3 * SECOND)
        continues.append(clock.continues)
    assert not any(continues)


def test_a_block_without_a_stamp_among_others_continues_them():
    """Its arrival is years after the stamps: it is compared with later arrivals only."""
    clock = ArrivalClock()
    for i in range(10):
        clock.follow(i * SECOND // 50, SECOND // 50)
    arrival = 10**18
    assert clock.stamp(arrival, SECOND // 50) == 10 * SECOND // 50
    assert clock.stamp(arrival + SECOND // 50, SECOND // 50) == 11 * SECOND // 50
    late = arrival + 3 * SECOND
    assert clock.stamp(late, SECOND // 50) == late - SECOND // 50

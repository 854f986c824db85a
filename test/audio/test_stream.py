"""Blocks in, mono 16 kHz out: independent of block sizes, with the right time per sample."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ser_ros.audio import SAMPLE_RATE, SECOND
from ser_ros.audio.formats import PcmFormat, encode_s16le
from ser_ros.audio.stream import LossMeter, PcmStream, StampTracker

START = 1_700_000_000 * SECOND


def noise(n_frames, channels):
    return np.random.default_rng(1).uniform(-0.5, 0.5, (n_frames, channels))


def cut(n, sizes):
    """(start, end) of blocks that cover `n` frames; the list of sizes is repeated."""
    start, i = 0, 0
    while start < n:
        end = min(n, start + sizes[i % len(sizes)])
        yield start, end
        start, i = end, i + 1


def run(pcm_format, data, sizes):
    """Push `data` in blocks of `sizes` frames; returns the samples with their stamps."""
    stream = PcmStream(pcm_format)
    width = pcm_format.frame_bytes
    blocks = []
    for start, end in cut(len(data) // width, sizes):
        stamp = START + start * SECOND // pcm_format.sample_rate
        blocks += stream.push(data[start * width : end * width], stamp)
    return blocks + stream.flush()


def check_contiguous(blocks, tolerance_ns):
    n_out = 0
    for samples, stamp in blocks:
        assert samples.dtype == np.float32
        assert abs(stamp - START - n_out * SECOND // SAMPLE_RATE) <= tolerance_ns
        n_out += len(samples)
    return np.concatenate([samples for samples, _ in blocks])


SIZES = st.lists(st.integers(1, 1_500), min_size=1, max_size=8)


@given(SIZES)
def test_at_16_khz_samples_do_not_depend_on_block_sizes(sizes):
    pcm_format = PcmFormat('S16LE', 2, SAMPLE_RATE)
    data = encode_s16le(noise(3_000, 2))
    out = check_contiguous(run(pcm_format, data, sizes), tolerance_ns=0)
    np.testing.assert_array_equal(out, pcm_format.decode(data).mean(axis=1))


@pytest.mark.parametrize('rate', [8_000, 44_100, 48_000])
@given(sizes=SIZES)
def test_resampled_samples_do_not_depend_on_block_sizes(rate, sizes):
    pcm_format = PcmFormat('S16LE', 1, rate)
    n = rate // 4 + 7
    data = encode_s16le(noise(n, 1))
    out = check_contiguous(run(pcm_format, data, sizes), tolerance_ns=2)
    whole = check_contiguous(run(pcm_format, data, [n]), tolerance_ns=0)
    assert abs(len(out) - n * SAMPLE_RATE / rate) <= 1
    np.testing.assert_allclose(out, whole, atol=1e-5)


@pytest.mark.parametrize('rate', [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
def test_a_click_keeps_its_time(rate):
    pcm_format = PcmFormat('S16LE', 1, rate)
    samples = np.zeros((rate, 1))
    click = rate * 2 // 5
    samples[click] = 0.9
    blocks = run(pcm_format, encode_s16le(samples), [rate // 50])
    loudest = max(
        (abs(block[i]), stamp + i * SECOND // SAMPLE_RATE)
        for block, stamp in blocks
        for i in range(len(block))
    )
    assert loudest[0] > 0.1
    assert abs(loudest[1] - START - click * SECOND // rate) <= SECOND // SAMPLE_RATE


def test_an_hour_of_odd_blocks_does_not_drift():
    """The rounding errors of the stamps do not add up."""
    rate = 44_100
    tracker = StampTracker(rate, tolerance=0.001)
    for block in range(360_000):
        assert tracker.advance(START + block * 441 * SECOND // rate, 441) == 0


@pytest.mark.parametrize('rate', [16_000, 44_100])
def test_a_gap_starts_a_new_stream(rate):
    pcm_format = PcmFormat('S16LE', 1, rate)
    before, after = encode_s16le(noise(rate, 1)), encode_s16le(noise(rate, 1) / 2)
    stream = PcmStream(pcm_format)
    blocks = stream.push(before, START)
    later = START + 3 * SECOND
    held, *new = stream.push(after, later) if rate != SAMPLE_RATE else (None, *blocks)
    if rate == SAMPLE_RATE:  # nothing is held back
        new = stream.push(after, later)
    else:
        n_before = sum(len(samples) for samples, _ in [*blocks, held])
        assert n_before == SAMPLE_RATE
        assert held[1] == START + len(blocks[0][0]) * SECOND // SAMPLE_RATE
    fresh = PcmStream(pcm_format).push(after, later)
    assert [stamp for _, stamp in new] == [stamp for _, stamp in fresh] == [later]
    np.testing.assert_array_equal(new[0][0], fresh[0][0])


def test_stamps_that_jump_back_start_a_new_stream():
    stream = PcmStream(PcmFormat('S16LE', 1, 48_000))
    data = encode_s16le(noise(4_800, 1))
    stream.push(data, START)
    held, *new = stream.push(data, START - SECOND)
    assert held[1] > START
    assert new[0][1] == START - SECOND


def test_jitter_changes_the_stamps_and_causes_no_gap():
    stream = PcmStream(PcmFormat('S16LE', 1, SAMPLE_RATE), gap_tolerance=0.1)
    data = encode_s16le(noise(320, 1))
    first = stream.push(data, START)
    second = stream.push(data, START + 20_000_000 + 90_000_000)
    assert [stamp for _, stamp in first + second] == [START, START + 110_000_000]


def test_channels_are_averaged():
    left = noise(2_000, 1)
    data = encode_s16le(np.concatenate((left, -left), axis=1))
    out = check_contiguous(run(PcmFormat('S16LE', 2, SAMPLE_RATE), data, [2_000]), 0)
    np.testing.assert_allclose(out, 0, atol=1e-4)


@pytest.mark.parametrize('rate', [16_000, 44_100])
def test_a_block_cut_within_a_frame_shifts_no_channel(rate):
    pcm_format = PcmFormat('S16LE', 2, rate)
    data = encode_s16le(np.stack((np.full(900, 0.5), np.full(900, -0.25)), axis=1))
    stream = PcmStream(pcm_format)
    blocks = stream.push(data + b'\x01\x02\x03', START)
    blocks += stream.push(data, START + 900 * SECOND // rate) + stream.flush()
    out = check_contiguous(blocks, tolerance_ns=2)
    np.testing.assert_allclose(out[100:-100], 0.125, atol=1e-3)


@pytest.mark.parametrize('rate', [16_000, 44_100])
def test_without_samples_nothing_is_returned(rate):
    stream = PcmStream(PcmFormat('S16LE', 1, rate))
    assert stream.push(b'', START) == []
    assert stream.push(b'\x00', START) == []
    assert stream.flush() == []
    assert stream.flush() == []


def test_the_tracker_returns_the_missing_time():
    tracker = StampTracker(SAMPLE_RATE, tolerance=0.1)
    assert tracker.advance(START, 16_000) == 0
    assert tracker.advance(START + SECOND, 16_000) == 0
    assert tracker.advance(START + 5 * SECOND, 16_000) == 3 * SECOND
    assert tracker.advance(START + 2 * SECOND, 16_000) == -4 * SECOND
    tracker.reset()
    assert tracker.advance(START + 100 * SECOND, 16_000) == 0


@given(st.lists(st.tuples(st.integers(1, 48_000), st.integers(-(10**9), 10**9)), max_size=20))
def test_every_deviation_above_the_tolerance_is_reported(blocks):
    tracker = StampTracker(48_000, tolerance=0.1)
    tracker.MEMORY = math.inf
    tracker.advance(START, 0)
    expected, total, reported = START, 0, 0
    for n_samples, deviation in blocks:
        stamp = expected + deviation
        total += deviation
        reported += tracker.advance(stamp, n_samples)
        assert abs(total - reported) <= 10**8
        expected = stamp + n_samples * SECOND // 48_000


def test_many_small_losses_are_a_gap_as_well():
    """Every other block is lost, as on a bad network; each single deviation is small."""
    tracker = StampTracker(SAMPLE_RATE, tolerance=0.1)
    missing = [tracker.advance(n * 2 * 320 * SECOND // SAMPLE_RATE, 320) for n in range(101)]
    assert sum(missing) == pytest.approx(100 * 320 * SECOND / SAMPLE_RATE, rel=0.05)
    assert sum(gap > 0 for gap in missing) >= 15


def test_jitter_and_a_drifting_clock_are_no_gap():
    tracker = StampTracker(SAMPLE_RATE, tolerance=0.1)
    jitter = np.random.default_rng(0).integers(-20_000_000, 20_000_000, 30_000)
    block_ns = 320 * SECOND // SAMPLE_RATE
    stamps = np.arange(30_000) * (block_ns * 1.002) + jitter
    assert not any(tracker.advance(int(stamp), 320) for stamp in stamps)


BLOCK_NS = 20_000_000


@given(st.lists(st.integers(0, 4), min_size=1, max_size=50))
def test_every_lost_block_is_counted(losses):
    """None to four blocks are lost between two that arrive."""
    meter, stamp = LossMeter(), START
    meter.advance(stamp, BLOCK_NS)
    for n_lost in losses:
        stamp += (1 + n_lost) * BLOCK_NS
        assert meter.advance(stamp, BLOCK_NS) == n_lost * BLOCK_NS


def test_a_late_block_is_not_lost():
    """Stamped by arrival, one block is late by three blocks; those after it follow at once."""
    meter = LossMeter()
    late = [0, 1, 2, 6, 6.3, 6.6, 7, 8, 9]
    missing = [meter.advance(START + round(n * BLOCK_NS), BLOCK_NS) for n in late]
    assert sum(missing) == 3 * BLOCK_NS
    # The delay was counted as a possible loss: a later one of that length is not counted again.
    assert [meter.advance(START + n * BLOCK_NS, BLOCK_NS) for n in (12, 12, 12, 13)] == [0] * 4


def test_a_drifting_clock_and_another_stream_lose_nothing():
    meter = LossMeter()
    assert not any(meter.advance(round(n * BLOCK_NS * 1.01), BLOCK_NS) for n in range(1_000))
    for stamp in (START, START - 3_600 * SECOND, 0, 2**61):
        assert meter.advance(stamp, BLOCK_NS) == 0
    assert meter.advance(2**61 + 2 * BLOCK_NS, BLOCK_NS) == BLOCK_NS

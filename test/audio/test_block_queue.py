"""No block is lost without being counted, for all kinds of blocks in any order."""

import dataclasses
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ser_ros.audio import SAMPLE_RATE, SECOND
from ser_ros.audio.block_queue import BlockQueue
from ser_ros.audio.formats import PcmFormat, encode_s16le

MONO = ('S16LE', 1, SAMPLE_RATE, 'wave')
START = 1_700_000_000 * SECOND
BLOCK = 320
BLOCK_NS = BLOCK * SECOND // SAMPLE_RATE


def block(value, n=BLOCK):
    return encode_s16le(np.full(n, value / 1_000))


def samples_of(block):
    return [round(float(part[0][0]) * 1_000) for part in block.parts]


@pytest.fixture
def queue():
    return BlockQueue(pcm_format=PcmFormat(*MONO))


def test_blocks_come_in_order_with_their_stamps(queue):
    for i in range(5):
        queue.put(block(i), START + i * BLOCK_NS, 0, 'microphone')
    for i in range(5):
        decoded = queue.get()
        assert samples_of(decoded) == [i]
        assert decoded.parts[0][1] == START + i * BLOCK_NS
        assert decoded.frame_id == 'microphone'
        assert not decoded.is_broken
    assert queue.backlog_bytes == 0
    assert queue.counters.blocks == 5


def test_blocks_wait_until_the_format_is_known():
    now = 100.0
    queue = BlockQueue(clock=lambda: now)
    assert not queue.waits_for_format
    queue.put(block(7), START, START, '')
    assert queue.backlog_bytes == 2 * BLOCK
    now = 100.999
    assert not queue.waits_for_format
    now = 101.0
    assert queue.waits_for_format
    queue.announce(*MONO)
    assert not queue.waits_for_format
    assert queue.format == PcmFormat(*MONO)
    assert samples_of(queue.get()) == [7]


def test_the_end_holds_until_a_format_is_announced_again(queue):
    queue.announce(*MONO)
    queue.announce_end()
    queue.put(block(1), START, 0, '')  # it was on its way
    assert queue.has_ended
    assert samples_of(queue.get()) == [1]
    queue.announce(*MONO)
    assert not queue.has_ended


@pytest.mark.parametrize(
    'info',
    [
        ('S16LE', 1, 16_000, 'mp3'),
        ('S12LE', 1, 16_000, 'wave'),
        ('S16LE', 0, 16_000, 'wave'),
        ('S16LE', 1, 0, 'wave'),
    ],
)
def test_blocks_of_a_format_that_cannot_be_decoded_are_refused(queue, info):
    queue.announce(*info)
    assert queue.refusal
    assert queue.format is None
    for i in range(3):
        queue.put(block(i), START + i * BLOCK_NS, 0, '')
    assert queue.counters.refused_formats == 1
    assert queue.counters.refused_blocks == 3
    assert not queue.waits_for_format
    queue.announce(*MONO)
    queue.put(block(9), START, 0, '')
    assert samples_of(queue.get()) == [9]


def test_waiting_blocks_are_refused_with_their_format():
    queue = BlockQueue()
    queue.put(block(1), START, 0, 'a')
    queue.announce('S16LE', 1, SAMPLE_RATE, 'mp3')
    assert queue.refusal
    decoded = queue.get()
    assert (decoded.parts, decoded.frame_id) == ([], 'a')
    assert queue.counters.refused_blocks == 1


def test_a_block_keeps_the_format_that_was_announced_before_it(queue):
    queue.put(block(1), START, 0, '')
    queue.announce('U8', 1, SAMPLE_RATE, 'wave')
    queue.put(bytes([128 + 64] * BLOCK), START + BLOCK_NS, 0, '')
    assert samples_of(queue.get()) == [1]
    assert samples_of(queue.get()) == [500]


def test_a_change_of_format_loses_no_samples_of_the_resampler():
    queue = BlockQueue(pcm_format=PcmFormat('S16LE', 1, 48_000))
    queue.put(block(1, 4_800), START, 0, '')
    queue.announce(*MONO)
    queue.put(block(2, 1_600), START + SECOND // 10, 0, '')
    first, second = queue.get(), queue.get()
    parts = first.parts + second.ended + second.parts
    assert sum(len(samples) for samples, _ in parts) == 3_200
    ends = [stamp + len(samples) * SECOND // SAMPLE_RATE for samples, stamp in parts]
    assert ends[-1] == START + SECOND // 5


def test_too_long_a_backlog_drops_the_oldest_blocks():
    queue = BlockQueue(max_backlog=1.0, pcm_format=PcmFormat(*MONO))
    for i in range(60):
        queue.put(block(i), START + i * BLOCK_NS, 0, '')
    assert queue.counters.dropped_blocks == 10
    assert queue.backlog_bytes == 2 * SAMPLE_RATE
    decoded = [queue.get() for _ in range(50)]
    assert [samples_of(d)[0] for d in decoded] == list(range(10, 60))
    assert [d.is_broken for d in decoded] == [True] + [False] * 49


@pytest.mark.parametrize('is_known', [True, False])
def test_a_block_longer_than_the_backlog_is_not_dropped(is_known):
    """A whole utterance in one message: on an idle machine it waits alone, or almost."""
    queue = BlockQueue(max_backlog=1.0, pcm_format=PcmFormat(*MONO) if is_known else None)
    for i, data in enumerate((block(1), block(2, 200 * SAMPLE_RATE), block(3))):
        queue.put(data, START + i, 0, '')
    assert queue.counters.dropped_blocks == 0
    queue.announce(*MONO)
    assert [samples_of(queue.get()) for _ in range(3)] == [[1], [2], [3]]


def test_of_blocks_longer_than_the_backlog_only_the_newest_waits():
    queue = BlockQueue(max_backlog=1.0, pcm_format=PcmFormat(*MONO))
    for i in range(5):
        queue.put(block(i, 2 * SAMPLE_RATE), START + i, 0, '')
    assert queue.counters.dropped_blocks == 4
    assert queue.counters.dropped_seconds == 8.0
    decoded = queue.get()
    assert samples_of(decoded) == [4]
    assert decoded.is_broken


def test_short_blocks_after_a_long_one_have_the_bound():
    queue = BlockQueue(max_backlog=1.0, pcm_format=PcmFormat(*MONO))
    queue.put(block(0, 2 * SAMPLE_RATE), START, 0, '')
    for i in range(51):
        assert queue.counters.dropped_blocks == 0
        queue.put(block(i), START + i, 0, '')
    assert queue.counters.dropped_blocks == 2
    assert queue.backlog_bytes == 2 * SAMPLE_RATE


def test_a_block_of_ten_megabytes_that_fits_is_decoded_completely():
    queue = BlockQueue(max_backlog=100.0, pcm_format=PcmFormat('S16LE', 2, 48_000))
    queue.put(bytes(10_000_000), START, 0, '')
    n = sum(len(samples) for samples, _ in queue.get().parts)
    assert abs(n - 10_000_000 / 4 / 3) < SAMPLE_RATE // 10


def test_a_worker_is_behind_where_more_than_half_of_the_backlog_waits():
    queue = BlockQueue(max_backlog=1.0, pcm_format=PcmFormat(*MONO))
    half = bytes(SAMPLE_RATE)
    queue.put(half, START, START, 'mic')
    assert not queue.is_behind
    queue.put(bytes(2), START + SECOND // 2, START, 'mic')
    assert queue.is_behind
    queue.get()
    assert not queue.is_behind


def test_of_a_block_longer_than_the_backlog_a_worker_is_not_behind():
    queue = BlockQueue(max_backlog=1.0, pcm_format=PcmFormat(*MONO))
    queue.put(bytes(6 * SAMPLE_RATE), START, START, 'mic')
    assert not queue.is_behind


def test_a_backlog_of_unknown_format_is_limited_as_well():
    queue = BlockQueue(max_backlog=1.0)
    for i in range(100):
        queue.put(bytes(48_000), START + i, 0, '')
    assert queue.counters.dropped_blocks > 0
    assert queue.backlog_bytes <= 48_000 * 2 * 4


@pytest.mark.parametrize('breaks', ['skip', 'clear', 'end_stream'])
def test_what_the_resampler_holds_back_is_returned_unless_it_was_cleared(breaks):
    queue = BlockQueue(pcm_format=PcmFormat('S16LE', 1, 48_000))
    queue.put(block(1, 4_800), START, 0, '')
    parts = queue.get().parts
    if breaks == 'skip':
        queue.skip(bytes(2), START + SECOND // 10, 0)
    elif breaks == 'clear':
        queue.clear()
    else:
        parts += queue.end_stream()
    queue.put(block(2, 4_800), START + SECOND, 0, '')
    second = queue.get()
    n_before = sum(len(samples) for samples, _ in parts + second.ended)
    assert n_before == 1_600 if breaks != 'clear' else n_before < 1_600
    assert second.parts[0][1] == START + SECOND


def test_every_second_that_was_sent_is_accounted_for():
    """As processed, dropped, skipped or lost on the way, also where these alternate."""
    queue = BlockQueue(max_backlog=0.1, pcm_format=PcmFormat(*MONO))
    n_processed, n_lost = 0, 0

    def put(i):
        queue.put(block(i), START + i * BLOCK_NS, 0, '')

    def get():
        nonlocal n_processed
        while (decoded := queue.get()) is not None:
            n_processed += sum(len(samples) for samples, _ in decoded.parts)

    for i in range(100):
        if i % 7 == 3:
            n_lost += 1
        elif 40 <= i < 50:
            queue.skip(block(i), START + i * BLOCK_NS, 0)
        else:
            put(i)
        if i % 10 == 0:
            get()
    put(100)
    queue.clear()
    put(101)
    get()
    counters = queue.counters
    assert counters.lost_seconds == pytest.approx(n_lost * 0.02)
    assert counters.dropped_seconds == pytest.approx(counters.dropped_blocks * 0.02)
    assert counters.skipped_seconds == pytest.approx(counters.skipped_blocks * 0.02)
    assert min(counters.dropped_blocks, counters.skipped_blocks, n_lost, n_processed) > 0
    processed = n_processed / SAMPLE_RATE
    missing = counters.dropped_seconds + counters.skipped_seconds + counters.lost_seconds
    assert processed + missing == pytest.approx(102 * 0.02)
    assert counters.seconds + counters.lost_seconds == pytest.approx(102 * 0.02)


def test_empty_blocks_never_wait():
    queue = BlockQueue(max_backlog=1.0)
    for _ in range(1_000):
        queue.put(b'', START, 0, '')
    assert queue.counters.empty_blocks == 1_000
    queue.put(block(1), START, 0, '')
    queue.announce(*MONO)
    assert samples_of(queue.get()) == [1]


def test_empty_and_cut_blocks_are_counted(queue):
    queue.put(b'', START, 0, '')
    queue.put(block(5) + b'\x01', START, 0, '')
    queue.put(b'\x01', START + BLOCK_NS, 0, '')
    queue.put(block(6), START + BLOCK_NS, 0, '')
    assert [samples_of(queue.get()) for _ in range(3)] == [[5], [], [6]]
    assert queue.counters.empty_blocks == 1
    assert queue.counters.cut_blocks == 2


def test_the_first_unstamped_block_is_stamped_by_arrival_and_the_rest_by_counting(queue):
    for i in range(3):
        queue.put(block(i), None, START + i * 70_000_000, '')
    stamps = [queue.get().parts[0][1] for _ in range(3)]
    assert stamps == [START - BLOCK_NS, START, START + BLOCK_NS]


def play_unstamped(queue, arrivals):
    """Put and get a block for each arrival in nanoseconds; returns the stamps."""
    stamps, data = [], block(1)
    for arrival in arrivals:
        queue.put(data, None, arrival, '')
        stamps += [stamp for _, stamp in queue.get().parts]
    return stamps


@pytest.mark.parametrize('share', [0.0, 0.01])
def test_losses_of_unstamped_sound_are_counted(queue, share):
    """Ten minutes, with jitter and a clock that is 200 ppm off, which are no loss."""
    rng = np.random.default_rng(1)
    captured = np.arange(30_000) * BLOCK_NS * 1.0002
    arrivals = np.maximum.accumulate(captured + rng.uniform(0, 30_000_000, len(captured)))
    arrivals = arrivals[rng.random(len(arrivals)) >= share]
    stamps = play_unstamped(queue, [START + round(a) for a in arrivals])
    lost = (30_000 - len(arrivals)) * 0.02
    assert queue.counters.lost_seconds == pytest.approx(lost, abs=0.3)
    assert stamps[-1] == pytest.approx(START + arrivals[-1] - BLOCK_NS, abs=80_000_000)


@pytest.mark.parametrize('pause', [12, 30])
def test_a_pause_of_unstamped_sound_is_a_gap(queue, pause):
    arrivals = [START + n * BLOCK_NS for n in range(100)]
    stamps = play_unstamped(queue, arrivals + [a + 2 * SECOND + pause * SECOND for a in arrivals])
    assert stamps[0] == START - BLOCK_NS
    assert stamps[100] - stamps[99] == BLOCK_NS + pause * SECOND
    assert queue.counters.lost_seconds == pause


def test_while_sound_is_skipped_nothing_counts_as_lost(queue):
    for n in range(1_000):
        arrival = START + n * BLOCK_NS
        if 300 <= n < 800:
            queue.skip(block(0), None, arrival)
        else:
            play_unstamped(queue, [arrival])
    assert queue.counters.lost_seconds == 0
    assert queue.counters.skipped_seconds == pytest.approx(10.0)


def test_unstamped_blocks_after_a_drop_are_stamped_by_arrival_again():
    queue = BlockQueue(max_backlog=0.04, pcm_format=PcmFormat(*MONO))
    queue.put(block(0), None, START, '')
    queue.get()
    for i in range(1, 5):
        queue.put(block(i), None, START + i * SECOND, '')
    decoded = queue.get()
    assert decoded.is_broken
    assert decoded.parts[0][1] == START + 3 * SECOND - BLOCK_NS


def test_unstamped_blocks_after_refused_ones_are_stamped_by_arrival_again(queue):
    """Counting samples would ignore the time of the refused blocks."""
    queue.put(block(0), None, START, '')
    queue.get()
    queue.announce('S16LE', 1, SAMPLE_RATE, 'mp3')
    assert queue.refusal
    queue.put(b'mp3', None, START + SECOND, '')
    queue.announce(*MONO)
    queue.put(block(1), None, START + 60 * SECOND, '')
    assert queue.get().parts[0][1] == START + 60 * SECOND - BLOCK_NS


def test_an_empty_queue_returns_no_block():
    queue = BlockQueue()
    assert not queue.has_block
    assert queue.get() is None
    queue.put(block(1), START, 0, '')
    assert not queue.has_block  # its format is not known yet
    assert queue.get() is None


def test_a_worker_is_woken_once_enough_sound_has_gathered(queue):
    queue.gather = 2.5 * BLOCK_NS / SECOND
    woken = []
    queue.ready.notify = lambda: woken.append(queue.backlog_bytes)
    for i in range(4):
        queue.put(block(i), START + i * BLOCK_NS, 0, '')
        assert queue.has_block
        assert queue.has_gathered == (i >= 2)
    assert woken == [3 * len(block(0)), 4 * len(block(0))]


def test_sound_that_cannot_be_decoded_does_not_gather(queue):
    queue.gather = 1.0
    queue.put(block(0), START, 0, '')
    assert not queue.has_gathered
    queue.announce('S16LE', 1, SAMPLE_RATE, 'mp3')
    assert queue.has_gathered


def test_a_worker_receives_all_blocks_of_a_callback(queue):
    n_blocks = 2_000
    received = []

    def work():
        while len(received) < n_blocks:
            with queue.ready:
                queue.ready.wait_for(lambda: queue.has_block)
            received.append(int(queue.get().frame_id))

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    for i in range(n_blocks):
        # In total, less sound than max_backlog, so that nothing is dropped.
        queue.put(block(i, 32), START + i, 0, str(i))
    worker.join(60)
    assert received == list(range(n_blocks))
    assert queue.counters.dropped_blocks == 0


FORMATS = [
    MONO,
    ('S16LE', 2, 44_100, 'wave'),
    ('F32LE', 1, 48_000, ''),
    ('U8', 1, 8_000, 'raw'),
    ('S16LE', 1, SAMPLE_RATE, 'mp3'),
    ('S16LE', 0, SAMPLE_RATE, 'wave'),
]
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just('put'), st.integers(0, 3_000), st.booleans()),
        st.tuples(st.just('announce'), st.sampled_from(FORMATS), st.none()),
        st.tuples(st.just('get'), st.integers(1, 5), st.none()),
    ),
    max_size=40,
)


@given(OPERATIONS, st.sampled_from([0.01, 0.05, 5.0]), st.booleans())
def test_every_block_is_decoded_dropped_refused_or_waiting(operations, max_backlog, is_known):
    queue = BlockQueue(max_backlog, pcm_format=PcmFormat(*MONO) if is_known else None)
    counters = queue.counters
    returned, used = [], []

    def waiting():
        done = counters.dropped_blocks + counters.refused_blocks + counters.empty_blocks
        return counters.blocks - done - len(used)

    def put(data, has_stamp):
        now = START + counters.blocks * 10_000_000
        queue.put(data, now if has_stamp else None, now, str(counters.blocks))

    def get():
        n_refused = counters.refused_blocks
        decoded = queue.get()
        returned.append(int(decoded.frame_id))
        if counters.refused_blocks == n_refused:
            used.append(returned[-1])
        else:
            assert decoded.parts == []

    for name, value, flag in operations:
        if name == 'put':
            put(bytes(value), flag)
        elif name == 'announce':
            queue.announce(*value)
        else:
            for _ in range(value):
                if waiting() and (queue.refusal or queue.format):
                    get()
        assert waiting() >= 0
    queue.announce(*MONO)
    last = counters.blocks
    # A single frame always fits: it is returned last, whatever was dropped before it.
    put(bytes(2), has_stamp=True)
    n_waiting, n_returned = waiting(), len(returned)
    while queue.backlog_bytes:  # not "until the last one": if that is lost, the loop would not end
        get()
    assert returned[-1] == last
    assert len(returned) - n_returned == n_waiting
    assert returned == sorted(set(returned))
    assert waiting() == queue.backlog_bytes == 0


@given(st.lists(st.one_of(st.integers(1, 40_000), st.none()), max_size=40))
def test_the_backlog_is_limited_besides_the_longest_block(operations):
    """A number puts a block of so many bytes; none gets one."""
    queue, waiting = BlockQueue(max_backlog=1.0, pcm_format=PcmFormat(*MONO)), []

    def exceeds(limit):
        total, longest = sum(waiting), max(waiting, default=0)
        return total > limit and (longest <= limit or total - longest > limit)

    for number, n_bytes in enumerate(operations):
        if n_bytes is None:
            queue.get()
            del waiting[:1]
        else:
            queue.put(bytes(n_bytes), START + number * SECOND, START, 'mic')
            waiting.append(n_bytes)
        while exceeds(2 * SAMPLE_RATE):
            waiting.pop(0)
        assert queue.backlog_bytes == sum(waiting)
        assert queue.is_behind == exceeds(SAMPLE_RATE)


STEREO = PcmFormat('S16LE', 2, 16_000)


def stereo(left, right):
    return np.stack([np.full(BLOCK, left), np.full(BLOCK, right)], axis=1).astype('<i2').tobytes()


@pytest.mark.parametrize(('channel', 'expected'), [(-1, 2_000), (0, 1_000), (1, 3_000)])
def test_one_channel_or_the_average_is_used(channel, expected):
    queue = BlockQueue(pcm_format=STEREO, channel=channel)
    queue.put(stereo(1_000, 3_000), START, 0, '')
    ((samples, _),) = queue.get().parts
    np.testing.assert_array_equal(samples, np.float32(expected / 2**15))


def test_a_channel_that_is_chosen_later_starts_a_new_stream():
    queue = BlockQueue(pcm_format=STEREO)
    queue.put(stereo(1_000, 3_000), START, 0, '')
    assert not queue.get().is_broken
    queue.choose_channel(1)
    queue.put(stereo(1_000, 3_000), START + BLOCK_NS, 0, '')
    block = queue.get()
    assert block.is_broken
    assert block.parts[0][0][0] == np.float32(3_000 / 2**15)


def test_a_channel_that_the_sound_does_not_have_is_refused_until_it_does():
    queue = BlockQueue(channel=4)
    queue.announce('S16LE', 6, 16_000, 'wave')
    assert queue.refusal is None
    queue.put(bytes(12 * BLOCK), START, 0, '')
    assert queue.get().parts
    queue.announce('S16LE', 2, 16_000, 'wave')
    assert queue.refusal.startswith('there is no channel 4: the sound has channels 0 to 1')
    assert queue.n_channels == 2
    assert queue.format is None
    queue.put(bytes(4 * BLOCK), START, 0, '')
    assert queue.counters.refused_blocks == 1
    queue.choose_channel(1)
    assert queue.refusal is None
    queue.put(bytes(4 * BLOCK), START, 0, '')
    assert queue.get().is_broken
    queue.choose_channel(4)
    assert 'no channel 4' in queue.refusal
    queue.announce('S16LE', 6, 16_000, 'wave')
    assert queue.refusal is None


def test_a_block_that_waits_and_lacks_the_channel_that_was_chosen_since_is_refused():
    queue = BlockQueue(pcm_format=STEREO)
    queue.put(stereo(1_000, 3_000), START, 0, '')
    queue.announce('S16LE', 6, 16_000, 'wave')
    queue.choose_channel(5)
    assert queue.get().parts == []
    assert queue.counters.refused_blocks == 1


def test_a_default_format_without_the_channel_is_refused():
    assert (
        'no channel 1: the sound has one channel, 0'
        in BlockQueue(pcm_format=PcmFormat(*MONO), channel=1).refusal
    )


def test_channels_that_differ_are_reported_while_their_average_is_used(speech):
    frames = np.stack([speech, -speech], axis=1)
    for channel in (-1, 0):
        queue = BlockQueue(max_backlog=60.0, pcm_format=STEREO, channel=channel)
        assert queue.channel_problem is None
        queue.put((frames * 2**15).astype('<i2').tobytes(), START, 0, '')
        queue.get()
        assert (queue.channel_problem is None) is (channel == 0)


def test_what_is_known_of_the_channels_outlasts_the_end_of_the_sound(speech):
    queue = BlockQueue(max_backlog=60.0, pcm_format=STEREO)
    data = encode_s16le(np.stack([speech, -speech], axis=1))
    queue.put(data, START, 0, '')
    queue.get()
    assert queue.channel_problem
    queue.end_stream()
    queue.skip(data[:4], START, 0)
    queue.clear()
    queue.put(data[: 4 * BLOCK], START + 60 * SECOND, 0, '')
    assert queue.get().is_broken
    assert queue.channel_problem
    queue.choose_channel(0)
    queue.put(data[: 4 * BLOCK], START + 61 * SECOND, 0, '')
    queue.get()
    assert queue.channel_problem is None


def test_a_channel_that_is_chosen_after_the_end_does_not_undo_it():
    queue = BlockQueue(pcm_format=STEREO)
    queue.announce_end()
    queue.choose_channel(1)
    assert queue.has_ended
    queue.announce(*dataclasses.astuple(STEREO))
    assert not queue.has_ended


def test_float_samples_beyond_full_scale_are_counted_and_scaled_if_that_is_asked_for():
    data = np.array([0.5, 16_384.0, np.nan, -np.inf], '<f4').tobytes()
    for full_scale, beyond, expected in (
        (1.0, 2, [0.5, 1.0, 0.0, -1.0]),
        (32_768.0, 1, [0.5 / 2**15, 0.5, 0.0, -1.0]),
    ):
        queue = BlockQueue(pcm_format=PcmFormat('F32LE', 1, 16_000), full_scale=full_scale)
        for n_blocks in (1, 2):
            queue.put(data, START, 0, '')
            assert queue.get().parts[-1][0].tolist() == pytest.approx(expected)
            assert queue.counters.samples_beyond_full_scale == n_blocks * beyond
            assert queue.counters.samples_not_numbers == n_blocks

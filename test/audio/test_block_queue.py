"""No block is lost without being counted, whatever comes in whatever order."""

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


def samples_of(heard):
    return [round(float(part[0][0]) * 1_000) for part in heard.parts]


@pytest.fixture
def intake():
    return BlockQueue(pcm_format=PcmFormat(*MONO))


def test_blocks_come_in_order_with_their_stamps(intake):
    for i in range(5):
        intake.put(block(i), START + i * BLOCK_NS, 0, 'microphone')
    for i in range(5):
        heard = intake.get()
        assert samples_of(heard) == [i]
        assert heard.parts[0][1] == START + i * BLOCK_NS
        assert heard.frame_id == 'microphone'
        assert not heard.is_broken
    assert intake.backlog_bytes == 0
    assert intake.counters.blocks == 5


def test_without_a_format_blocks_wait_for_it():
    intake = BlockQueue()
    assert not intake.waits_for_format(START)
    intake.put(block(7), START, START, '')
    assert intake.backlog_bytes == 2 * BLOCK
    assert not intake.waits_for_format(START + SECOND - 1)
    assert intake.waits_for_format(START + SECOND)
    intake.announce(*MONO)
    assert not intake.waits_for_format(START + SECOND)
    assert intake.format == PcmFormat(*MONO)
    assert samples_of(intake.get()) == [7]


@pytest.mark.parametrize(
    'info',
    [
        ('S16LE', 1, 16_000, 'mp3'),
        ('S12LE', 1, 16_000, 'wave'),
        ('S16LE', 0, 16_000, 'wave'),
        ('S16LE', 1, 0, 'wave'),
    ],
)
def test_a_format_that_cannot_be_decoded_refuses_the_blocks(intake, info):
    intake.announce(*info)
    assert intake.refusal
    assert intake.format is None
    for i in range(3):
        intake.put(block(i), START + i * BLOCK_NS, 0, '')
    assert intake.counters.refused_formats == 1
    assert intake.counters.refused_blocks == 3
    assert not intake.waits_for_format(START + 60 * SECOND)
    intake.announce(*MONO)
    intake.put(block(9), START, 0, '')
    assert samples_of(intake.get()) == [9]


def test_blocks_that_waited_are_refused_with_the_format():
    intake = BlockQueue()
    intake.put(block(1), START, 0, 'a')
    intake.announce('S16LE', 1, SAMPLE_RATE, 'mp3')
    assert intake.refusal
    heard = intake.get()
    assert (heard.parts, heard.frame_id) == ([], 'a')
    assert intake.counters.refused_blocks == 1


def test_a_block_keeps_the_format_it_came_in(intake):
    intake.put(block(1), START, 0, '')
    intake.announce('U8', 1, SAMPLE_RATE, 'wave')
    intake.put(bytes([128 + 64] * BLOCK), START + BLOCK_NS, 0, '')
    assert samples_of(intake.get()) == [1]
    assert samples_of(intake.get()) == [500]


def test_a_change_of_format_gives_up_nothing_held_back():
    intake = BlockQueue(pcm_format=PcmFormat('S16LE', 1, 48_000))
    intake.put(block(1, 4_800), START, 0, '')
    intake.announce(*MONO)
    intake.put(block(2, 1_600), START + SECOND // 10, 0, '')
    parts = intake.get().parts + intake.get().parts
    assert sum(len(samples) for samples, _ in parts) == 3_200
    ends = [stamp + len(samples) * SECOND // SAMPLE_RATE for samples, stamp in parts]
    assert ends[-1] == START + SECOND // 5


def test_too_long_a_backlog_drops_the_oldest():
    intake = BlockQueue(max_backlog=1.0, pcm_format=PcmFormat(*MONO))
    for i in range(60):
        intake.put(block(i), START + i * BLOCK_NS, 0, '')
    assert intake.counters.dropped_blocks == 10
    assert intake.backlog_bytes == 2 * SAMPLE_RATE
    heard = [intake.get() for _ in range(50)]
    assert [samples_of(h)[0] for h in heard] == list(range(10, 60))
    assert [h.is_broken for h in heard] == [True] + [False] * 49


def test_one_block_longer_than_the_backlog_is_dropped_and_breaks_the_stream():
    intake = BlockQueue(max_backlog=1.0, pcm_format=PcmFormat(*MONO))
    intake.put(bytes(10_000_000), START, 0, '')
    assert intake.counters.dropped_blocks == 1
    assert intake.backlog_bytes == 0
    intake.put(block(3), START, 0, '')
    assert intake.get().is_broken


def test_ten_megabytes_that_fit_are_decoded_whole():
    intake = BlockQueue(max_backlog=100.0, pcm_format=PcmFormat('S16LE', 2, 48_000))
    intake.put(bytes(10_000_000), START, 0, '')
    n = sum(len(samples) for samples, _ in intake.get().parts)
    assert abs(n - 10_000_000 / 4 / 3) < SAMPLE_RATE // 10


def test_a_backlog_that_nobody_can_decode_is_bounded_too():
    intake = BlockQueue(max_backlog=1.0)
    for i in range(100):
        intake.put(bytes(48_000), START + i, 0, '')
    assert intake.counters.dropped_blocks > 0
    assert intake.backlog_bytes <= 48_000 * 2 * 4


def test_every_second_that_was_sent_is_accounted_for():
    """Heard, dropped, skipped or lost on the way, in turn, as few as they be."""
    intake = BlockQueue(max_backlog=0.1, pcm_format=PcmFormat(*MONO))
    n_heard, n_lost = 0, 0

    def put(i):
        intake.put(block(i), START + i * BLOCK_NS, 0, '')

    def get():
        nonlocal n_heard
        while (heard := intake.get()) is not None:
            n_heard += sum(len(samples) for samples, _ in heard.parts)

    for i in range(100):
        if i % 7 == 3:
            n_lost += 1
        elif 40 <= i < 50:
            intake.skip(block(i), START + i * BLOCK_NS)
        else:
            put(i)
        if i % 10 == 0:
            get()
    put(100)
    intake.forget()
    put(101)
    get()
    counters = intake.counters
    assert counters.lost_seconds == pytest.approx(n_lost * 0.02)
    assert counters.dropped_seconds == pytest.approx(counters.dropped_blocks * 0.02)
    assert counters.skipped_seconds == pytest.approx(counters.skipped_blocks * 0.02)
    assert min(counters.dropped_blocks, counters.skipped_blocks, n_lost, n_heard) > 0
    heard = n_heard / SAMPLE_RATE
    gone = counters.dropped_seconds + counters.skipped_seconds + counters.lost_seconds
    assert heard + gone == pytest.approx(102 * 0.02)
    assert counters.seconds + counters.lost_seconds == pytest.approx(102 * 0.02)


def test_empty_blocks_never_wait():
    intake = BlockQueue(max_backlog=1.0)
    for _ in range(1_000):
        intake.put(b'', START, 0, '')
    assert intake.counters.empty_blocks == 1_000
    intake.put(block(1), START, 0, '')
    intake.announce(*MONO)
    assert samples_of(intake.get()) == [1]


def test_empty_and_cut_blocks_are_counted(intake):
    intake.put(b'', START, 0, '')
    intake.put(block(5) + b'\x01', START, 0, '')
    intake.put(b'\x01', START + BLOCK_NS, 0, '')
    intake.put(block(6), START + BLOCK_NS, 0, '')
    assert [samples_of(intake.get()) for _ in range(3)] == [[5], [], [6]]
    assert intake.counters.empty_blocks == 1
    assert intake.counters.cut_blocks == 2


def test_without_stamps_the_first_is_by_arrival_and_the_rest_by_counting(intake):
    for i in range(3):
        intake.put(block(i), None, START + i * 70_000_000, '')
    stamps = [intake.get().parts[0][1] for _ in range(3)]
    assert stamps == [START - BLOCK_NS, START, START + BLOCK_NS]


def test_without_stamps_a_drop_begins_anew_by_arrival():
    intake = BlockQueue(max_backlog=0.04, pcm_format=PcmFormat(*MONO))
    intake.put(block(0), None, START, '')
    intake.get()
    for i in range(1, 5):
        intake.put(block(i), None, START + i * SECOND, '')
    heard = intake.get()
    assert heard.is_broken
    assert heard.parts[0][1] == START + 3 * SECOND - BLOCK_NS


def test_unstamped_blocks_begin_anew_after_refused_ones(intake):
    """What was refused is a hole that counting samples would close."""
    intake.put(block(0), None, START, '')
    intake.get()
    intake.announce('S16LE', 1, SAMPLE_RATE, 'mp3')
    assert intake.refusal
    intake.put(b'mp3', None, START + SECOND, '')
    intake.announce(*MONO)
    intake.put(block(1), None, START + 60 * SECOND, '')
    assert intake.get().parts[0][1] == START + 60 * SECOND - BLOCK_NS


def test_nothing_waits():
    intake = BlockQueue()
    assert not intake.has_block
    assert intake.get() is None
    intake.put(block(1), START, 0, '')
    assert not intake.has_block  # nobody has said what it holds
    assert intake.get() is None


def test_a_worker_hears_all_that_a_callback_puts(intake):
    n_blocks = 2_000
    heard = []

    def work():
        while len(heard) < n_blocks:
            with intake.ready:
                intake.ready.wait_for(lambda: intake.has_block)
            heard.append(int(intake.get().frame_id))

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    for i in range(n_blocks):
        # No more sound in all than may wait.
        intake.put(block(i, 32), START + i, 0, str(i))
    worker.join(60)
    assert heard == list(range(n_blocks))
    assert intake.counters.dropped_blocks == 0


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
def test_every_block_is_used_dropped_refused_or_waiting(operations, max_backlog, is_known):
    intake = BlockQueue(max_backlog, pcm_format=PcmFormat(*MONO) if is_known else None)
    counters = intake.counters
    given_out, used = [], []

    def waiting():
        gone = counters.dropped_blocks + counters.refused_blocks + counters.empty_blocks
        return counters.blocks - gone - len(used)

    def put(data, has_stamp):
        now = START + counters.blocks * 10_000_000
        intake.put(data, now if has_stamp else None, now, str(counters.blocks))

    def get():
        n_refused = counters.refused_blocks
        heard = intake.get()
        given_out.append(int(heard.frame_id))
        if counters.refused_blocks == n_refused:
            used.append(given_out[-1])
        else:
            assert heard.parts == []

    for name, value, flag in operations:
        if name == 'put':
            put(bytes(value), flag)
        elif name == 'announce':
            intake.announce(*value)
        else:
            for _ in range(value):
                if waiting() and (intake.refusal or intake.format):
                    get()
        assert waiting() >= 0
    intake.announce(*MONO)
    last = counters.blocks
    # A single frame is never too much: it comes last, whatever was given up before it.
    put(bytes(2), has_stamp=True)
    n_waiting, n_given = waiting(), len(given_out)
    while intake.backlog_bytes:  # not: until the last has come, which a lost one never does
        get()
    assert given_out[-1] == last
    assert len(given_out) - n_given == n_waiting
    assert given_out == sorted(set(given_out))
    assert waiting() == intake.backlog_bytes == 0

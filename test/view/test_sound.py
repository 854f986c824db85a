import io
import wave

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ser_ros.audio import SAMPLE_RATE, SECOND
from ser_ros.audio.formats import PcmFormat, encode_s16le
from ser_ros.view.sound import LiveQueue, SoundRing, to_wav

START = 1_700_000_000 * SECOND


def ramp(n, first=0):
    return (np.arange(first, first + n) % 1_000 / 2**15).astype(np.float32)


def filled(seconds_kept, n_blocks=10):
    ring = SoundRing(seconds_kept)
    for block in range(n_blocks):
        ring.add(ramp(1_600, block * 1_600), START + block * SECOND // 10)
    return ring


def test_a_stretch_is_what_was_added():
    data = filled(10.0).cut(START + SECOND // 4, START + SECOND // 2)
    assert data == encode_s16le(ramp(4_000, 4_000))


def test_what_is_too_old_or_never_was_is_nothing():
    ring = filled(0.5)
    assert ring.cut(START, START + SECOND // 2) is None
    assert ring.cut(START + 6 * SECOND // 10, START + SECOND) is not None
    assert ring.cut(START + 2 * SECOND, START + 3 * SECOND) is None
    ring.clear()
    assert ring.cut(START + 6 * SECOND // 10, START + SECOND) is None


def test_zero_keeps_nothing():
    assert filled(0.0).cut(START, START + SECOND) is None


@given(st.integers(1, 3 * SAMPLE_RATE), st.integers(0, SAMPLE_RATE))
def test_it_never_keeps_more_than_its_seconds(n_samples, n_more):
    ring = SoundRing(1.0)
    ring.add(np.zeros(n_samples, np.float32), START)
    ring.add(np.zeros(n_more, np.float32), START + n_samples * SECOND // SAMPLE_RATE)
    data = ring.cut(START + 100 * SECOND, START) or b''
    data = ring.cut(0, 2 * START) or ring.cut(START, 2 * START) or data
    assert len(data) <= 2 * SAMPLE_RATE


def test_a_wav_file_holds_it():
    data = encode_s16le(ramp(1_600))
    with wave.open(io.BytesIO(to_wav(data))) as reader:
        assert (reader.getnchannels(), reader.getframerate()) == (1, SAMPLE_RATE)
        assert reader.readframes(1_600) == data


def test_blocks_are_decoded_at_once_and_after_their_format():
    parts = []
    queue = LiveQueue(lambda samples, stamp: parts.append((samples, stamp)))
    data = encode_s16le(ramp(1_600))
    queue.put(data, START, START, 'mic')
    assert not parts
    queue.announce('S16LE', 1, SAMPLE_RATE, 'wave')
    queue.put(data, START + SECOND // 10, START, 'mic')
    assert [stamp for _, stamp in parts] == [START, START + SECOND // 10]
    np.testing.assert_allclose(parts[0][0], ramp(1_600), atol=2**-15)


@given(st.binary(max_size=200))
def test_any_bytes_do_no_harm(data):
    parts = []
    queue = LiveQueue(lambda *part: parts.append(part), pcm_format=PcmFormat('F32LE', 3, 44_100))
    queue.put(data, None, START, 'mic')
    assert all(np.isfinite(samples).all() for samples, _ in parts)

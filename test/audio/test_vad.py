"""The real silero-vad on speech and other sound, and utterances cut from probabilities."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ser_ros.audio import SAMPLE_RATE
from ser_ros.audio import vad as vad_module
from ser_ros.audio.sources import read_audio
from ser_ros.audio.vad import (
    CHUNK,
    Segment,
    Segmenter,
    SileroVad,
    detect_speech,
    speech_span,
)


@pytest.fixture(scope='module')
def vad():
    return SileroVad()


@pytest.mark.parametrize('gain_db', [0, -20])
def test_loud_and_quiet_speech_is_detected(vad, utterance, gain_db):
    span = speech_span(vad, utterance * np.float32(10 ** (gain_db / 20)))
    # Half a second of silence precedes the speech, and a second follows.
    assert abs(span.start - 8_000) < 4_000
    assert abs(span.end - (len(utterance) - 16_000)) < 4_000


@pytest.mark.parametrize('name', ['silence', 'white noise', 'mains hum', 'melody'])
def test_no_speech_is_detected_in_other_sound(vad, not_speech, name):
    assert speech_span(vad, not_speech[name]) is None


def test_a_high_shout_is_voice(vad, ravdess):
    shout = read_audio(ravdess / 'Actor_18' / '03-01-05-02-01-02-18.flac')
    span = speech_span(vad, shout)
    assert 1.0 < (span.end - span.start) / SAMPLE_RATE < 3.0


def test_a_high_shout_in_noise_is_voice(vad, ravdess):
    shout = read_audio(ravdess / 'Actor_18' / '03-01-05-02-01-02-18.flac')
    noise = np.random.default_rng(0).normal(0, 1e-4, SAMPLE_RATE * 5 + len(shout))
    sound = noise.astype(np.float32)
    sound[-len(shout) :] += shout
    span = speech_span(vad, sound)
    assert span.start > 5 * SAMPLE_RATE
    assert (span.end - span.start) / SAMPLE_RATE > 1.0


@pytest.mark.parametrize('level', [0.0, 1e-4, 1e-3, 1e-2])
def test_background_noise_takes_one_run_of_the_network_a_chunk(vad, monkeypatch, level):
    noise = np.random.default_rng(0).normal(0, level, 30 * SAMPLE_RATE).astype(np.float32)
    vad.reset()
    chunks = np.split(noise[: len(noise) // CHUNK * CHUNK], len(noise) // CHUNK)
    for chunk in chunks[:-100]:
        vad(chunk)
    network, runs = vad_module._load_network(), []

    class Counted:
        def run(self, *arguments):
            runs.append(1)
            return network.run(*arguments)

    monkeypatch.setattr(vad_module, '_load_network', Counted)
    for chunk in chunks[-100:]:
        vad(chunk)
    assert len(runs) == 100


def test_less_than_a_chunk_is_no_speech(vad):
    assert speech_span(vad, np.ones(CHUNK - 1, np.float32)) is None
    assert speech_span(vad, np.zeros(0, np.float32)) is None


def test_reset_forgets_everything(vad, utterance):
    chunks = [utterance[i : i + CHUNK] for i in range(8_192, 24_576, CHUNK)]

    def run():
        vad.reset()
        return [vad(chunk) for chunk in chunks]

    assert run() == run()


def test_voices_share_a_network_and_no_state(utterance):
    chunks = [utterance[i : i + CHUNK] for i in range(8_192, 16_384, CHUNK)]
    alone = SileroVad()
    expected = [alone(chunk) for chunk in chunks]
    one, other = SileroVad(), SileroVad()
    for chunk, probability in zip(chunks, expected):
        assert one(chunk) == probability
        other(chunk[::-1])


def test_the_input_is_not_changed(vad):
    chunk = np.full(CHUNK, 0.9, np.float32)
    vad(chunk)
    assert (chunk == np.float32(0.9)).all()


def feed(segmenter, probabilities):
    closed = [segmenter.push(probability) for probability in probabilities]
    return [segment for segment in closed if segment]


def test_a_segment_starts_at_the_threshold_and_continues_a_little_below_it():
    segmenter = Segmenter(0.5, end_silence=2 * CHUNK)
    assert feed(segmenter, [0.4, 0.49]) == []
    assert segmenter.segment is None
    assert feed(segmenter, [0.5, 0.36]) == []
    assert segmenter.segment == Segment(2 * CHUNK, 4 * CHUNK)
    assert segmenter.voiced
    assert feed(segmenter, [0.34]) == []
    assert not segmenter.voiced
    assert segmenter.segment == Segment(2 * CHUNK, 4 * CHUNK)
    assert feed(segmenter, [0.0]) == [Segment(2 * CHUNK, 4 * CHUNK)]
    assert segmenter.segment is None


def test_a_short_pause_is_part_of_the_utterance():
    segmenter = Segmenter(0.5, end_silence=3 * CHUNK)
    assert feed(segmenter, [0.9, 0, 0, 0.9, 0, 0, 0]) == [Segment(0, 4 * CHUNK)]


def test_after_a_cut_the_next_voice_starts_another_segment():
    segmenter = Segmenter(0.5, end_silence=2 * CHUNK)
    feed(segmenter, [0.9, 0.9])
    assert segmenter.cut() == Segment(0, 2 * CHUNK)
    assert segmenter.cut() is None
    feed(segmenter, [0.9])
    assert segmenter.segment == Segment(2 * CHUNK, 3 * CHUNK)


def test_after_a_reset_time_starts_at_zero():
    segmenter = Segmenter(0.5, end_silence=2 * CHUNK)
    feed(segmenter, [0.9, 0.9])
    segmenter.reset()
    assert segmenter.segment is None
    assert feed(segmenter, [0.9, 0.0, 0.0]) == [Segment(0, CHUNK)]


@given(st.lists(st.floats(0, 1), max_size=80), st.integers(1, 8))
def test_every_voiced_chunk_is_in_one_segment(probabilities, n_silent):
    threshold = 0.5
    segmenter = Segmenter(threshold, end_silence=n_silent * CHUNK)
    segments = feed(segmenter, probabilities)
    last = segmenter.cut()
    segments += [last] if last else []
    for segment in segments:
        first, final = segment.start // CHUNK, segment.end // CHUNK - 1
        assert probabilities[first] >= threshold
        assert probabilities[final] >= threshold - 0.15
        assert segment.start % CHUNK == segment.end % CHUNK == 0
    for earlier, later in zip(segments, segments[1:]):
        assert later.start - earlier.end >= n_silent * CHUNK
    for i, probability in enumerate(probabilities):
        if probability >= threshold:
            assert sum(s.start <= i * CHUNK < s.end for s in segments) == 1


def test_several_streams_are_one_batch(utterance, not_speech):
    sounds = [utterance, 0.1 * utterance[::-1], *not_speech.values()]
    n = min(map(len, sounds)) // CHUNK
    together, alone = ([SileroVad() for _ in sounds] for _ in range(2))
    for i in range(min(n, 60)):
        chunks = [sound[i * CHUNK : (i + 1) * CHUNK].astype(np.float32) for sound in sounds]
        found = detect_speech(list(zip(together, chunks)))
        expected = [vad(chunk) for vad, chunk in zip(alone, chunks)]
        np.testing.assert_allclose(found, expected, atol=1e-5)

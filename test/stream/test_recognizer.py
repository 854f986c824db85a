"""The stream: which estimates come when, and how gaps, pauses and errors change them."""

import dataclasses
import logging
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from together import run_together
from torch import nn

from ser_ros import SerError
from ser_ros.audio import SAMPLE_RATE, SECOND
from ser_ros.audio.block_queue import BlockQueue
from ser_ros.audio.formats import PcmFormat, encode_s16le
from ser_ros.audio.vad import CHUNK, Segmenter, SileroVad, speech_span
from ser_ros.bundle import Bundle, load_bundle
from ser_ros.bundle_info import BundleError
from ser_ros.emotions import Emotion
from ser_ros.frontend_config import LogMelConfig, MfccConfig, ResearchConfig, VggishConfig
from ser_ros.stream.recognizer import Recognizer
from ser_ros.stream.torch_backend import TorchBackend, select_device
from ser_ros.stream.types import StreamConfig

FRONTENDS = {
    'log_mel': LogMelConfig(),
    '128 mels of 64 ms': LogMelConfig(n_mels=128, n_fft=1024, win_length=1024),
    'mfcc': MfccConfig(),
    'vggish': VggishConfig(),
}
START = 1_700_000_000 * SECOND
SAMPLE_NS = SECOND // SAMPLE_RATE


@pytest.fixture
def recognizer(bundle):
    return Recognizer(bundle, 'cpu')


def process(recognizer, samples, block=480, start=START):
    """All estimates for `samples` that are pushed in blocks and flushed at the end."""
    estimates = []
    for i in range(0, len(samples), block):
        estimates += recognizer.push(samples[i : i + block], start + i * SAMPLE_NS)
    return estimates + recognizer.flush()


def finals(estimates):
    return [estimate for estimate in estimates if estimate.is_final]


def windows(estimates):
    return [estimate for estimate in estimates if estimate.is_window]


def same(first, second):
    """Whether two lists of estimates are exactly equal."""
    return len(first) == len(second) and all(
        np.array_equal(a.probabilities, b.probabilities)
        and np.array_equal(a.unadapted, b.unadapted)
        and dataclasses.replace(a, probabilities=None, unadapted=None)
        == dataclasses.replace(b, probabilities=None, unadapted=None)
        for a, b in zip(first, second)
    )


def segments_of(samples, config):
    vad, segmenter, found = SileroVad(), Segmenter(0.5, round(config.end_silence * 16_000)), []
    for start in range(0, len(samples) - CHUNK + 1, CHUNK):
        closed = segmenter.push(vad(samples[start : start + CHUNK]))
        found += [closed] if closed else []
    return found


@pytest.fixture(scope='session')
def short_speech(utterance):
    """A function: the beginning of an utterance, with a detected length within these seconds."""
    vad = SileroVad()

    def find(least, most):
        # Speech begins after half a second of silence, so that a shorter one cannot have it.
        for n in range(8_000 + round(least * SAMPLE_RATE), len(utterance), CHUNK):
            samples = np.concatenate((utterance[:n], np.zeros(SAMPLE_RATE, np.float32)))
            span = speech_span(vad, samples)
            if span and least * SAMPLE_RATE <= span.end - span.start < most * SAMPLE_RATE:
                return samples
        raise AssertionError(f'no beginning has a detected length of {least} to {most} s')

    return find


class Scripted(nn.Module):
    """Replaces a model: returns these logits one after the other, then always the last ones."""

    min_frames = 1

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.as_tensor(logits, dtype=torch.float32)
        self.n_calls = 0
        self.inputs = []

    def forward(self, features, lengths=None):
        self.inputs.append(features[0].clone())
        self.n_calls += 1
        return self.logits[min(self.n_calls, len(self.logits)) - 1][None]


@pytest.fixture
def scripted(bundle_info, untrained_frontend, tmp_path):
    """A function that builds a recogniser with a scripted model of these class names."""

    def make(logits, class_names=('neutral', 'happy', 'sad'), config=None, **changes):
        info = dataclasses.replace(
            bundle_info,
            **{'class_names': tuple(class_names), 'temperature': 1.0, 'threshold': 0.0, **changes},
        )
        frontend = untrained_frontend(info.frontend)
        return Recognizer(
            Bundle(info, frontend, Scripted(logits), tmp_path / 'scripted'), 'cpu', config
        )

    return make


def logits_of(probabilities):
    return np.log(np.array(probabilities)).tolist()


# When windows end, and what they contain


def to_chunk(n):
    """The end of the chunk of voice activity that a sample, counted from 1, is in."""
    return math.ceil(n / CHUNK) * CHUNK


def test_windows_end_every_hop_during_speech(recognizer, speech, segments):
    estimates = process(recognizer, speech)
    expected = []
    for segment in segments:
        due = range(segment.start + SAMPLE_RATE, segment.end + 1, SAMPLE_RATE // 4)
        expected.append({*map(to_chunk, due), segment.end})
    per_utterance, ends = [], set()
    for estimate in estimates:
        end, rest = divmod(estimate.stamp_ns - START, SAMPLE_NS)
        assert rest == 0
        if estimate.is_final:
            assert end == max(ends)
            per_utterance.append(ends)
            ends = set()
        else:
            ends.add(end)
    assert len(per_utterance) == len(expected) >= 3
    for ends, all_ends in zip(per_utterance, expected):
        # No window ends within a pause of the utterance.
        assert ends <= all_ends
        assert len(ends) > 0.7 * len(all_ends)
        assert max(ends) == max(all_ends)
    assert recognizer.counters.windows == sum(map(len, per_utterance))
    assert recognizer.counters.utterances == len(per_utterance)
    assert recognizer.counters.samples == len(speech)


@pytest.mark.parametrize('frontend', FRONTENDS.values(), ids=FRONTENDS)
def test_a_window_has_the_same_frames_as_computed_offline(scripted, speech, segments, frontend):
    recognizer = scripted([[0.0, 0.0, 0.0]], frontend=frontend)
    frontend = recognizer.backend.bundle.frontend
    estimates = windows(process(recognizer, speech))
    offline = frontend.spectrum(torch.from_numpy(speech))
    inputs = recognizer.backend.bundle.model.inputs
    assert len(inputs) == len(estimates) > 30
    hop, length = 160, frontend.frame_length
    for features, estimate in zip(inputs, estimates):
        end = (estimate.stamp_ns - START) // SAMPLE_NS
        onset = max(segment.start for segment in segments if segment.start < end)
        start = max(0, onset - 1_600, end - 3 * SAMPLE_RATE)
        first, last = -(-start // hop), (end - length) // hop + 1
        expected = frontend.standardise(frontend.features(offline[:, first:last]))
        torch.testing.assert_close(features, expected, atol=1e-3, rtol=1e-4)
    assert max(features.shape[1] for features in inputs) == (3 * SAMPLE_RATE - length) // hop + 1


@pytest.fixture
def computed(recognizer, monkeypatch):
    """The numbers of frames that the recogniser computes, call by call."""
    spectrum, counts = recognizer.backend.spectrum, []

    def count(frames):
        counts.append(len(frames))
        return spectrum(frames)

    monkeypatch.setattr(recognizer.backend, 'spectrum', count)
    return counts


def test_no_frame_is_computed_while_nobody_speaks(recognizer, computed):
    rng = np.random.default_rng(0)
    process(recognizer, rng.normal(0, 1e-3, 10 * SAMPLE_RATE).astype(np.float32))
    assert computed == []


def test_each_frame_of_an_utterance_is_computed_once(recognizer, computed, utterance):
    estimates = process(recognizer, utterance)
    assert len(windows(estimates)) > 5
    first = min(e.stamp_ns // SAMPLE_NS - e.n_samples for e in windows(estimates))
    last = max(e.stamp_ns // SAMPLE_NS for e in windows(estimates))
    assert sum(computed) <= (last - first) // 160 + 1


@pytest.mark.parametrize('frontend', FRONTENDS.values(), ids=FRONTENDS)
def test_every_front_end_that_can_stream_works(write_bundle, tmp_path, utterance, frontend):
    path = write_bundle(tmp_path / 'other.safetensors', frontend=frontend)
    recognizer = Recognizer(load_bundle(path), 'cpu')
    recognizer.backend.warm_up()
    whole = process(recognizer, utterance, len(utterance))
    assert len(windows(whole)) > 5
    assert same(process(recognizer, utterance, 777), whole)


@pytest.mark.parametrize(
    ('frontend', 'message'),
    [
        (ResearchConfig(), '48000 Hz'),
        (ResearchConfig(sample_rate=16_000), 'whole clips'),
        (LogMelConfig(48_000, 1024), '48000 Hz'),
        (LogMelConfig(hop_length=16_000, win_length=16_000, n_fft=16_000), 'window of 3.0 s'),
    ],
)
def test_a_front_end_that_cannot_stream_is_refused(write_bundle, tmp_path, frontend, message):
    path = write_bundle(tmp_path / 'other.safetensors', frontend=frontend)
    bundle = load_bundle(path)
    with pytest.raises(BundleError) as refusal:
        Recognizer(bundle, 'cpu')
    assert str(refusal.value).startswith(f'bundle {path}: ')
    assert message in str(refusal.value)
    assert '\n' not in str(refusal.value)


def test_an_utterance_too_short_for_the_model_is_dropped(write_bundle, tmp_path, short_speech):
    """The model needs at least 16 frames, which are about a second with this front-end."""
    frontend = LogMelConfig(n_fft=1024, win_length=1024, hop_length=1024)
    path = write_bundle(tmp_path / 'slow.safetensors', frontend=frontend)
    recognizer = Recognizer(load_bundle(path), 'cpu', StreamConfig(min_utterance=0.3))
    assert process(recognizer, short_speech(0.6, 0.9)) == []
    assert recognizer.counters.short_utterances == 1
    estimates = process(recognizer, short_speech(1.2, 1.5))
    assert [estimate.is_final for estimate in estimates][-1]
    assert recognizer.counters.utterances == 1


@pytest.fixture(scope='module')
def shared(bundle):
    return Recognizer(bundle, 'cpu')


@pytest.fixture(scope='module')
def expected(shared, utterance):
    shared.reset()
    return process(shared, utterance)


@settings(max_examples=10)
@given(sizes=st.lists(st.integers(0, 20_000), min_size=1, max_size=10).filter(any))
def test_estimates_do_not_depend_on_block_sizes(sizes, shared, utterance, expected):
    shared.reset()
    estimates, start, i = [], 0, 0
    while start < len(utterance):
        n = sizes[i % len(sizes)]
        estimates += shared.push(utterance[start : start + n], START + start * SAMPLE_NS)
        start, i = start + n, i + 1
    assert same(estimates + shared.flush(), expected)


def test_repeating_the_same_sound_repeats_the_estimates(bundle, utterance, expected):
    again = Recognizer(bundle, 'cpu')
    assert same(process(again, utterance), expected)
    assert same(process(again, utterance), expected)


@pytest.mark.parametrize(
    ('sample_format', 'channels', 'rate', 'block'),
    [
        ('S16LE', 1, 16_000, 999),
        ('S16LE', 2, 44_100, 441),
        ('S16LE', 2, 48_000, 1_023),
        ('S24LE', 1, 16_000, 77),
        ('S32LE', 1, 16_000, 320),
        ('F32LE', 1, 48_000, 960),
    ],
)
def test_probabilities_do_not_depend_on_formats_and_block_sizes(
    recognizer, utterance, expected, sample_format, channels, rate, block
):
    soxr = pytest.importorskip('soxr')
    wave = np.repeat(soxr.resample(utterance, SAMPLE_RATE, rate)[:, None], channels, axis=1)
    if sample_format == 'S16LE':
        data = encode_s16le(wave)
    elif sample_format == 'F32LE':
        data = wave.astype('<f4').tobytes()
    else:
        wide = np.clip(np.rint(wave * 2.0**31), -(2**31), 2**31 - 256).astype('<i4')
        data = wide.tobytes()
        if sample_format == 'S24LE':
            data = wide.view(np.uint8).reshape(-1, 4)[:, 1:].tobytes()
    queue = BlockQueue(max_backlog=60.0, pcm_format=PcmFormat(sample_format, channels, rate))
    n_bytes = block * queue.format.frame_bytes
    estimates = []
    for i in range(0, len(data), n_bytes):
        n_before = i // queue.format.frame_bytes
        queue.put(data[i : i + n_bytes], START + n_before * SECOND // rate, 0, '')
        for samples, stamp in queue.get().parts:
            estimates += recognizer.push(samples, stamp)
    estimates += recognizer.flush()
    assert len(estimates) == len(expected)
    assert recognizer.counters.gaps == 0
    spread = np.ptp([estimate.probabilities for estimate in expected], axis=0).max()
    assert spread > 0.05  # otherwise any sound would pass
    for estimate, other in zip(estimates, expected):
        np.testing.assert_allclose(estimate.probabilities, other.probabilities, atol=0.02)
        assert abs(estimate.stamp_ns - other.stamp_ns) <= SAMPLE_NS


@pytest.mark.parametrize('name', ['silence', 'white noise', 'mains hum', 'melody'])
def test_without_speech_there_is_no_estimate(bundle, not_speech, name):
    """Even if the threshold is 0."""
    recognizer = Recognizer(bundle, 'cpu', StreamConfig(threshold=0.0))
    assert process(recognizer, not_speech[name]) == []
    assert not recognizer.is_speaking


@pytest.mark.parametrize('name', ['silence', 'white noise', 'mains hum', 'melody'])
def test_the_shipped_bundle_decides_no_expression_for_noise(not_speech, name):
    estimates = process(Recognizer(load_bundle(), 'cpu'), not_speech[name])
    assert [e for e in estimates if e.expression is not None] == []


def test_quiet_speech_has_as_many_estimates(recognizer, utterance, expected):
    estimates = process(recognizer, utterance * np.float32(0.1))
    assert len(finals(estimates)) == len(finals(expected)) == 1
    assert abs(len(estimates) - len(expected)) <= 2


# Utterances


def test_a_very_short_utterance_is_not_classified(recognizer, short_speech):
    assert process(recognizer, short_speech(0.2, 0.5)) == []
    assert recognizer.counters.short_utterances == 1
    assert recognizer.counters.utterances == recognizer.counters.windows == 0


def test_a_call_of_the_least_length_is_decided(bundle, short_speech):
    """Lengths are whole chunks: nine of them are 0.288 s, the nearest to 0.3 s that is not longer."""
    samples = short_speech(0.3, 0.5)
    (segment,) = segments_of(samples, StreamConfig())
    for more, n_finals in ((0.03, 1), (0.04, 0)):
        least = (segment.end - segment.start) / SAMPLE_RATE + more
        recognizer = Recognizer(bundle, 'cpu', StreamConfig(min_utterance=least))
        assert len(finals(process(recognizer, samples))) == n_finals


def test_a_short_utterance_gets_only_its_final_estimate(recognizer, short_speech):
    samples = short_speech(0.5, 1.0)
    (estimate,) = process(recognizer, samples)
    assert estimate.is_final
    assert estimate.is_window
    (segment,) = segments_of(samples, recognizer.config)
    assert estimate.stamp_ns == START + segment.end * SAMPLE_NS
    assert recognizer.counters.utterances == recognizer.counters.windows == 1
    assert recognizer.counters.short_utterances == 0


def test_long_speech_is_cut(bundle, utterance):
    config = StreamConfig(max_utterance=1.5)
    recognizer = Recognizer(bundle, 'cpu', config)
    (segment,) = segments_of(utterance, config)
    estimates = process(recognizer, utterance)
    ends = [(e.stamp_ns - START) // SAMPLE_NS for e in finals(estimates)]
    # Voice is detected in whole chunks.
    length = math.ceil(1.5 * SAMPLE_RATE / CHUNK) * CHUNK
    assert ends[0] == segment.start + length
    assert all(later - earlier >= length for earlier, later in zip(ends, ends[1:-1]))
    n_cut = (segment.end - segment.start) // SAMPLE_RATE
    counted = recognizer.counters.utterances + recognizer.counters.short_utterances
    assert 2 <= len(ends) == recognizer.counters.utterances <= counted <= n_cut
    assert recognizer.counters.broken_utterances == 0


def test_pauses_shorter_than_end_silence_do_not_end_an_utterance(bundle, speech, segments):
    pause = max(b.start - a.end for a, b in zip(segments, segments[1:])) / SAMPLE_RATE
    config = StreamConfig(end_silence=pause + 0.1, max_utterance=60.0)
    estimates = process(Recognizer(bundle, 'cpu', config), speech)
    (final,) = finals(estimates)
    assert final.stamp_ns == START + segments[-1].end * SAMPLE_NS


def test_the_final_estimate_is_the_mean_log_probability_of_the_longest_windows(recognizer, speech):
    windows, n_pooled = [], []
    for estimate in process(recognizer, speech):
        if not estimate.is_final:
            windows.append(estimate)
            continue
        longest = max(e.n_samples for e in windows)
        assert estimate.n_samples == longest <= 3 * SAMPLE_RATE
        pooled = [np.log(e.probabilities) for e in windows if e.n_samples == longest]
        mean = np.exp(np.mean(pooled, axis=0))
        np.testing.assert_allclose(estimate.probabilities, mean / mean.sum(), rtol=1e-6)
        n_pooled.append(len(pooled))
        windows = []
    assert len(n_pooled) >= 3
    assert max(n_pooled) > 1


def test_windows_grow_with_the_utterance(recognizer, utterance):
    lengths = [e.n_samples for e in process(recognizer, utterance) if e.is_window]
    preroll = SAMPLE_RATE // 10
    grown = [to_chunk(SAMPLE_RATE + n * SAMPLE_RATE // 4) for n in range(len(lengths) - 1)]
    assert lengths[:-1] == [min(preroll + length, 3 * SAMPLE_RATE) for length in grown]
    assert lengths[-1] >= lengths[-2]


def test_is_speaking_from_the_first_voice_until_the_end_of_the_utterance(recognizer, utterance):
    (segment,) = segments_of(utterance, recognizer.config)
    spoken = []
    for i in range(0, len(utterance) - CHUNK + 1, CHUNK):
        recognizer.push(utterance[i : i + CHUNK], START + i * SAMPLE_NS)
        if recognizer.is_speaking:
            spoken.append(i)
    assert spoken[0] == segment.start
    assert segment.end <= spoken[-1] + CHUNK <= segment.end + SAMPLE_RATE // 2
    assert len(spoken) == (spoken[-1] - spoken[0]) // CHUNK + 1


@pytest.mark.parametrize('n', [160, 700])
def test_nothing_is_due_before_it_was_foreseen(recognizer, utterance, n):
    n_foreseen = 0
    for i in range(0, len(utterance), n):
        due, was_speaking = recognizer.voice.samples_until_due, recognizer.is_speaking
        block = utterance[i : i + n]
        estimates = recognizer.push(block, START + i * SAMPLE_NS)
        if len(block) < due:
            assert not estimates
            assert recognizer.is_speaking or not was_speaking
        elif not math.isinf(due):
            n_foreseen += bool(estimates)
    assert n_foreseen > 5
    assert math.isinf(recognizer.voice.samples_until_due)


def test_flush_decides_an_open_utterance_and_starts_a_new_stream(recognizer, utterance, expected):
    half = utterance[: len(utterance) // 2]
    estimates = recognizer.push(half, START)
    assert recognizer.is_speaking
    assert finals(estimates) == []
    (final,) = finals(recognizer.flush())
    assert START + SECOND < final.stamp_ns <= START + len(half) * SAMPLE_NS
    assert not recognizer.is_speaking
    assert recognizer.flush() == []
    later = START - 100 * SECOND
    again = process(recognizer, utterance, start=later)
    assert recognizer.counters.gaps == 0
    assert [e.stamp_ns - later for e in again] == [e.stamp_ns - START for e in expected]


def test_reset_drops_the_open_utterance_without_a_decision(recognizer, utterance, expected):
    recognizer.push(utterance[: len(utterance) // 2], START)
    recognizer.reset()
    assert not recognizer.is_speaking
    assert recognizer.flush() == []
    assert recognizer.counters.broken_utterances == 1
    assert recognizer.counters.utterances == 0
    assert same(process(recognizer, utterance), expected)
    assert recognizer.counters.gaps == 0


# Stamps


@pytest.mark.parametrize('jump', [SECOND // 2, -3_600 * SECOND])
def test_a_gap_decides_the_utterance_from_what_was_received(recognizer, utterance, jump):
    half = len(utterance) // 2
    before = recognizer.push(utterance[:half], START)
    assert recognizer.is_speaking
    assert finals(before) == []
    later = START + half * SAMPLE_NS + jump
    after = process(recognizer, utterance, start=later)
    assert recognizer.counters.gaps == 1
    assert recognizer.counters.broken_utterances == 0
    flushed = Recognizer(recognizer.backend.bundle, 'cpu')
    expected = flushed.push(utterance[:half], START) + flushed.flush()
    expected += process(flushed, utterance, start=later)
    assert len(finals(expected)) == 2
    assert same(before + after, expected)


def test_a_deviation_within_the_tolerance_changes_only_the_stamps(recognizer, utterance, expected):
    half = len(utterance) // 2
    estimates = recognizer.push(utterance[:half], START)
    n_before = len(estimates)
    late = START + half * SAMPLE_NS + SECOND // 10
    estimates += recognizer.push(utterance[half:], late) + recognizer.flush()
    assert recognizer.counters.gaps == 0
    assert len(estimates) == len(expected)
    for i, (estimate, other) in enumerate(zip(estimates, expected)):
        np.testing.assert_array_equal(estimate.probabilities, other.probabilities)
        assert estimate.stamp_ns - other.stamp_ns == (0 if i < n_before else SECOND // 10)


def test_a_gap_in_silence_breaks_no_utterance(recognizer):
    recognizer.push(np.zeros(1_000, np.float32), START)
    recognizer.push(np.zeros(1_000, np.float32), START + SECOND)
    assert recognizer.counters.gaps == 1
    assert recognizer.counters.broken_utterances == 0


# Decisions


def test_estimates_follow_the_classes_and_threshold_of_the_bundle(recognizer, speech):
    names = recognizer.info.class_names
    assert recognizer.info.threshold == 0.25
    for estimate in process(recognizer, speech):
        assert estimate.probabilities.shape == (len(names),)
        assert estimate.probabilities.sum() == pytest.approx(1)
        assert -1 <= estimate.valence <= 1
        assert -1 <= estimate.arousal <= 1
        if estimate.expression is not None:
            assert estimate.confidence >= 0.25
            assert estimate.expression in recognizer.voice.expressions.expressions


def test_a_constant_model_is_reported_unchanged(scripted, utterance):
    recognizer = scripted([logits_of([0.2, 0.7, 0.1])])
    for estimate in process(recognizer, utterance):
        np.testing.assert_allclose(estimate.probabilities, [0.2, 0.7, 0.1], rtol=1e-5)
        assert estimate.expression == 'happy'
        assert estimate.confidence == pytest.approx(0.7)
        assert estimate.valence == pytest.approx(0.7 * 0.81 - 0.1 * 0.63, abs=1e-6)
        assert estimate.arousal == pytest.approx(0.7 * 0.51 - 0.1 * 0.27, abs=1e-6)


def test_classes_of_one_expression_are_summed_before_the_decision(scripted, utterance):
    recognizer = scripted([logits_of([0.3, 0.4, 0.3])], class_names=('calm', 'happy', 'neutral'))
    for estimate in process(recognizer, utterance):
        assert estimate.expression == 'neutral'
        assert estimate.confidence == pytest.approx(0.6)
        assert int(estimate.probabilities.argmax()) == 1


def test_running_estimates_are_smoothed_and_windows_are_not(scripted, utterance):
    first, second = [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]
    recognizer = scripted([logits_of(first), logits_of(second)])
    estimates = process(recognizer, utterance)
    np.testing.assert_allclose(estimates[0].probabilities, first, rtol=1e-5)
    smoothed = np.log(first)
    for last, estimate in zip(estimates, estimates[1:]):
        if estimate.is_final:
            break
        np.testing.assert_allclose(estimate.probabilities, second, rtol=1e-5)
        keep = math.exp(-(estimate.stamp_ns - last.stamp_ns) / SECOND)
        smoothed = keep * smoothed + (1 - keep) * np.log(second)
        probabilities = np.exp(smoothed) / np.exp(smoothed).sum()
        index = recognizer.voice.expressions.expressions.index(estimate.expression)
        assert estimate.confidence == pytest.approx(probabilities[index], rel=1e-5)
    assert estimate.is_final


def test_smoothing_starts_again_with_each_utterance(scripted, speech, segments):
    recognizer = scripted([logits_of([0.1, 0.8, 0.1])])
    first = recognizer.push(speech[: segments[1].start], START)
    recognizer.backend.bundle.model.logits = torch.tensor([logits_of([0.2, 0.1, 0.7])])
    second = recognizer.push(speech[segments[1].start :], START + segments[1].start * SAMPLE_NS)
    assert finals(first)
    assert (second[0].expression, second[0].confidence) == ('sad', pytest.approx(0.7))


@pytest.mark.parametrize(('lead', 'changes'), [(0.0, True), (0.1, False)])
def test_a_running_decision_changes_only_for_a_clear_lead(scripted, utterance, lead, changes):
    """In the later windows, "sad" leads by 0.06."""
    recognizer = scripted(
        [logits_of([0.1, 0.5, 0.4])] + [logits_of([0.1, 0.42, 0.48])] * 100,
        config=StreamConfig(lead=lead, smoothing=0.1),
    )
    *running, final = process(recognizer, utterance)
    assert running[0].expression == 'happy'
    assert running[-1].expression == ('sad' if changes else 'happy')
    assert running[-1].confidence == pytest.approx(0.48 if changes else 0.42, abs=0.01)
    # The decision for the utterance is independent of the running decision.
    assert final.expression == 'sad'


@pytest.mark.parametrize(
    ('of_bundle', 'of_config', 'is_decided'),
    [
        (0.49, None, True),
        (0.51, None, False),
        (0.99, 0.49, True),
        (0.0, 0.51, False),
        (1.0, 0.0, True),
    ],
)
def test_below_the_threshold_no_expression_is_decided(
    scripted, utterance, of_bundle, of_config, is_decided
):
    recognizer = scripted(
        [logits_of([0.2, 0.7, 0.1])],
        config=StreamConfig(threshold=of_config),
        threshold=of_bundle,
    )
    estimates = process(recognizer, utterance)
    assert {e.expression for e in estimates} == ({'happy'} if is_decided else {None})
    for estimate in estimates:
        np.testing.assert_allclose(estimate.probabilities, [0.2, 0.7, 0.1], rtol=1e-5)
        assert estimate.confidence == pytest.approx(0.7)


# Errors


@pytest.mark.parametrize(
    'samples',
    [
        np.zeros(100),
        np.zeros(100, np.int16),
        np.zeros((100, 1), np.float32),
        np.float32(0),
        np.array([0, np.nan], np.float32),
        np.array([np.inf, 0], np.float32),
    ],
    ids=['float64', 'int16', 'two axes', 'no axis', 'NaN', 'infinite'],
)
def test_invalid_samples_are_refused_and_change_nothing(recognizer, utterance, expected, samples):
    half = len(utterance) // 2
    estimates = recognizer.push(utterance[:half], START)
    with pytest.raises(ValueError, match='float32'):
        recognizer.push(samples, START + half * SAMPLE_NS)
    estimates += recognizer.push(utterance[half:], START + half * SAMPLE_NS)
    assert same(estimates + recognizer.flush(), expected)


@pytest.fixture
def fail(bundle):
    """A function that makes the model raise an error in these calls, counted from one."""
    handles = []

    def arrange(error, calls):
        count = iter(range(1, 1_000))

        def hook(module, inputs):
            if next(count) in calls:
                raise error

        handles.append(bundle.model.register_forward_pre_hook(hook))

    yield arrange
    for handle in handles:
        handle.remove()


def test_a_window_without_gpu_memory_is_skipped_and_counted(recognizer, utterance, expected, fail):
    fail(torch.OutOfMemoryError('CUDA out of memory'), {2, 3})
    *running, final = process(recognizer, utterance)
    assert recognizer.counters.skipped_windows == 2
    assert recognizer.counters.windows == len(expected) - 1 - 2
    kept = [expected[0], *expected[3:-1]]
    assert [e.stamp_ns for e in running] == [e.stamp_ns for e in kept]
    for estimate, other in zip(running, kept):
        np.testing.assert_array_equal(estimate.probabilities, other.probabilities)
    pooled = [np.log(e.probabilities) for e in kept if e.n_samples == final.n_samples]
    mean = np.exp(np.mean(pooled, axis=0))
    np.testing.assert_allclose(final.probabilities, mean / mean.sum(), rtol=1e-6)


def test_an_utterance_without_any_window_has_no_decision(recognizer, utterance, expected, fail):
    fail(torch.OutOfMemoryError('CUDA out of memory'), range(1, len(expected)))
    assert process(recognizer, utterance) == []
    assert recognizer.counters.skipped_windows == len(expected) - 1
    assert recognizer.counters.utterances == 0
    assert same(process(recognizer, utterance), expected)


def test_any_other_error_of_the_device_is_raised(recognizer, utterance, fail):
    fail(RuntimeError('CUDA error: device-side assert triggered'), {1})
    with pytest.raises(RuntimeError, match='device-side assert'):
        process(recognizer, utterance)


@pytest.mark.parametrize(
    ('setting', 'value'),
    [
        ('hop', 0.0),
        ('hop', -1.0),
        ('hop', math.nan),
        ('hop', math.inf),
        ('end_silence', 0.0),
        ('smoothing', 0.0),
        ('min_utterance', 0.0),
        ('min_utterance', 0.05),
        ('min_utterance', 2.0),
        ('first_estimate', 20.0),
        ('preroll', -0.1),
        ('max_utterance', 0.1),
        ('max_utterance', math.inf),
        ('gap_tolerance', -1.0),
        ('gap_tolerance', math.nan),
        ('vad_threshold', math.nan),
        ('threshold', math.nan),
    ],
)
def test_invalid_settings_are_named(setting, value):
    with pytest.raises(SerError, match=setting) as refusal:
        StreamConfig(**{setting: value})
    assert '\n' not in str(refusal.value)


@pytest.mark.parametrize(
    'settings',
    [
        {'hop': 0.03, 'first_estimate': 0.5},
        {'hop': 5.0},
        {'first_estimate': 0.2, 'min_utterance': 0.2, 'preroll': 0.0},
        {'first_estimate': 10.0},
        {'preroll': 0.5},
        {'end_silence': 0.1},
    ],
    ids=str,
)
def test_settings_near_their_limits_work(bundle, utterance, settings):
    recognizer = Recognizer(bundle, 'cpu', StreamConfig(**settings))
    estimates = process(recognizer, utterance)
    assert recognizer.counters.windows == len(windows(estimates)) > 0
    stamps = [estimate.stamp_ns for estimate in estimates]
    assert stamps == sorted(stamps)


# Devices


def test_warm_up_changes_nothing(recognizer, utterance, expected):
    recognizer.backend.warm_up()
    assert recognizer.counters.windows == 0
    assert same(process(recognizer, utterance), expected)


def test_cpu_is_available():
    assert select_device('cpu') == torch.device('cpu')


@pytest.mark.parametrize('name', ['', 'gpu', 'cuda:x', 'cuda:-1', 'meta', 'CUDA', 'xla'])
def test_an_invalid_device_is_refused(name):
    with pytest.raises(SerError, match='auto, cpu, cuda') as refusal:
        select_device(name)
    assert '\n' not in str(refusal.value)


without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason='there is a CUDA device')


@without_gpu
@pytest.mark.parametrize('name', ['cuda', 'cuda:0', 'cuda:3'])
def test_an_explicit_gpu_that_is_missing_is_refused(bundle, name):
    with pytest.raises(SerError, match=rf"device '{name}' is not there"):
        Recognizer(bundle, name)


@without_gpu
def test_auto_falls_back_with_one_warning(bundle, caplog):
    with caplog.at_level(logging.WARNING):
        recognizer = Recognizer(bundle, 'auto')
    assert recognizer.backend.device == 'cpu'
    assert [record.levelname for record in caplog.records] == ['WARNING']


with_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')


@pytest.mark.cuda
@with_gpu
@pytest.mark.parametrize('name', ['auto', 'cuda', 'cuda:0'])
def test_a_gpu_computes_the_same_estimates(bundle_path, utterance, expected, name):
    recognizer = Recognizer(load_bundle(bundle_path), name)
    recognizer.backend.warm_up()
    assert recognizer.backend.device.startswith('cuda')
    assert next(recognizer.backend.bundle.model.parameters()).is_cuda
    estimates = process(recognizer, utterance)
    assert [e.stamp_ns for e in estimates] == [e.stamp_ns for e in expected]
    for estimate, other in zip(estimates, expected):
        np.testing.assert_allclose(estimate.probabilities, other.probabilities, atol=1e-3)


@pytest.mark.cuda
@with_gpu
def test_moving_to_the_cpu_keeps_the_estimates(bundle_path, utterance, expected):
    recognizer = Recognizer(load_bundle(bundle_path), 'cuda')
    recognizer.backend.to('cpu')
    assert not any(parameter.is_cuda for parameter in recognizer.backend.bundle.model.parameters())
    assert same(process(recognizer, utterance), expected)


@pytest.mark.cuda
@with_gpu
def test_a_full_gpu_skips_windows_until_memory_is_free(bundle_path, utterance, expected):
    recognizer = Recognizer(load_bundle(bundle_path), 'cuda')
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-6)
    try:
        assert process(recognizer, utterance) == []
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert recognizer.counters.skipped_windows == len(expected) - 1
    assert len(process(recognizer, utterance)) == len(expected)


@pytest.mark.cuda
@with_gpu
def test_a_gpu_number_that_does_not_exist_is_refused(bundle):
    name = f'cuda:{torch.cuda.device_count()}'
    with pytest.raises(SerError, match='is not there'):
        Recognizer(bundle, name)


def test_is_speaking_stays_true_when_an_utterance_is_cut(bundle, utterance):
    config = StreamConfig(max_utterance=1.0)
    recognizer = Recognizer(bundle, 'cpu', config)
    changes, n_finals = [], 0
    for start in range(0, len(utterance), 100):
        estimates = recognizer.push(utterance[start : start + 100], start * SECOND // SAMPLE_RATE)
        n_finals += sum(estimate.is_final for estimate in estimates)
        if not changes or recognizer.is_speaking != changes[-1]:
            changes.append(recognizer.is_speaking)
    assert n_finals >= 3
    assert changes == [False, True, False]


# Several voices, and another bundle


@pytest.mark.parametrize('architecture', ['parallel_cnn_transformer', 'parallel_fusion'])
def test_voices_have_the_same_estimates_together_as_alone(
    write_bundle, tmp_path, speech, utterance, architecture
):
    path = write_bundle(
        tmp_path / 'other.safetensors', architecture=architecture, hyperparameters={}
    )
    bundle = load_bundle(path)
    sizes = []
    bundle.model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    delayed = np.concatenate((np.zeros(3_000, np.float32), utterance))
    sounds = [speech[: 7 * SAMPLE_RATE], utterance, 0.3 * speech[-9 * SAMPLE_RATE :], delayed]
    found = run_together(TorchBackend(bundle, 'cpu'), sounds)
    assert max(sizes) > 1
    assert sum(sizes) == sum(e.is_window for estimates in found for e in estimates)
    for sound, estimates in zip(sounds, found):
        alone = Recognizer(bundle, 'cpu')
        expected = [
            estimate
            for first in range(0, len(sound), 1_600)
            for estimate in alone.push(sound[first : first + 1_600], START + first * SAMPLE_NS)
        ]
        assert len(estimates) == len(expected) > 3
        for estimate, other in zip(estimates, expected):
            np.testing.assert_allclose(estimate.probabilities, other.probabilities, atol=1e-5)
            assert estimate.stamp_ns == other.stamp_ns
            assert estimate.is_final == other.is_final
            assert estimate.confidence == pytest.approx(other.confidence, abs=1e-5)


def test_voices_that_do_not_fit_into_memory_together_are_classified_one_by_one(
    recognizer, utterance, expected
):
    def hook(module, inputs):
        if len(inputs[0]) > 1:
            raise torch.OutOfMemoryError('CUDA out of memory')

    handle = recognizer.backend.bundle.model.register_forward_pre_hook(hook)
    found = run_together(recognizer.backend, [utterance, utterance])
    handle.remove()
    assert all(same(estimates, expected) for estimates in found)


@pytest.mark.parametrize(
    'frontend',
    [LogMelConfig(), LogMelConfig(n_mels=40, n_fft=1024, win_length=1024, hop_length=256)],
    ids=['the same front-end', 'another front-end'],
)
def test_another_bundle_continues_within_an_utterance(
    write_bundle, tmp_path, bundle, utterance, frontend
):
    """Windows of the new model also contain the speech from before the change."""
    path = write_bundle(tmp_path / 'new.safetensors', frontend=frontend, threshold=0.0)
    new = load_bundle(path)
    recognizer = Recognizer(bundle, 'cpu')
    half = len(utterance) // 2 + 100
    before = recognizer.push(utterance[:half], START)
    assert before
    recognizer.replace_bundle(new)
    after = recognizer.push(utterance[half:], START + half * SAMPLE_NS) + recognizer.flush()
    expected = process(Recognizer(new, 'cpu'), utterance)
    assert [e.stamp_ns for e in before + after] == [e.stamp_ns for e in expected]
    hop = frontend.hop_length * SAMPLE_NS
    for estimate, other in zip(windows(after), windows(expected)[len(before) :]):
        if frontend == LogMelConfig():
            np.testing.assert_allclose(estimate.probabilities, other.probabilities, atol=1e-6)
        assert abs(estimate.n_samples - other.n_samples) <= hop
    assert recognizer.counters.windows == len(windows(expected))
    assert recognizer.counters.broken_utterances == 0


def test_a_bundle_that_cannot_stream_does_not_replace_the_old_one(
    recognizer, write_bundle, tmp_path, utterance, expected
):
    path = write_bundle(tmp_path / 'whole.safetensors', frontend=ResearchConfig())
    first = recognizer.push(utterance[:20_000], START)
    with pytest.raises(BundleError, match='48000 Hz'):
        recognizer.replace_bundle(load_bundle(path))
    rest = recognizer.push(utterance[20_000:], START + 20_000 * SAMPLE_NS)
    assert same(first + rest + recognizer.flush(), expected)


# --- Classes of one's own


def test_a_class_of_ones_own_is_decided_by_its_expression(write_bundle, tmp_path, utterance):
    own = {'weary': Emotion('tired', -0.18, -0.57)}
    path = write_bundle(
        tmp_path / 'own.safetensors',
        class_names=('neutral', 'weary'),
        classes=own,
        threshold=0.0,
    )
    bundle = load_bundle(path)
    with torch.no_grad():
        bundle.model.classifier.bias[1] += 50
    estimates = process(Recognizer(bundle, 'cpu'), utterance)
    assert {e.expression for e in estimates} == {'tired'}
    assert finals(estimates)[0].arousal == pytest.approx(-0.57, abs=1e-3)

"""The listener: one thread processes several voices, in order, also while settings change."""

import dataclasses
import threading
import time

import numpy as np
import pytest
import soxr

from ser_ros import HangError
from ser_ros.audio import SAMPLE_RATE, SECOND, pace
from ser_ros.audio.block_queue import BlockQueue
from ser_ros.audio.formats import PcmFormat, encode_s16le
from ser_ros.audio.vad import CHUNK
from ser_ros.bundle import load_bundle
from ser_ros.bundle_info import BundleError
from ser_ros.frontend_config import ResearchConfig
from ser_ros.stream import listener as listener_module
from ser_ros.stream.listener import MAX_BLOCKS, STEP, TICK, Listener, Load
from ser_ros.stream.recognizer import Recognizer
from ser_ros.stream.torch_backend import TorchBackend
from ser_ros.stream.types import StreamConfig

START = 1_700_000_000 * SECOND
MONO = PcmFormat('S16LE', 1, SAMPLE_RATE)
CHUNK_NS = CHUNK * SECOND // SAMPLE_RATE


class Recorder:
    """The results that a stream reported."""

    def __init__(self):
        self.estimates, self.frames, self.speaking = [], [], []
        self._changed = threading.Condition()

    def on_estimate(self, estimate, frame_id):
        with self._changed:
            self.estimates.append(estimate)
            self.frames.append(frame_id)
            self._changed.notify_all()

    def on_speaking(self, is_speaking):
        with self._changed:
            self.speaking.append(is_speaking)
            self._changed.notify_all()

    def wait(self, condition, what):
        with self._changed:
            assert self._changed.wait_for(condition, 60), what


class Worker:
    """A listener, its thread, and streams with queues to put sound into."""

    def __init__(self, bundle, config=None):
        self.listener = Listener(TorchBackend(bundle, 'cpu'), config or StreamConfig())
        self.errors = []
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        try:
            self.listener.run()
        except Exception as error:
            self.errors.append(error)

    def add(self, pcm_format=MONO, max_backlog=3600.0):
        recorder = Recorder()
        queue = BlockQueue(max_backlog, pcm_format=pcm_format, ready=self.listener.ready)
        return self.listener.add(queue, recorder.on_estimate, recorder.on_speaking), recorder

    def start(self):
        self._thread.start()

    def stop(self):
        self.listener.stop()
        self._thread.join(10)
        assert not self._thread.is_alive()


@pytest.fixture
def worker(bundle):
    worker = Worker(bundle)
    yield worker
    if worker._thread.is_alive():
        worker.stop()


def feed(stream, samples, start=0, block=480):
    """Put the samples from `start` on into the queue, as blocks with their stamps."""
    for first in range(start, len(samples), block):
        data = encode_s16le(samples[first : first + block])
        stream.queue.put(data, START + first * SECOND // SAMPLE_RATE, 0, f'at {first}')


def quantize(samples):
    """The samples after encoding as S16LE and decoding, as if sent in a message."""
    return MONO.decode(encode_s16le(samples))[:, 0]


def recognize(bundle, samples):
    """The estimates of a `Recognizer` for the sound that `feed` sends, after which nothing comes."""
    recognizer = Recognizer(bundle, 'cpu')
    return recognizer.push(quantize(samples), START) + recognizer.flush()


def same(estimates, others):
    """Whether the estimates are exactly equal."""
    return len(estimates) == len(others) and all(
        np.array_equal(a.probabilities, b.probabilities)
        and (a.stamp_ns, a.expression, a.is_final) == (b.stamp_ns, b.expression, b.is_final)
        for a, b in zip(estimates, others)
    )


def test_one_voice_is_processed_as_by_a_recognizer(worker, bundle, utterance):
    stream, recorder = worker.add()
    worker.start()
    feed(stream, utterance)
    expected = recognize(bundle, utterance)
    recorder.wait(lambda: len(recorder.estimates) == len(expected), 'all estimates')
    assert same(recorder.estimates, expected)
    assert recorder.speaking == [False, True, False]
    assert recorder.frames[0].startswith('at ')
    assert worker.listener.load.real_time_factor > 0


def test_the_load_is_the_work_per_second_of_sound():
    load = Load()
    assert load.real_time_factor is None
    load.add(busy=0.5, sound=0.02)  # the processor was late for one block
    assert load.real_time_factor is None
    load.add(busy=1.0, sound=3.0)
    assert load.real_time_factor == pytest.approx(0.5, rel=0.05)
    for _ in range(300):
        load.add(busy=0.2, sound=1.0)
    assert load.real_time_factor == pytest.approx(0.2, abs=1e-3)


def test_voices_do_not_influence_each_other(worker, bundle, speech, utterance):
    sounds = [utterance, 0.5 * speech, utterance[::-1].copy()]
    streams = [worker.add() for _ in sounds]
    for (stream, _), sound in zip(streams, sounds):
        feed(stream, sound)
    worker.start()
    for (_, recorder), sound in zip(streams, sounds):
        expected = recognize(bundle, sound)
        recorder.wait(lambda: len(recorder.estimates) == len(expected), 'all estimates')  # noqa: B023
        for estimate, other in zip(recorder.estimates, expected):
            np.testing.assert_allclose(estimate.probabilities, other.probabilities, atol=1e-5)
            assert estimate.stamp_ns == other.stamp_ns


def test_voices_can_be_added_and_removed(worker, utterance):
    kept, recorder = worker.add()
    worker.start()
    removed, removed_recorder = worker.add()
    half = len(utterance) // 2
    feed(removed, utterance[:half])
    removed_recorder.wait(
        lambda: removed_recorder.speaking == [False, True], 'the start of speech'
    )
    worker.listener.remove(removed)
    assert worker.listener.streams == (kept,)
    assert removed_recorder.speaking == [False, True, False]
    n_before = len(removed_recorder.estimates)
    feed(removed, utterance, start=half)
    feed(kept, utterance)
    recorder.wait(lambda: recorder.speaking == [False, True, False], 'the other voice')
    assert len(removed_recorder.estimates) == n_before


# --- More sound than there is time for


def times(estimates):
    return [estimate.stamp_ns for estimate in estimates]


def finals(estimates):
    return [estimate for estimate in estimates if estimate.is_final]


def test_a_voice_that_is_behind_catches_up_without_windows(worker, bundle, speech, utterance):
    """More than half of what may wait does: nothing is dropped, each utterance is decided."""
    stream, recorder = worker.add(max_backlog=1.8 * len(speech) / SAMPLE_RATE)
    feed(stream, speech)
    expected = recognize(bundle, speech)
    worker.start()
    wait_for_samples(stream, len(speech))
    counters = stream.voice.counters
    assert times(finals(recorder.estimates)) == times(finals(expected))
    assert counters.windows + counters.skipped_windows == sum(e.is_window for e in expected)
    assert counters.skipped_windows > 3 * counters.windows > 0
    assert stream.queue.counters.dropped_blocks == counters.broken_utterances == 0
    n_before, n_skipped = len(recorder.estimates), counters.skipped_windows
    for first in range(0, len(utterance), 480):  # and then it is as before
        data = encode_s16le(utterance[first : first + 480])
        stamp_ns = START + 60 * SECOND + first * SECOND // SAMPLE_RATE
        stream.queue.put(data, stamp_ns, 0, 'later')
    expected = recognize(bundle, utterance)
    recorder.wait(lambda: len(recorder.estimates) == n_before + len(expected), 'its estimates')
    assert counters.skipped_windows == n_skipped


@pytest.mark.parametrize(
    ('max_backlog', 'share'), [(3600.0, 1), (60.0, 2)], ids=['in time', 'behind']
)
@pytest.mark.parametrize('block', [40, 480, 16_000])
def test_a_voice_that_floods_does_not_delay_another(
    worker, bundle, speech, utterance, max_backlog, share, block
):
    """As much sound of it is processed as of the other, or twice; less where its blocks are tiny."""
    flood, flood_recorder = worker.add(max_backlog=max_backlog)
    live, recorder = worker.add()
    feed(flood, np.tile(speech, 2), block=block)
    began, seen = [], []

    def on_speaking(is_speaking):
        flood_recorder.on_speaking(is_speaking)
        if is_speaking and not began:
            began.append(flood.voice.counters.samples)
            feed(live, utterance)

    def on_estimate(estimate, frame_id):
        recorder.on_estimate(estimate, frame_id)
        seen.append((flood.voice.counters.samples - began[0], live.voice.counters.samples))

    flood.on_speaking, live.on_estimate = on_speaking, on_estimate
    worker.start()
    expected = recognize(bundle, utterance)
    recorder.wait(lambda: len(recorder.estimates) == len(expected), 'all estimates')
    assert flood.has_sound
    assert flood.is_behind == (flood.voice.counters.skipped_windows > 0) == (share > 1)
    for of_flood, of_live in seen:
        assert of_flood <= min(share, MAX_BLOCKS * block / STEP) * (of_live + 2 * STEP)
    assert times(recorder.estimates) == times(expected)
    for estimate, other in zip(recorder.estimates, expected):
        np.testing.assert_allclose(estimate.probabilities, other.probabilities, atol=1e-5)
    assert live.voice.counters.skipped_windows == live.queue.counters.dropped_blocks == 0


def test_a_voice_that_is_behind_catches_up_while_others_speak(worker, speech, monkeypatch):
    """They send as much in each round as is processed of each; it began three seconds earlier."""
    sound = speech[: 12 * SAMPLE_RATE]
    streams = [worker.add(max_backlog=4.0)[0] for _ in range(3)]
    sent, wait = [0, 0, 0], worker.listener._wait

    def send(index, n):
        first = sent[index]
        feed(streams[index], sound[: first + n], start=first, block=320)
        sent[index] = min(len(sound), first + n)

    def send_and_wait():
        for index in range(3):
            send(index, STEP)
        return wait()

    send(0, 3 * SAMPLE_RATE)
    monkeypatch.setattr(worker.listener, '_wait', send_and_wait)
    worker.start()
    for stream in streams:
        wait_for_samples(stream, len(sound))
    skipped = [stream.voice.counters.skipped_windows for stream in streams]
    assert skipped[0] > 5
    assert streams[0].voice.counters.windows > 10
    assert skipped[1:] == [0, 0]


# --- The end of the sound


def is_decided(recorder, n=1):
    """Whether so many utterances are decided and nobody speaks."""
    n_finals = sum(e.is_final for e in recorder.estimates)
    return n_finals == n and recorder.speaking[-1] is False


def test_an_utterance_is_decided_when_the_sound_stops(worker, bundle, utterance):
    """In the middle of a word, as a driver does that stops with the voice, or dies."""
    stream, recorder = worker.add()
    worker.start()
    spoken = utterance[: 2 * SAMPLE_RATE]
    feed(stream, spoken)
    recorder.wait(lambda: is_decided(recorder), 'the decision')
    assert same(recorder.estimates, recognize(bundle, spoken))
    assert recorder.speaking == [False, True, False]
    assert stream.voice.counters.broken_utterances == 0


def test_an_utterance_in_one_message_is_decided_like_live_sound(
    worker, bundle, utterance, monkeypatch
):
    monkeypatch.setattr(pace, 'REPLAY_PATIENCE', 600.0)
    stream, recorder = worker.add()
    worker.start()
    spoken = utterance[: 3 * SAMPLE_RATE]
    feed(stream, spoken, block=len(spoken))
    recorder.wait(lambda: is_decided(recorder), 'the decision')
    assert same(recorder.estimates, recognize(bundle, spoken))


@pytest.mark.parametrize('rate', [SAMPLE_RATE, 48_000])
def test_gated_sound_is_reported_alike_at_any_speed(bundle, utterance, rate):
    """It comes only while somebody speaks; the next word comes at once, or after the end is seen."""
    spoken = utterance[8_000 : 8_000 + 2 * SAMPLE_RATE]
    sent = soxr.resample(spoken, SAMPLE_RATE, rate)
    runs = []
    for waits in (False, True):
        worker = Worker(bundle)
        stream, recorder = worker.add(PcmFormat('S16LE', 1, rate))
        worker.start()
        for n in range(2):
            start = START + n * 20 * SECOND
            for first in range(0, len(sent), rate // 50):
                data = encode_s16le(sent[first : first + rate // 50])
                stream.queue.put(data, start + first * SECOND // rate, 0, f'utterance {n}')
            if waits:
                recorder.wait(lambda: is_decided(recorder, n + 1), 'the decision')  # noqa: B023
        recorder.wait(lambda: is_decided(recorder, 2), 'both decisions')  # noqa: B023
        worker.stop()
        runs.append(recorder)
    fast, slow = runs
    assert same(fast.estimates, slow.estimates)
    assert fast.frames == slow.frames
    assert fast.speaking == slow.speaking == [False, True, False, True, False]
    last = [n for n, e in zip(fast.frames, fast.estimates) if e.is_final]
    assert last == ['utterance 0', 'utterance 1']


def test_unstamped_utterances_are_told_apart_by_their_arrival(worker, utterance):
    stream, recorder = worker.add()
    spoken = encode_s16le(utterance[: 2 * SAMPLE_RATE])
    for start in (START, START + 14 * SECOND):
        for n in range(100):
            data = spoken[640 * n : 640 * (n + 1)]
            stream.queue.put(data, None, start + (n + 1) * SECOND // 50, '')
    worker.start()
    recorder.wait(lambda: is_decided(recorder, 2), 'both decisions')
    first, second = (e.stamp_ns for e in recorder.estimates if e.is_final)
    assert START < first <= START + 2 * SECOND
    assert abs(second - first - 14 * SECOND) < SECOND // 10
    assert stream.voice.counters.gaps == 1


def test_a_replay_that_pauses_is_reported_as_without_a_pause(worker, bundle, utterance):
    stream, recorder = worker.add()
    worker.start()
    half = len(utterance) // 2 // 480 * 480
    feed(stream, utterance[:half])
    time.sleep(1.5)
    feed(stream, utterance, start=half)
    expected = recognize(bundle, utterance)
    recorder.wait(lambda: len(recorder.estimates) == len(expected), 'all estimates')
    assert same(recorder.estimates, expected)
    assert recorder.speaking == [False, True, False]


def test_long_blocks_that_follow_each_other_are_one_utterance(worker, bundle, utterance):
    """Each comes when its last sample is in: for longer than a second nothing comes."""
    stream, recorder = worker.add()
    worker.start()
    silence = np.zeros(6 * SAMPLE_RATE // 5, np.float32)
    sound = np.concatenate((silence, silence, utterance[: 3 * SAMPLE_RATE]))
    for first in range(0, len(sound), len(silence)):
        time.sleep(1.2)
        data = encode_s16le(sound[first : first + len(silence)])
        stream.queue.put(data, START + first * SECOND // SAMPLE_RATE, 0, '')
    expected = recognize(bundle, sound)
    recorder.wait(lambda: len(recorder.estimates) == len(expected), 'all estimates')
    assert same(recorder.estimates, expected)


def test_a_voice_that_is_removed_is_decided_from_all_that_it_sent(worker, bundle, utterance):
    stream, recorder = worker.add()
    worker.start()
    spoken = utterance[: 2 * SAMPLE_RATE]
    feed(stream, spoken)
    worker.listener.remove(stream)
    assert same(recorder.estimates, recognize(bundle, spoken))
    assert recorder.speaking[-1] is False


def test_an_error_while_a_voice_is_removed_ends_the_worker(worker, utterance):
    stream, recorder = worker.add()

    def fail(*_):
        raise RuntimeError('CUDA error')

    worker.start()
    recorder.wait(lambda: recorder.speaking == [False], 'the start')
    stream.on_estimate = fail
    feed(stream, utterance[: 2 * SAMPLE_RATE])
    worker.listener.remove(stream)
    worker._thread.join(60)
    assert [str(error) for error in worker.errors] == ['CUDA error']


def test_open_utterances_are_decided_at_the_end(worker, bundle, utterance):
    stream, recorder = worker.add()
    worker.start()
    spoken = utterance[: 2 * SAMPLE_RATE]
    feed(stream, spoken)
    recorder.wait(lambda: stream.voice.counters.samples == len(spoken), 'all samples')
    worker.stop()
    assert same(recorder.estimates, recognize(bundle, spoken))
    assert recorder.speaking == [False, True, False]


def test_sound_that_was_dropped_ends_the_utterance_before_it(worker, bundle, utterance):
    stream, recorder = worker.add(max_backlog=5.0)
    spoken = utterance[: 2 * SAMPLE_RATE]
    feed(stream, spoken)
    worker.start()
    recorder.wait(lambda: stream.voice.counters.samples == len(spoken), 'the first samples')
    stream.queue.skip(bytes(2), START, 0)
    feed(stream, utterance, start=8_000)
    recorder.wait(lambda: is_decided(recorder, 2), 'both decisions')
    expected = recognize(bundle, spoken)
    assert same(recorder.estimates[: len(expected)], expected)
    assert stream.voice.counters.broken_utterances == 0


def test_a_bundle_is_replaced_between_two_windows(
    worker, bundle, write_bundle, tmp_path, utterance
):
    new = load_bundle(write_bundle(tmp_path / 'new.safetensors', temperature=30.0))
    stream, recorder = worker.add()
    worker.start()
    half = len(utterance) // 2
    feed(stream, utterance[:half])
    recorder.wait(lambda: recorder.estimates, 'estimates of the old bundle')
    worker.listener.replace_backend(TorchBackend(new, 'cpu'))
    n_before = len(recorder.estimates)
    feed(stream, utterance, start=half // 480 * 480 + 480)
    recorder.wait(lambda: recorder.estimates[-1].is_final, 'the decision')
    assert stream.voice.counters.gaps == 0
    assert min(e.confidence for e in recorder.estimates[:n_before]) > 0.25
    assert max(e.probabilities.max() for e in recorder.estimates[n_before:]) < 0.25
    assert worker.listener.backend.bundle is new


def test_a_bundle_that_cannot_stream_is_refused(write_bundle, tmp_path):
    bad = load_bundle(write_bundle(tmp_path / 'bad.safetensors', frontend=ResearchConfig()))
    with pytest.raises(BundleError, match='made for 48000 Hz'):
        TorchBackend(bad, 'cpu')


@pytest.mark.parametrize('is_running', [True, False])
def test_settings_change_during_speech(worker, utterance, is_running):
    stream, recorder = worker.add()
    if is_running:
        worker.start()
    config = StreamConfig(hop=0.5, threshold=1.0, end_silence=0.8, gain_db=-6.0)
    worker.listener.configure(config)
    if not is_running:
        worker.start()
    feed(stream, utterance)
    recorder.wait(lambda: recorder.speaking == [False, True, False], 'the end of speech')
    running = [e.stamp_ns for e in recorder.estimates if not e.is_final]
    assert (abs(np.diff(running[:-1]) - SECOND // 2) < CHUNK_NS).all()
    assert {e.expression for e in recorder.estimates} == {None}
    new, _ = worker.add()
    assert new.voice.config == config


def test_a_reset_drops_the_open_utterance(worker, utterance):
    stream, recorder = worker.add()
    worker.start()
    feed(stream, utterance[: 2 * SAMPLE_RATE])
    recorder.wait(lambda: recorder.speaking == [False, True], 'the start of speech')
    worker.listener.reset()
    assert recorder.speaking == [False, True, False]
    assert stream.voice.counters.broken_utterances == 1
    assert stream.queue.backlog_bytes == 0
    assert not any(e.is_final for e in recorder.estimates)


def test_one_voice_is_reset_alone(worker, bundle, utterance):
    (one, recorder), (other, other_recorder) = worker.add(), worker.add()
    spoken = utterance[: 2 * SAMPLE_RATE]
    for stream in (one, other):
        feed(stream, spoken)
    worker.start()
    for stream in (one, other):
        wait_for_samples(stream, len(spoken))
    worker.listener.reset([one])
    other_recorder.wait(lambda: is_decided(other_recorder), 'the decision')
    assert times(other_recorder.estimates) == times(recognize(bundle, spoken))
    assert not finals(recorder.estimates)
    assert (one.voice.counters.broken_utterances, other.voice.counters.broken_utterances) == (1, 0)


def test_the_hop_changes_within_an_utterance(bundle, utterance):
    """The distance of the next window from the last one follows the new setting."""
    recognizer = Recognizer(bundle, 'cpu', StreamConfig(hop=5.0))
    cut = 2 * SAMPLE_RATE
    before = recognizer.push(utterance[:cut], START)
    assert len(before) == 1
    recognizer.configure(StreamConfig(hop=0.25))
    after = recognizer.push(utterance[cut:], START + cut * SECOND // SAMPLE_RATE)
    running = [e.stamp_ns for e in after if not e.is_final]
    assert abs(running[0] - START - 2 * SECOND) < SECOND // 10
    assert abs(running[1] - running[0] - SECOND // 4) < CHUNK_NS


def feed_a_minute(stream):
    """Put a minute of silence as one block: seconds of work that must be interruptible."""
    stream.queue.put(encode_s16le(np.zeros(60 * SAMPLE_RATE)), START, 0, 'long')


def wait_for_samples(stream, n=1):
    deadline = time.monotonic() + 60
    while stream.voice.counters.samples < n:
        assert time.monotonic() < deadline, f'{n} samples were not processed in 60 s'
        time.sleep(0.001)


def processed_or_skipped_seconds(stream):
    return stream.voice.counters.samples / SAMPLE_RATE + stream.queue.counters.skipped_seconds


def test_a_listener_stops_within_a_block_and_counts_the_rest(worker):
    stream, _ = worker.add()
    feed_a_minute(stream)
    worker.start()
    wait_for_samples(stream)
    worker.listener.stop()
    worker._thread.join(60)
    assert stream.voice.counters.samples < 50 * SAMPLE_RATE
    worker.listener.remove(stream)
    assert processed_or_skipped_seconds(stream) == pytest.approx(60.0)


def test_calls_between_windows_do_not_wait_for_the_end_of_a_block(worker):
    stream, _ = worker.add()
    feed_a_minute(stream)
    worker.start()
    wait_for_samples(stream)
    worker.listener.reset()
    assert stream.voice.counters.samples < 50 * SAMPLE_RATE
    assert processed_or_skipped_seconds(stream) == pytest.approx(60.0)
    assert stream.queue.counters.seconds == 60.0


def test_an_error_of_a_callback_ends_run_with_that_error(worker, utterance):
    stream, _ = worker.add()

    def fail(*_):
        raise RuntimeError('CUDA error')

    stream.on_estimate = fail
    worker.start()
    feed(stream, utterance)
    worker._thread.join(60)
    assert [str(error) for error in worker.errors] == ['CUDA error']
    worker.listener.configure(dataclasses.replace(StreamConfig(), hop=1.0))  # does not wait


def test_gain_scales_the_samples(bundle, utterance):
    samples = quantize(utterance)
    gained = Recognizer(bundle, 'cpu', StreamConfig(gain_db=-12.0)).push(samples, START)
    scaled = Recognizer(bundle, 'cpu').push(np.float32(10 ** (-12 / 20)) * samples, START)
    assert same(gained, scaled)


@pytest.fixture
def hanging(worker, utterance, monkeypatch):
    """A worker whose model never returns; at the end of the test it does."""
    monkeypatch.setattr(listener_module, 'PATIENCE', 0.5)
    begun, released = threading.Event(), threading.Event()

    def hang(*_):
        begun.set()
        released.wait(60)

    handle = worker.listener.backend.bundle.model.register_forward_pre_hook(hang)
    stream, _ = worker.add()
    worker.start()
    feed(stream, utterance)
    assert begun.wait(60)
    yield worker, stream
    released.set()
    handle.remove()


ERRANDS = {
    'remove': lambda listener, stream: listener.remove(stream),
    'reset': lambda listener, _: listener.reset(voices=True),
    'configure': lambda listener, _: listener.configure(StreamConfig(hop=0.5)),
    'replace_bundle': lambda listener, _: listener.replace_backend(listener.backend),
}


@pytest.mark.parametrize('errand', ERRANDS)
def test_nobody_waits_for_a_model_that_never_returns(hanging, errand):
    worker, stream = hanging
    start = time.monotonic()
    for _ in range(20):  # a second wait would be as long again
        with pytest.raises(HangError, match='the worker hangs'):
            ERRANDS[errand](worker.listener, stream)
    assert time.monotonic() - start < 5.0


def test_a_model_that_never_returns_is_noticed_by_itself(hanging, monkeypatch):
    worker, _ = hanging
    monkeypatch.setattr(listener_module, 'PATIENCE', 10.0)
    for _ in range(10):
        worker.listener.check_progress()
    with pytest.raises(HangError, match='done nothing for 10 s'):
        worker.listener.check_progress()


def test_a_worker_without_sound_does_not_hang(worker, monkeypatch):
    monkeypatch.setattr(listener_module, 'PATIENCE', 2.0)
    for _ in range(5):  # before it runs
        worker.listener.check_progress()
    worker.add()
    worker.start()
    for _ in range(3):
        time.sleep(4 * TICK)
        worker.listener.check_progress()

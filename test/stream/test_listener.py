"""Voices at one model, heard by a thread: in order, together, and while things change."""

import dataclasses
import threading
import time

import numpy as np
import pytest

from ser_ros.audio import SAMPLE_RATE, SECOND
from ser_ros.audio.block_queue import BlockQueue
from ser_ros.audio.formats import PcmFormat, encode_s16le
from ser_ros.bundle import BundleError, load_bundle
from ser_ros.features import ResearchConfig
from ser_ros.stream.engine import Engine
from ser_ros.stream.listener import STARVED, Listener, Load
from ser_ros.stream.recognizer import Recognizer
from ser_ros.stream.types import StreamConfig

START = 1_700_000_000 * SECOND
MONO = PcmFormat('S16LE', 1, SAMPLE_RATE)


class Told:
    """What a stream was told."""

    def __init__(self):
        self.estimates, self.frames, self.speaking = [], [], []
        self._news = threading.Condition()

    def on_estimate(self, estimate, frame_id):
        with self._news:
            self.estimates.append(estimate)
            self.frames.append(frame_id)
            self._news.notify_all()

    def on_speaking(self, is_speaking):
        with self._news:
            self.speaking.append(is_speaking)
            self._news.notify_all()

    def wait(self, condition, what):
        with self._news:
            assert self._news.wait_for(condition, 60), what


class Room:
    """A listener, its thread, and streams that are spoken into."""

    def __init__(self, bundle, config=None):
        self.listener = Listener(Engine(bundle, 'cpu'), config or StreamConfig())
        self.errors = []
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        try:
            self.listener.run()
        except Exception as error:
            self.errors.append(error)

    def add(self):
        told = Told()
        queue = BlockQueue(3600.0, pcm_format=MONO, ready=self.listener.ready)
        return self.listener.add(queue, told.on_estimate, told.on_speaking), told

    def start(self):
        self._thread.start()

    def stop(self):
        self.listener.stop()
        self._thread.join(10)
        assert not self._thread.is_alive()


@pytest.fixture
def room(bundle):
    room = Room(bundle)
    yield room
    if room._thread.is_alive():
        room.stop()


def speak(stream, samples, start=0, block=480):
    """The samples from `start` on, as blocks with their stamps."""
    for first in range(start, len(samples), block):
        data = encode_s16le(samples[first : first + block])
        stream.queue.put(data, START + first * SECOND // SAMPLE_RATE, 0, f'at {first}')


def as_sent(samples):
    """What of float samples comes through a message."""
    return MONO.decode(encode_s16le(samples))[:, 0]


def alone(bundle, samples):
    return Recognizer(bundle, 'cpu').push(as_sent(samples), START)


def same(estimates, others):
    return len(estimates) == len(others) and all(
        np.array_equal(a.probabilities, b.probabilities)
        and (a.stamp_ns, a.expression, a.is_final) == (b.stamp_ns, b.expression, b.is_final)
        for a, b in zip(estimates, others)
    )


def test_one_voice_is_heard_as_by_a_recogniser(room, bundle, utterance):
    stream, told = room.add()
    room.start()
    speak(stream, utterance)
    expected = alone(bundle, utterance)
    told.wait(lambda: len(told.estimates) == len(expected), 'all estimates')
    assert same(told.estimates, expected)
    assert told.speaking == [False, True, False]
    assert told.frames[0].startswith('at ')
    assert room.listener.load.real_time_factor > 0


def test_the_load_is_the_work_for_a_second_of_sound():
    load = Load()
    assert load.real_time_factor == 0
    load.add(busy=0.5, sound=1.0)
    assert load.real_time_factor == pytest.approx(0.5)
    for _ in range(300):
        load.add(busy=0.2, sound=1.0)
    assert load.real_time_factor == pytest.approx(0.2, abs=1e-3)


def test_voices_do_not_disturb_each_other(room, bundle, speech, utterance):
    sounds = [utterance, 0.5 * speech, utterance[::-1].copy()]
    streams = [room.add() for _ in sounds]
    for (stream, _), sound in zip(streams, sounds):
        speak(stream, sound)
    room.start()
    for (_, told), sound in zip(streams, sounds):
        expected = alone(bundle, sound)
        told.wait(lambda: len(told.estimates) == len(expected), 'all estimates')  # noqa: B023
        for estimate, other in zip(told.estimates, expected):
            np.testing.assert_allclose(estimate.probabilities, other.probabilities, atol=1e-5)
            assert estimate.stamp_ns == other.stamp_ns


def test_a_voice_may_come_and_go(room, utterance):
    stays, told = room.add()
    room.start()
    goes, of_goes = room.add()
    half = len(utterance) // 2
    speak(goes, utterance[:half])
    of_goes.wait(lambda: of_goes.speaking == [False, True], 'that somebody speaks')
    room.listener.remove(goes)
    assert room.listener.streams == (stays,)
    assert of_goes.speaking == [False, True, False]
    n_told = len(of_goes.estimates)
    speak(goes, utterance, start=half)
    speak(stays, utterance)
    told.wait(lambda: told.speaking == [False, True, False], 'the other voice')
    assert len(of_goes.estimates) == n_told


def test_nobody_speaks_when_the_sound_stops(room, utterance):
    stream, told = room.add()
    room.start()
    speak(stream, utterance[: 2 * SAMPLE_RATE])
    told.wait(lambda: told.speaking == [False, True, False], f'silence after {STARVED} s')


def test_another_bundle_is_taken_between_two_windows(
    room, bundle, write_bundle, tmp_path, utterance
):
    new = load_bundle(write_bundle(tmp_path / 'new.safetensors', temperature=30.0))
    stream, told = room.add()
    room.start()
    half = len(utterance) // 2
    speak(stream, utterance[:half])
    told.wait(lambda: told.estimates, 'estimates of the old one')
    room.listener.replace_bundle(new)
    n_before = len(told.estimates)
    speak(stream, utterance, start=half // 480 * 480 + 480)
    told.wait(lambda: told.estimates[-1].is_final, 'the decision')
    assert stream.voice.counters.gaps == 0
    assert min(e.confidence for e in told.estimates[:n_before]) > 0.25
    assert max(e.probabilities.max() for e in told.estimates[n_before:]) < 0.25
    assert room.listener.engine.bundle is new


def test_a_bundle_that_cannot_be_taken_changes_nothing(
    room, bundle, write_bundle, tmp_path, utterance
):
    stream, told = room.add()
    room.start()
    bad = load_bundle(write_bundle(tmp_path / 'bad.safetensors', frontend=ResearchConfig()))
    with pytest.raises(BundleError):
        room.listener.replace_bundle(bad)
    speak(stream, utterance)
    expected = alone(bundle, utterance)
    told.wait(lambda: len(told.estimates) == len(expected), 'all estimates')
    assert same(told.estimates, expected)


@pytest.mark.parametrize('is_running', [True, False])
def test_settings_change_while_somebody_speaks(room, utterance, is_running):
    stream, told = room.add()
    if is_running:
        room.start()
    config = StreamConfig(hop=0.5, threshold=1.0, end_silence=0.8, gain_db=-6.0)
    room.listener.configure(config)
    if not is_running:
        room.start()
    speak(stream, utterance)
    told.wait(lambda: told.speaking == [False, True, False], 'the end')
    running = [e.stamp_ns for e in told.estimates if not e.is_final]
    assert set(np.diff(running[:-1])) == {SECOND // 2}
    assert {e.expression for e in told.estimates} == {None}
    late, _ = room.add()
    assert late.voice.config == config


def test_a_reset_forgets_an_open_utterance(room, utterance):
    stream, told = room.add()
    room.start()
    speak(stream, utterance[: 2 * SAMPLE_RATE])
    told.wait(lambda: told.speaking == [False, True], 'that somebody speaks')
    room.listener.reset()
    assert told.speaking == [False, True, False]
    assert stream.voice.counters.broken_utterances == 1
    assert stream.queue.backlog_bytes == 0
    assert not any(e.is_final for e in told.estimates)


def test_another_hop_is_taken_in_the_middle_of_an_utterance(bundle, utterance):
    """The next window is as far from the last as is asked for now, not as it was then."""
    recognizer = Recognizer(bundle, 'cpu', StreamConfig(hop=5.0))
    cut = 2 * SAMPLE_RATE
    before = recognizer.push(utterance[:cut], START)
    assert len(before) == 1
    recognizer.configure(StreamConfig(hop=0.25))
    after = recognizer.push(utterance[cut:], START + cut * SECOND // SAMPLE_RATE)
    running = [e.stamp_ns for e in after if not e.is_final]
    assert abs(running[0] - START - 2 * SECOND) < SECOND // 10
    assert running[1] - running[0] == SECOND // 4


def speak_a_minute(stream):
    """As one block: seconds of work, of which a listener must be free at any time."""
    stream.queue.put(encode_s16le(np.zeros(60 * SAMPLE_RATE)), START, 0, 'long')


def wait_for_samples(stream):
    deadline = time.monotonic() + 60
    while not stream.voice.counters.samples:
        assert time.monotonic() < deadline, 'no sample was processed in 60 s'
        time.sleep(0.001)


def heard_or_skipped(stream):
    return stream.voice.counters.samples / SAMPLE_RATE + stream.queue.counters.skipped_seconds


def test_a_listener_stops_within_a_block_and_counts_the_rest(room):
    stream, _ = room.add()
    speak_a_minute(stream)
    room.start()
    wait_for_samples(stream)
    room.listener.stop()
    room._thread.join(60)
    assert stream.voice.counters.samples < 50 * SAMPLE_RATE
    room.listener.remove(stream)
    assert heard_or_skipped(stream) == pytest.approx(60.0)


def test_what_is_asked_between_windows_waits_for_no_block(room):
    stream, _ = room.add()
    speak_a_minute(stream)
    room.start()
    wait_for_samples(stream)
    room.listener.reset()
    assert stream.voice.counters.samples < 50 * SAMPLE_RATE
    assert heard_or_skipped(stream) == pytest.approx(60.0)
    assert stream.queue.counters.seconds == 60.0


def test_what_breaks_a_listener_is_told_by_it(room, utterance):
    stream, _ = room.add()

    def fail(*_):
        raise RuntimeError('CUDA error')

    stream.on_estimate = fail
    room.start()
    speak(stream, utterance)
    room._thread.join(60)
    assert [str(error) for error in room.errors] == ['CUDA error']
    room.listener.configure(dataclasses.replace(StreamConfig(), hop=1.0))  # does not wait


def test_a_louder_voice_is_one_with_more_gain(bundle, utterance):
    quiet = as_sent(utterance)
    gained = Recognizer(bundle, 'cpu', StreamConfig(gain_db=-12.0)).push(quiet, START)
    softer = Recognizer(bundle, 'cpu').push(np.float32(10 ** (-12 / 20)) * quiet, START)
    assert same(gained, softer)

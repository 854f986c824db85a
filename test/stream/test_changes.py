"""Bundles and settings that change within an utterance, in every order: no window is too short."""

import numpy as np
import pytest

from ser_ros.audio import SAMPLE_RATE, SECOND
from ser_ros.bundle import load_bundle
from ser_ros.frontend_config import LogMelConfig
from ser_ros.stream.recognizer import Recognizer
from ser_ros.stream.types import StreamConfig

COARSE = LogMelConfig(n_fft=4_096, win_length=4_096, hop_length=2_048)
"""Sixteen frames of it, the fewest that the model takes, are 2.2 s."""
BLOCK = 1_600
CONFIGS = (
    StreamConfig(),
    StreamConfig(end_silence=10.0, hop=1.0),
    StreamConfig(end_silence=0.1, hop=0.1, preroll=0.5),
    StreamConfig(max_utterance=1.0, gain_db=-6.0),
)


@pytest.fixture(scope='module')
def bundles(write_bundle, tmp_path_factory):
    """One of short windows and one that needs long ones."""
    folder = tmp_path_factory.mktemp('changes')
    return {
        'short': load_bundle(write_bundle(folder / 'short.safetensors', window=0.5)),
        'coarse': load_bundle(
            write_bundle(folder / 'coarse.safetensors', frontend=COARSE, window=3.0)
        ),
    }


@pytest.fixture(scope='module')
def sound(utterance):
    """Five seconds of speech, then two without."""
    voice = np.tile(utterance[SAMPLE_RATE : 2 * SAMPLE_RATE], 5)
    return np.concatenate(
        (np.zeros(SAMPLE_RATE, np.float32), voice, np.zeros(2 * SAMPLE_RATE, np.float32))
    )


def process(recognizer, sound, change):
    """The estimates of the sound; `change` is called with the seconds before each block."""
    estimates = []
    for first in range(0, len(sound), BLOCK):
        change(first / SAMPLE_RATE)
        stamp = first * SECOND // SAMPLE_RATE
        estimates += recognizer.push(sound[first : first + BLOCK], stamp)
    return estimates + recognizer.flush()


@pytest.mark.parametrize('seconds', [1.5, 1.9, 3.0, 5.5])
def test_a_bundle_of_longer_windows_continues(bundles, sound, seconds):
    """Before the first estimate of the old one, and after it forgot how the utterance began."""
    recognizer = Recognizer(bundles['short'], 'cpu')

    def change(now):
        if now == seconds:
            recognizer.replace_bundle(bundles['coarse'])

    estimates = process(recognizer, sound, change)
    after = [e for e in estimates if e.is_window and e.stamp_ns >= seconds * SECOND]
    assert all(e.n_samples >= 2 * SAMPLE_RATE for e in after)
    assert bool(after) == (seconds < 5.0)  # half a second of sound is left at the end
    assert recognizer.counters.broken_utterances == 0


def test_a_shorter_end_silence_within_a_pause_ends_the_utterance(bundles, sound):
    """The last window is still there, though it lies before the sound that is kept from now on."""
    recognizer = Recognizer(bundles['short'], 'cpu', StreamConfig(end_silence=10.0))

    def change(now):
        if now == 7.5:
            recognizer.configure(StreamConfig(end_silence=0.1))

    *_, final = process(recognizer, sound, change)
    assert final.is_final
    assert final.n_samples == pytest.approx(0.5 * SAMPLE_RATE, abs=BLOCK)
    assert recognizer.counters.utterances == 1


@pytest.mark.parametrize('seed', range(8))
def test_changes_in_any_order_raise_nothing(bundles, sound, seed):
    rng = np.random.default_rng(seed)
    recognizer = Recognizer(bundles['short'], 'cpu')

    def change(_):
        if rng.random() < 0.1:
            recognizer.replace_bundle(bundles[str(rng.choice(list(bundles)))])
        if rng.random() < 0.1:
            recognizer.configure(CONFIGS[rng.integers(len(CONFIGS))])

    for estimate in process(recognizer, sound, change):
        assert np.isfinite(estimate.probabilities).all()


def test_estimates_know_which_silence_they_waited_for(bundles, sound):
    """Latencies must not count it: nobody can decide earlier."""
    config = StreamConfig(end_silence=0.8)
    recognizer = Recognizer(bundles['short'], 'cpu', config)
    estimates = process(recognizer, sound, lambda _: None)
    closing = {e.stamp_ns for e in estimates if e.is_final}
    for estimate in estimates:
        waited = estimate.silence_ns / SECOND
        expected = config.end_silence if estimate.stamp_ns in closing else 0.0
        assert waited == pytest.approx(expected, abs=0.033)
    assert closing

"""Training windows are cut where the stream would cut them."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_ros.audio import SAMPLE_RATE
from ser_ros.audio.vad import Segment
from ser_ros.recognizer import Recognizer, RecognizerConfig
from ser_ros.training.corpora import Clip, read_ravdess
from ser_ros.training.dataset import (
    TrainingWindows,
    Utterance,
    load_utterances,
    pad,
    stream_windows,
)
from ser_ros.training.recipe import AugmentationConfig

AS_IT_IS = AugmentationConfig(edge_jitter=0.0, speed=(1.0, 1.0))


def counting(n, start, end, label=3):
    """Samples that say where they were taken from."""
    return Utterance(np.arange(n, dtype=np.float32), Segment(start, end), label)


def test_utterances_of_a_corpus(tiny_corpus):
    clips = read_ravdess(tiny_corpus)[:6]
    names = ['sad', 'happy', 'angry', 'calm', 'neutral', 'surprised', 'fearful', 'disgust']
    utterances = load_utterances(clips, names)
    assert [names[u.label] for u in utterances] == [clip.emotion for clip in clips]
    for utterance in utterances:
        assert len(utterance.samples) == 32_000
        assert utterance.samples.dtype == np.float32
        # A quarter of a second of silence stands on both sides.
        assert 0 <= utterance.speech.start < 8_000
        assert 24_000 < utterance.speech.end <= 32_000


def test_a_clip_without_speech_counts_as_a_whole(tmp_path):
    soundfile = pytest.importorskip('soundfile')
    soundfile.write(tmp_path / 'hush.wav', np.zeros(20_000), SAMPLE_RATE)
    (utterance,) = load_utterances([Clip(tmp_path / 'hush.wav', 'sad', '01')], ['happy', 'sad'])
    assert (utterance.speech, utterance.label) == (Segment(0, 20_000), 1)


def test_reading_leaves_torch_its_threads(tiny_corpus):
    n_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        load_utterances(read_ravdess(tiny_corpus)[:1], ['happy', 'neutral'])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(n_threads)


@settings(max_examples=50)
@given(
    st.integers(1_000, 90_000),
    st.tuples(st.floats(0, 1), st.floats(0, 1)),
    st.integers(0, 2**31),
    st.floats(0, 1),
)
def test_windows_lie_in_the_clip_and_are_as_long_as_they_can(n, edges, seed, onset_probability):
    start, end = sorted(round(edge * n) for edge in edges)
    config = dataclasses.replace(AS_IT_IS, edge_jitter=0.15, onset_probability=onset_probability)
    torch.manual_seed(seed)
    window, label = TrainingWindows([counting(n, start, end)], config)[0]
    assert label == 3
    assert window.dtype == torch.float32
    assert min(n, SAMPLE_RATE) <= len(window) <= 3 * SAMPLE_RATE
    assert window[0] >= 0
    assert (window.diff() == 1).all()


@settings(max_examples=30)
@given(st.integers(0, 2**31))
def test_windows_lie_in_the_speech_give_or_take_the_jitter(seed):
    torch.manual_seed(seed)
    config = dataclasses.replace(AS_IT_IS, edge_jitter=0.15)
    window, _ = TrainingWindows([counting(80_000, 20_000, 60_000)], config)[0]
    assert window[0] >= 20_000 - 2 * 2_400
    assert window[-1] < 60_000 + 2 * 2_400


@pytest.mark.parametrize('probability', [0.0, 1.0])
def test_windows_begin_at_the_onset_as_often_as_they_shall(probability):
    torch.manual_seed(1)
    config = dataclasses.replace(AS_IT_IS, onset_probability=probability)
    dataset = TrainingWindows([counting(80_000, 20_000, 60_000)] * 50, config)
    at_onset = [window[0] == 20_000 for window, _ in dataset]
    assert np.mean(at_onset) == pytest.approx(probability, abs=0.05)


@pytest.mark.parametrize('speed', [0.88, 1.12])
def test_speed_changes_pitch_and_length(speed):
    time = np.arange(48_000) / SAMPLE_RATE
    tone = np.sin(2 * np.pi * 1_000 * time).astype(np.float32)
    config = dataclasses.replace(AS_IT_IS, crop=(1.0, 1.0), speed=(speed, speed))
    window, _ = TrainingWindows([Utterance(tone, Segment(0, 48_000), 0)], config)[0]
    assert len(window) == pytest.approx(min(SAMPLE_RATE, SAMPLE_RATE / speed), abs=2)
    spectrum = np.abs(np.fft.rfft(window.numpy() * np.hanning(len(window))))
    assert spectrum.argmax() * SAMPLE_RATE / len(window) == pytest.approx(1_000 * speed, abs=2)


def test_the_seed_decides_the_windows():
    dataset = TrainingWindows([counting(80_000, 20_000, 60_000)], AugmentationConfig())
    torch.manual_seed(4)
    first = [dataset[0][0] for _ in range(3)]
    torch.manual_seed(4)
    again = [dataset[0][0] for _ in range(3)]
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    assert not torch.equal(first[0], first[1])


def test_pad():
    batch = [(torch.ones(3), 1), (torch.ones(5), 0)]
    samples, lengths, labels = pad(batch)
    assert samples.tolist() == [[1, 1, 1, 0, 0], [1] * 5]
    assert (lengths.tolist(), labels.tolist()) == ([3, 5], [1, 0])


@pytest.mark.parametrize(
    ('length', 'expected'),
    [
        (3_000, [(0, 3_000)]),
        (16_000, [(0, 16_000)]),
        (22_000, [(0, 16_000), (0, 20_000), (0, 22_000)]),
        (
            60_000,
            [*((max(0, e - 48_000), e) for e in range(16_000, 60_000, 4_000)), (12_000, 60_000)],
        ),
    ],
)
def test_windows_of_a_stream(length, expected):
    utterance = counting(70_000, 5_000, 5_000 + length)
    found = [
        (window[0] - 5_000, window[-1] + 1 - 5_000)
        for window in stream_windows(utterance, window=3.0, hop=0.25, first=1.0)
    ]
    assert found == expected


def test_windows_of_a_stream_are_those_of_the_recogniser(bundle, utterance):
    """But for what the stream hears before the onset, and for hops that fall into a pause."""
    recognizer = Recognizer(bundle, 'cpu')
    estimates = recognizer.push(utterance, 0) + recognizer.flush()
    ends = {e.stamp_ns * SAMPLE_RATE // 10**9 for e in estimates}
    config = RecognizerConfig()
    start = min(ends) - SAMPLE_RATE
    said = counting(len(utterance), start, max(ends))
    offline = stream_windows(said, bundle.info.window, config.hop, config.first_estimate)
    assert ends <= {int(window[-1]) + 1 for window in offline}
    assert len(ends) > 0.7 * len(offline)

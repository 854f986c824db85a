"""Training windows are cut like the stream's, and each item has its own random draws."""

import dataclasses
import hashlib
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from ser_ros import SerError
from ser_ros.audio import SAMPLE_RATE, vad
from ser_ros.audio.reading import Reading
from ser_ros.audio.vad import CHUNK, Segment
from ser_ros.stream.recognizer import Recognizer
from ser_ros.stream.types import StreamConfig
from ser_ros.training.data.corpora import Clip, read_corpus
from ser_ros.training.data.dataset import (
    NO_CLASS,
    TrainingWindows,
    Utterance,
    WholeClips,
    content_of,
    load_utterances,
    pad,
    shift_pitch,
    stream_windows,
)
from ser_ros.training.recipe import AugmentationConfig, DataConfig

AS_IT_IS = AugmentationConfig(edge_jitter=0.0, whole_probability=0.0, speed=(1.0, 1.0))
EVERYTHING = AugmentationConfig(
    pitch_probability=0.5, silence_probability=0.5, reverb_probability=0.5, mel_shift=3.0
)
NAMES = ['sad', 'happy', 'angry', 'calm', 'neutral', 'surprised', 'fearful', 'disgust']


def counting(n, start, end, label=3):
    """Samples whose values are their positions."""
    return Utterance(np.arange(n, dtype=np.float32), Segment(start, end), label)


def tone(seconds=3.0, frequency=1_000, sample_rate=SAMPLE_RATE):
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    samples = (0.1 * np.sin(2 * np.pi * frequency * time)).astype(np.float32)
    return Utterance(samples, Segment(0, len(samples)), 0, sample_rate)


def pitch_of(samples, sample_rate=SAMPLE_RATE):
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return spectrum.argmax() * sample_rate / len(samples)


def windows(utterances, augmentation=AS_IT_IS, seed=1, cls=TrainingWindows, **data):
    return cls(utterances, DataConfig(**data), augmentation, seed)


def voices(n=4):
    """Utterances that differ from each other."""
    rng = np.random.default_rng(1)
    return [
        Utterance(
            (0.1 * rng.standard_normal(50_000)).astype(np.float32), Segment(5_000, 40_000), label
        )
        for label in range(n)
    ]


# --- Reading


def assert_same(utterances, others):
    assert len(utterances) == len(others)
    for one, other in zip(utterances, others):
        np.testing.assert_array_equal(one.samples, other.samples)
        assert dataclasses.replace(one, samples=0) == dataclasses.replace(other, samples=0)


@pytest.fixture(scope='module')
def clips(tiny_corpus):
    return read_corpus(tiny_corpus).clips[:6]


@pytest.fixture(scope='module')
def utterances(clips):
    return load_utterances(clips, NAMES)


def test_utterances_of_a_corpus(clips, utterances):
    assert [NAMES[u.label] for u in utterances] == [clip.emotion for clip in clips]
    for clip, utterance in zip(clips, utterances, strict=True):
        samples, _ = soundfile.read(clip.path, dtype='float32')
        np.testing.assert_array_equal(utterance.samples, samples)
        assert utterance.samples.dtype == np.float32
        assert utterance.sample_rate == SAMPLE_RATE
        # A quarter of a second of silence stands on both sides.
        assert 0 <= utterance.speech.start < 8_000
        assert 17_600 < utterance.speech.end <= 25_600


def test_speech_is_found_at_16_khz_whatever_the_rate(clips, utterances, tmp_path):
    load_utterances(clips, NAMES, cache=tmp_path)
    for cache in (None, tmp_path):
        for other, one in zip(load_utterances(clips, NAMES, 48_000, cache), utterances):
            assert other.sample_rate == 48_000
            assert other.speech == Segment(3 * one.speech.start, 3 * one.speech.end)
            assert len(other.samples) == 3 * len(one.samples)
            np.testing.assert_allclose(other.samples[::3], one.samples, atol=0.02)


def test_a_file_at_another_rate_keeps_frequencies_above_8_khz(tmp_path):
    soundfile.write(
        tmp_path / 'high.wav', tone(frequency=12_000, sample_rate=48_000).samples, 48_000
    )
    (utterance,) = load_utterances([Clip(tmp_path / 'high.wav', 'sad', '01', 'X')], NAMES, 48_000)
    assert pitch_of(utterance.samples, 48_000) == pytest.approx(12_000, abs=1)


def test_a_clip_without_speech_counts_as_a_whole(tmp_path):
    soundfile.write(tmp_path / 'hush.wav', np.zeros(20_000), SAMPLE_RATE)
    clip = Clip(tmp_path / 'hush.wav', 'sad', '01', 'X')
    for _ in range(2):
        (utterance,) = load_utterances([clip], ['happy', 'sad'], cache=tmp_path / 'cache')
        assert (utterance.speech, utterance.label) == (Segment(0, 20_000), 1)


def test_reading_does_not_change_the_number_of_threads(clips):
    n_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        load_utterances(clips[:1], NAMES)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(n_threads)


def test_the_cache_changes_nothing_and_is_written_once(clips, utterances, tmp_path):
    assert_same(load_utterances(clips, NAMES, cache=tmp_path), utterances)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*') if path.is_file()}
    assert len(written) == len(clips)
    assert_same(load_utterances(clips, NAMES, cache=tmp_path), utterances)
    assert written == {p: p.stat().st_mtime_ns for p in tmp_path.rglob('*') if p.is_file()}


def test_the_cache_identifies_sound_by_its_content_not_its_name(clips, utterances, tmp_path):
    clip = dataclasses.replace(clips[0], path=tmp_path / 'clip.wav')
    for source, expected in list(zip(clips, utterances))[:2]:
        shutil.copy(source.path, clip.path)
        (found,) = load_utterances([clip], NAMES, cache=tmp_path / 'cache')
        np.testing.assert_array_equal(found.samples, expected.samples)
        assert found.label == utterances[0].label
    assert len([p for p in (tmp_path / 'cache').rglob('*') if p.is_file()]) == 2


def test_sound_is_stored_again_when_the_version_of_speech_detection_changes(
    clips, tmp_path, monkeypatch
):
    """And not when anything else in the source of speech detection changes, such as a comment."""

    def stored():
        load_utterances(clips[:1], NAMES, cache=tmp_path / 'cache')
        return sum(path.is_file() for path in (tmp_path / 'cache').rglob('*'))

    assert stored() == 1
    changed = tmp_path / 'vad.py'
    changed.write_text(Path(vad.__file__).read_text() + '# a comment\n')
    monkeypatch.setattr(vad, '__file__', str(changed))
    assert stored() == 1
    monkeypatch.setattr(vad, 'VERSION', vad.VERSION + 1)
    assert stored() == 2


def test_a_file_without_sound_is_named(tmp_path):
    (tmp_path / 'text.wav').write_text('no sound')
    for name in ('text.wav', 'missing.wav'):
        for cache in (None, tmp_path / 'cache'):
            with pytest.raises(SerError, match=name):
                load_utterances([Clip(tmp_path / name, 'sad', '01', 'X')], NAMES, cache=cache)


# --- Items


def test_items_depend_only_on_seed_epoch_and_index():
    """Neither earlier draws nor other seeds matter."""
    first = windows(voices(), EVERYTHING, nonspeech=0.2, noisy_copies=1)
    torch.manual_seed(7)
    np.random.seed(7)
    items = {(e, i): first[e, i] for e in range(3) for i in range(len(first))}
    again = windows(voices(), EVERYTHING, nonspeech=0.2, noisy_copies=1)
    for item in reversed(items):
        samples, label, _ = again[item]
        assert torch.equal(samples, items[item][0])
        assert label == items[item][1]
    other = windows(voices(), EVERYTHING, seed=2, nonspeech=0.2, noisy_copies=1)
    drawn = [*items.values(), *(other[item] for item in items)]
    assert len({samples.numpy().tobytes() for samples, *_ in drawn}) == len(drawn)


def test_workers_change_nothing():
    dataset = windows(voices(), EVERYTHING, nonspeech=0.2, noisy_copies=1)
    order = [[(2, 5), (2, 1)], [(2, 0), (2, 7), (2, 2)]]
    alone, shared = (
        list(DataLoader(dataset, batch_sampler=order, collate_fn=pad, num_workers=n))
        for n in (0, 2)
    )
    for one, other in zip(alone, shared, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other))


def test_a_disabled_step_does_not_change_the_others():
    plain, more = (
        windows(voices(), augmentation)
        for augmentation in (AS_IT_IS, dataclasses.replace(AS_IT_IS, silence_probability=1.0))
    )
    for index in range(4):
        before, after = plain[0, index][0], more[0, index][0]
        assert len(before) == len(after)
        assert torch.equal(before[after != 0], after[after != 0])
        assert not torch.equal(before, after)


def test_steps_have_independent_draws():
    """The draw of one step does not depend on that of another."""
    config = dataclasses.replace(
        AS_IT_IS,
        crop=(0.5, 0.5),
        silence_probability=0.5,
        silence=(0.02, 0.02),
        pitch_probability=0.5,
    )
    plain, changed = (
        windows([tone()], augmentation)
        for augmentation in (dataclasses.replace(AS_IT_IS, crop=(0.5, 0.5)), config)
    )
    counts = np.zeros((2, 2))
    for epoch in range(200):
        before, after = plain[epoch, 0][0], changed[epoch, 0][0]
        silent = after == 0
        is_shifted = not torch.equal(before[~silent], after[~silent])
        counts[int(silent.sum() > 100), int(is_shifted)] += 1
    assert counts.min() > 30


def test_items_do_not_change_the_utterances():
    originals, given = voices(), voices()
    for cls in (TrainingWindows, WholeClips):
        dataset = windows(given, EVERYTHING, cls=cls, noisy_copies=2)
        for index in range(len(dataset)):
            dataset[0, index]
    assert_same(originals, given)


def owner(samples, utterances):
    """The utterance that these samples were cut from."""
    stretch = samples[1_000:2_000].numpy()
    peaks = [np.abs(np.correlate(u.samples, stretch, 'valid')).max() for u in utterances]
    return int(np.argmax(peaks))


@pytest.mark.parametrize('cls', [TrainingWindows, WholeClips])
def test_a_label_travels_with_its_clip(cls):
    given = [dataclasses.replace(u, label=4 - u.label) for u in voices(5)]
    dataset = windows(given, AS_IT_IS, cls=cls, noisy_copies=2)
    assert len(dataset) == 15
    clips = []
    for index in range(15):
        samples, label, _ = dataset[0, index]
        clips.append(owner(samples, given))
        assert label == dataset.label(index) == given[clips[-1]].label
    assert clips == [*range(5)] * 3


def test_each_copy_has_different_white_noise():
    config = dataclasses.replace(AS_IT_IS, noise_snr_db=(15.0, 29.0))
    dataset = windows([tone()], config, cls=WholeClips, noisy_copies=2)
    clean = dataset[0, 0][0]
    added = [dataset[epoch, copy][0] - clean for epoch in range(30) for copy in (1, 2)]
    ratios = np.array([20 * torch.log10(clean.std() / noise.std()) for noise in added])
    assert 14.8 < ratios.min() < 17
    assert 27 < ratios.max() < 29.2
    assert np.abs(np.corrcoef(np.stack(added)) - np.eye(60)).max() < 0.05
    noise = added[0].numpy()
    lags = [np.corrcoef(noise[lag:], noise[:-lag])[0, 1] for lag in (1, 2, 3, 10, 100)]
    assert np.abs(lags).max() < 0.05


def test_sounds_without_a_voice_have_the_share_of_the_recipe():
    config = dataclasses.replace(AS_IT_IS, crop=(0.4, 0.5))
    given = voices()
    plain, mixed = windows(given * 25, config), windows(given * 25, config, nonspeech=0.3)
    labels = []
    for epoch in range(4):
        for index in range(100):
            samples, label, _ = mixed[epoch, index]
            before, expected, _ = plain[epoch, index]
            labels.append(label)
            assert samples.dtype == torch.float32
            assert samples.shape == before.shape
            if label == NO_CLASS:
                assert samples.isfinite().all()
                assert not torch.equal(samples, before)
            else:
                assert label == expected == mixed.label(index)
                assert torch.equal(samples, before)
    assert np.mean(np.array(labels) == NO_CLASS) == pytest.approx(0.3, abs=0.06)
    # Other ones in another epoch.
    assert labels[:100] != labels[100:200]


@settings(max_examples=50)
@given(
    st.integers(1_000, 90_000),
    st.tuples(st.floats(0, 1), st.floats(0, 1)),
    st.integers(0, 2**31),
    st.floats(0, 1),
)
def test_windows_are_inside_the_clip_and_as_long_as_possible(n, edges, seed, onset_probability):
    start, end = sorted(round(edge * n) for edge in edges)
    config = dataclasses.replace(AS_IT_IS, edge_jitter=0.15, onset_probability=onset_probability)
    window, label, _ = windows([counting(n, start, end)], config, seed)[0, 0]
    assert label == 3
    assert window.dtype == torch.float32
    assert min(n, SAMPLE_RATE) <= len(window) <= 3 * SAMPLE_RATE
    assert window[0] >= 0
    assert (window.diff() == 1).all()


@settings(max_examples=30)
@given(st.integers(0, 2**31))
def test_windows_are_inside_the_speech_up_to_the_jitter(seed):
    config = dataclasses.replace(AS_IT_IS, edge_jitter=0.15)
    window, *_ = windows([counting(80_000, 20_000, 60_000)], config, seed)[0, 0]
    assert window[0] >= 20_000 - 2 * 2_400
    assert window[-1] < 60_000 + 2 * 2_400


def test_windows_vary_in_length_and_place():
    dataset = windows([counting(80_000, 20_000, 60_000)])
    drawn = [dataset[epoch, 0][0] for epoch in range(100)]
    lengths = [len(window) / SAMPLE_RATE for window in drawn]
    assert 1 <= min(lengths) < 1.2
    assert 2.3 < max(lengths) <= 2.5  # all there is of speech
    assert np.ptp([int(window[0]) for window in drawn]) > SAMPLE_RATE


@pytest.mark.parametrize('probability', [0.0, 1.0])
def test_windows_begin_at_the_onset_with_the_probability_of_the_recipe(probability):
    config = dataclasses.replace(AS_IT_IS, onset_probability=probability)
    dataset = windows([counting(80_000, 20_000, 60_000)], config)
    at_onset = [dataset[epoch, 0][0][0] == 20_000 for epoch in range(50)]
    assert np.mean(at_onset) == pytest.approx(probability, abs=0.05)


@pytest.mark.parametrize('probability', [0.0, 0.5, 1.0])
def test_windows_have_full_length_with_the_probability_of_the_recipe(probability):
    config = dataclasses.replace(AS_IT_IS, whole_probability=probability)
    short, long = (counting(80_000, 20_000, end) for end in (60_000, 79_000))
    dataset = windows([short, long], config)
    for index, longest in enumerate((40_000, 3 * SAMPLE_RATE)):
        are_whole = [len(dataset[epoch, index][0]) == longest for epoch in range(200)]
        assert np.mean(are_whole) == pytest.approx(probability, abs=0.1)


def test_windows_have_the_same_length_at_any_rate():
    long = Utterance(np.zeros(48_000 * 5, np.float32), Segment(0, 48_000 * 5), 0, 48_000)
    for speed in (0.8, 1.0):
        config = dataclasses.replace(AS_IT_IS, crop=(2.0, 2.0), speed=(speed, speed))
        assert len(windows([long], config)[0, 0][0]) == 2 * 48_000


def test_whole_clips_are_whole():
    given = [counting(160_000, 20_000, 60_000), counting(500, 0, 500)]
    dataset = windows(given, AS_IT_IS, cls=WholeClips)
    for index, utterance in enumerate(given):
        np.testing.assert_array_equal(dataset[3, index][0], utterance.samples)
    slow = dataclasses.replace(AS_IT_IS, speed=(0.8, 0.8))
    assert len(windows(given, slow, cls=WholeClips)[0, 0][0]) == pytest.approx(200_000, abs=2)


@pytest.mark.parametrize('speed', [0.88, 1.12])
def test_speed_changes_pitch_and_length(speed):
    config = dataclasses.replace(AS_IT_IS, crop=(1.0, 1.0), speed=(speed, speed))
    window, *_ = windows([tone()], config)[0, 0]
    assert len(window) == pytest.approx(min(SAMPLE_RATE, SAMPLE_RATE / speed), abs=2)
    assert pitch_of(window.numpy()) == pytest.approx(1_000 * speed, abs=2)


@pytest.mark.parametrize('sample_rate', [16_000, 48_000])
@pytest.mark.parametrize('semitones', [-4.0, -0.7, 0.0, 2.0])
def test_pitch_changes_alone(semitones, sample_rate):
    """The length and the rhythm do not change: here of a tone that starts after a second."""
    samples = tone(sample_rate=sample_rate).samples.copy()
    samples[:sample_rate] = 0
    shifted = shift_pitch(samples, semitones, sample_rate)
    assert shifted.dtype == np.float32
    assert len(shifted) == len(samples)
    middle = shifted[int(1.1 * sample_rate) : int(2.9 * sample_rate)]
    assert pitch_of(middle, sample_rate) == pytest.approx(1_000 * 2 ** (semitones / 12), abs=2)
    assert middle.std() == pytest.approx(samples[sample_rate:].std(), rel=0.25)
    onset = np.flatnonzero(np.abs(shifted) > 0.05)[0] / sample_rate
    assert onset == pytest.approx(1.0, abs=0.03)


@settings(max_examples=40)
@given(st.integers(1, 3_000), st.floats(-12, 12), st.sampled_from([8_000, 16_000, 48_000]))
def test_pitch_of_any_length(n, semitones, sample_rate):
    samples = np.random.default_rng(n).uniform(-1, 1, n).astype(np.float32)
    shifted = shift_pitch(samples, semitones, sample_rate)
    assert shifted.shape == (n,)
    assert np.isfinite(shifted).all()


def test_pitch_is_changed_with_the_probability_and_range_of_the_recipe():
    config = dataclasses.replace(
        AS_IT_IS, crop=(1.0, 1.0), pitch_probability=0.4, pitch_semitones=(1.0, 3.0)
    )
    dataset = windows([tone()], config)
    pitches = np.array([pitch_of(dataset[epoch, 0][0].numpy()) for epoch in range(150)])
    semitones = 12 * np.log2(pitches / 1_000)
    is_changed = np.abs(semitones) > 0.5
    assert is_changed.mean() == pytest.approx(0.4, abs=0.1)
    assert 0.95 < semitones[is_changed].min() < 1.4
    assert 2.6 < semitones[is_changed].max() < 3.05


def test_silence_is_one_stretch_with_a_length_of_the_recipe():
    config = dataclasses.replace(AS_IT_IS, silence_probability=0.5, silence=(0.1, 0.3))
    dataset = windows([counting(80_000, 20_000, 60_000)], config)
    lengths, starts = [], []
    for epoch in range(200):
        window = dataset[epoch, 0][0]
        silent = (window == 0).nonzero().flatten()
        if len(silent):
            assert (silent.diff() == 1).all()
            lengths.append(len(silent) / SAMPLE_RATE)
            starts.append(int(silent[0]) / len(window))
    assert len(lengths) == pytest.approx(100, abs=20)
    assert 0.1 <= min(lengths) < 0.12
    assert 0.28 < max(lengths) <= 0.3
    assert np.ptp(starts) > 0.7


def test_silence_is_no_longer_than_a_window():
    config = dataclasses.replace(AS_IT_IS, silence_probability=1.0, silence=(2.0, 2.0))
    window, *_ = windows([counting(9_000, 0, 9_000)], config)[0, 0]
    assert torch.equal(window, torch.zeros(9_000))


def test_pad():
    batch = [(torch.ones(3), 1, 2), (torch.ones(5), NO_CLASS, 0)]
    samples, lengths, labels, corpora = pad(batch)
    assert samples.tolist() == [[1, 1, 1, 0, 0], [1] * 5]
    assert (lengths.tolist(), labels.tolist()) == ([3, 5], [1, NO_CLASS])
    assert corpora.tolist() == [2, 0]


# --- Windows of a stream


def to_chunk(n):
    """The end of the chunk of voice activity that a sample, counted from 1, is in."""
    return math.ceil(n / CHUNK) * CHUNK


@pytest.mark.parametrize(
    ('length', 'expected'),
    [
        (3_000, [(0, 3_000)]),
        (16_000, [(0, 16_000)]),
        (22_000, [(0, 16_384), (0, 20_480), (0, 22_000)]),
        (
            60_000,
            [
                *((max(0, e - 48_000), e) for e in map(to_chunk, range(16_000, 60_000, 4_000))),
                (12_000, 60_000),
            ],
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
    # The same seconds at another rate.
    twice = counting(140_000, 10_000, 10_000 + 2 * length)
    twice = Utterance(twice.samples, twice.speech, 3, 32_000)
    assert [
        ((window[0] - 10_000) // 2, (window[-1] + 1 - 10_000) // 2)
        for window in stream_windows(twice, window=3.0, hop=0.25, first=1.0)
    ] == expected


def test_windows_of_a_stream_are_those_of_the_recogniser(bundle, utterance):
    """Except for the part before the onset, and for hops in a pause."""
    recognizer = Recognizer(bundle, 'cpu')
    estimates = recognizer.push(utterance, 0) + recognizer.flush()
    ends = {e.stamp_ns * SAMPLE_RATE // 10**9 for e in estimates}
    config = StreamConfig()
    start = min(ends) - to_chunk(SAMPLE_RATE)
    said = counting(len(utterance), start, max(ends))
    offline = stream_windows(said, bundle.info.window, config.hop, config.first_estimate)
    assert ends <= {int(window[-1]) + 1 for window in offline}
    assert len(ends) > 0.7 * len(offline)


# --- Drawn with replacement


def test_an_item_that_is_drawn_twice_is_not_the_same_twice():
    items = windows([tone()], dataclasses.replace(AS_IT_IS, speed=(0.8, 1.2)))
    pitches = [pitch_of(items[0, 0, place][0].numpy()) for place in range(8)]
    assert np.ptp(pitches) > 100
    assert torch.equal(items[0, 0, 3][0], items[0, 0, 3][0])


def test_the_voice_of_an_item_is_its_speaker(tmp_path):
    soundfile.write(tmp_path / 'a.wav', 0.1 * np.ones(16_000), SAMPLE_RATE)
    clip = Clip(tmp_path / 'a.wav', 'sad', 'anna', 'mine')
    items = WholeClips(load_utterances([clip], NAMES), DataConfig(), AS_IT_IS, 1)
    assert items.voice(0) == 'mine:anna'


def test_the_cache_distinguishes_parts_of_a_file(clips, tmp_path):
    clip = clips[0]
    middle = clip.duration / 2
    parts = [
        dataclasses.replace(clip, end=middle),
        dataclasses.replace(clip, start=middle),
        dataclasses.replace(clip, start=middle, end=clip.duration - 0.1),
        clip,
    ]
    for folder in (None, tmp_path, tmp_path):
        lengths = [len(u.samples) for u in load_utterances(parts, NAMES, cache=folder)]
        first, second, third, whole = lengths
        assert first + second == whole
        assert third == second - 1_600


def test_each_clip_has_its_own_channel_with_and_without_the_cache(tmp_path):
    sounds = [0.1 * tone(frequency=hertz).samples for hertz in (300, 1_000)]
    path = tmp_path / 'two.wav'
    soundfile.write(path, np.stack(sounds, axis=1), SAMPLE_RATE)
    clips = [Clip(path, 'sad', 'anna', 'mine', reading=Reading(channel=n)) for n in (-1, 0, 1)]
    expected = [(sounds[0] + sounds[1]) / 2, *sounds]
    for cache in (None, tmp_path / 'cache', tmp_path / 'cache'):
        for utterance, sound in zip(load_utterances(clips, NAMES, cache=cache), expected):
            np.testing.assert_allclose(utterance.samples, sound, atol=1e-4)


def test_what_the_cache_knew_before_there_were_channels_is_still_known(tmp_path):
    path = tmp_path / 'a.wav'
    path.write_bytes(b'any bytes')
    digest = hashlib.sha256(b'any bytes').hexdigest()
    clip = Clip(path, 'sad', 'anna', 'mine')
    assert content_of(clip) == b'any bytes'
    part = dataclasses.replace(clip, start=0.5, end=2.0)
    assert content_of(part) == f'{digest} 0.5 2.0'.encode()
    readings = [Reading(), Reading(channel=0), Reading(full_scale=2.0), Reading(0, 2.0)]
    contents = {
        content_of(dataclasses.replace(c, reading=reading))
        for c in (clip, part)
        for reading in readings
    }
    assert len(contents) == 8

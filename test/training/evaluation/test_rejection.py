"""Sounds without a voice: rejected by the threshold, decided by the stream."""

from pathlib import Path

import numpy as np
import pytest

from ser_ros.audio.vad import Segment
from ser_ros.bundle import load_bundle
from ser_ros.frontend_config import LogMelConfig, ResearchConfig
from ser_ros.training.data import dataset
from ser_ros.training.data.corpora import Clip
from ser_ros.training.data.dataset import NO_CLASS, TrainingWindows, Utterance
from ser_ros.training.data.nonspeech import FAMILIES
from ser_ros.training.evaluation import rejection
from ser_ros.training.evaluation.clip_result import ClipResult
from ser_ros.training.evaluation.rejection import evaluate_nonspeech, nonspeech_metrics
from ser_ros.training.recipe import AugmentationConfig, DataConfig


@pytest.fixture
def with_threshold(write_bundle, tmp_path):
    """A function: threshold → a bundle that decides nothing below it."""

    def load(threshold, **changes):
        path = tmp_path / f'{threshold}.safetensors'
        return load_bundle(write_bundle(path, threshold=threshold, window=1.5, **changes))

    return load


@pytest.fixture
def every_kind(monkeypatch):
    """Other tests evaluate few sounds."""
    monkeypatch.setattr(rejection, 'FAMILIES', FAMILIES)


def test_every_kind_is_evaluated_and_repeatable(with_threshold, every_kind, monkeypatch):
    monkeypatch.setattr(rejection, 'N_SOUNDS', 2)
    metrics = evaluate_nonspeech(with_threshold(0.5), 'cpu')
    assert list(metrics) == [
        *('coloured noise', 'band noise', 'hum', 'engine', 'music', 'impacts', 'babble'),
        'siren (held out)',
    ]
    assert all(row['count'] == 2 for row in metrics.values())
    assert all(1 / 8 < row['confidence'] <= 1 for row in metrics.values())
    assert len({row['confidence'] for row in metrics.values()}) == len(metrics)
    assert evaluate_nonspeech(with_threshold(0.5), 'cpu') == metrics


def test_a_sound_that_is_silent_is_left_out(with_threshold, monkeypatch):
    def some_are_silent(rng, n, rate):
        return rng.standard_normal(n) * (rng.random() < 0.5)

    monkeypatch.setattr(rejection, 'FAMILIES', (some_are_silent,))
    monkeypatch.setattr(rejection, 'HELD_OUT', ())
    monkeypatch.setattr(rejection, 'N_SOUNDS', 8)
    metrics = evaluate_nonspeech(with_threshold(0.0), 'cpu')
    assert 0 < metrics['some are silent']['count'] < 8


def test_confidences_below_the_threshold_are_rejected(with_threshold):
    always, never = (
        evaluate_nonspeech(with_threshold(threshold), 'cpu') for threshold in (0.0, 1.0)
    )
    for kind in always:
        assert (always[kind]['rejected'], never[kind]['rejected']) == (0, 1)
        assert always[kind]['confidence'] == never[kind]['confidence'] < 1


def test_the_stream_answers_only_after_voice_activity_detection(
    with_threshold, monkeypatch, speech, segments
):
    def voice(rng, n, rate):
        return speech[segments[0].start :][:n]

    def silence(rng, n, rate):
        return 1e-5 * rng.standard_normal(n)

    monkeypatch.setattr(rejection, 'FAMILIES', (voice, silence))
    monkeypatch.setattr(rejection, 'HELD_OUT', ())
    metrics = evaluate_nonspeech(with_threshold(0.0), 'cpu')
    assert {kind: row['answered'] for kind, row in metrics.items()} == {'voice': 1, 'silence': 0}
    # The model itself classified both.
    assert {kind: row['rejected'] for kind, row in metrics.items()} == {'voice': 0, 'silence': 0}
    assert evaluate_nonspeech(with_threshold(1.0), 'cpu')['voice']['answered'] == 0


def test_a_bundle_of_whole_clips_has_no_stream(with_threshold):
    bundle = with_threshold(0.0, frontend=ResearchConfig(duration=1.0))
    metrics = evaluate_nonspeech(bundle, 'cpu')
    assert {row['answered'] for row in metrics.values()} == {None}
    assert {row['rejected'] for row in metrics.values()} == {0}
    assert 'speech (clips)' in nonspeech_metrics(bundle, [], metrics)['rows']


def test_speech_is_in_the_first_row(with_threshold):
    bundle = with_threshold(0.5, recipe={'data': {'nonspeech': 0.1}})
    certain, uncertain = np.full(8, 0.03), np.full(8, 0.12)
    certain[2], uncertain[2] = 0.79, 0.16
    clip = Clip(Path('clip.wav'), 'happy', '01', 'RAVDESS')
    results = [
        ClipResult(clip, np.log([certain, uncertain]), [None]),
        ClipResult(clip, np.log([certain, certain]), ['happy']),
        ClipResult(clip, np.zeros((0, 8)), []),
    ]
    metrics = nonspeech_metrics(bundle, results, {'hum': {'count': 3}})
    assert metrics['rows'] == {
        'speech (windows)': {
            'count': 4,
            'rejected': 1 / 4,
            # Neutral and calm are one expression.
            'confidence': pytest.approx((3 * 0.79 + 0.24) / 4),
            'answered': None,
        },
        'hum': {'count': 3},
    }
    assert 'other sounds of the same generator' in metrics['protocol']
    assert 'no such sounds' in nonspeech_metrics(with_threshold(0.5), results, {})['protocol']


def test_no_sound_has_a_seed_of_the_training(with_threshold, every_kind, monkeypatch):
    """Equal seeds could make the same sound, which would then be known from the training."""
    seeds = {dataset: set(), rejection: set()}

    def watch(module, name):
        function = getattr(module, name)

        def watched(*arguments):
            (rng,) = (a for a in arguments if isinstance(a, np.random.Generator))
            seeds[module].add(tuple(rng.bit_generator.seed_seq.generate_state(4)))
            return function(*arguments)

        monkeypatch.setattr(module, name, watched)

    watch(dataset, 'generate')
    watch(rejection, 'generate_one')
    utterances = [Utterance(np.zeros(2_000, np.float32), Segment(0, 2_000), 0)] * 5
    for seed in range(3):
        items = TrainingWindows(utterances, DataConfig(nonspeech=1.0), AugmentationConfig(), seed)
        assert all(items[epoch, i][1] == NO_CLASS for epoch in range(5) for i in range(5))
    monkeypatch.setattr(rejection, 'N_SOUNDS', 10)
    # A bundle that cannot stream is fast: it classifies each sound once.
    evaluate_nonspeech(with_threshold(0.5, frontend=LogMelConfig(sample_rate=24_000)), 'cpu')
    assert len(seeds[dataset]) == 3 * 5 * 5
    assert len(seeds[rejection]) == 8 * 10
    assert not seeds[dataset] & seeds[rejection]

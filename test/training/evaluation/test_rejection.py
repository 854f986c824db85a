"""Sounds without a voice are counted as the bundle's threshold and the stream take them."""

from pathlib import Path

import numpy as np
import pytest

from ser_ros.bundle import load_bundle
from ser_ros.features import ResearchConfig
from ser_ros.training.data.corpora import Clip
from ser_ros.training.data.dataset import _PURPOSES
from ser_ros.training.data.nonspeech import FAMILIES, HELD_OUT
from ser_ros.training.evaluation import rejection
from ser_ros.training.evaluation.metrics import ClipResult
from ser_ros.training.evaluation.rejection import hear_nonspeech


@pytest.fixture
def with_threshold(write_bundle, tmp_path):
    """A function: threshold → a bundle that withholds what is below it."""

    def load(threshold, **changes):
        path = tmp_path / f'{threshold}.safetensors'
        return load_bundle(write_bundle(path, threshold=threshold, window=1.5, **changes))

    return load


def test_every_kind_is_heard_and_the_same_each_time(with_threshold, monkeypatch):
    monkeypatch.setattr(rejection, 'N_SOUNDS', 2)
    figures = hear_nonspeech(with_threshold(0.5), 'cpu')
    assert list(figures) == [
        *('coloured noise', 'band noise', 'hum', 'engine', 'music', 'impacts', 'babble'),
        'siren (held out)',
    ]
    assert all(row['count'] == 2 for row in figures.values())
    assert all(1 / 8 < row['confidence'] <= 1 for row in figures.values())
    assert len({row['confidence'] for row in figures.values()}) == len(figures)
    assert hear_nonspeech(with_threshold(0.5), 'cpu') == figures


def test_what_is_below_the_threshold_is_rejected(with_threshold):
    sure, never = (hear_nonspeech(with_threshold(threshold), 'cpu') for threshold in (0.0, 1.0))
    for kind in sure:
        assert (sure[kind]['rejected'], never[kind]['rejected']) == (0, 1)
        assert sure[kind]['confidence'] == never[kind]['confidence'] < 1


def test_the_stream_answers_what_voice_activity_detection_lets_through(
    with_threshold, monkeypatch, speech, segments
):
    def voice(rng, n, rate):
        return speech[segments[0].start :][:n]

    def silence(rng, n, rate):
        return 1e-5 * rng.standard_normal(n)

    monkeypatch.setattr(rejection, 'FAMILIES', (voice, silence))
    monkeypatch.setattr(rejection, 'HELD_OUT', ())
    figures = hear_nonspeech(with_threshold(0.0), 'cpu')
    assert {kind: row['answered'] for kind, row in figures.items()} == {'voice': 1, 'silence': 0}
    # Both were given to the model itself.
    assert {kind: row['rejected'] for kind, row in figures.items()} == {'voice': 0, 'silence': 0}
    assert hear_nonspeech(with_threshold(1.0), 'cpu')['voice']['answered'] == 0


def test_a_bundle_of_whole_clips_has_no_stream(with_threshold):
    bundle = with_threshold(0.0, frontend=ResearchConfig(duration=1.0))
    figures = hear_nonspeech(bundle, 'cpu')
    assert {row['answered'] for row in figures.values()} == {None}
    assert {row['rejected'] for row in figures.values()} == {0}
    assert 'speech (clips)' in rejection.rejection(bundle, [], figures)['rows']


def test_speech_stands_beside_it(with_threshold):
    bundle = with_threshold(0.5, recipe={'data': {'nonspeech': 0.1}})
    sure, unsure = np.full(8, 0.03), np.full(8, 0.12)
    sure[2], unsure[2] = 0.79, 0.16
    clip = Clip(Path('clip.wav'), 'happy', '01', 'RAVDESS')
    results = [
        ClipResult(clip, np.log([sure, unsure]), [None]),
        ClipResult(clip, np.log([sure, sure]), ['happy']),
        ClipResult(clip, np.zeros((0, 8)), []),
    ]
    figures = rejection.rejection(bundle, results, {'hum': {'count': 3}})
    assert figures['rows'] == {
        'speech (windows)': {
            'count': 4,
            'rejected': 1 / 4,
            # Neutral and calm are one expression.
            'confidence': pytest.approx((3 * 0.79 + 0.24) / 4),
            'answered': None,
        },
        'hum': {'count': 3},
    }
    assert 'others of the same generator' in figures['protocol']
    assert 'none such' in rejection.rejection(with_threshold(0.5), results, {})['protocol']


def test_no_sound_is_one_of_the_training(with_threshold):
    def draws(*entropy):
        return tuple(np.random.SeedSequence(entropy).generate_state(4))

    purpose = _PURPOSES.index('nonspeech')
    training = {
        draws(seed, epoch, index, purpose)
        for seed in range(3)
        for epoch in range(5)
        for index in range(5)
    }
    kinds = range(len(FAMILIES) + len(HELD_OUT))
    assert not training & {draws(kind, number) for kind in kinds for number in range(50)}

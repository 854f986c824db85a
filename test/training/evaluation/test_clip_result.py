"""Clip results: scores, restrictions, and records of plain values."""

import json
from pathlib import Path

import numpy as np
import pytest
from clip_results import NAMES, drawn, result

from ser_ros.training.data.corpora import Clip
from ser_ros.training.evaluation.clip_result import ClipResult, from_records, to_records
from ser_ros.training.evaluation.metrics import compute_metrics


def test_a_clip_is_the_mean_of_its_windows():
    windows = np.log([[0.6, 0.3, 0.1], [0.1, 0.2, 0.7]])
    score = ClipResult(Clip(Path('clip.wav'), 'sad', '01', 'RAVDESS'), windows, []).score
    expected = np.exp(windows.mean(axis=0))
    np.testing.assert_allclose(np.exp(score), expected / expected.sum())


def test_a_restriction_leaves_only_the_chosen_classes():
    chosen = result('sad', [0.5, 0.3, 0.2]).restricted_to(['angry', 'sad'], NAMES)
    np.testing.assert_allclose(np.exp(chosen.windows), [[0.4, 0.6]])
    assert compute_metrics([chosen], ['angry', 'sad'])['accuracy'] == 1
    assert not result('sad', []).restricted_to(['angry', 'sad'], NAMES).has_speech


def test_metrics_are_the_same_from_the_records_alone():
    results = drawn(200)
    # Through JSON, as from a file.
    records = json.loads(json.dumps(to_records(results, NAMES)))
    expected, metrics = (
        compute_metrics(results, NAMES),
        compute_metrics(from_records(records), NAMES),
    )
    for name in set(metrics) - {'reliability', 'risk_coverage'}:
        if name.startswith('window_'):
            assert metrics[name] is None
        elif isinstance(expected[name], float):
            assert metrics[name] == pytest.approx(expected[name], abs=2e-3)
        else:
            assert metrics[name] == expected[name], name


def test_a_record_holds_clip_and_prediction():
    first = result('happy', [0.12341, 0.87658, 1e-5], ['sad'], '03', 'a-b', gender='male', age=31)
    record, without_speech = to_records([first, result('sad', [])], NAMES)
    assert record == {
        'name': 'a-b.wav',
        'fingerprint': '',
        'corpus': 'RAVDESS',
        'speaker': '03',
        'emotion': 'happy',
        'gender': 'male',
        'age': 31,
        'intensity': None,
        'probabilities': {'happy': 0.1234, 'sad': 0.8766, 'angry': 1e-5},
        'n_windows': 1,
        'decisions': ['sad'],
    }
    assert without_speech['probabilities'] is None
    assert without_speech['n_windows'] == 0

"""Temperature, threshold and calibration errors of results with known answers."""

import numpy as np
import pytest
import torch
from clip_results import NAMES, drawn, result
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional.classification import multiclass_calibration_error

from ser_ros import SerError
from ser_ros.bundle import load_bundle
from ser_ros.frontend_config import LogMelConfig, ResearchConfig
from ser_ros.training.data.corpora import read_corpus
from ser_ros.training.evaluation.calibration import (
    calibrate,
    calibration_metrics,
    fit_temperature,
    fit_threshold,
)
from ser_ros.training.evaluation.metrics import compute_metrics
from ser_ros.training.evaluation.prediction import predict_clips


def test_torchmetrics_agrees_on_calibration():
    results = drawn(200, n_windows=(1, 5))
    metrics = compute_metrics(results, NAMES)
    labels = torch.tensor([NAMES.index(r.clip.emotion) for r in results])
    for prefix, scores in (
        ('', [r.score for r in results]),
        ('window_', np.concatenate([r.windows for r in results])),
    ):
        if prefix:
            labels = labels.repeat_interleave(torch.tensor([len(r.windows) for r in results]))
        expected = multiclass_calibration_error(torch.from_numpy(np.exp(scores)), labels, 3, 15)
        assert metrics[f'{prefix}calibration_error'] == pytest.approx(expected.item(), abs=1e-5)
        loss = torch.nn.functional.nll_loss(torch.from_numpy(np.array(scores)), labels)
        assert metrics[f'{prefix}negative_log_likelihood'] == pytest.approx(loss.item())
        assert sum(metrics[f'{prefix}reliability']['count']) == len(labels)


def test_chance_alone_causes_a_calibration_error():
    """It is the mean error of answers that are right as often as their confidences state."""
    generator = np.random.default_rng(2)
    rows = generator.dirichlet(np.full(3, 0.5), 240)
    errors = []
    for _ in range(200):
        labels = np.array([generator.choice(3, p=row) for row in rows])
        errors.append(calibration_metrics(np.log(rows), labels)['calibration_error'])
    metrics = compute_metrics([result(NAMES[k], row) for k, row in zip(labels, rows)], NAMES)
    assert metrics['calibration_error'] == pytest.approx(errors[-1])
    assert metrics['calibration_error_by_chance'] == pytest.approx(np.mean(errors), rel=0.05)
    assert metrics['calibration_error_by_chance'] == metrics['window_calibration_error_by_chance']
    # More clips make it smaller.
    more = compute_metrics(drawn(2_000), NAMES)['calibration_error_by_chance']
    assert 0 < more < metrics['calibration_error_by_chance'] / 2


def test_a_certain_clip_is_in_the_last_bin():
    metrics = compute_metrics([result('sad', [1e-300, 1.0, 1e-300])], NAMES)
    assert metrics['reliability']['count'][-1] == 1
    assert metrics['calibration_error'] == 0


def sampled(true_temperature, n=3_000):
    """Results whose labels were drawn at this temperature."""
    generator = np.random.default_rng(1)
    logits = 3 * generator.standard_normal((n, 3))
    scaled = np.exp(logits / true_temperature)
    labels = [generator.choice(3, p=p) for p in scaled / scaled.sum(axis=1, keepdims=True)]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return [result(NAMES[label], p) for label, p in zip(labels, probabilities)]


@pytest.mark.parametrize('true_temperature', [0.5, 1.0, 2.5])
def test_temperature_is_found_and_calibrates(true_temperature):
    results = sampled(true_temperature)
    temperature = fit_temperature(results, NAMES)
    assert temperature == pytest.approx(true_temperature, rel=0.1)
    calibrated = [result.at_temperature(temperature) for result in results]
    assert compute_metrics(calibrated, NAMES)['calibration_error'] < 0.03
    if true_temperature != 1:
        assert compute_metrics(results, NAMES)['calibration_error'] > 0.05
    assert (
        compute_metrics(calibrated, NAMES)['accuracy']
        == compute_metrics(results, NAMES)['accuracy']
    )


def test_temperature_ignores_clips_without_speech():
    results = sampled(2.0)
    assert fit_temperature([*results, result('sad', [])], NAMES) == fit_temperature(results, NAMES)


def test_nothing_can_be_fitted_to_silence():
    silent = [result('sad', []), result('happy', [])]
    with pytest.raises(SerError, match='no speech was detected in any of 2 '):
        fit_temperature(silent, NAMES)
    with pytest.raises(SerError, match='no speech'):
        fit_threshold(silent, NAMES, 0.5)


@given(
    st.lists(st.tuples(st.integers(0, 99), st.booleans()), min_size=1, unique_by=lambda d: d[0]),
    st.floats(0.05, 1),
)
def test_threshold_is_the_least_that_reaches_the_target(decisions, target):
    results = [
        result('happy' if is_right else 'sad', [(100 + m) / 201, (100 - m) / 201, 1 / 201])
        for m, is_right in decisions
    ]
    margins = [2 * m / 201 for m, _ in decisions]
    threshold = fit_threshold(results, NAMES, target)

    def accuracy_from(least):
        return np.mean([right for m, right in decisions if 2 * m / 201 >= least - 1e-9])

    candidates = [margin for margin in margins if accuracy_from(margin) >= target]
    exact = min(candidates) if candidates else max(margins)
    assert exact - 2e-5 < threshold <= exact


@pytest.mark.parametrize('frontend', [LogMelConfig(), ResearchConfig()])
def test_results_are_those_of_the_calibrated_bundle(write_bundle, tiny_corpus, tmp_path, frontend):
    """The clips are predicted once, before temperature and threshold are known."""
    path = tmp_path / 'uncalibrated.safetensors'
    bundle = load_bundle(write_bundle(path, frontend=frontend, recipe={'target_accuracy': 1.0}))
    clips = read_corpus(tiny_corpus).clips[:6]
    results = calibrate(bundle, clips, 'cpu')
    assert any(decision for one in results for decision in one.decisions)
    for one, again in zip(results, predict_clips(bundle, clips, 'cpu'), strict=True):
        assert one.decisions == again.decisions
        np.testing.assert_allclose(one.windows, again.windows, atol=1e-5)


def test_the_threshold_is_for_expressions_not_for_classes():
    names = ['calm', 'happy', 'neutral']
    results = [
        result('calm', [0.3, 0.4, 0.3]),  # neutral by 0.6 to 0.4, and right
        result('happy', [0.25, 0.45, 0.3]),  # neutral by 0.55 to 0.45, and wrong
    ]
    assert fit_threshold(results, names, 1.0) == pytest.approx(0.2, abs=2e-5)

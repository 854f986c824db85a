"""Figures on made results with known answers, and on real clips."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ser_ros.bundle import load_bundle
from ser_ros.emotions import EMOTIONS
from ser_ros.recognizer import Recognizer
from ser_ros.training.corpora import Clip, read_ravdess
from ser_ros.training.evaluation import (
    ClipResult,
    fit_temperature,
    fit_threshold,
    hear,
    measure,
)

NAMES = ['happy', 'sad', 'angry']


def result(emotion, probabilities, decisions=(), speaker='01'):
    """A clip of one window with these probabilities; no window where there are none."""
    windows = np.log(np.array([probabilities])) if len(probabilities) else np.zeros((0, 3))
    return ClipResult(Clip(Path('clip.wav'), emotion, speaker), windows, list(decisions))


SURE_HAPPY, SURE_SAD = [0.8, 0.1, 0.1], [0.1, 0.8, 0.1]


def test_figures_by_hand():
    figures = measure(
        [
            result('happy', SURE_HAPPY, ['happy'], '02'),
            result('happy', SURE_HAPPY, [None], '01'),
            result('happy', SURE_SAD, ['sad', 'happy'], '02'),
            result('sad', SURE_HAPPY, ['happy'], '01'),
        ],
        NAMES,
    )
    assert figures['clips'] == 4
    assert figures['speakers'] == ['01', '02']
    assert figures['accuracy'] == pytest.approx(2 / 4)
    assert figures['recall'] == {'happy': pytest.approx(2 / 3), 'sad': 0}
    assert figures['unweighted_accuracy'] == pytest.approx((2 / 3 + 0) / 2)
    assert figures['confusion'] == {
        'columns': ['happy', 'sad', 'angry', 'unheard'],
        'rows': [[2, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]],
    }
    # All say 0.8, half of them rightly.
    assert figures['calibration_error'] == pytest.approx(0.3, abs=1e-6)
    assert figures['utterances'] == 5
    assert figures['coverage'] == pytest.approx(4 / 5)
    assert figures['expression_accuracy_when_given'] == pytest.approx(2 / 4)


def test_an_unheard_clip_counts_as_wrong():
    figures = measure([result('happy', SURE_HAPPY), result('happy', [])], NAMES)
    assert figures['accuracy'] == figures['unweighted_accuracy'] == 0.5
    assert figures['confusion']['rows'][0] == [1, 0, 0, 1]


def test_nothing_heard_at_all_has_figures_too():
    figures = measure([result('happy', []), result('sad', [])], NAMES)
    assert figures['accuracy'] == 0
    assert figures['coverage'] == figures['expression_accuracy_when_given'] == 0


def test_expressions_are_compared_as_a_robot_gets_them():
    names = ['calm', 'fearful', 'neutral']
    figures = measure(
        [
            result('calm', [0.2, 0.1, 0.7], ['neutral']),
            result('fearful', [0.1, 0.8, 0.1], ['scared']),
        ],
        names,
    )
    assert figures['accuracy'] == 0.5
    assert figures['expression_accuracy_when_given'] == 1


def test_a_clip_is_the_mean_of_its_windows():
    windows = np.log([[0.6, 0.3, 0.1], [0.1, 0.2, 0.7]])
    score = ClipResult(Clip(Path('clip.wav'), 'sad', '01'), windows, []).score
    expected = np.exp(windows.mean(axis=0))
    np.testing.assert_allclose(np.exp(score), expected / expected.sum())


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
    assert measure(calibrated, NAMES)['calibration_error'] < 0.03
    if true_temperature != 1:
        assert measure(results, NAMES)['calibration_error'] > 0.05
    assert measure(calibrated, NAMES)['accuracy'] == measure(results, NAMES)['accuracy']


def test_temperature_ignores_what_was_not_heard():
    results = sampled(2.0)
    assert fit_temperature([*results, result('sad', [])], NAMES) == fit_temperature(results, NAMES)


@given(
    st.lists(st.tuples(st.integers(35, 99), st.booleans()), min_size=1, unique_by=lambda d: d[0]),
    st.floats(0.05, 1),
)
def test_threshold_is_the_least_that_reaches_the_target(decisions, target):
    results = [
        result('happy' if is_right else 'sad', [c / 100, (1 - c / 100) / 2, (1 - c / 100) / 2])
        for c, is_right in decisions
    ]
    confidences = [c / 100 for c, _ in decisions]
    threshold = fit_threshold(results, NAMES, target)

    def accuracy_from(least):
        return np.mean([right for c, right in decisions if c / 100 >= least - 1e-9])

    candidates = [c for c in confidences if accuracy_from(c) >= target]
    assert threshold == pytest.approx(min(candidates) if candidates else max(confidences))


def test_threshold_is_one_for_expressions_not_for_classes():
    names = ['calm', 'happy', 'neutral']
    results = [
        result('calm', [0.3, 0.4, 0.3]),  # neutral by 0.6, and right
        result('happy', [0.25, 0.45, 0.3]),  # neutral by 0.55, and wrong
    ]
    assert fit_threshold(results, names, 1.0) == pytest.approx(0.6)


def test_clips_are_heard_as_on_the_robot(bundle, tiny_corpus):
    clips = read_ravdess(tiny_corpus)[:3]
    recognizer = Recognizer(bundle, 'cpu')
    results = hear(recognizer, clips)
    assert [r.clip for r in results] == clips
    for heard in results:
        assert heard.windows.shape == (len(heard.windows), len(EMOTIONS))
        assert len(heard.windows) >= 1
        np.testing.assert_allclose(np.exp(heard.windows).sum(axis=1), 1, rtol=1e-5)
        assert len(heard.decisions) >= 1
    # One clip leaves nothing to the next.
    (alone,) = hear(Recognizer(bundle, 'cpu'), clips[2:])
    np.testing.assert_array_equal(alone.windows, results[2].windows)


def test_inaudible_clips_are_unheard(bundle, tiny_corpus):
    results = hear(Recognizer(bundle, 'cpu'), read_ravdess(tiny_corpus)[:2], gain_db=-120)
    assert [len(heard.windows) for heard in results] == [0, 0]
    assert [heard.decisions for heard in results] == [[], []]


def test_held_out_accuracy_is_as_stated_and_survives_a_quiet_voice(ravdess):
    bundle = load_bundle()
    stated = bundle.info.metrics['test']
    clips = [clip for clip in read_ravdess(ravdess) if clip.speaker in stated['speakers']]
    recognizer = Recognizer(bundle, 'cpu')
    loud = measure(hear(recognizer, clips), bundle.info.class_names)
    quiet = measure(hear(recognizer, clips, gain_db=-20), bundle.info.class_names)
    assert loud['clips'] == stated['clips'] == 240
    # Another machine's arithmetic may tip a clip or two.
    assert loud['unweighted_accuracy'] == pytest.approx(stated['unweighted_accuracy'], abs=0.01)
    assert quiet['unweighted_accuracy'] >= loud['unweighted_accuracy'] - 0.03

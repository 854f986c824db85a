"""Metrics of results with known answers, compared with scikit-learn."""

import json
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics
from clip_results import NAMES, drawn, result

from ser_ros import SerError
from ser_ros.training.data.corpora import Clip
from ser_ros.training.evaluation.clip_result import ClipResult, from_records, to_records
from ser_ros.training.evaluation.metrics import (
    accuracy_change,
    compute_metrics,
    pool_subsets,
    subset_results,
)

SURE_HAPPY, SURE_SAD = [0.79, 0.105, 0.105], [0.105, 0.79, 0.105]


def test_metrics_by_hand():
    metrics = compute_metrics(
        [
            result('happy', SURE_HAPPY, ['happy'], '02', gender='female', intensity='strong'),
            result('happy', SURE_HAPPY, [None], '01', gender='male', age=44),
            result('happy', SURE_SAD, ['sad', 'happy'], '02', gender='female'),
            result('sad', SURE_HAPPY, ['happy'], '01', gender='male'),
        ],
        NAMES,
    )
    assert metrics['clips'] == 4
    assert metrics['no_speech'] == 0
    assert metrics['speakers'] == ['RAVDESS:01', 'RAVDESS:02']
    assert metrics['accuracy'] == pytest.approx(2 / 4)
    assert metrics['unweighted_accuracy'] == pytest.approx((2 / 3 + 0) / 2)
    third = pytest.approx(2 / 3)
    assert metrics['classes'] == {
        'happy': {'clips': 3, 'precision': third, 'recall': third, 'f1': third},
        'sad': {'clips': 1, 'precision': 0, 'recall': 0, 'f1': 0},
    }
    assert metrics['macro_f1'] == pytest.approx(1 / 3)
    assert metrics['confusion'] == {
        'columns': ['happy', 'sad', 'angry', 'no speech'],
        'rows': [[2, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]],
    }
    half = {'clips': 2, 'speakers': 1, 'accuracy': 0.5, 'unweighted_accuracy': 0.5}
    # One voice has no interval.
    happy = {**half, 'n_classes': 1, 'unweighted_accuracy_interval': None}
    both = {**half, 'n_classes': 2, 'unweighted_accuracy_interval': None}
    everything = {
        'clips': 4,
        'speakers': 2,
        'n_classes': 2,
        'accuracy': 0.5,
        'unweighted_accuracy': pytest.approx(1 / 3),
        'unweighted_accuracy_interval': metrics['unweighted_accuracy_interval'],
    }
    right = {**happy, 'clips': 1, 'accuracy': 1, 'unweighted_accuracy': 1}
    assert metrics['groups'] == {
        'corpus': {'RAVDESS': everything},
        'language': {'English': everything},
        'gender': {'female': happy, 'male': both},
        'age_group': {'30–44': right},
        'intensity': {'strong': right},
        'voice': {'RAVDESS:01': both, 'RAVDESS:02': happy},
    }
    # All say 0.79, half of them rightly.
    assert metrics['calibration_error'] == pytest.approx(0.29, abs=1e-6)
    assert metrics['reliability']['count'] == [0] * 11 + [4, 0, 0, 0]
    assert metrics['reliability']['accuracy'][11] == 0.5
    assert metrics['reliability']['confidence'][11] == pytest.approx(0.79)
    assert metrics['negative_log_likelihood'] == pytest.approx(-np.log([0.79, 0.105]).mean())
    assert metrics['utterances'] == 5
    assert metrics['coverage'] == pytest.approx(4 / 5)
    assert metrics['expression_accuracy_when_decided'] == pytest.approx(2 / 4)


def test_a_clip_without_speech_counts_as_wrong():
    metrics = compute_metrics([result('happy', SURE_HAPPY), result('happy', [])], NAMES)
    assert metrics['accuracy'] == metrics['unweighted_accuracy'] == 0.5
    assert metrics['no_speech'] == 1
    assert metrics['confusion']['rows'][0] == [1, 0, 0, 1]
    assert metrics['classes']['happy']['precision'] == 1
    # The clip without speech is the least certain one.
    assert metrics['risk_coverage'] == {'coverage': [0.5, 1.0], 'risk': [0.0, 0.5], 'area': 0.25}


def test_clips_without_any_speech_have_metrics_too():
    metrics = compute_metrics([result('happy', []), result('sad', [])], NAMES)
    assert metrics['accuracy'] == metrics['macro_f1'] == 0
    assert metrics['risk_coverage']['area'] == 1
    for name in (
        *('calibration_error', 'negative_log_likelihood', 'reliability'),
        *('calibration_error_by_chance', 'window_calibration_error_by_chance'),
        *('window_calibration_error', 'window_negative_log_likelihood', 'window_reliability'),
        *('coverage', 'expression_accuracy_when_decided'),
    ):
        assert metrics[name] is None, name


def test_no_clips_are_an_error():
    with pytest.raises(SerError, match='no clips'):
        compute_metrics([], NAMES)


def test_metrics_are_plain_values():
    metrics = compute_metrics(drawn(30), NAMES)
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics


@pytest.mark.filterwarnings('ignore::sklearn.exceptions.UndefinedMetricWarning')
@pytest.mark.parametrize('seed', [1, 2, 3])
def test_scikit_learn_agrees(seed):
    results = drawn(80, seed)
    truth = [r.clip.emotion for r in results]
    guess = [NAMES[r.score.argmax()] if len(r.windows) else 'no speech' for r in results]
    metrics = compute_metrics(results, NAMES)
    columns = metrics['confusion']['columns']
    assert metrics['accuracy'] == pytest.approx(sklearn.metrics.accuracy_score(truth, guess))
    expected = sklearn.metrics.recall_score(truth, guess, labels=NAMES, average='macro')
    assert metrics['unweighted_accuracy'] == pytest.approx(expected)
    confusion = sklearn.metrics.confusion_matrix(truth, guess, labels=columns)
    assert metrics['confusion']['rows'] == confusion[:-1].tolist()
    precision, recall, f1, count = sklearn.metrics.precision_recall_fscore_support(
        truth, guess, labels=NAMES
    )
    for index, name in enumerate(NAMES):
        assert metrics['classes'][name] == pytest.approx(
            {
                'clips': count[index],
                'precision': precision[index],
                'recall': recall[index],
                'f1': f1[index],
            }
        )
    assert metrics['macro_f1'] == pytest.approx(f1.mean())


def test_risk_grows_with_coverage():
    results = [
        result('happy', [0.9, 0.05, 0.05]),
        result('happy', [0.1, 0.7, 0.2]),
        result('sad', [0.1, 0.8, 0.1]),
        result('sad', [0.6, 0.3, 0.1]),
    ]
    curve = compute_metrics(results, NAMES)['risk_coverage']
    assert curve['coverage'] == [0.25, 0.5, 0.75, 1.0]
    assert curve['risk'] == [0, 0, 0.3333, 0.5]
    assert curve['area'] == pytest.approx((0 + 0 + 1 / 3 + 1 / 2) / 4)


def test_a_risk_curve_is_thinned_but_its_area_is_not():
    results = drawn(333)
    curve = compute_metrics(results, NAMES)['risk_coverage']
    assert len(curve['coverage']) == len(curve['risk']) == 50
    assert curve['coverage'][-1] == 1
    assert curve['risk'][-1] == pytest.approx(
        1 - compute_metrics(results, NAMES)['accuracy'], abs=1e-4
    )
    right = [len(r.windows) and NAMES[r.score.argmax()] == r.clip.emotion for r in results]
    confidence = [np.exp(r.score.max()) if len(r.windows) else 0 for r in results]
    order = np.argsort(confidence)[::-1]
    risks = np.cumsum(~np.array(right, bool)[order]) / np.arange(1, 334)
    assert curve['area'] == pytest.approx(risks.mean())


def test_the_interval_draws_speakers_not_clips():
    """All clips of one speaker are right and all of the other wrong: draws reach from 0 to 1."""
    results = [result('happy', SURE_HAPPY, speaker='01')] * 50
    results += [result('happy', SURE_SAD, speaker='02')] * 50
    metrics = compute_metrics(results, NAMES)
    assert metrics['unweighted_accuracy'] == 0.5
    assert metrics['unweighted_accuracy_interval'] == [0, 1]


def test_the_interval_agrees_with_another_bootstrap():
    results = drawn(300)
    low, high = compute_metrics(results, NAMES)['unweighted_accuracy_interval']
    voices = sorted({r.clip.voice for r in results})
    truth = np.array([r.clip.emotion for r in results])
    guess = np.array([NAMES[r.score.argmax()] if r.has_speech else '' for r in results])
    clips = [np.flatnonzero([r.clip.voice == voice for r in results]) for voice in voices]
    generator = np.random.default_rng(5)
    accuracies = []
    for _ in range(500):
        sample = np.concatenate([clips[i] for i in generator.integers(5, size=5)])
        right = truth[sample] == guess[sample]
        accuracies.append(np.mean([right[truth[sample] == name].mean() for name in NAMES]))
    expected = np.percentile(accuracies, (2.5, 97.5))
    np.testing.assert_allclose((low, high), expected, atol=0.15 * (expected[1] - expected[0]))


def test_one_speaker_has_no_interval():
    assert (
        compute_metrics([result('happy', SURE_HAPPY)], NAMES)['unweighted_accuracy_interval']
        is None
    )


def test_the_same_speaker_names_in_two_corpora_are_two_voices():
    results = [result('happy', SURE_HAPPY), result('happy', SURE_SAD, corpus='SAVEE')]
    metrics = compute_metrics(results, NAMES)
    assert metrics['speakers'] == ['RAVDESS:01', 'SAVEE:01']
    assert metrics['groups']['corpus']['SAVEE']['accuracy'] == 0


def test_expressions_are_compared_not_classes():
    names = ['calm', 'fearful', 'neutral']
    metrics = compute_metrics(
        [
            result('calm', [0.2, 0.1, 0.7], ['neutral']),
            result('fearful', [0.1, 0.8, 0.1], ['scared']),
        ],
        names,
    )
    assert metrics['accuracy'] == 0.5
    assert metrics['expression_accuracy_when_decided'] == 1


def test_pooled_subsets_have_the_metrics_of_all_clips_together():
    first, second = drawn(90, 1), drawn(60, 2)
    subsets = [subset_results(results, NAMES, 'apart') for results in (first, second)]
    pooled = pool_subsets(json.loads(json.dumps(subsets)), 'both')
    together = subset_results(first + second, NAMES, 'both')
    assert pooled['predictions'] == together['predictions']
    metrics, expected = pooled['metrics'], together['metrics']
    assert metrics['protocol'] == 'both'
    for name in ('unweighted_accuracy', 'unweighted_accuracy_interval', 'groups', 'confusion'):
        assert metrics[name] == expected[name], name
    # The records hold no windows; their bins add up.
    assert metrics['window_reliability']['count'] == expected['window_reliability']['count']
    for name in (
        'window_calibration_error',
        'window_calibration_error_by_chance',
        'window_negative_log_likelihood',
    ):
        assert metrics[name] == pytest.approx(expected[name], abs=1e-6)


def test_pooled_whole_clips_have_no_windows():
    records = to_records(drawn(20), NAMES)
    whole = subset_results(from_records(records), NAMES, 'whole')
    assert pool_subsets([whole], 'whole')['metrics']['window_reliability'] is None


def test_what_cannot_be_pooled():
    subset = subset_results(drawn(20), NAMES, 'apart')
    with pytest.raises(SerError, match='20 clips'):
        pool_subsets([subset, subset], 'twice')
    other = subset_results([result('sad', [0.1, 0.9])], ['happy', 'sad'], 'other')
    with pytest.raises(SerError, match='classes'):
        pool_subsets([subset, other], 'both')


def test_a_change_is_compared_speaker_by_speaker():
    """All of one speaker's clips are right before and after, all of the other's wrong."""
    before = [result('happy', SURE_HAPPY, speaker='01'), result('happy', SURE_SAD, speaker='02')]
    metrics = compute_metrics(before, NAMES)
    assert metrics['unweighted_accuracy_interval'] == [0, 1]
    assert accuracy_change(before, before, NAMES) == {
        'accuracy_change': 0,
        'accuracy_change_interval': [0, 0],
    }
    worse = [result('happy', [], speaker='01'), before[1]]
    assert accuracy_change(worse, before, NAMES) == {
        'accuracy_change': -0.5,
        'accuracy_change_interval': [-1, 0],
    }
    alone = accuracy_change(worse[:1], before[:1], NAMES)
    assert alone == {'accuracy_change': -1, 'accuracy_change_interval': None}


def test_clips_whose_files_have_one_name_are_pooled():
    """`angry/01/1.wav` and `sad/01/1.wav`; records of 0.1.0 have the file's name alone."""

    def subset(emotion, digest, name='1.wav', below=''):
        clip = Clip(Path(name), emotion, '01', 'mine', digest=digest, name=below + name)
        rows = np.log([[0.5, 0.3, 0.2]])
        return subset_results([ClipResult(clip, rows, [None])], NAMES, 'p')

    both = [subset('angry', 'a' * 64, below='angry/01/'), subset('sad', 'b' * 64, below='sad/01/')]
    pooled = pool_subsets(json.loads(json.dumps(both)), 'both')
    records = pooled['predictions']
    assert [r['name'] for r in records] == ['angry/01/1.wav', 'sad/01/1.wav']
    assert [r['fingerprint'] for r in records] == ['a' * 12, 'b' * 12]
    again = [result.clip for result in from_records(records)]
    assert [(c.name, c.fingerprint) for c in again] == [
        ('angry/01/1.wav', 'a' * 12),
        ('sad/01/1.wav', 'b' * 12),
    ]
    old = [subset('angry', ''), subset('sad', '')]
    for each in old:
        del each['predictions'][0]['fingerprint']
    assert len(pool_subsets(old, 'both')['predictions']) == 2
    with pytest.raises(SerError, match='1 clips are in more than one'):
        pool_subsets([both[0], both[0]], 'twice')

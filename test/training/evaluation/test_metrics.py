"""Figures on made results with known answers, and on real clips."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional.classification import multiclass_calibration_error

from ser_ros import SerError
from ser_ros.bundle import load_bundle
from ser_ros.emotions import EMOTIONS, ExpressionMap
from ser_ros.features import LogMelConfig, ResearchConfig
from ser_ros.stream.recognizer import Recognizer
from ser_ros.training.data.corpora import Clip
from ser_ros.training.evaluation.metrics import (
    ClipResult,
    classify,
    decide,
    fit_temperature,
    fit_threshold,
    from_predictions,
    hear,
    listen,
    manner,
    measure,
    pool,
    predictions,
    record_part,
)

NAMES = ['happy', 'sad', 'angry']


def result(emotion, probabilities, decisions=(), speaker='01', name='clip', **said):
    """A clip of one window with these probabilities; no window where there are none."""
    windows = np.log(np.array([probabilities])) if len(probabilities) else np.zeros((0, 3))
    clip = Clip(Path(f'{name}.wav'), emotion, speaker, said.pop('corpus', 'RAVDESS'), **said)
    return ClipResult(clip, windows, list(decisions))


SURE_HAPPY, SURE_SAD = [0.79, 0.105, 0.105], [0.105, 0.79, 0.105]


def drawn(n, seed=1, n_windows=(0, 4)):
    """Results of five speakers of two corpora, as if at random, each clip with its own name."""
    generator = np.random.default_rng(seed)
    results = []
    for index in range(n):
        rows = generator.dirichlet(np.ones(3), generator.integers(*n_windows))
        speaker = int(generator.integers(5))
        clip = Clip(
            Path(f'{seed}-{index}.wav'),
            NAMES[generator.integers(3)],
            f'{speaker:02}',
            ['RAVDESS', 'SAVEE'][speaker // 3],
            ['female', 'male', None][speaker % 3],
            ['normal', 'strong'][index % 2],
        )
        decisions = [[None, 'happy', 'sad'][generator.integers(3)]] if len(rows) else []
        results.append(ClipResult(clip, np.log(rows).reshape(-1, 3), decisions))
    return results


def test_figures_by_hand():
    figures = measure(
        [
            result('happy', SURE_HAPPY, ['happy'], '02', gender='female', intensity='strong'),
            result('happy', SURE_HAPPY, [None], '01', gender='male'),
            result('happy', SURE_SAD, ['sad', 'happy'], '02', gender='female'),
            result('sad', SURE_HAPPY, ['happy'], '01', gender='male'),
        ],
        NAMES,
    )
    assert figures['clips'] == 4
    assert figures['unheard'] == 0
    assert figures['speakers'] == ['RAVDESS:01', 'RAVDESS:02']
    assert figures['accuracy'] == pytest.approx(2 / 4)
    assert figures['unweighted_accuracy'] == pytest.approx((2 / 3 + 0) / 2)
    third = pytest.approx(2 / 3)
    assert figures['classes'] == {
        'happy': {'clips': 3, 'precision': third, 'recall': third, 'f1': third},
        'sad': {'clips': 1, 'precision': 0, 'recall': 0, 'f1': 0},
    }
    assert figures['macro_f1'] == pytest.approx(1 / 3)
    assert figures['confusion'] == {
        'columns': ['happy', 'sad', 'angry', 'unheard'],
        'rows': [[2, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]],
    }
    half = {'clips': 2, 'accuracy': 0.5, 'unweighted_accuracy': 0.5}
    # One voice has no interval.
    happy = {**half, 'n_classes': 1, 'unweighted_accuracy_interval': None}
    both = {**half, 'n_classes': 2, 'unweighted_accuracy_interval': None}
    everything = {
        'clips': 4,
        'n_classes': 2,
        'accuracy': 0.5,
        'unweighted_accuracy': pytest.approx(1 / 3),
        'unweighted_accuracy_interval': figures['unweighted_accuracy_interval'],
    }
    strong = {**happy, 'clips': 1, 'accuracy': 1, 'unweighted_accuracy': 1}
    assert figures['groups'] == {
        'corpus': {'RAVDESS': everything},
        'gender': {'female': happy, 'male': both},
        'intensity': {'strong': strong},
        'voice': {'RAVDESS:01': both, 'RAVDESS:02': happy},
    }
    # All say 0.79, half of them rightly.
    assert figures['calibration_error'] == pytest.approx(0.29, abs=1e-6)
    assert figures['reliability']['count'] == [0] * 11 + [4, 0, 0, 0]
    assert figures['reliability']['accuracy'][11] == 0.5
    assert figures['reliability']['confidence'][11] == pytest.approx(0.79)
    assert figures['negative_log_likelihood'] == pytest.approx(-np.log([0.79, 0.105]).mean())
    assert figures['utterances'] == 5
    assert figures['coverage'] == pytest.approx(4 / 5)
    assert figures['expression_accuracy_when_given'] == pytest.approx(2 / 4)


def test_an_unheard_clip_counts_as_wrong():
    figures = measure([result('happy', SURE_HAPPY), result('happy', [])], NAMES)
    assert figures['accuracy'] == figures['unweighted_accuracy'] == 0.5
    assert figures['unheard'] == 1
    assert figures['confusion']['rows'][0] == [1, 0, 0, 1]
    assert figures['classes']['happy']['precision'] == 1
    # The one that was not heard is the last that anybody would rely on.
    assert figures['risk_coverage'] == {'coverage': [0.5, 1.0], 'risk': [0.0, 0.5], 'area': 0.25}


def test_nothing_heard_at_all_has_figures_too():
    figures = measure([result('happy', []), result('sad', [])], NAMES)
    assert figures['accuracy'] == figures['macro_f1'] == 0
    assert figures['risk_coverage']['area'] == 1
    for name in (
        *('calibration_error', 'negative_log_likelihood', 'reliability'),
        *('calibration_error_by_chance', 'window_calibration_error_by_chance'),
        *('window_calibration_error', 'window_negative_log_likelihood', 'window_reliability'),
        *('coverage', 'expression_accuracy_when_given'),
    ):
        assert figures[name] is None, name


def test_nothing_to_measure_is_an_error():
    with pytest.raises(SerError, match='no clips'):
        measure([], NAMES)


def test_figures_are_plain_values():
    figures = measure(drawn(30), NAMES)
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures


@pytest.mark.filterwarnings('ignore::sklearn.exceptions.UndefinedMetricWarning')
@pytest.mark.parametrize('seed', [1, 2, 3])
def test_scikit_learn_agrees(seed):
    results = drawn(80, seed)
    truth = [r.clip.emotion for r in results]
    guess = [NAMES[r.score.argmax()] if len(r.windows) else 'unheard' for r in results]
    figures = measure(results, NAMES)
    columns = figures['confusion']['columns']
    assert figures['accuracy'] == pytest.approx(sklearn.metrics.accuracy_score(truth, guess))
    expected = sklearn.metrics.recall_score(truth, guess, labels=NAMES, average='macro')
    assert figures['unweighted_accuracy'] == pytest.approx(expected)
    confusion = sklearn.metrics.confusion_matrix(truth, guess, labels=columns)
    assert figures['confusion']['rows'] == confusion[:-1].tolist()
    precision, recall, f1, count = sklearn.metrics.precision_recall_fscore_support(
        truth, guess, labels=NAMES
    )
    for index, name in enumerate(NAMES):
        assert figures['classes'][name] == pytest.approx(
            {
                'clips': count[index],
                'precision': precision[index],
                'recall': recall[index],
                'f1': f1[index],
            }
        )
    assert figures['macro_f1'] == pytest.approx(f1.mean())


def test_torchmetrics_agrees_on_calibration():
    results = drawn(200, n_windows=(1, 5))
    figures = measure(results, NAMES)
    labels = torch.tensor([NAMES.index(r.clip.emotion) for r in results])
    for prefix, scores in (
        ('', [r.score for r in results]),
        ('window_', np.concatenate([r.windows for r in results])),
    ):
        if prefix:
            labels = labels.repeat_interleave(torch.tensor([len(r.windows) for r in results]))
        expected = multiclass_calibration_error(torch.from_numpy(np.exp(scores)), labels, 3, 15)
        assert figures[f'{prefix}calibration_error'] == pytest.approx(expected.item(), abs=1e-5)
        loss = torch.nn.functional.nll_loss(torch.from_numpy(np.array(scores)), labels)
        assert figures[f'{prefix}negative_log_likelihood'] == pytest.approx(loss.item())
        assert sum(figures[f'{prefix}reliability']['count']) == len(labels)


def test_chance_alone_makes_a_calibration_error():
    """What it is said to be is what answers have that are right as often as they are sure."""
    generator = np.random.default_rng(2)
    rows = generator.dirichlet(np.full(3, 0.5), 240)
    errors = []
    for _ in range(200):
        labels = [generator.choice(3, p=row) for row in rows]
        figures = measure([result(NAMES[k], row) for k, row in zip(labels, rows)], NAMES)
        errors.append(figures['calibration_error'])
    assert figures['calibration_error_by_chance'] == pytest.approx(np.mean(errors), rel=0.05)
    assert figures['calibration_error_by_chance'] == figures['window_calibration_error_by_chance']
    # It gets smaller with more clips.
    more = measure(drawn(2_000), NAMES)['calibration_error_by_chance']
    assert 0 < more < figures['calibration_error_by_chance'] / 2


def test_a_sure_clip_is_in_the_last_bin():
    figures = measure([result('sad', [1e-300, 1.0, 1e-300])], NAMES)
    assert figures['reliability']['count'][-1] == 1
    assert figures['calibration_error'] == 0


def test_risk_grows_as_one_relies_on_more():
    results = [
        result('happy', [0.9, 0.05, 0.05]),
        result('happy', [0.1, 0.7, 0.2]),
        result('sad', [0.1, 0.8, 0.1]),
        result('sad', [0.6, 0.3, 0.1]),
    ]
    curve = measure(results, NAMES)['risk_coverage']
    assert curve['coverage'] == [0.25, 0.5, 0.75, 1.0]
    assert curve['risk'] == [0, 0, 0.3333, 0.5]
    assert curve['area'] == pytest.approx((0 + 0 + 1 / 3 + 1 / 2) / 4)


def test_a_risk_curve_is_thinned_but_its_area_is_not():
    results = drawn(333)
    curve = measure(results, NAMES)['risk_coverage']
    assert len(curve['coverage']) == len(curve['risk']) == 50
    assert curve['coverage'][-1] == 1
    assert curve['risk'][-1] == pytest.approx(1 - measure(results, NAMES)['accuracy'], abs=1e-4)
    right = [len(r.windows) and NAMES[r.score.argmax()] == r.clip.emotion for r in results]
    confidence = [np.exp(r.score.max()) if len(r.windows) else 0 for r in results]
    order = np.argsort(confidence)[::-1]
    risks = np.cumsum(~np.array(right, bool)[order]) / np.arange(1, 334)
    assert curve['area'] == pytest.approx(risks.mean())


def test_the_interval_is_of_speakers_not_of_clips():
    """Speakers of whom one hears all and one nothing: draws are of the whole range."""
    results = [result('happy', SURE_HAPPY, speaker='01')] * 50
    results += [result('happy', SURE_SAD, speaker='02')] * 50
    figures = measure(results, NAMES)
    assert figures['unweighted_accuracy'] == 0.5
    assert figures['unweighted_accuracy_interval'] == [0, 1]


def test_the_interval_covers_what_another_bootstrap_says():
    results = drawn(300)
    low, high = measure(results, NAMES)['unweighted_accuracy_interval']
    voices = sorted({r.clip.voice for r in results})
    truth = np.array([r.clip.emotion for r in results])
    guess = np.array([NAMES[r.score.argmax()] if r.is_heard else '' for r in results])
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
    assert measure([result('happy', SURE_HAPPY)], NAMES)['unweighted_accuracy_interval'] is None


def test_the_same_speaker_names_in_two_corpora_are_two_voices():
    results = [result('happy', SURE_HAPPY), result('happy', SURE_SAD, corpus='SAVEE')]
    figures = measure(results, NAMES)
    assert figures['speakers'] == ['RAVDESS:01', 'SAVEE:01']
    assert figures['groups']['corpus']['SAVEE']['accuracy'] == 0


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
    score = ClipResult(Clip(Path('clip.wav'), 'sad', '01', 'RAVDESS'), windows, []).score
    expected = np.exp(windows.mean(axis=0))
    np.testing.assert_allclose(np.exp(score), expected / expected.sum())


def test_among_some_classes_the_others_are_as_if_unknown():
    chosen = result('sad', [0.5, 0.3, 0.2]).among(NAMES, ['angry', 'sad'])
    np.testing.assert_allclose(np.exp(chosen.windows), [[0.4, 0.6]])
    assert measure([chosen], ['angry', 'sad'])['accuracy'] == 1
    assert not result('sad', []).among(NAMES, ['angry', 'sad']).is_heard


def test_figures_are_the_same_from_the_predictions_alone():
    results = drawn(200)
    # As they are read back from a file.
    records = json.loads(json.dumps(predictions(results, NAMES)))
    expected, figures = measure(results, NAMES), measure(from_predictions(records), NAMES)
    for name in set(figures) - {'reliability', 'risk_coverage'}:
        if name.startswith('window_'):
            assert figures[name] is None
        elif isinstance(expected[name], float):
            assert figures[name] == pytest.approx(expected[name], abs=2e-3)
        else:
            assert figures[name] == expected[name], name


def test_a_record_says_what_was_heard():
    heard = result('happy', [0.12341, 0.87658, 1e-5], ['sad'], '03', 'a-b', gender='male')
    (record, unheard) = predictions([heard, result('sad', [])], NAMES)
    assert record == {
        'name': 'a-b',
        'corpus': 'RAVDESS',
        'speaker': '03',
        'emotion': 'happy',
        'gender': 'male',
        'intensity': None,
        'probabilities': {'happy': 0.1234, 'sad': 0.8766, 'angry': 1e-5},
        'n_windows': 1,
        'decisions': ['sad'],
    }
    assert unheard['probabilities'] is None
    assert unheard['n_windows'] == 0


def test_parts_pooled_are_as_if_measured_together():
    first, second = drawn(90, 1), drawn(60, 2)
    parts = [record_part(results, NAMES, 'apart') for results in (first, second)]
    pooled = pool(json.loads(json.dumps(parts)), 'both')
    together = record_part(first + second, NAMES, 'both')
    assert pooled['predictions'] == together['predictions']
    figures, expected = pooled['figures'], together['figures']
    assert figures['protocol'] == 'both'
    for name in ('unweighted_accuracy', 'unweighted_accuracy_interval', 'groups', 'confusion'):
        assert figures[name] == expected[name], name
    # Of the windows only the bins are left, which add up.
    assert figures['window_reliability']['count'] == expected['window_reliability']['count']
    for name in (
        'window_calibration_error',
        'window_calibration_error_by_chance',
        'window_negative_log_likelihood',
    ):
        assert figures[name] == pytest.approx(expected[name], abs=1e-6)


def test_pooling_what_was_heard_whole_has_no_windows():
    records = predictions(drawn(20), NAMES)
    whole = record_part(from_predictions(records), NAMES, 'whole')
    assert pool([whole], 'whole')['figures']['window_reliability'] is None


def test_what_cannot_be_pooled():
    part = record_part(drawn(20), NAMES, 'apart')
    with pytest.raises(SerError, match='20 clips'):
        pool([part, part], 'twice')
    other = record_part([result('sad', [0.1, 0.9])], ['happy', 'sad'], 'other')
    with pytest.raises(SerError, match='classes'):
        pool([part, other], 'both')


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


def test_nothing_can_be_fitted_to_silence():
    silent = [result('sad', []), result('happy', [])]
    with pytest.raises(SerError, match='no speech.*2 clips'):
        fit_temperature(silent, NAMES)
    with pytest.raises(SerError, match='no speech'):
        fit_threshold(silent, NAMES, 0.5)


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


@pytest.fixture(scope='module')
def clips(tiny_corpus):
    """Three of them."""
    paths = sorted(tiny_corpus.rglob('*.wav'))[:3]
    return [Clip(path, 'happy', f'{number:02}', 'RAVDESS') for number, path in enumerate(paths)]


def test_clips_are_heard_as_on_the_robot(bundle, clips):
    recognizer = Recognizer(bundle, 'cpu')
    results = hear(recognizer, clips)
    assert [r.clip for r in results] == clips
    for heard in results:
        assert heard.windows.shape == (len(heard.windows), len(EMOTIONS))
        assert len(heard.windows) >= 1
        assert not heard.is_whole
        np.testing.assert_allclose(np.exp(heard.windows).sum(axis=1), 1, rtol=1e-5)
        assert len(heard.decisions) >= 1
    # One clip leaves nothing to the next.
    (alone,) = hear(Recognizer(bundle, 'cpu'), clips[2:])
    np.testing.assert_array_equal(alone.windows, results[2].windows)
    for one, other in zip(listen(bundle, clips, 'cpu'), results):
        np.testing.assert_array_equal(one.windows, other.windows)
    assert 'streamed' in manner(bundle)


def test_inaudible_clips_are_unheard(bundle, clips):
    results = hear(Recognizer(bundle, 'cpu'), clips[:2], gain_db=-120)
    assert [len(heard.windows) for heard in results] == [0, 0]
    assert [heard.decisions for heard in results] == [[], []]


@pytest.mark.parametrize('frontend', [LogMelConfig(), ResearchConfig()])
def test_certainty_beyond_all_numbers_has_finite_figures(write_bundle, clips, tmp_path, frontend):
    path = tmp_path / 'sure.safetensors'
    bundle = load_bundle(write_bundle(path, frontend=frontend, temperature=1e-5))
    names = bundle.info.class_names
    (heard,) = listen(bundle, clips[:1], 'cpu')
    clip = heard.clip
    results = [
        dataclasses.replace(heard, clip=dataclasses.replace(clip, emotion=name)) for name in names
    ]
    for heard in (results, from_predictions(predictions(results, names))):
        assert min(np.exp(r.windows).min() for r in heard) < 1e-100
        text = json.dumps(record_part(heard, names, 'sure'), allow_nan=False)
        assert json.loads(text)['figures']['negative_log_likelihood'] > 100


@pytest.mark.parametrize('frontend', [ResearchConfig(), LogMelConfig(sample_rate=24_000)])
def test_clips_are_classified_whole_where_there_is_no_stream(
    write_bundle, clips, tmp_path, frontend
):
    path = write_bundle(tmp_path / 'whole.safetensors', frontend=frontend, threshold=0.0)
    bundle = load_bundle(path)
    results = listen(bundle, clips, 'cpu')
    assert 'whole' in manner(bundle)
    for heard in results:
        assert heard.is_whole
        assert heard.windows.shape == (1, len(EMOTIONS))
        assert heard.decisions == [
            decide(bundle, heard.score, ExpressionMap(bundle.info.class_names))[0]
        ]
    figures = measure(results, bundle.info.class_names)
    assert figures['utterances'] == 3
    assert figures['coverage'] == 1
    assert figures['window_reliability'] is None
    assert [r['n_windows'] for r in predictions(results, bundle.info.class_names)] == [0, 0, 0]
    # What has too little in it to be judged counts as not heard.
    quiet = classify(bundle, clips, 'cpu', gain_db=-400.0)
    assert [heard.is_heard for heard in quiet] == [False, False, False]
    assert measure(quiet, bundle.info.class_names)['unheard'] == 3


def test_decisions_below_the_threshold_are_withheld(bundle):
    expressions = Recognizer(bundle, 'cpu').voice.expressions
    scores = np.log([0.3, 0.3, 0.05, 0.05, 0.1, 0.1, 0.05, 0.05])
    expression, confidence = decide(bundle, scores, expressions)
    assert (expression, confidence) == ('neutral', pytest.approx(0.6))
    even = np.log(np.full(8, 1 / 8))
    assert decide(bundle, even, expressions) == ('neutral', pytest.approx(0.25))
    uneven = np.log([0.1, 0.1, 0.24, 0.2, 0.1, 0.1, 0.1, 0.06])
    assert decide(bundle, uneven, expressions) == (None, pytest.approx(0.24))


def test_held_out_accuracy_is_as_stated_and_survives_a_quiet_voice(ravdess):
    from ser_ros.training.data.corpora import read_corpus
    from ser_ros.training.evaluation.selection import evaluate, select

    bundle = load_bundle()
    selections = select(bundle.info, [read_corpus(ravdess)], 'test')
    stated = bundle.info.metrics['test']['groups']['corpus']['RAVDESS']
    parts, results = evaluate(bundle, selections, 'cpu')
    loud = parts['test']['figures']
    # A quiet voice, in every other clip: it takes its time.
    half = [dataclasses.replace(s, clips=s.clips[::2]) for s in selections]
    quiet = evaluate(bundle, half, 'cpu', gain_db=-20)[0]['test']['figures']
    as_loud = measure(results[::2], bundle.info.class_names)
    assert loud['clips'] == stated['clips'] == 240
    # Another machine's arithmetic may tip a clip or two.
    assert loud['unweighted_accuracy'] == pytest.approx(stated['unweighted_accuracy'], abs=0.01)
    assert quiet['unweighted_accuracy'] >= as_loud['unweighted_accuracy'] - 0.03

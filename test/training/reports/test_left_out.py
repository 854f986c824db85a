"""The tables of corpora that were left out, and of trials on them."""

import json

import pytest

from ser_ros import SerError
from ser_ros.training.evaluation.left_out import Choices
from ser_ros.training.recipe import Recipe, plain_recipe
from ser_ros.training.reports.left_out import (
    CURVE_HEADER,
    EFFECT_HEADER,
    HEADER,
    REQUIREMENT_HEADER,
    TRIAL_CONDITIONS,
    LeftOutResult,
    LeftOutSummary,
    curve_rows,
    effect_rows,
    false_emotion_rows,
    ravdess_rows,
    read_summaries,
    read_summary,
    read_trials,
    repeated,
    requirement_rows,
    rows,
    trial_rows,
    write_summary,
)


def values(accuracy, interval=None):
    return {
        'accuracy': accuracy,
        'unweighted_accuracy': accuracy,
        'unweighted_accuracy_interval': interval,
        'calibration_error': 0.123456,
        'coverage': 0.5,
        'expression_accuracy_when_decided': None,
        'emotion_accuracy_when_decided': 0.75,
        'neutral_error': 1 - accuracy,
    }


def metrics(accuracy):
    both = {
        'speakers': 2,
        'repeated': 0.25,
        'unadapted': values(accuracy - 0.1),
        'expected_shares': values(accuracy - 0.05),
        'adapted': values(accuracy),
    }
    names = ('accuracy', 'unweighted_accuracy', 'neutral_error', 'coverage')
    curve = {name: [0.25, accuracy] for name in names}
    curve['expression_accuracy_when_decided'] = [None, 0.9]
    return {
        'expressions': ['neutral', 'happy', 'sad'],
        'speakers': 3,
        'cold': values(accuracy, [accuracy - 0.05, accuracy + 0.05]),
        'streams': dict.fromkeys(('balanced', 'mostly neutral', 'only neutral', 'only sad'), both),
        'curves': {'earlier_utterances': [0, 1], 'balanced': curve, 'mostly neutral': curve},
    }


def summary(seed, **accuracies):
    choices = Choices(1.5, 0.4, 0.3)
    recipe = plain_recipe(Recipe(name='mine', seed=seed))
    results = tuple(
        LeftOutResult(name, f'{name} left out', ('C',), choices, metrics(accuracy))
        for name, accuracy in accuracies.items()
    )
    return LeftOutSummary(recipe, 1000, 2.5, results, choices, {}, {}, '2026-01-01')


def test_a_summary_is_read_as_it_was_written(tmp_path):
    path = tmp_path / 'mine' / 'left_out_seed2.json'
    write_summary(path, summary(2, A=0.5, B=0.61234567))
    (found,) = read_summaries(tmp_path)
    assert (found.name, found.seed, found.choices) == ('mine', 2, Choices(1.5, 0.4, 0.3))
    assert found.results[1].metrics['cold']['accuracy'] == 0.6123
    path.write_text('{"recipe": {}}')
    with pytest.raises(SerError, match=r'left_out_seed2.json is not a result of cross-validate'):
        read_summary(path)


def test_rows_are_means_over_seeds_and_then_over_corpora():
    one = rows([summary(1, A=0.5, B=0.6).results])
    assert all(len(row) == len(HEADER) for row in one)
    assert one[0][:5] == ('A', '3', '3', '50.0% [45.0, 55.0]', '50.0% (40.0%)')
    assert one[0][7] == '50.0% · 50.0%'
    assert one[0][8] == '– · –'
    assert one[0][9] == '75.0% · 75.0%'
    assert one[0][10] == '0.123 · 0.123'
    assert one[0][11] == '50.0% (40.0%)'
    assert one[2][:5] == ('**mean**', '', '', '55.0%', '55.0% (45.0%)')
    two = rows([summary(1, A=0.5, B=0.6).results, summary(2, A=0.7, B=0.6).results])
    assert two[0][3:5] == ('60.0% ± 14.1', '60.0% ± 14.1 (50.0% ± 14.1)')
    assert two[2][3:5] == ('60.0% ± 7.1', '60.0% ± 7.1 (50.0% ± 7.1)')


def test_other_requirements_are_called_missed_too():
    def sound(rate, low, high):
        return {'emotions_per_hour': rate, 'emotions_per_hour_interval': [low, high]}

    orders, household = false_emotion_rows({'spoken_orders': sound(35.1, 26.2, 46.0)})
    assert orders == (
        'emotions in an hour of spoken_orders',
        'at most 20',
        '35.1 [26.2, 46.0]',
        '**missed**',
    )
    assert household[2:] == ('not measured', '–')
    (_, household) = false_emotion_rows({'household': sound(0.0, 0.0, 37.0)})
    assert household[3] == 'met, but too few minutes to be sure'
    assert false_emotion_rows({'household': sound(0.0, 0.0, 0.9)})[1][3] == 'met'
    assert [row[1:] for row in ravdess_rows({'mine': (0.657, 0.7449)})] == [
        ('at least 69.2%', '65.7%', '**missed**'),
        ('at least 74.0%', '74.5%', 'met'),
    ]


def test_repeated_utterances_are_named_for_each_corpus_once():
    found = repeated([summary(1, A=0.5, B=0.6), summary(2, A=0.7, B=0.6)])
    assert found == 'A 25.0% · 25.0%, B 25.0% · 25.0%'


def test_the_curve_names_how_many_utterances_there_were():
    assert curve_rows([summary(1, A=0.5, B=0.7)]) == [
        ('0', '25.0%', '25.0%', '25.0%', '25.0% · 25.0%', '– · –'),
        ('1 and more', '60.0%', '60.0%', '60.0%', '60.0% · 60.0%', '90.0% · 90.0%'),
    ]
    assert len(CURVE_HEADER) == 6


def test_the_expected_shares_are_shown_apart_from_adaptation():
    lines = effect_rows([summary(1, A=0.5, B=0.7)])
    assert [line[:2] for line in lines] == [
        ('neither', '50.0%'),
        ('the expected shares alone', '55.0%'),
        ('the expected shares and adaptation', '60.0%'),
    ]
    assert [line[-1] for line in lines] == ['50.0%', '55.0%', '60.0%']
    assert {len(line) for line in lines} == {len(EFFECT_HEADER)}


def test_each_requirement_is_met_or_missed():
    found = summary(1, A=0.5, B=0.75)
    for result in found.results:
        for adapted in (s['adapted'] for s in result.metrics['streams'].values()):
            adapted['expression_accuracy_when_decided'] = 0.65
    lines = {line[0]: line[1:] for line in requirement_rows([found])}
    assert lines['UA, unknown voice'] == ('at least 50.0%', '62.5%', 'met')
    assert lines['right when decided, balanced'] == ('at least 65.0%', '65.0%', 'met')
    assert lines['accuracy, mostly neutral'] == ('at least 65.0%', '62.5%', '**missed**')
    assert lines['calibration error, balanced'] == ('at most 0.100', '0.123', '**missed**')
    assert lines['neutral taken for an emotion, mostly neutral'][1:] == ('37.5%', '**missed**')
    assert {len(line) for line in lines.values()} == {len(REQUIREMENT_HEADER) - 1}


def test_trials_are_means_with_the_deviation_between_seeds(tmp_path):
    def run(corpus, seed, accuracy):
        return {'corpus': corpus, 'seed': seed, **dict.fromkeys(TRIAL_CONDITIONS, accuracy)}

    folder = tmp_path / 'left_out_trials'
    folder.mkdir()
    several = [run('A', 1, 0.4), run('B', 1, 0.6), run('A', 2, 0.5), run('B', 2, 0.7)]
    for name, runs in {'another': [run('A', 1, None)], 'base': several}.items():
        text = json.dumps({'name': name, 'what': 'words', 'runs': runs})
        (folder / f'{name}.json').write_text(text)
    base, another = trial_rows(read_trials(tmp_path))
    assert base[:4] == ('`base`', 'words', '2 corpora × 2', '55.0% ± 7.1')
    assert another[2:4] == ('1 corpus × 1', '–')
    (folder / 'base.json').write_text('[]')
    with pytest.raises(SerError, match=r'base.json is not a trial on left-out corpora'):
        read_trials(tmp_path)

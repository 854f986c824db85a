"""The card states what the bundle's metadata contains, and what it must not be used for."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import ser_ros
from ser_ros import SerError
from ser_ros.bundle import load_bundle
from ser_ros.frontend_config import (
    LogMelConfig,
    MfccConfig,
    ResearchConfig,
    SpeechEncoderConfig,
    VggishConfig,
)
from ser_ros.training.data.corpora import Clip
from ser_ros.training.evaluation.clip_result import ClipResult
from ser_ros.training.evaluation.metrics import subset_results
from ser_ros.training.reports.card import card, write_card

NAMES = ['happy', 'sad']
CORPORA = {
    'RAVDESS': {'train': ['02', '04'], 'validation': ['03'], 'test': ['01', '11']},
    'BanglaSER': {'train': ['07'], 'validation': ['05'], 'test': ['02']},
}


def metrics_of(corpora, protocol='speaker-independent: test speakers'):
    """Metrics of eight clips of each corpus, three quarters of them right, by two speakers."""
    results = [
        ClipResult(
            Clip(Path(f'{corpus}-{index}.wav'), NAMES[index % 2], f'{index // 4}', corpus),
            np.log([[0.8, 0.2] if (index % 2 == 0) ^ (index < 2) else [0.2, 0.8]]),
            ['happy', None][: 1 + index % 2],
        )
        for corpus in corpora
        for index in range(8)
    ]
    return subset_results(results, NAMES, protocol)['metrics']


@pytest.fixture
def evaluated(write_bundle, tmp_path):
    path = write_bundle(
        tmp_path / 'my_model.safetensors',
        class_names=tuple(NAMES),
        corpora=CORPORA,
        metrics={
            'validation': metrics_of(CORPORA),
            'test': metrics_of(CORPORA),
            'SAVEE (other corpus)': metrics_of(['SAVEE'], 'other corpus: all speakers of SAVEE'),
        },
    )
    return load_bundle(path)


def replaced(bundle, **changes):
    return dataclasses.replace(bundle, info=dataclasses.replace(bundle.info, **changes))


def rows(text):
    return [line for line in text.splitlines() if line.startswith('|')]


def test_the_card_is_beside_the_bundle(evaluated):
    path = write_card(evaluated)
    assert path == evaluated.path.with_name('my_model.md')
    assert path.read_text() == card(evaluated)
    assert not list(path.parent.glob('*.part'))


def test_it_states_metrics_protocol_and_licence(evaluated):
    text = card(evaluated)
    test = evaluated.info.metrics['test']
    low, high = test['unweighted_accuracy_interval']
    for stated in (
        '# my_model',
        'parallel_cnn_transformer',
        'classes: happy, sad',
        '16000 Hz',
        '64 mels',
        '25 ms',
        'RAVDESS (actors who read two English sentences)',
        'BanglaSER (people who acted three Bengali sentences)',
        'CC-BY-NC-SA-4.0',
        '**not for commercial use**',
        'no lie detector and no diagnosis',
        'No speaker is in two subsets',
        '- train: 02, 04',
        '- test: 01, 11',
        'seed (7)',
        '0.250',
        f'| test | 16 | 4 | 75.0% [{100 * low:.1f}, {100 * high:.1f}] | 75.0% |',
        f'| {test["calibration_error"]:.3f} | {test["window_calibration_error"]:.3f} |',
        '| test | corpus | BanglaSER | 2 | 8 | 2 | 75.0% [50.0, 100.0] | 75.0% |',
        '| test | language | Bengali | 2 | 8 | 2 | 75.0% [50.0, 100.0] | 75.0% |',
        'Recall of each class, test: happy 75%, sad 75%',
    ):
        assert stated in text, stated


def test_metrics_across_corpora_are_apart(evaluated):
    own, rest = card(evaluated).split('### Across corpora')
    across, _ = rest.split('### By group')
    assert 'SAVEE' not in own
    assert '| SAVEE (other corpus) | 8 | 2 | 75.0%' in across
    assert '- SAVEE (other corpus): other corpus: all speakers of SAVEE.' in across
    metrics = {'test': evaluated.info.metrics['test']}
    assert 'Across' not in card(replaced(evaluated, metrics=metrics))


def test_a_group_that_is_all_clips_has_no_row(evaluated):
    alone = {'RAVDESS': CORPORA['RAVDESS']}
    text = card(replaced(evaluated, corpora=alone, metrics={'test': metrics_of(alone)}))
    assert len(rows(text)) == 3
    assert 'Bengali' not in text


def test_an_unknown_corpus(evaluated):
    text = card(replaced(evaluated, corpora={'mine': CORPORA['RAVDESS']}, metrics={}))
    assert 'It was trained on mine; with other voices' in text


def test_a_free_licence_has_no_warning(evaluated):
    text = card(replaced(evaluated, license='CC-BY-4.0'))
    assert 'CC-BY-4.0' in text
    assert 'commercial' not in text


def test_a_random_split_is_not_called_independent(evaluated):
    shared = {'RAVDESS': {'train': ['01', '02'], 'validation': ['02'], 'test': ['01']}}
    text = card(replaced(evaluated, corpora=shared, metrics={}))
    assert 'Not speaker-independent' in text
    assert 'No speaker is in two subsets' not in text


@pytest.mark.parametrize(
    ('config', 'stated'),
    [
        (LogMelConfig(n_mels=80), 'log-mel at 16000 Hz, 80 mels from 50 to 7000 Hz'),
        (MfccConfig(n_mfcc=13, deltas=1), '13 MFCC with deltas at 16000 Hz, 64 mels'),
        (ResearchConfig(), 'log-mel at 48000 Hz, 128 mels, 10.7 ms windows every 5.33 ms'),
        (SpeechEncoderConfig(), 'convolutions in front of a speech encoder'),
        (VggishConfig(), "VGGish's own"),
    ],
)
def test_it_names_the_front_end(write_bundle, tmp_path, config, stated):
    path = write_bundle(
        tmp_path / 'b.safetensors', frontend=config, architecture='perceptron', hyperparameters={}
    )
    bundle = load_bundle(path)
    text = card(bundle)
    assert stated in text
    assert ('Windows of up to 3 s' in text) == bundle.frontend.is_streaming
    assert ('classified as a whole' in text) != bundle.frontend.is_streaming


def test_it_states_a_refit(evaluated):
    assert 'The epoch was chosen on the validation set.' in card(evaluated)
    text = card(replaced(evaluated, recipe={'refit': True}))
    assert 'trained again from the start, to the last epoch, with the validation' in text
    assert 'The epoch was chosen' not in text


def test_it_shows_sounds_without_a_voice(evaluated):
    assert 'without a voice' not in card(evaluated)
    row = {'count': 50, 'rejected': 0.875, 'confidence': 0.4, 'answered': 0.02}
    speech = {**row, 'rejected': 0.25, 'answered': None}
    metrics = {name: dict(values) for name, values in evaluated.info.metrics.items()}
    for name, count in (('validation', 7), ('test', 9), ('SAVEE (other corpus)', 11)):
        metrics[name]['nonspeech'] = {
            'protocol': 'generated sounds',
            'rows': {'speech (windows)': {**speech, 'count': count}, 'siren (held out)': row},
        }
    text = card(replaced(evaluated, metrics=metrics))
    assert 'Generated sounds. "Too uncertain" is' in text
    assert '| speech (windows) | 9 | 25.0% | 40.0% | – |' in text
    assert '| siren (held out) | 50 | 87.5% | 40.0% | 2.0% |' in text


def condition(accuracy, interval, change, change_interval, **others):
    return {
        'clips': 50,
        'no_speech': 1,
        'unweighted_accuracy': accuracy,
        'unweighted_accuracy_interval': interval,
        'accuracy_change': change,
        'accuracy_change_interval': change_interval,
        'calibration_error': 0.1234,
        'coverage': 0.5,
        'expression_accuracy_when_decided': 0.75,
        **others,
    }


def test_it_shows_conditions(evaluated):
    assert 'Under conditions' not in card(evaluated)
    metrics = {name: dict(values) for name, values in evaluated.info.metrics.items()}
    for name in ('test', 'SAVEE (other corpus)'):
        metrics[name]['conditions'] = {
            'protocol': f'noise for {name}',
            'rows': {
                'clean': condition(0.6, [0.5, 0.7], None, None),
                'hail': condition(0.45, [0.4, 0.5], -0.15, [-0.2, 0.05]),
                'one voice': condition(0.7, None, 0.1, None, coverage=None),
            },
        }
    text = card(replaced(evaluated, metrics=metrics))
    assert 'test. Noise for test.' in text
    assert 'SAVEE (other corpus). Noise for SAVEE (other corpus).' in text
    for row in (
        '| clean | 60.0% [50.0, 70.0] | – | 2.0% | 50.0% | 75.0% | 0.123 |',
        '| hail | 45.0% [40.0, 50.0] | -15.0 [-20.0, +5.0] | 2.0% | 50.0% | 75.0% | 0.123 |',
        '| one voice | 70.0% | +10.0 | 2.0% | – | 75.0% | 0.123 |',
    ):
        assert text.count(row) == 2


def test_it_shows_false_expressions(evaluated):
    assert 'False expressions' not in card(evaluated)
    row = {
        'files': 12,
        'seconds': 930.0,
        'utterances': 9,
        'expressions': 5,
        'emotions': 2,
        'expressions_per_hour': 19.35,
        'expressions_per_hour_interval': [6.3, 45.2],
        'emotions_per_hour': 7.74,
        'emotions_per_hour_interval': [0.9, 27.97],
    }
    counted = {'protocol': 'each file streamed', 'rows': {'orders': row}}
    metrics = {**evaluated.info.metrics, 'false_expressions': counted}
    text = card(replaced(evaluated, metrics=metrics))
    assert 'Sound in which no emotion is meant: each file streamed.' in text
    assert '| orders | 12 | 15.5 | 9 | 7.7 [0.9, 28.0] | 19.4 [6.3, 45.2] |' in text
    # They are no other corpus.
    assert rows(text)[: len(rows(card(evaluated)))] == rows(card(evaluated))


def test_a_speaker_with_a_large_part_of_the_clips_is_named(evaluated):
    assert 'are of one speaker' not in card(evaluated)
    metrics = dict(evaluated.info.metrics)
    row = {**metrics['test']['groups']['voice']['RAVDESS:0'], 'clips': 1}
    voices = {f'RAVDESS:{number}': row for number in range(3)} | {
        'RAVDESS:18': {**row, 'clips': 5}
    }
    groups = {**metrics['test']['groups'], 'voice': voices}
    metrics['test'] = {**metrics['test'], 'groups': groups}
    text = card(replaced(evaluated, metrics=metrics))
    assert '5 of the 8 clips of RAVDESS (test) are of one speaker, 18.' in text


def test_groups_of_an_earlier_version_have_no_number_of_speakers(evaluated):
    metrics = {'test': dict(evaluated.info.metrics['test'])}
    groups = {'female': 0.6, 'male': 0.5}
    metrics['test']['groups'] = {
        'gender': {
            name: {
                'clips': 8,
                'n_classes': 2,
                'accuracy': accuracy,
                'unweighted_accuracy': accuracy,
                'unweighted_accuracy_interval': None,
            }
            for name, accuracy in groups.items()
        }
    }
    text = card(replaced(evaluated, metrics=metrics))
    assert '| test | gender | female | – | 8 | 2 | 60.0% | 60.0% |' in text


def test_it_names_the_version_that_wrote_it(evaluated):
    assert f'written by ser_ros {ser_ros.__version__}' in card(evaluated)


def test_a_bundle_without_metrics_has_a_card_too(bundle):
    assert '## Metrics' in card(bundle)


def test_metrics_of_another_version_are_refused(evaluated):
    metrics = {name: dict(values) for name, values in evaluated.info.metrics.items()}
    del metrics['test']['expression_accuracy_when_decided']
    evaluated.info = dataclasses.replace(evaluated.info, metrics=metrics)
    with pytest.raises(
        SerError, match=r"lack 'expression_accuracy_when_decided', .*train it again"
    ):
        write_card(evaluated)
    assert not evaluated.path.with_suffix('.md').exists()


def test_the_tables_have_as_many_cells_in_every_row(evaluated):
    counts = [row.count('|') for row in rows(card(evaluated))]
    # Own metrics, those across corpora, those of each corpus and language.
    assert counts == [11] * 4 + [11] * 3 + [9] * 10


def test_it_says_how_the_bundle_adapts(bundle, by_voice, by_answers):
    assert 'with the mean features and answers of its earlier utterances' in card(by_voice)
    assert 'with the mean answers of its earlier utterances' in card(by_answers)
    assert 'How it adapts' not in card(bundle)

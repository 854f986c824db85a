"""The card says what the bundle says, and what it must not be used for."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import ser_ros
from ser_ros.bundle import load_bundle
from ser_ros.features import LogMelConfig, MfccConfig, ResearchConfig, VggishConfig
from ser_ros.training.data.corpora import Clip
from ser_ros.training.evaluation.metrics import ClipResult, record_part
from ser_ros.training.reports.card import card, write_card

NAMES = ['happy', 'sad']
CORPORA = {
    'RAVDESS': {'train': ['02', '04'], 'validation': ['03'], 'test': ['01', '11']},
    'BanglaSER': {'train': ['07'], 'validation': ['05'], 'test': ['02']},
}


def figures(corpora, protocol='speaker-independent: test speakers'):
    """Of eight clips of each corpus, three quarters of them right; two speakers each."""
    results = [
        ClipResult(
            Clip(Path(f'{corpus}-{index}.wav'), NAMES[index % 2], f'{index // 4}', corpus),
            np.log([[0.8, 0.2] if (index % 2 == 0) ^ (index < 2) else [0.2, 0.8]]),
            ['happy', None][: 1 + index % 2],
        )
        for corpus in corpora
        for index in range(8)
    ]
    return record_part(results, NAMES, protocol)['figures']


@pytest.fixture
def with_figures(write_bundle, tmp_path):
    path = write_bundle(
        tmp_path / 'my_model.safetensors',
        class_names=tuple(NAMES),
        corpora=CORPORA,
        metrics={
            'validation': figures(CORPORA),
            'test': figures(CORPORA),
            'SAVEE (other corpus)': figures(['SAVEE'], 'other corpus: all speakers of SAVEE'),
        },
    )
    return load_bundle(path)


def replaced(bundle, **changes):
    return dataclasses.replace(bundle, info=dataclasses.replace(bundle.info, **changes))


def rows(text):
    return [line for line in text.splitlines() if line.startswith('|')]


def test_the_card_stands_beside_the_bundle(with_figures):
    path = write_card(with_figures)
    assert path == with_figures.path.with_name('my_model.md')
    assert path.read_text() == card(with_figures)
    assert not list(path.parent.glob('*.part'))


def test_it_states_figures_protocol_and_licence(with_figures):
    text = card(with_figures)
    test = with_figures.info.metrics['test']
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
        'No speaker is in two parts',
        '- train: 02, 04',
        '- test: 01, 11',
        'seed (7)',
        '0.250',
        f'| test | 16 | 4 | 75.0% [{100 * low:.1f}, {100 * high:.1f}] | 75.0% |',
        f'| {test["calibration_error"]:.3f} | {test["window_calibration_error"]:.3f} |',
        '| test | BanglaSER | 8 | 2 | 75.0% [50.0, 100.0] | 75.0% |',
        'Recall of each class, test: happy 75%, sad 75%',
    ):
        assert stated in text, stated


def test_figures_across_corpora_stand_apart(with_figures):
    own, across = card(with_figures).split('### Across corpora')
    assert 'SAVEE' not in own
    assert '| SAVEE (other corpus) | 8 | 2 | 75.0%' in across
    assert '- SAVEE (other corpus): other corpus: all speakers of SAVEE.' in across
    metrics = {'test': with_figures.info.metrics['test']}
    assert 'Across' not in card(replaced(with_figures, metrics=metrics))


def test_one_corpus_needs_no_table_of_corpora(with_figures):
    alone = {'RAVDESS': CORPORA['RAVDESS']}
    text = card(replaced(with_figures, corpora=alone, metrics={'test': figures(alone)}))
    assert len(rows(text)) == 3
    assert 'Bengali' not in text


def test_a_corpus_that_nobody_knows(with_figures):
    text = card(replaced(with_figures, corpora={'mine': CORPORA['RAVDESS']}, metrics={}))
    assert 'It was trained on mine; on other voices' in text


def test_a_free_licence_is_not_called_otherwise(with_figures):
    text = card(replaced(with_figures, license='CC-BY-4.0'))
    assert 'CC-BY-4.0' in text
    assert 'commercial' not in text


def test_a_random_split_is_not_called_independent(with_figures):
    shared = {'RAVDESS': {'train': ['01', '02'], 'validation': ['02'], 'test': ['01']}}
    text = card(replaced(with_figures, corpora=shared, metrics={}))
    assert 'Not speaker-independent' in text
    assert 'No speaker is in two parts' not in text


@pytest.mark.parametrize(
    ('config', 'stated'),
    [
        (LogMelConfig(n_mels=80), 'log-mel at 16000 Hz, 80 mels from 50 to 7000 Hz'),
        (MfccConfig(n_mfcc=13, deltas=1), '13 MFCC with deltas at 16000 Hz, 64 mels'),
        (ResearchConfig(), 'log-mel at 48000 Hz, 128 mels, 10.7 ms windows every 5.33 ms'),
        (VggishConfig(), "VGGish's own"),
    ],
)
def test_it_names_the_front_end(write_bundle, tmp_path, config, stated):
    bundle = load_bundle(write_bundle(tmp_path / 'b.safetensors', frontend=config))
    text = card(bundle)
    assert stated in text
    assert ('Windows of up to 3 s' in text) == bundle.frontend.is_streaming
    assert ('classified as a whole' in text) != bundle.frontend.is_streaming


def test_it_says_what_was_refitted(with_figures):
    assert 'Epoch, temperature and threshold were chosen' in card(with_figures)
    text = card(replaced(with_figures, recipe={'refit': True}))
    assert 'trained once more, to the last epoch, on the validation' in text
    assert 'Epoch, temperature' not in text


def test_it_says_what_it_makes_of_sounds_without_a_voice(with_figures):
    assert 'without a voice' not in card(with_figures)
    row = {'count': 50, 'rejected': 0.875, 'confidence': 0.4, 'answered': 0.02}
    speech = {**row, 'rejected': 0.25, 'answered': None}
    metrics = {part: dict(figures) for part, figures in with_figures.info.metrics.items()}
    for part, count in (('validation', 7), ('test', 9), ('SAVEE (other corpus)', 11)):
        metrics[part]['nonspeech'] = {
            'protocol': 'generated sounds',
            'rows': {'speech (windows)': {**speech, 'count': count}, 'siren (held out)': row},
        }
    text = card(replaced(with_figures, metrics=metrics))
    assert 'Of the model itself: generated sounds.' in text
    assert '| speech (windows) | 9 | 25.0% | 40.0% | – |' in text
    assert '| siren (held out) | 50 | 87.5% | 40.0% | 2.0% |' in text


def test_it_says_who_wrote_it(with_figures):
    assert f'written by ser_ros {ser_ros.__version__}' in card(with_figures)


def test_a_bundle_without_figures_has_a_card_too(bundle):
    assert '## Figures' in card(bundle)


def test_the_tables_have_as_many_cells_in_every_row(with_figures):
    counts = [row.count('|') for row in rows(card(with_figures))]
    # Own figures, those of each corpus, those across corpora.
    assert counts == [11] * 4 + [7] * 6 + [11] * 3

"""The card says what the bundle says, and what it must not be used for."""

import dataclasses

import pytest

from ser_ros.bundle import load_bundle
from ser_ros.training.card import card, write_card

FIGURES = {
    'clips': 236,
    'speakers': ['03', '08'],
    'unweighted_accuracy': 0.612,
    'accuracy': 0.6,
    'recall': {'happy': 0.5, 'sad': 0.72},
    'calibration_error': 0.0712,
    'coverage': 0.83,
    'expression_accuracy_when_given': 0.754,
}


@pytest.fixture
def with_figures(write_bundle, tmp_path):
    return load_bundle(write_bundle(tmp_path / 'my_model.safetensors', metrics={'test': FIGURES}))


def test_the_card_stands_beside_the_bundle(with_figures):
    path = write_card(with_figures)
    assert path == with_figures.path.with_name('my_model.md')
    assert path.read_text() == card(with_figures)


def test_it_states_figures_protocol_and_licence(with_figures):
    text = card(with_figures)
    for stated in (
        '# my_model',
        'parallel_cnn_transformer',
        'happy, sad',
        '16000 Hz',
        '64 mels',
        '25 ms',
        '61.2%',
        '236',
        '0.071',
        '83%',
        '75%',
        'happy 50%, sad 72%',
        'CC-BY-NC-SA-4.0',
        '**not for commercial use**',
        'No speaker is in two parts',
        '- train: 02, 04',
        '- test: 01, 11',
        'seed (7)',
        '0.250',
    ):
        assert stated in text, stated


def test_a_free_licence_is_not_called_otherwise(with_figures):
    with_figures.info = dataclasses.replace(with_figures.info, license='CC-BY-4.0')
    text = card(with_figures)
    assert 'CC-BY-4.0' in text
    assert 'commercial' not in text


def test_a_bundle_without_figures_has_a_card_too(bundle):
    assert '## Figures' in card(bundle)


def test_the_table_has_as_many_cells_in_every_row(with_figures):
    rows = [line for line in card(with_figures).splitlines() if line.startswith('|')]
    assert len(rows) == 3
    assert len({row.count('|') for row in rows}) == 1

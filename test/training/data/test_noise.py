"""Noise is divided by recording: an evaluation uses none that a training knows."""

import pytest

from ser_ros import SerError
from ser_ros.training.data.noise import (
    list_sounds,
    noise_for_evaluation,
    recordings,
    split_recordings,
)

PIECES = ('fan_0_0', 'fan_0_1', 'fan_1_0', 'fan_1_10', 'fan_2_0', 'fan_2_1', 'tap', 'tap2', 'tub')


@pytest.fixture
def folder(tmp_path):
    """Pieces of three recordings of a fan, and three other recordings, each with one file."""
    folder = tmp_path / 'noise'
    (folder / 'home').mkdir(parents=True)
    for name in PIECES:
        (folder / 'home' / f'{name}.wav').touch()
    (folder / 'home' / '._tap.wav').touch()
    (folder / 'notes.txt').touch()
    return folder


def names(paths):
    return [path.stem for path in paths]


def test_pieces_of_a_recording_stay_together(folder):
    paths = list_sounds(folder, 'noise')
    assert names(paths) == list(PIECES)
    assert [names(pieces) for pieces in recordings(paths)] == [
        ['fan_0_0', 'fan_0_1'],
        ['fan_1_0', 'fan_1_10'],
        ['fan_2_0', 'fan_2_1'],
        *(['tap'], ['tap2'], ['tub']),
    ]
    used, kept = split_recordings(paths)
    assert names(kept) == ['fan_2_0', 'fan_2_1', 'tub']
    assert sorted(used + kept) == paths
    assert split_recordings(paths[:4]) == (paths[:4], [])


def test_equal_names_in_two_folders_are_two_recordings(folder):
    (folder / 'street').mkdir()
    (folder / 'street' / 'tap.wav').touch()
    assert len(recordings(list_sounds(folder, 'noise'))) == 7


def test_a_table_chooses_household_sounds(folder):
    assert names(noise_for_evaluation(folder)) == ['fan_2_0', 'fan_2_1', 'tub']
    rows = [f'home/{name}.wav,{"household" if name != "tub" else "Metro"}' for name in PIECES]
    (folder / 'noise.csv').write_text('\n'.join(['path,kind', *rows]))
    assert names(noise_for_evaluation(folder)) == ['fan_2_0', 'fan_2_1']


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('path,kind\nhome/tub.wav,Metro\n', 'noise.csv'),
        ('file,kind\nhome/tub.wav,household\n', 'needs the columns path and kind'),
        ('path,kind\nhome/t\xfcb.wav,household\n', 'cannot be read as CSV'),
    ],
)
def test_a_table_that_leaves_nothing(folder, text, message):
    (folder / 'noise.csv').write_bytes(text.encode('latin-1'))
    with pytest.raises(SerError, match=message):
        noise_for_evaluation(folder)


def test_a_folder_without_enough_recordings(folder, tmp_path):
    for path in (folder / 'home').glob('t*.wav'):
        path.unlink()
    for path in (folder / 'home').glob('fan_2*.wav'):
        path.unlink()
    with pytest.raises(SerError, match='three or more'):
        noise_for_evaluation(folder)
    with pytest.raises(SerError, match='^noise .*missing.* has no sound files'):
        noise_for_evaluation(tmp_path / 'missing')

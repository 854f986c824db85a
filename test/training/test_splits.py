"""Parts share no speaker."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ser_ros import SerError
from ser_ros.training.corpora import Clip
from ser_ros.training.splits import RAVDESS_FOLDS, speaker_split

ACTORS = [f'{actor:02}' for actor in range(1, 25)]


def clips_of(speakers):
    return [
        Clip(Path(f'{speaker}-{emotion}.wav'), emotion, speaker)
        for speaker in speakers
        for emotion in ('happy', 'sad')
    ]


def test_folds_are_those_of_emobox():
    assert RAVDESS_FOLDS == {
        1: ('01', '11', '20', '21'),
        2: ('04', '10', '12', '14'),
        3: ('08', '09', '19', '23'),
        4: ('03', '05', '07', '24'),
        5: ('02', '15', '16', '18'),
        6: ('06', '13', '17', '22'),
    }


def test_folds_test_every_actor_once():
    assert sorted(sum(RAVDESS_FOLDS.values(), ())) == ACTORS


@given(st.permutations(ACTORS), st.integers(1, 22), st.data())
def test_every_clip_is_in_one_part(actors, n_test, data):
    n_validation = data.draw(st.integers(1, 23 - n_test))
    test, validation = actors[:n_test], actors[n_test : n_test + n_validation]
    clips = clips_of(ACTORS)
    split = speaker_split(clips, test, validation)
    assert sorted(split.train + split.validation + split.test, key=str) == sorted(clips, key=str)
    assert split.speakers() == {
        'train': sorted(actors[n_test + n_validation :]),
        'validation': sorted(validation),
        'test': sorted(test),
    }


@pytest.mark.parametrize(
    ('test', 'validation', 'named'),
    [
        (['01', '02'], ['02', '03'], '02'),
        (['01'], ['99'], '99'),
        (['98', '99'], ['01'], '98, 99'),
        (['01', '02'], ['03', '04'], 'training'),
        (['01'], [3], '3'),
    ],
    ids=['in two parts', 'unknown', 'two unknown', 'none left', 'a number'],
)
def test_a_split_that_cannot_be_is_named(test, validation, named):
    with pytest.raises(SerError, match=named):
        speaker_split(clips_of(['01', '02', '03', '04']), test, validation)


def test_speakers_that_are_numbers_are_named_too():
    """YAML reads 03 as a number, and 08 as text."""
    with pytest.raises(SerError, match='08'):
        speaker_split(clips_of(['01', '02']), ['01'], [3, '08'])

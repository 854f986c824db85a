"""Whom a bundle is measured on: never on those it was trained on without saying so."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from ser_ros import SerError
from ser_ros.training.data.corpora import Clip, Corpus, Problem
from ser_ros.training.evaluation.selection import evaluate, select

PARTS = {'train': ['01', '02'], 'validation': ['03'], 'test': ['04', '05']}
EMOTIONS = ('happy', 'sad', 'calm')


def corpus(name='RAVDESS', speakers=('01', '02', '03', '04', '05'), emotions=EMOTIONS, **more):
    clips = [
        Clip(Path(f'{emotion}-{speaker}.wav'), emotion, speaker, name)
        for speaker in speakers
        for emotion in emotions
    ]
    return Corpus(name, clips, more.get('problems', []), {})


@pytest.fixture
def info(bundle_info):
    """Of a bundle of two corpora that knows happy, sad and neutral."""
    return dataclasses.replace(
        bundle_info,
        class_names=('happy', 'sad', 'neutral'),
        corpora={'RAVDESS': PARTS, 'EmoDB': {'train': ['03'], 'validation': [], 'test': ['01']}},
        recipe={'data': {'merge': {'calm': 'neutral'}}},
    )


def test_a_part_is_of_the_speakers_that_the_bundle_names(info):
    (selection,) = select(info, [corpus(), corpus('EmoDB', ('01', '03'))], 'test')
    assert selection.name == 'test'
    assert {clip.voice for clip in selection.clips} == {'RAVDESS:04', 'RAVDESS:05', 'EmoDB:01'}
    assert {clip.emotion for clip in selection.clips} == {'happy', 'sad', 'neutral'}
    assert selection.protocol == 'speaker-independent: test speakers of RAVDESS and EmoDB'
    (selection,) = select(info, [corpus()], 'validation')
    assert selection.protocol == (
        'speaker-independent: validation speakers of RAVDESS, by whom the bundle was calibrated'
    )
    assert selection.class_names == ['happy', 'sad', 'neutral']
    assert selection.missing == selection.notes == []


def test_who_is_missing_is_named(info):
    (selection,) = select(info, [corpus(speakers=('02', '04'))], 'test')
    assert {clip.speaker for clip in selection.clips} == {'04'}
    assert selection.missing == ['EmoDB:01', 'RAVDESS:05']
    assert selection.protocol == 'speaker-independent: 1 of the 3 test speakers of RAVDESS'


def test_a_part_that_the_bundle_does_not_have(info):
    """It was refitted on its validation speakers."""
    info = dataclasses.replace(info, corpora={'RAVDESS': {'train': ['01', '03'], 'test': ['04']}})
    with pytest.raises(SerError, match='no validation speakers of RAVDESS'):
        select(info, [corpus()], 'validation')


def test_nobody_of_a_part(info):
    with pytest.raises(SerError, match='test speakers, EmoDB:01, RAVDESS:04, RAVDESS:05'):
        select(info, [corpus(speakers=('01',))], 'test')


def test_all_says_who_was_trained_on(info):
    (selection,) = select(info, [corpus()], 'all')
    assert len(selection.clips) == 15
    assert selection.protocol == (
        'NOT speaker-independent: all 5 speakers of RAVDESS, 2 of them trained on'
    )
    (selection,) = select(info, [corpus(speakers=('03', '04'))], 'all')
    assert selection.protocol == (
        'speaker-independent: all 2 speakers of RAVDESS, 0 of them trained on'
    )
    with pytest.raises(
        SerError, match='RAVDESS: there are no clips of happy, sad, neutral, the c'
    ):
        select(info, [corpus(emotions=('angry',))], 'all')


def test_whoever_was_trained_on_is_not_measured_on(info):
    shared = {'train': ['01', '04'], 'validation': [], 'test': ['04']}
    info = dataclasses.replace(info, corpora={'RAVDESS': shared})
    with pytest.raises(SerError, match='trained on test speakers, too.*RAVDESS:04'):
        select(info, [corpus()], 'test')


def test_speakers_of_one_name_in_two_corpora_are_two(info):
    (selection,) = select(info, [corpus('EmoDB', ('01', '02', '03'))], 'test')
    assert {clip.voice for clip in selection.clips} == {'EmoDB:01'}


def test_another_corpus_is_measured_on_as_a_whole_among_common_classes(info):
    other = corpus('SAVEE', ('DC', 'JE'), ('sad', 'disgust', 'calm'))
    (selection,) = select(info, [other], 'test')
    assert selection.name == 'SAVEE (other corpus)'
    assert len(selection.clips) == 4
    assert selection.class_names == ['sad', 'neutral']
    assert selection.protocol == (
        'other corpus: all speakers of SAVEE, of which the bundle names nobody; guesses among the '
        '2 common classes (sad, neutral)'
    )
    assert selection.notes == ['SAVEE: 2 clips of disgust left out, no class of the bundle']
    both = select(info, [corpus(), other], 'validation')
    assert [selection.name for selection in both] == ['validation', 'SAVEE (other corpus)']


def test_its_own_recordings_under_another_name_are_told(info):
    other = corpus('mine', ('ann', 'bob'))
    clips = [dataclasses.replace(c, digest=f'{i:064x}'[::-1]) for i, c in enumerate(other.clips)]
    other = dataclasses.replace(other, clips=clips)
    assert select(info, [other], 'test')
    info = dataclasses.replace(info, recordings=(clips[0].fingerprint, clips[4].fingerprint))
    with pytest.raises(SerError, match='mine: .* trained or calibrated on 2 of its 6 recordings'):
        select(info, [other], 'test')


def test_a_corpus_with_nothing_in_common(info):
    with pytest.raises(SerError, match='SAVEE has the classes disgust, sad.*knows 1'):
        select(info, [corpus('SAVEE', ('DC',), ('sad', 'disgust'))], 'test')


def test_files_that_cannot_be_used_are_counted(info):
    problems = [
        Problem(Path('a'), 'silent'),
        Problem(Path('b'), 'silent'),
        Problem(Path('c'), 'copy'),
        Problem(Path('d'), 'not mono', is_used=True),
    ]
    (selection,) = select(info, [corpus(problems=problems)], 'validation')
    (note,) = selection.notes
    assert note.startswith('RAVDESS: files left out: 1 copy, 2 silent')


def test_a_bundle_without_a_recipe_merges_nothing(info):
    info = dataclasses.replace(info, recipe={})
    (selection,) = select(info, [corpus()], 'validation')
    assert {clip.emotion for clip in selection.clips} == {'happy', 'sad'}
    assert selection.notes == ['RAVDESS: 5 clips of calm left out, no class of the bundle']


@pytest.fixture
def heard_clips(tiny_corpus):
    paths = sorted(tiny_corpus.rglob('*.wav'))[:4]
    return [Clip(p, ['sad', 'angry'][i % 2], str(i), 'SAVEE') for i, p in enumerate(paths)]


def test_guesses_are_looked_for_among_common_classes(bundle, heard_clips):
    corpora = [Corpus('SAVEE', heard_clips, [], {})]
    selections = select(bundle.info, corpora, 'test')
    parts, results = evaluate(bundle, selections, 'cpu')
    (part,) = parts.values()
    assert part['class_names'] == ['sad', 'angry']
    figures = part['figures']
    assert figures['confusion']['columns'] == ['sad', 'angry', 'unheard']
    assert figures['protocol'].startswith(f'{selections[0].protocol}; each clip streamed')
    assert 0 <= figures['unrestricted_accuracy'] <= figures['unweighted_accuracy']
    # Of all classes, as on the robot.
    rows = figures['nonspeech']['rows']
    assert rows['speech (windows)']['count'] == sum(len(result.windows) for result in results)
    assert 'siren (held out)' in rows
    for result in results:
        np.testing.assert_allclose(np.exp(result.windows).sum(axis=1), 1, rtol=1e-5)
    quiet = evaluate(bundle, selections, 'cpu', gain_db=-120.0)[0][selections[0].name]['figures']
    assert quiet['unheard'] == 4
    assert quiet['protocol'].endswith(', -120 dB')
    assert quiet['nonspeech']['rows']['speech (windows)']['confidence'] is None


def test_among_its_own_classes_a_bundle_is_not_restricted(bundle, heard_clips):
    info = dataclasses.replace(
        bundle.info, corpora={'SAVEE': {'train': [], 'validation': ['0', '1'], 'test': []}}
    )
    selections = select(info, [Corpus('SAVEE', heard_clips, [], {})], 'validation')
    part = evaluate(bundle, selections, 'cpu')[0]['validation']
    assert part['figures']['clips'] == 2
    assert 'unrestricted_accuracy' not in part['figures']
    assert part['class_names'] == list(bundle.info.class_names)

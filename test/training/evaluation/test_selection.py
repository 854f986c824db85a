"""A bundle is never evaluated on speakers it was trained on, unless the protocol states it."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from ser_ros import SerError
from ser_ros.bundle import load_bundle
from ser_ros.training.data.corpora import Clip, Corpus, Problem, read_corpus
from ser_ros.training.evaluation.metrics import compute_metrics
from ser_ros.training.evaluation.selection import evaluate, select

SPEAKERS = {'train': ['01', '02'], 'validation': ['03'], 'test': ['04', '05']}
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
    """Metadata of a bundle of two corpora with the classes happy, sad and neutral."""
    return dataclasses.replace(
        bundle_info,
        class_names=('happy', 'sad', 'neutral'),
        corpora={
            'RAVDESS': SPEAKERS,
            'EmoDB': {'train': ['03'], 'validation': [], 'test': ['01']},
        },
        recipe={'data': {'merge': {'calm': 'neutral'}}},
    )


def test_a_subset_has_the_speakers_that_the_bundle_names(info):
    (selection,) = select(info, [corpus(), corpus('EmoDB', ('01', '03'))], 'test')
    assert selection.name == 'test'
    assert {clip.voice for clip in selection.clips} == {'RAVDESS:04', 'RAVDESS:05', 'EmoDB:01'}
    assert {clip.emotion for clip in selection.clips} == {'happy', 'sad', 'neutral'}
    assert selection.protocol == 'speaker-independent: test speakers of RAVDESS and EmoDB'
    (selection,) = select(info, [corpus()], 'validation')
    assert selection.protocol == (
        'speaker-independent: validation speakers of RAVDESS, which the bundle was calibrated on'
    )
    assert selection.class_names == ['happy', 'sad', 'neutral']
    assert selection.missing == selection.notes == []


def test_missing_speakers_are_named(info):
    (selection,) = select(info, [corpus(speakers=('02', '04'))], 'test')
    assert {clip.speaker for clip in selection.clips} == {'04'}
    assert selection.missing == ['EmoDB:01', 'RAVDESS:05']
    assert selection.protocol == 'speaker-independent: 1 of the 3 test speakers of RAVDESS'


def test_a_subset_that_the_bundle_does_not_have(info):
    """It was refitted on its validation speakers."""
    info = dataclasses.replace(info, corpora={'RAVDESS': {'train': ['01', '03'], 'test': ['04']}})
    with pytest.raises(SerError, match='no validation speakers of RAVDESS'):
        select(info, [corpus()], 'validation')


def test_a_subset_without_clips(info):
    with pytest.raises(
        SerError, match='no clips of the test speakers EmoDB:01, RAVDESS:04, RAVDESS:05'
    ):
        select(info, [corpus(speakers=('01',))], 'test')


def test_all_states_how_many_speakers_were_trained_on(info):
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
        SerError,
        match='RAVDESS: there are no clips of the classes of the bundle, happy, sad, neutral',
    ):
        select(info, [corpus(emotions=('angry',))], 'all')


def test_training_speakers_are_refused(info):
    shared = {'train': ['01', '04'], 'validation': [], 'test': ['04']}
    info = dataclasses.replace(info, corpora={'RAVDESS': shared})
    with pytest.raises(SerError, match='also trained on test speakers.*RAVDESS:04'):
        select(info, [corpus()], 'test')


def test_speakers_of_one_name_in_two_corpora_are_two(info):
    (selection,) = select(info, [corpus('EmoDB', ('01', '02', '03'))], 'test')
    assert {clip.voice for clip in selection.clips} == {'EmoDB:01'}


def test_another_corpus_is_used_as_a_whole_with_the_common_classes(info):
    other = corpus('SAVEE', ('DC', 'JE'), ('sad', 'disgust', 'calm'))
    (selection,) = select(info, [other], 'test')
    assert selection.name == 'SAVEE (other corpus)'
    assert len(selection.clips) == 4
    assert selection.class_names == ['sad', 'neutral']
    assert selection.protocol == (
        'other corpus: all speakers of SAVEE, which the bundle does not name; predictions '
        'restricted to the 2 common classes (sad, neutral)'
    )
    assert selection.notes == ['SAVEE: 2 clips of disgust left out, no class of the bundle']
    both = select(info, [corpus(), other], 'validation')
    assert [selection.name for selection in both] == ['validation', 'SAVEE (other corpus)']


def test_its_own_recordings_in_another_corpus_are_refused(info):
    other = corpus('mine', ('ann', 'bob'))
    clips = [dataclasses.replace(c, digest=f'{i:064x}'[::-1]) for i, c in enumerate(other.clips)]
    other = dataclasses.replace(other, clips=clips)
    assert select(info, [other], 'test')
    info = dataclasses.replace(info, recordings=(clips[0].fingerprint, clips[4].fingerprint))
    with pytest.raises(SerError, match='mine: .* trained or calibrated on 2 of its 6 recordings'):
        select(info, [other], 'test')


def test_test_recordings_that_it_knows_by_another_name_are_refused(info):
    own = corpus()
    clips = [dataclasses.replace(c, digest=f'{i:064x}'[::-1]) for i, c in enumerate(own.clips)]
    own = dataclasses.replace(own, clips=clips)
    (first,) = (c for c in clips if c.speaker == '04' and c.emotion == 'sad')
    info = dataclasses.replace(info, recordings=(first.fingerprint,))
    with pytest.raises(
        SerError, match='trained or calibrated on 1 of these 6 recordings, such as'
    ):
        select(info, [own], 'test')
    assert select(info, [own], 'validation')


def test_a_corpus_without_clips_of_the_subset_is_not_named(info):
    (selection,) = select(info, [corpus(), corpus('EmoDB', ('03',))], 'test')
    assert selection.protocol.endswith('2 of the 3 test speakers of RAVDESS')


def test_a_corpus_with_nothing_in_common(info):
    with pytest.raises(SerError, match='SAVEE has the classes disgust, sad; the bundle knows 1'):
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
def labelled_clips(tiny_corpus):
    paths = sorted(tiny_corpus.rglob('*.wav'))[:4]
    return [Clip(p, ['sad', 'angry'][i % 2], str(i), 'SAVEE') for i, p in enumerate(paths)]


def test_predictions_are_restricted_to_the_common_classes(bundle, labelled_clips):
    corpora = [Corpus('SAVEE', labelled_clips, [], {})]
    selections = select(bundle.info, corpora, 'test')
    subsets, results = evaluate(bundle, selections, 'cpu')
    (subset,) = subsets.values()
    assert subset['class_names'] == ['sad', 'angry']
    metrics = subset['metrics']
    assert metrics['confusion']['columns'] == ['sad', 'angry', 'no speech']
    assert metrics['protocol'].startswith(f'{selections[0].protocol}; each clip streamed')
    assert 0 <= metrics['unrestricted_accuracy'] <= metrics['unweighted_accuracy']
    # With all classes, as on the robot.
    rows = metrics['nonspeech']['rows']
    assert rows['speech (windows)']['count'] == sum(len(result.windows) for result in results)
    assert 'siren (held out)' in rows
    for result in results:
        np.testing.assert_allclose(np.exp(result.windows).sum(axis=1), 1, rtol=1e-5)
    quiet = evaluate(bundle, selections, 'cpu', gain_db=-120.0)[0][selections[0].name]['metrics']
    assert quiet['no_speech'] == 4
    assert quiet['protocol'].endswith(', -120 dB')
    assert quiet['nonspeech']['rows']['speech (windows)']['confidence'] is None


def test_its_own_classes_are_not_restricted(bundle, labelled_clips):
    info = dataclasses.replace(
        bundle.info, corpora={'SAVEE': {'train': [], 'validation': ['0', '1'], 'test': []}}
    )
    selections = select(info, [Corpus('SAVEE', labelled_clips, [], {})], 'validation')
    subset = evaluate(bundle, selections, 'cpu')[0]['validation']
    assert subset['metrics']['clips'] == 2
    assert 'unrestricted_accuracy' not in subset['metrics']
    assert subset['class_names'] == list(bundle.info.class_names)


def test_test_accuracy_is_as_stated_and_does_not_need_a_loud_voice(ravdess):
    bundle = load_bundle()
    selections = select(bundle.info, [read_corpus(ravdess)], 'test')
    stated = bundle.info.metrics['test']['groups']['corpus']['RAVDESS']
    subsets, results = evaluate(bundle, selections, 'cpu')
    loud = subsets['test']['metrics']
    # A quiet voice, in every third clip to save time.
    some = [dataclasses.replace(s, clips=s.clips[::3]) for s in selections]
    quiet = evaluate(bundle, some, 'cpu', gain_db=-20)[0]['test']['metrics']
    as_loud = compute_metrics(results[::3], bundle.info.class_names)
    assert loud['clips'] == stated['clips'] == 240
    # The arithmetic of another machine may change one or two clips.
    assert loud['unweighted_accuracy'] == pytest.approx(stated['unweighted_accuracy'], abs=0.01)
    assert quiet['unweighted_accuracy'] >= as_loud['unweighted_accuracy'] - 0.05

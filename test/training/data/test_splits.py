"""The subsets of a split share no voice and no recording."""

import dataclasses
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ser_ros import SerError
from ser_ros.training.data.corpora import Clip, Corpus, read_corpus
from ser_ros.training.data.splits import Split, split_clips, split_corpora
from ser_ros.training.recipe import DataConfig, Recipe, SplitConfig

ACTORS = [f'{actor:02}' for actor in range(1, 25)]
EMOTIONS = ('happy', 'sad', 'angry')


def clips_of(corpus, speakers, emotions=EMOTIONS, takes=2):
    """Clips whose odd speakers are male."""
    return [
        Clip(
            Path(corpus, f'{speaker}-{emotion}-{take}.wav'),
            emotion,
            speaker,
            corpus,
            'male' if i % 2 == 0 else 'female',
            digest=f'{corpus} {speaker} {emotion} {take}',
        )
        for i, speaker in enumerate(speakers)
        for emotion in emotions
        for take in range(takes)
    ]


RAVDESS = clips_of('RAVDESS', ACTORS)
BANGLASER = clips_of('BanglaSER', [f'{speaker:02}' for speaker in range(1, 35)])
SAVEE = [
    dataclasses.replace(clip, gender='male')
    for clip in clips_of('SAVEE', ['DC', 'JE', 'JK', 'KL'])
]
MINE = clips_of('mine', ['ann', 'bob', 'cem', 'dua', 'eva'])


def voices_of(corpus, speakers):
    return [f'{corpus}:{speaker}' for speaker in speakers]


def check(split, clips):
    """Assert what every split must fulfil."""
    subsets = [split.train, split.validation, split.test]
    assert Counter(clip for subset in subsets for clip in subset) == Counter(clips)
    digests = [{clip.digest or clip.path for clip in subset} for subset in subsets]
    assert sum(map(len, digests)) == len(set().union(*digests))
    assert {clip.emotion for clip in split.train} == {clip.emotion for clip in clips}
    assert split.test
    order = {clip: i for i, clip in enumerate(clips)}
    for subset in subsets:
        assert subset == sorted(subset, key=order.get)


# The test speakers of each fold: EmoBox's for RAVDESS and SAVEE, this project's for BanglaSER.
PUBLISHED = {
    'RAVDESS': """
        01 11 20 21 | 04 10 12 14 | 08 09 19 23 | 03 05 07 24 | 02 15 16 18 | 06 13 17 22
    """,
    'SAVEE': 'JE | KL | DC | JK',
    'BanglaSER': """
        01 06 11 14 20 22 27 33 | 02 07 12 15 23 28 29 34 | 03 08 13 17 24 30 | 04 09 16 19 25 31
        | 05 10 18 21 26 32
    """,
}


@pytest.mark.parametrize('corpus', [RAVDESS, SAVEE, BANGLASER], ids=lambda c: c[0].corpus)
def test_published_folds_test_every_speaker_once(corpus):
    name = corpus[0].corpus
    tested = []
    for fold, speakers in enumerate(PUBLISHED[name].split('|'), 1):
        split = split_clips(corpus, SplitConfig(fold=fold))
        check(split, corpus)
        assert split.is_speaker_independent
        assert split.voices()['test'] == voices_of(name, speakers.split())
        tested += speakers.split()
    assert sorted(tested) == sorted({clip.speaker for clip in corpus})
    with pytest.raises(SerError, match=f'its folds are 1 to {fold}'):
        split_clips(corpus, SplitConfig(fold=fold + 1))


def test_validation_speakers_are_balanced_and_evenly_spaced():
    """In fold 1, nine men and eleven women are not test speakers."""
    voices = split_clips(RAVDESS, SplitConfig(fold=1)).voices()
    assert voices['validation'] == voices_of('RAVDESS', ['06', '07', '17', '18'])
    assert len(voices['train']) == 16


@pytest.mark.parametrize(('n', 'taken'), [(0, 0), (1, 1), (3, 3), (4, 4), (9, 9), (99, 10)])
def test_the_requested_number_of_validation_speakers_but_at_most_half(n, taken):
    split = split_clips(RAVDESS, SplitConfig(n_validation=n))
    check(split, RAVDESS)
    validating = {clip.speaker: clip.gender for clip in split.validation}
    assert len(validating) == taken
    genders = Counter(validating.values())
    assert abs(genders['female'] - genders['male']) <= 1


def test_a_corpus_with_one_gender_or_without_genders():
    for gender in ('male', None):
        clips = [dataclasses.replace(clip, gender=gender) for clip in RAVDESS]
        split = split_clips(clips, SplitConfig())
        check(split, clips)
        rest = sorted(set(ACTORS) - {'01', '11', '20', '21'})
        expected = [rest[i] for i in (2, 7, 12, 17)]
        assert split.voices()['validation'] == voices_of('RAVDESS', expected)


def test_four_speakers_are_enough():
    split = split_clips(SAVEE, SplitConfig(fold=4))
    assert split.voices() == {
        'train': voices_of('SAVEE', ['DC', 'KL']),
        'validation': voices_of('SAVEE', ['JE']),
        'test': voices_of('SAVEE', ['JK']),
    }


def test_one_speaker_at_a_time_is_left_out():
    tested = []
    for fold in range(1, 6):
        split = split_clips(MINE, SplitConfig('leave_one_speaker_out', fold))
        check(split, MINE)
        assert split.is_speaker_independent
        tested += split.voices()['test']
    assert tested == voices_of('mine', ['ann', 'bob', 'cem', 'dua', 'eva'])
    split = split_clips(SAVEE, SplitConfig('leave_one_speaker_out', 1))
    assert split.voices()['test'] == ['SAVEE:JE']


def test_folds_of_speakers_are_balanced():
    tested = []
    for fold in range(1, 6):
        split = split_clips(RAVDESS, SplitConfig('speakers', fold, n_folds=5))
        check(split, RAVDESS)
        assert split.is_speaker_independent
        testing = {clip.speaker: clip.gender for clip in split.test}
        assert len(testing) in (4, 5, 6)
        genders = Counter(testing.values())
        assert {genders['female'], genders['male']} <= {2, 3}
        tested += testing
    assert sorted(tested) == ACTORS


def test_folds_of_speakers_with_unequal_numbers_of_clips():
    clips = [c for c in RAVDESS if c.speaker > '12' or c.name.endswith('0')]
    splits = [split_clips(clips, SplitConfig('speakers', fold, n_folds=4)) for fold in range(1, 5)]
    assert len({len(split.test) for split in splits}) == 1
    talkative = clips_of('RAVDESS', ['02'], takes=40)
    clips = [c for c in RAVDESS if c.speaker != '02']
    clips += [dataclasses.replace(c, gender='female') for c in talkative]
    for fold in range(1, 5):
        split = split_clips(clips, SplitConfig('speakers', fold, n_folds=4))
        genders = {clip.speaker: clip.gender for clip in split.test}.values()
        assert Counter(genders) == {'female': 3, 'male': 3}


def test_a_gender_that_only_some_clips_have_counts():
    clips = [
        dataclasses.replace(c, gender=c.gender if i % 3 == 1 else None)
        for i, c in enumerate(RAVDESS)
    ]
    split = split_clips(clips, SplitConfig())
    assert split.voices() == split_clips(RAVDESS, SplitConfig()).voices()


def test_a_random_split_is_named_in_the_protocol():
    split = split_clips(RAVDESS, SplitConfig('random', 2))
    check(split, RAVDESS)
    assert not split.is_speaker_independent
    assert split.protocol.startswith('NOT speaker-independent')
    assert 'fold 2 of 5' in split.protocol


def test_a_random_split_is_balanced_by_class_and_tests_every_clip_once():
    clips = RAVDESS + MINE
    splits = [split_clips(clips, SplitConfig('random', fold)) for fold in range(1, 6)]
    assert Counter(clip for split in splits for clip in split.test) == Counter(clips)
    for split, following in zip(splits, (*splits[1:], splits[0])):
        assert split.validation == following.test
        counts = Counter((clip.corpus, clip.emotion) for clip in split.test)
        for corpus, total in (('RAVDESS', 48), ('mine', 10)):
            for emotion in EMOTIONS:
                assert abs(counts[corpus, emotion] - total / 5) < 1
    alone = split_clips(clips, SplitConfig('random', n_validation=0))
    assert (alone.validation, alone.test) == ([], splits[0].test)


def test_a_random_split_depends_only_on_names():
    """Neither the folder of a corpus nor the order of its clips changes it."""
    moved = [dataclasses.replace(clip, path=Path('/elsewhere', clip.path)) for clip in RAVDESS]
    split = split_clips(RAVDESS, SplitConfig('random'))
    other = split_clips(moved[::-1], SplitConfig('random'))
    assert {clip.name for clip in split.test} == {clip.name for clip in other.test}


def test_identical_recordings_stay_together():
    """Two corpora may have the same recordings with other names."""
    copies = [dataclasses.replace(clip, corpus='mine', speaker='x') for clip in RAVDESS[::3]]
    for fold in range(1, 4):
        split = split_clips(RAVDESS + copies, SplitConfig('random', fold, n_folds=3))
        check(split, RAVDESS + copies)


def test_every_corpus_has_its_own_fold():
    clips = RAVDESS + BANGLASER
    split = split_clips(clips, SplitConfig(fold=1))
    check(split, clips)
    voices = split.voices()
    assert voices['test'] == sorted(
        voices_of('RAVDESS', ['01', '11', '20', '21'])
        + voices_of('BanglaSER', ['01', '06', '11', '14', '20', '22', '27', '33'])
    )
    assert Counter(v.split(':')[0] for v in voices['validation']) == {'RAVDESS': 4, 'BanglaSER': 4}
    assert split.protocol == (
        'speaker-independent: published fold 1 of RAVDESS and of BanglaSER; '
        '12 test, 8 validation and 38 training speakers'
    )


def test_speakers_without_a_class():
    """Seven of BanglaSER's have no neutral clips."""
    silent = {'11', '12', '13', '16', '18', '20', '29'}
    clips = clips_of('BanglaSER', [f'{i:02}' for i in range(1, 35)], ('neutral', 'happy'))
    clips = [c for c in clips if c.emotion != 'neutral' or c.speaker not in silent]
    for fold in range(1, 6):
        check(split_clips(clips, SplitConfig(fold=fold)), clips)


def test_a_test_speaker_without_a_class_is_named_in_the_protocol():
    clips = [c for c in MINE if (c.speaker, c.emotion) != ('ann', 'sad')]
    for protocol in ('leave_one_speaker_out', 'speakers'):
        for fold in range(1, 6):
            split = split_clips(clips, SplitConfig(protocol, fold, n_validation=1))
            assert split.protocol.endswith('; the test set has no clips of sad') == (
                split.voices()['test'] == ['mine:ann']
            )


def test_the_digest_changes_with_the_clips_of_a_subset():
    config = SplitConfig()
    digest = split_clips(RAVDESS, config).digest
    moved = [dataclasses.replace(clip, path=Path('/elsewhere', clip.path)) for clip in RAVDESS]
    assert split_clips(moved[::-1], config).digest == digest
    first = RAVDESS[0]
    others = {
        'removed': RAVDESS[1:],
        'added': [*RAVDESS, dataclasses.replace(first, path=Path('more.wav'), digest='more')],
        'relabelled': [dataclasses.replace(first, emotion='sad'), *RAVDESS[1:]],
        'other sound': [dataclasses.replace(first, digest='other'), *RAVDESS[1:]],
    }
    digests = {split_clips(clips, config).digest for clips in others.values()}
    digests |= {split_clips(RAVDESS, SplitConfig(n_validation=2)).digest}
    assert len(digests) == 5
    assert digest not in digests


def test_validation_speakers_by_name():
    for names in (['03', '18'], ['RAVDESS:03', '18']):
        split = split_clips(RAVDESS, SplitConfig(validation_speakers=tuple(names)))
        check(split, RAVDESS)
        assert split.voices()['validation'] == voices_of('RAVDESS', ['03', '18'])
    clips = RAVDESS + BANGLASER
    split = split_clips(clips, SplitConfig(validation_speakers=('BanglaSER:34',)))
    check(split, clips)
    assert split.voices()['validation'] == ['BanglaSER:34']


def corpora():
    return st.lists(st.sampled_from([RAVDESS, BANGLASER, SAVEE, MINE]), min_size=1, unique_by=id)


@given(
    corpora(),
    st.sampled_from(['leave_one_speaker_out', 'speakers', 'random']),
    st.integers(1, 4),
    st.integers(1, 6),
    st.data(),
)
def test_any_split_of_any_corpora(chosen, protocol, fold, n_validation, data):
    clips = [clip for corpus in chosen for clip in corpus]
    clips = data.draw(st.permutations(clips)) if len(clips) < 50 else clips
    config = SplitConfig(protocol, fold, n_folds=4, n_validation=n_validation)
    split = split_clips(clips, config)
    check(split, clips)
    assert split.validation
    if protocol != 'random':
        assert split.is_speaker_independent
        assert split.protocol.startswith('speaker-independent')
    again = split_clips(clips[::-1], config)
    assert again.voices() == split.voices()


@given(
    st.lists(
        st.builds(
            Clip,
            st.integers().map(lambda number: Path(f'{number}.wav')),
            st.sampled_from(['happy', 'sad']),
            st.sampled_from('pqrst'),
            st.sampled_from(['mine', 'mine', 'mine', 'yours']),
            st.sampled_from(['female', 'male', None]),
            digest=st.sampled_from(['', '', '', '', '1', '2']),
        ),
        max_size=40,
        unique=True,
    ),
    st.sampled_from(['folds', 'folds_or_speakers', 'leave_one_speaker_out', 'speakers', 'random']),
    st.integers(0, 3),
    st.integers(1, 4),
    st.integers(-1, 3),
)
def test_any_clips_are_split_well_or_refused_in_one_line(clips, protocol, fold, n_folds, n):
    try:
        split = split_clips(clips, SplitConfig(protocol, fold, n_folds, n))
    except SerError as error:
        assert '\n' not in str(error)
        return
    check(split, clips)
    assert protocol == 'random' or split.is_speaker_independent
    assert bool(split.validation) == (n > 0)


@pytest.mark.parametrize(
    ('clips', 'config', 'said'),
    [
        ([], SplitConfig(), 'no clips'),
        (RAVDESS, SplitConfig(fold=7), 'RAVDESS has no fold 7: its folds are 1 to 6'),
        (RAVDESS, SplitConfig(fold=0), 'RAVDESS has no fold 0'),
        (RAVDESS + BANGLASER, SplitConfig(fold=6), 'BanglaSER has no fold 6'),
        (MINE, SplitConfig(), 'mine has no published folds'),
        (RAVDESS[:60], SplitConfig(), 'fold 1 of RAVDESS tests speakers 11, 20, 21'),
        (MINE, SplitConfig('leave_one_speaker_out', 6), 'its folds are 1 to 5'),
        (MINE, SplitConfig('speakers', n_folds=6), '5 speakers of mine cannot be split into 6 folds'),
        (MINE, SplitConfig('speakers', n_folds=1), 'cannot be split into 1 folds'),
        (MINE, SplitConfig('random', n_folds=2), 'needs 3 or more folds, not 2'),
        (MINE, SplitConfig('random', 6), 'its folds are 1 to 5'),
        (MINE, SplitConfig('random', validation_speakers=('ann',)), 'validation_speakers'),
        (MINE[1:3], SplitConfig('random', 2), 'fold 2 leaves no clips for the validation set'),
        (MINE[1:3], SplitConfig('random', 3, n_validation=0), 'fold 3 leaves no clips for the test set'),
        (MINE[:2], SplitConfig('random'), 'all clips are of class happy; a model needs two or more'),
        (RAVDESS, SplitConfig(n_validation=-1), 'n_validation is -1'),
        (RAVDESS, SplitConfig(validation_speakers=('01', '02')), 'both in the test and the validation set: RAVDESS:01'),
        (RAVDESS, SplitConfig(validation_speakers=('98', '02', '99')), 'RAVDESS:98, RAVDESS:99'),
        (RAVDESS + BANGLASER, SplitConfig(validation_speakers=('03',)), 'name each CORPUS:SPEAKER'),
        (SAVEE, SplitConfig(validation_speakers=('KL', 'DC', 'JK')), 'leaves no clips for the training set'),
        (SAVEE[:12], SplitConfig('leave_one_speaker_out'), 'fold 1 leaves no clips for the validation set; there are only 2 speakers'),
        (RAVDESS + clips_of('RAVDESS', ['02', '03', '04'], ['calm']), SplitConfig(validation_speakers=('03',)), 'fold 1 leaves no clips of class calm to test on'),
        (RAVDESS + clips_of('RAVDESS', ['01', '02', '04'], ['calm']), SplitConfig(validation_speakers=('03',)), 'fold 1 leaves no clips of class calm to validate on; name other speakers in split.validation_speakers'),
        (MINE + clips_of('mine', ['ann', 'bob'], ['calm'], 1), SplitConfig('random', 3, n_validation=0), 'fold 3 leaves no clips of class calm to test on'),
        (MINE + clips_of('mine', ['ann'], ['calm']), SplitConfig('speakers'), 'class calm has one speaker, mine:ann'),
        (MINE + clips_of('mine', ['ann', 'bob'], ['calm']), SplitConfig('leave_one_speaker_out', validation_speakers=('bob',)), 'no clips of class calm to train on: only the validation and test speakers mine:ann, mine:bob'),
    ],
)  # fmt: skip
def test_an_impossible_split_is_refused(clips, config, said):
    with pytest.raises(SerError) as error:
        split_clips(clips, config)
    assert said in str(error.value)
    assert '\n' not in str(error.value)


def test_the_classes_are_those_of_the_training_set_in_the_vocabularys_order():
    split = split_clips(RAVDESS, SplitConfig())
    assert split.class_names == ('happy', 'sad', 'angry')
    calm = [dataclasses.replace(clip, emotion='calm') for clip in split.test]
    assert dataclasses.replace(split, test=calm).class_names == ('happy', 'sad', 'angry')
    assert dataclasses.replace(split, train=calm + split.train).class_names == (
        *('calm', 'happy', 'sad', 'angry'),
    )


def test_one_recording_of_two_voices_is_refused():
    twin = dataclasses.replace(MINE[0], path=Path('twin.wav'), speaker='eva')
    with pytest.raises(SerError, match=r'twin\.wav.*are one recording.*remove one'):
        split_clips([*MINE, twin], SplitConfig('leave_one_speaker_out'))


def test_a_voice_in_two_subsets_is_noticed():
    assert Split(MINE[:6], MINE[6:12], MINE[12:], '').is_speaker_independent
    assert not Split(MINE[:5], MINE[5:12], MINE[12:], '').is_speaker_independent
    other = [dataclasses.replace(clip, corpus='other') for clip in MINE]
    assert Split(MINE, [], other, '').is_speaker_independent


@pytest.mark.parametrize('fold', range(1, 6))
def test_the_corpora_themselves(ravdess, fold):
    folder = ravdess.with_name('banglaser')
    if not folder.is_dir():
        pytest.skip('needs BanglaSER: SER_CORPORA holds no banglaser/')
    clips = real_clips(ravdess) + real_clips(folder)
    split = split_clips(clips, SplitConfig(fold=fold))
    check(split, clips)
    assert split.is_speaker_independent
    assert len(set().union(*split.voices().values())) == 24 + 34


_read = {}


def real_clips(folder):
    if folder not in _read:
        _read[folder] = read_corpus(folder).clips
    return _read[folder]


# --- Corpora left out


def clip_of(corpus, emotion, number=0, digest=''):
    return Clip(Path(f'{corpus}/{emotion}{number}.wav'), emotion, 'p', corpus, digest=digest)


def corpora_of(**classes):
    return [clip_of(name, emotion) for name, emotions in classes.items() for emotion in emotions]


def left_out(*names):
    return SplitConfig('corpora', left_out=names)


def test_a_corpus_left_out_is_the_test_set_in_the_classes_that_others_have():
    clips = corpora_of(A=['happy', 'sad'], B=['happy', 'sad', 'angry'], C=['happy', 'sad'])
    split = split_clips(clips, left_out('B'))
    assert {clip.corpus for clip in split.train} == {'A', 'C'}
    assert [clip.emotion for clip in split.test] == ['happy', 'sad']
    assert not split.validation
    assert split.is_speaker_independent
    assert split.protocol == 'B left out, trained on all speakers of A, C'
    both = split_clips(clips, left_out('A', 'B'))
    assert {clip.corpus for clip in both.test} == {'A', 'B'}


@pytest.mark.parametrize(
    ('names', 'said'),
    [
        (['D'], 'left_out has D, not one of A, B'),
        (['A', 'B'], 'there is nothing to train on'),
        (['B'], 'fewer than two classes in common'),
    ],
)
def test_corpora_that_cannot_be_left_out(names, said):
    clips = corpora_of(A=['happy', 'sad'], B=['happy', 'angry'])
    with pytest.raises(SerError, match=said):
        split_clips(clips, left_out(*names))


def test_a_corpus_that_shares_recordings_cannot_be_left_out():
    clips = [
        *corpora_of(A=['happy', 'sad']),
        clip_of('A', 'sad', 1, digest='d' * 64),
        clip_of('B', 'happy'),
        clip_of('B', 'sad', digest='d' * 64),
    ]
    with pytest.raises(SerError, match=r'B/sad0.wav and A/sad1.wav are one recording') as error:
        split_clips(clips, left_out('B'))
    assert '\n' not in str(error.value)


def test_folds_or_speakers_uses_published_folds_where_there_are_any():
    clips = [
        *(Clip(Path(f'{s}{e}'), e, s, 'SAVEE') for s in ('JE', 'KL', 'DC', 'JK') for e in 'hs'),
        *(Clip(Path(f'{s}{e}'), e, s, 'mine') for s in 'abcdefgh' for e in 'hs'),
    ]
    split = split_clips(clips, SplitConfig('folds_or_speakers', n_folds=4, n_validation=1))
    tested = {clip.voice for clip in split.test}
    assert {'SAVEE:JE'} == {voice for voice in tested if voice.startswith('SAVEE')}
    assert len(tested) == 3
    with pytest.raises(SerError, match='mine has no published folds'):
        split_clips(clips, SplitConfig('folds', n_validation=1))


def test_a_quick_trial_evaluates_every_second_clip_of_each_voice_and_class():
    clips = clips_of('mine', [f's{i}' for i in range(7)], takes=3)
    recipe = Recipe(
        data=DataConfig(corpora=('mine',)),
        split=SplitConfig(protocol='speakers', n_folds=3, n_validation=2),
    )
    whole = split_corpora(recipe, [Corpus('mine', clips, [], {})])
    quick = split_corpora(dataclasses.replace(recipe, quick=True), [Corpus('mine', clips, [], {})])
    assert quick.train == whole.train
    for name in ('validation', 'test'):
        all_of_it, half = getattr(whole, name), getattr(quick, name)
        assert half == [clip for clip in all_of_it if clip.path.stem[-1] in '02']
    assert (
        quick.protocol == f'QUICK TRIAL: every second validation and test clip; {whole.protocol}'
    )
    assert quick.digest != whole.digest

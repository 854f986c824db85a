"""Corpora identified by their file names, with the faults of real copies."""

import itertools
import json
import os
import shutil
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from ser_ros import SerError
from ser_ros.audio.reading import Reading
from ser_ros.emotions import EMOTIONS, LABELS
from ser_ros.training.data.corpora import (
    KINDS,
    LANGUAGES,
    Clip,
    license_of,
    merge_labels,
    read_corpora,
    read_corpus,
)
from ser_ros.training.data.naming import NAMINGS

TWIN = '03-01-03-01-02-02-07'
RATE = 8_000


def noise(seed, seconds=0.25, channels=None):
    shape = round(seconds * RATE) if channels is None else (round(seconds * RATE), channels)
    return np.random.default_rng(seed).uniform(-0.5, 0.5, shape)


def write(path, sound=None, rate=RATE):
    """A sound that no other file has, unless `samples` are given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if sound is None:
        sound = noise(zlib.crc32(str(path).encode()))
    soundfile.write(path, sound, rate)
    return path


def names():
    """All file names of RAVDESS speech, as published."""
    for actor in range(1, 25):
        for emotion in range(1, 9):
            for intensity in (1, 2) if emotion > 1 else (1,):
                for statement in (1, 2):
                    for repetition in (1, 2):
                        yield (
                            f'03-01-{emotion:02}-{intensity:02}-{statement:02}-{repetition:02}'
                            f'-{actor:02}'
                        )


@pytest.fixture(scope='module')
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp('ravdess')
    for name in names():
        write(folder / f'Actor_{name[-2:]}' / f'{name}.wav')
    return folder


@pytest.fixture
def corpus(tmp_path):
    """Two clips of RAVDESS, beside which a test puts a faulty file."""
    write(tmp_path / 'Actor_01' / '03-01-06-01-01-01-01.wav')
    write(tmp_path / 'Actor_02' / '03-01-08-02-02-02-02.wav')
    return tmp_path


def reasons(corpus):
    return Counter(problem.reason for problem in corpus.problems)


def check_ravdess(corpus):
    clips = corpus.clips
    assert corpus.name == 'RAVDESS'
    assert len(clips) == 1_439
    stems = [clip.path.stem for clip in clips]
    assert stems == sorted(set(stems))
    assert TWIN not in stems
    assert len({clip.name for clip in clips}) == len(clips)
    by_emotion = dict.fromkeys(LABELS['RAVDESS'].values(), 0)
    for clip in clips:
        by_emotion[clip.emotion] += 1
        fields = clip.path.stem.split('-')
        assert fields[2] == f'{list(by_emotion).index(clip.emotion) + 1:02}'
        assert fields[6] == clip.speaker
        assert clip.gender == ('male' if int(clip.speaker) % 2 else 'female')
        assert clip.intensity == {'01': 'normal', '02': 'strong'}[fields[3]]
        assert clip.statement == fields[4]
        assert clip.voice == f'RAVDESS:{clip.speaker}'
    assert by_emotion == {
        name: {'neutral': 96, 'happy': 191}.get(name, 192) for name in by_emotion
    }
    assert {clip.speaker for clip in clips} == {f'{actor:02}' for actor in range(1, 25)}
    assert len({clip.digest for clip in clips}) == len(clips)


def test_every_recording_counts_once(published):
    corpus = read_corpus(published)
    check_ravdess(corpus)
    (problem,) = corpus.problems
    assert (problem.path.stem, problem.reason) == (TWIN, 'identical recording')
    assert '03-01-03-01-02-01-07' in problem.detail
    assert {clip.duration for clip in corpus.clips} == {0.25}


def test_a_doubled_folder_changes_nothing(published, tmp_path):
    """Corpora downloaded by hand often have every actor twice, and files of macOS."""
    shutil.copytree(published, tmp_path / 'audio_speech_actors_01-24')
    shutil.copytree(published, tmp_path, dirs_exist_ok=True)
    for path in published.rglob('*.wav'):
        (tmp_path / path.parent.name / f'._{path.name}').write_bytes(b'\0\5\x16\7')
    corpus = read_corpus(tmp_path)
    check_ravdess(corpus)
    assert reasons(corpus) == {'copy': 1_439, 'left by macOS': 1_440, 'identical recording': 2}
    assert not any(problem.is_used for problem in corpus.problems)


@pytest.mark.parametrize(
    ('kind', 'file', 'emotion', 'speaker', 'gender', 'age', 'intensity', 'statement'),
    [
        ('RAVDESS', '03-01-05-02-01-02-12.WAV', 'angry', '12', 'female', None, 'strong', '01'),
        ('SAVEE', 'DC/a01.wav', 'angry', 'DC', 'male', None, None, None),
        ('SAVEE', 'AudioData/JK/sa15.wav', 'sad', 'JK', 'male', None, None, None),
        ('SAVEE', 'ALL/KL_su02.wav', 'surprised', 'KL', 'male', None, None, None),
        ('SAVEE', 'DC/DC_n30.wav', 'neutral', 'DC', 'male', None, None, None),
        ('CREMA-D', '1001_DFA_ANG_XX.wav', 'angry', '1001', 'male', 51, None, 'DFA'),
        ('CREMA-D', '1091_IEO_HAP_HI.wav', 'happy', '1091', 'female', 29, 'high', 'IEO'),
        ('CREMA-D', '1040_ITH_SAD_X.wav', 'sad', '1040', 'male', 42, None, 'ITH'),
        ('TESS', 'OAF_angry/OAF_back_angry.wav', 'angry', 'OAF', 'female', 64, None, 'back'),
        ('TESS', 'YAF_pleasant_surprised/YAF_food_ps.wav', 'surprised', 'YAF', 'female', 26, None, 'food'),
        ('TESS', 'OAF_neutral/OA_bite_neutral.wav', 'neutral', 'OAF', 'female', 64, None, 'bite'),
        ('EmoDB', 'wav/03a01Fa.wav', 'happy', '03', 'male', 31, None, 'a01'),
        ('EmoDB', '16b10Wb.wav', 'angry', '16', 'female', 31, None, 'b10'),
        ('BanglaSER', '03-01-05-01-03-01-33.flac', 'neutral', '33', 'male', None, 'normal', '03'),
        ('BanglaSER', '01-01-04-02-03-02-16.flac', 'surprised', '16', 'female', None, 'strong', '03'),
        ('nEMO', 'EB0/EB0_fear_90.wav', 'fearful', 'EB0', 'female', 27, None, '90'),
        ('nEMO', 'WR0_surprised_1.wav', 'surprised', 'WR0', 'male', 23, None, '1'),
        ('Indian-EmoSpeech-Command', '044/stop_calm_1562996360436.wav', 'calm', '044', None, None, None, 'stop'),
        ('Indian-EmoSpeech-Command', '105/help_fearful_??.wav', 'fearful', '105', None, None, None, 'help'),
        ('emotiontts_open_db', 'nea/nea00100.wav', 'neutral', 'nea', None, None, None, None),
        ('emotiontts_open_db', 'emb00101.wav', 'happy', 'emb', None, None, None, None),
        ('emotiontts_open_db', 'emb00300.wav', 'sad', 'emb', None, None, None, None),
        ('emotiontts_open_db', 'emb00301.wav', 'angry', 'emb', None, None, None, None),
        ('EmoGator', '000357/000357-28-1.wav', 'surprised', '000357', None, None, None, None),
    ],
)  # fmt: skip
def test_each_corpus_is_identified_by_its_file_names(
    tmp_path, kind, file, emotion, speaker, gender, age, intensity, statement
):
    path = write(tmp_path / file)
    corpus = read_corpus(tmp_path)
    assert (corpus.name, corpus.problems) == (kind, [])
    (clip,) = corpus.clips
    expected = Clip(
        *(path, emotion, speaker, kind, gender, intensity, statement, 0.25, clip.digest, age),
        name=file,
    )
    assert clip == expected
    assert corpus == read_corpus(tmp_path, kind) == read_corpus(tmp_path, kind.lower())


def test_the_language_is_that_of_the_corpus():
    assert LANGUAGES.keys() == NAMINGS.keys() - {'EmoGator'}  # it has no words
    assert Clip(Path('a.wav'), 'sad', '01', 'nEMO').language == 'Polish'
    assert Clip(Path('a.wav'), 'sad', '01', 'mine').language is None


@pytest.mark.parametrize('naming', NAMINGS.values(), ids=NAMINGS)
def test_an_example_is_of_its_own_corpus_alone(naming, tmp_path):
    write(tmp_path / naming.example)
    assert read_corpus(tmp_path).name == naming.corpus


def test_actors_of_crema_d_are_as_many_as_published():
    naming = NAMINGS['CREMA-D']
    assert Counter(naming.genders.values()) == {'male': 48, 'female': 43}
    assert naming.ages.keys() == naming.genders.keys()
    # As published: 20 to 74 years, 36 on average.
    ages = naming.ages.values()
    assert (min(ages), max(ages), round(np.mean(list(ages)))) == (20, 74, 36)


def test_clips_of_savee_that_are_named_alike_are_of_other_speakers(tmp_path):
    for speaker in ('DC', 'JE', 'JK', 'KL'):
        write(tmp_path / speaker / 'a01.wav')
    corpus = read_corpus(tmp_path)
    assert [clip.speaker for clip in corpus.clips] == ['DC', 'JE', 'JK', 'KL']


def lfs_pointer(path):
    path.write_text(
        f'version https://git-lfs.github.com/spec/v1\noid sha256:{"0" * 64}\nsize 371112\n'
    )


def halved(path):
    write(path, noise(1, 2))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ('name', 'make', 'reason'),
    [
        ('03-01-05-01-01-01-03.wav', lfs_pointer, 'Git LFS pointer'),
        ('._03-01-05-01-01-01-03.wav', write, 'left by macOS'),
        ('03-01-09-01-01-01-03.wav', write, 'unknown label'),
        ('03-02-05-01-01-01-03.wav', write, 'not speech alone'),
        ('02-01-05-01-01-01-03.mp4', Path.touch, 'not speech alone'),
        ('03-01-05-01-01-01.wav', write, 'not a file name of RAVDESS'),
        ('03-01-05-01-01-01-03.wav', Path.touch, 'unreadable'),
        ('03-01-05-01-01-01-03.wav', lambda path: path.write_text('<html>'), 'unreadable'),
        ('03-01-05-01-01-01-03.flac', halved, 'cut short'),
        ('03-01-05-01-01-01-03.wav', halved, 'cut short'),
        ('03-01-05-01-01-01-03.aiff', halved, 'cut short'),
        ('03-01-05-01-01-01-03.mp3', halved, 'cut short'),
        ('03-01-05-01-01-01-03.wav', lambda p: write(p, noise(1, 0.1)), 'too short'),
        ('03-01-05-01-01-01-03.wav', lambda p: write(p, noise(1, 0)), 'too short'),
        ('03-01-05-01-01-01-03.wav', lambda p: write(p, 0.0018 * noise(1)), 'silent'),
        (
            '03-01-05-01-01-01-03.wav',
            lambda p: write(p, noise(1)[:, None] * [1, -1]),
            'silent',
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_named_and_left_out(corpus, name, make, reason):
    (corpus / 'Actor_03').mkdir()
    path = corpus / 'Actor_03' / name
    make(path)
    read = read_corpus(corpus)
    assert len(read.clips) == 2
    (problem,) = read.problems
    assert (problem.path, problem.reason, problem.is_used) == (path, reason, False)
    assert '\n' not in problem.detail


def test_samples_that_are_no_numbers_are_not_used(corpus):
    sound = noise(1)
    sound[3] = np.nan
    path = corpus / '03-01-05-01-01-01-03.wav'
    soundfile.write(path, sound, RATE, subtype='FLOAT')
    assert reasons(read_corpus(corpus)) == {'unreadable': 1}


def test_a_stereo_file_is_used_and_named(corpus):
    path = write(corpus / '03-01-05-01-01-01-03.wav', noise(1, channels=2))
    read = read_corpus(corpus)
    (problem,) = read.problems
    assert (problem.path, problem.reason, problem.is_used) == (path, 'not mono', True)
    assert path in {clip.path for clip in read.clips}
    write(corpus / '03-01-05-01-01-02-03.wav', noise(1, channels=2))
    assert reasons(read_corpus(corpus)) == {'not mono': 1, 'identical recording': 1}


def test_boredom_has_no_class(tmp_path):
    write(tmp_path / '03a01Fa.wav')
    write(tmp_path / '03a01La.wav')
    corpus = read_corpus(tmp_path)
    assert corpus.name == 'EmoDB'
    assert (reasons(corpus), len(corpus.clips)) == ({'unknown label': 1}, 1)


def test_what_crema_d_calls_faulty_is_not_used(tmp_path):
    write(tmp_path / '1064_IEO_DIS_MD.wav')
    write(tmp_path / '1064_IEO_DIS_LO.wav')
    corpus = read_corpus(tmp_path)
    assert [clip.name for clip in corpus.clips] == ['1064_IEO_DIS_LO.wav']
    assert reasons(corpus) == {'known to be faulty': 1}


def test_a_copy_in_another_format_is_a_copy(corpus):
    sound, _ = soundfile.read(corpus / 'Actor_01' / '03-01-06-01-01-01-01.wav')
    write(corpus / 'flac' / '03-01-06-01-01-01-01.flac', sound)
    write(corpus / '4k' / '03-01-08-02-02-02-02.wav', rate=RATE // 2)
    write(corpus / 'AudioMP3' / '03-01-08-02-02-02-02.mp3')
    read = read_corpus(corpus)
    assert len(read.clips) == 2
    assert {clip.path.suffix for clip in read.clips} == {'.wav'}
    assert reasons(read) == {'copy': 1, 'another version': 2}


def test_a_broken_copy_does_not_hide_a_whole_one(corpus):
    (corpus / 'AAA').mkdir()
    lfs_pointer(corpus / 'AAA' / '03-01-06-01-01-01-01.wav')
    read = read_corpus(corpus)
    assert len(read.clips) == 2
    assert reasons(read) == {'Git LFS pointer': 1}


def test_linked_folders_are_read_and_loops_end(corpus, tmp_path):
    elsewhere = tmp_path / 'elsewhere'
    write(elsewhere / '03-01-05-01-01-01-03.wav', noise(1))
    (corpus / 'Actor_03').symlink_to(elsewhere)
    (elsewhere / 'loop').symlink_to(corpus)
    read = read_corpus(corpus)
    assert len(read.clips) == 3
    assert read.problems == []


def test_identical_recordings_count_once(corpus):
    write(corpus / '03-01-05-01-01-01-03.wav', noise(1))
    path = write(corpus / '03-01-05-01-01-02-03.wav', noise(1))
    read = read_corpus(corpus)
    assert len(read.clips) == 3
    (problem,) = read.problems
    assert (problem.path, problem.reason) == (path, 'identical recording')
    assert '03-01-05-01-01-01-03.wav' in problem.detail


@pytest.mark.parametrize('other', ['03-01-04-01-01-01-03', '03-01-05-01-01-01-04'])
def test_recordings_that_contradict_each_other_are_both_left(corpus, other):
    """One sound with two labels or two speakers: which one is right is unknown."""
    write(corpus / '03-01-05-01-01-01-03.wav', noise(1))
    write(corpus / f'{other}.wav', noise(1))
    read = read_corpus(corpus)
    assert len(read.clips) == 2
    assert reasons(read) == {'collision': 2}
    for problem in read.problems:
        assert 'angry by 03' in problem.detail
        assert ('sad by 03' in problem.detail) != ('angry by 04' in problem.detail)


@pytest.mark.parametrize('suffix', ['wav', 'flac', 'ogg', 'mp3', 'aiff'])
def test_whole_sounds_of_every_format_are_used(tmp_path, suffix):
    write(tmp_path / f'03a01Fa.{suffix}', noise(1, 0.5))
    corpus = read_corpus(tmp_path)
    assert corpus.problems == []
    assert corpus.clips[0].duration == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize('size', [b'\xff' * 4, bytes(4), b'\0\0\0\x80'])
def test_a_recorder_that_was_killed_is_named_and_its_sound_used(tmp_path, size):
    """So are headers of programs that write through a pipe and do not know the length."""
    path = write(tmp_path / '03a01Fa.wav')
    expected = read_corpus(tmp_path)
    assert expected.problems == []
    data = path.read_bytes()
    assert data[40:44] == (len(data) - 44).to_bytes(4, 'little')
    path.write_bytes(data[:40] + size + data[44:])
    corpus = read_corpus(tmp_path)
    assert corpus.clips == expected.clips
    (problem,) = corpus.problems
    assert (problem.path, problem.is_used) == (path, True)
    assert problem.reason == 'recorder was not closed'


def test_a_few_milliseconds_more_in_the_header_are_no_fault(tmp_path):
    path = write(tmp_path / '03a01Fa.wav')
    data = path.read_bytes()
    path.write_bytes(data[:40] + (len(data) - 44 + 20).to_bytes(4, 'little') + data[44:])
    assert read_corpus(tmp_path).problems == []
    path.write_bytes(data[:40] + (len(data) - 44 + 2_000).to_bytes(4, 'little') + data[44:])
    with pytest.raises(SerError, match='1 cut short.*holds 0.250 of the 0.375 s'):
        read_corpus(tmp_path)


@pytest.fixture(scope='module')
def scratch(tmp_path_factory):
    folder = tmp_path_factory.mktemp('scratch')
    write(folder / '03a01Fa.wav')
    return folder


@given(st.data(), st.sampled_from(['.wav', '.flac', '.aiff']))
def test_a_file_that_was_cut_anywhere_is_not_used(scratch, data, suffix):
    whole = write(scratch.parent / f'whole{suffix}', noise(1, 0.3)).read_bytes()
    # But for a few milliseconds, of 24 bytes each at the most.
    end = data.draw(st.integers(0, len(whole) - 24 * 20 - 1))
    path = scratch / f'03a02Fa{suffix}'
    path.write_bytes(whole[:end])
    corpus = read_corpus(scratch)
    path.unlink()
    assert [clip.name for clip in corpus.clips] == ['03a01Fa.wav']
    (problem,) = corpus.problems
    assert problem.path == path


@given(st.binary(max_size=300), st.sampled_from(['.wav', '.flac', '.ogg', '.mp3', '.opus']))
def test_bytes_that_are_no_sound_are_named(scratch, content, suffix):
    path = scratch / f'03a02Fa{suffix}'
    path.write_bytes(content)
    corpus = read_corpus(scratch)
    path.unlink()
    assert [clip.name for clip in corpus.clips] == ['03a01Fa.wav']
    assert [problem.path for problem in corpus.problems] == [path]


# Corpora that cannot be read at all.


def one_line(error):
    text = str(error.value)
    assert '\n' not in text
    return text


def test_a_path_that_is_not_there(tmp_path):
    with pytest.raises(SerError) as error:
        read_corpus(tmp_path / 'nowhere')
    assert 'nowhere: no such folder' in one_line(error)


def test_an_empty_folder(tmp_path):
    (tmp_path / 'notes.txt').touch()
    with pytest.raises(SerError) as error:
        read_corpus(tmp_path)
    assert f'{tmp_path}: there are no sound files' in one_line(error)


def test_a_corpus_of_which_only_pointers_were_downloaded(tmp_path):
    for speaker in (1, 2):
        lfs_pointer(tmp_path / f'03-01-06-01-01-01-0{speaker}.wav')
    with pytest.raises(SerError) as error:
        read_corpus(tmp_path)
    assert 'its 2 files are Git LFS pointers' in one_line(error)
    assert 'git lfs pull' in one_line(error)


def test_a_corpus_of_which_nothing_can_be_used(tmp_path):
    write(tmp_path / '03a01Fa.wav', np.zeros(RATE))
    (tmp_path / '03a02Fa.wav').touch()
    with pytest.raises(SerError) as error:
        read_corpus(tmp_path)
    text = one_line(error)
    assert '1 silent' in text
    assert '1 unreadable' in text


def test_names_that_are_of_no_corpus(tmp_path):
    write(tmp_path / 'notes.wav')
    with pytest.raises(SerError) as error:
        read_corpus(tmp_path)
    text = one_line(error)
    assert 'notes.wav' in text
    assert all(naming.example in text for naming in NAMINGS.values())
    assert 'CSV' in text


def test_two_corpora_in_one_folder(tmp_path):
    write(tmp_path / 'ravdess' / '03-01-06-01-01-01-01.wav')
    write(tmp_path / 'banglaser' / '03-01-05-01-03-03-34.flac')
    write(tmp_path / 'banglaser' / '03-01-05-01-03-02-34.flac')
    with pytest.raises(SerError) as error:
        read_corpus(tmp_path)
    assert 'BanglaSER (2 files), RAVDESS (1 files)' in one_line(error)
    (clip,) = read_corpus(tmp_path, 'RAVDESS').clips
    assert [clip.path] == [clip.path for clip in read_corpus(tmp_path / 'ravdess').clips]
    assert len(read_corpus(tmp_path / 'banglaser').clips) == 2


def test_names_that_two_corpora_have(tmp_path):
    """Neutral in BanglaSER, angry in RAVDESS."""
    write(tmp_path / '03-01-05-01-01-01-01.wav')
    with pytest.raises(SerError) as error:
        read_corpus(tmp_path)
    assert 'RAVDESS (1 files), BanglaSER (1 files)' in one_line(error)
    assert read_corpus(tmp_path, 'BanglaSER').clips[0].emotion == 'neutral'
    assert read_corpus(tmp_path, 'RAVDESS').clips[0].emotion == 'angry'


def test_a_kind_that_there_is_not(tmp_path):
    with pytest.raises(SerError) as error:
        read_corpus(tmp_path, 'ravdes')
    assert all(kind in one_line(error) for kind in KINDS)


def test_a_corpus_that_is_of_another_kind(corpus):
    with pytest.raises(SerError) as error:
        read_corpus(corpus, 'TESS')
    assert 'OAF_back_angry.wav' in one_line(error)


# Corpora of one's own.


def table(folder, text, name='mine.csv'):
    path = folder / name
    path.write_text(text, encoding='utf-8')
    return path


def test_a_table_of_clips(tmp_path):
    paths = [write(tmp_path / 'sounds' / f'{i}.wav') for i in range(3)]
    path = table(
        tmp_path,
        '\ufeffpath, Emotion,speaker,gender,Age,intensity,room\n'
        'sounds/0.wav,anger,ann,f,17,high,1\n'
        'sounds/1.wav,Happiness,bob,male, 60,,\n'
        f'{paths[2]},neutral,cem\n',
    )
    corpus = read_corpus(path)
    assert (corpus.name, corpus.problems) == ('mine', [])
    assert [
        (c.path, c.emotion, c.speaker, c.corpus, c.gender, c.age_group, c.intensity)
        for c in corpus.clips
    ] == [
        (paths[0], 'angry', 'ann', 'mine', 'female', 'under 18', 'high'),
        (paths[1], 'happy', 'bob', 'mine', 'male', '60 and over', None),
        (paths[2], 'neutral', 'cem', 'mine', None, None, None),
    ]
    assert read_corpus(path, 'csv') == corpus


def test_rows_that_cannot_be_used(tmp_path):
    for i in range(4):
        write(tmp_path / f'{i}.wav')
    corpus = read_corpus(
        table(
            tmp_path,
            'path,emotion,speaker\n'
            '0.wav,sad,ann\n'
            '1.wav,bored,ann\n'
            '2.wav,sad,\n'
            'gone.wav,sad,ann\n'
            '3.wav,sad,ann\n'
            '3.wav,happy,ann\n'
            '0.wav,sad,ann\n',
        )
    )
    assert [clip.name for clip in corpus.clips] == ['0.wav']
    assert reasons(corpus) == {
        'unknown label': 1,
        'no speaker': 1,
        'no such file': 1,
        'collision': 2,
        'identical recording': 1,
    }


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('path,emotion\na.wav,sad\n', 'the columns speaker are missing'),
        (
            'path;emotion;speaker\na.wav;sad;ann\n',
            'the columns path, emotion, speaker are missing',
        ),
        ('', 'the columns path, emotion, speaker are missing'),
        ('path,emotion,speaker\n', 'no clip of mine can be used: it lists none'),
        ('path,emotion,speaker\na\0.wav,sad,ann\n', 'a'),
        ('path,emotion,speaker\n"a.wav,sad,ann\nb.wav,sad,ann\n', 'unexpected end of data'),
        ('path,emotion,speaker\na.wav,sad,ann\n', '1 no such file, such as '),
    ],
)
def test_a_table_that_cannot_be_read(tmp_path, text, message):
    with pytest.raises(SerError) as error:
        read_corpus(table(tmp_path, text))
    assert 'mine.csv' in one_line(error)
    assert message in one_line(error)


def test_a_class_of_which_no_clip_has_a_speaker_is_refused(tmp_path):
    for i in range(3):
        write(tmp_path / f'{i}.wav')
    path = table(tmp_path, 'path,emotion,speaker\n0.wav,sad,ann\n1.wav,happy,\n2.wav,happy,\n')
    with pytest.raises(SerError) as error:
        read_corpus(path)
    assert 'mine.csv: no clip of happy has a speaker, such as' in one_line(error)
    write(tmp_path / 'folders' / 'sad' / 'ann_1.wav')
    write(tmp_path / 'folders' / 'angry' / '1.wav')
    with pytest.raises(SerError) as error:
        read_corpus(tmp_path / 'folders')
    assert 'no clip of angry has a speaker' in one_line(error)
    assert 'name it angry/SPEAKER/1.wav' in one_line(error)


def test_a_file_that_is_no_table(tmp_path, corpus):
    path = next(corpus.rglob('*.wav'))
    with pytest.raises(SerError) as error:
        read_corpus(path)
    assert f'{path}: ' in one_line(error)
    with pytest.raises(SerError, match='this is a folder'):
        read_corpus(corpus, 'csv')
    with pytest.raises(SerError, match='no such folder'):
        read_corpus(table(tmp_path, 'path,emotion,speaker\n'), 'RAVDESS')


def test_a_folder_per_emotion(tmp_path):
    write(tmp_path / 'anger' / 'ann' / '1.wav')
    write(tmp_path / 'anger' / 'bob_1.wav')
    write(tmp_path / 'Pleasant_Surprise' / 'ann' / 'take' / '1.flac')
    corpus = read_corpus(tmp_path)
    assert (corpus.name, corpus.problems) == (tmp_path.name, [])
    assert {(clip.emotion, clip.speaker) for clip in corpus.clips} == {
        ('angry', 'ann'),
        ('angry', 'bob'),
        ('surprised', 'ann'),
    }
    assert corpus.labels == {'anger': 'angry', 'Pleasant_Surprise': 'surprised'}
    assert corpus.collisions() == {}


def test_files_that_begin_with_numbers_are_doubted(tmp_path, caplog):
    for number in range(6):
        write(tmp_path / 'one' / 'sad' / f'{number:03}_sad.wav')
        write(tmp_path / 'three' / 'sad' / f'{number // 2:03}_{number}.wav')
    read_corpus(tmp_path / 'three')
    assert not caplog.records
    read_corpus(tmp_path / 'one')
    (record,) = caplog.records
    assert "its 6 clips have 6 speakers, such as '000' of sad/000_sad.wav" in record.message


def test_folders_that_cannot_be_used(tmp_path):
    write(tmp_path / 'sad' / 'ann' / '1.wav')
    write(tmp_path / 'sadness' / 'ann' / '1.wav')
    write(tmp_path / 'bored' / 'ann' / '1.wav')
    write(tmp_path / 'sad' / '1.wav')
    write(tmp_path / '1.wav')
    corpus = read_corpus(tmp_path)
    assert len(corpus.clips) == 2
    assert reasons(corpus) == {'unknown label': 2, 'no speaker': 1}
    assert corpus.collisions() == {'sad': ['sad', 'sadness']}
    remedy = next(p.detail for p in corpus.problems if p.reason == 'no speaker')
    assert 'sad/SPEAKER_1.wav' in remedy


def test_a_clip_is_known_by_its_path_below_the_corpus(tmp_path):
    files = ('angry/ann/1.wav', 'angry/ann/1.flac', 'sad/ann/1.wav', 'sad/bob/1.wav')
    for file in files:
        write(tmp_path / 'mine' / file)
    corpus = read_corpus(tmp_path / 'mine')
    assert sorted(clip.name for clip in corpus.clips) == sorted(files)
    rows = [f'mine/{file},sad,ann\n' for file in files]
    corpus = read_corpus(table(tmp_path, 'path,emotion,speaker\n' + ''.join(rows)))
    assert [clip.name for clip in corpus.clips] == [f'mine/{file}' for file in files]


def test_rows_may_be_parts_of_a_file(tmp_path):
    sound = noise(1, 3)
    write(tmp_path / 'talk.wav', sound)
    corpus = read_corpus(
        table(
            tmp_path,
            'path,emotion,speaker,start,end\n'
            'talk.wav,sad,ann,0.5,1.25\n'
            'talk.wav,angry,bob,1.25,2\n'
            'talk.wav,happy,ann, 2.5,\n'
            'talk.wav,neutral,cem,,0.5\n',
        )
    )
    assert corpus.problems == []
    assert [(c.name, c.emotion, c.speaker, c.duration) for c in corpus.clips] == [
        ('talk.wav#t=0.5,1.25', 'sad', 'ann', 0.75),
        ('talk.wav#t=1.25,2', 'angry', 'bob', 0.75),
        ('talk.wav#t=2.5', 'happy', 'ann', 0.5),
        ('talk.wav#t=,0.5', 'neutral', 'cem', 0.5),
    ]
    assert len({clip.digest for clip in corpus.clips}) == 4
    np.testing.assert_allclose(corpus.clips[1].read(RATE), sound[10_000:16_000], atol=1e-4)
    # What does not change a sound does not change its digest.
    write(tmp_path / 'part.wav', sound[4_000:10_000])
    part = read_corpus(table(tmp_path, 'path,emotion,speaker\npart.wav,sad,ann\n', 'b.csv'))
    assert part.clips[0].digest == corpus.clips[0].digest


@pytest.mark.parametrize(
    ('start', 'end', 'reason'),
    [
        ('1', '1', 'invalid start or end'),
        ('1', '0.5', 'invalid start or end'),
        ('-1', '', 'invalid start or end'),
        ('00:01', '', 'invalid start or end'),
        ('0', 'nan', 'invalid start or end'),
        ('0', 'inf', 'invalid start or end'),
        ('1', '1.1', 'too short'),
        ('2', '3.5', 'cut short'),
        ('3', '', 'too short'),
        ('7', '8', 'too short'),
    ],
)
def test_parts_that_there_are_not_are_refused_with_a_reason(tmp_path, start, end, reason):
    write(tmp_path / 'talk.wav', noise(1, 3))
    text = (
        f'path,emotion,speaker,start,end\ntalk.wav,sad,ann,{start},{end}\ntalk.wav,sad,ann,0,1\n'
    )
    corpus = read_corpus(table(tmp_path, text))
    assert len(corpus.clips) == 1
    assert reasons(corpus) == {reason: 1}
    assert corpus.problems[0].detail


def test_a_part_of_a_truncated_file_may_be_whole(tmp_path):
    halved(tmp_path / 'talk.wav')
    text = 'path,emotion,speaker,start,end\ntalk.wav,sad,ann,0,0.5\ntalk.wav,sad,ann,0.5,1.5\n'
    corpus = read_corpus(table(tmp_path, text))
    assert [clip.name for clip in corpus.clips] == ['talk.wav#t=0,0.5']
    assert {(p.reason, p.is_used) for p in corpus.problems} == {
        ('cut short', True),
        ('cut short', False),
    }


@pytest.mark.parametrize(
    ('column', 'cell', 'reason'),
    [
        ('gender', 'other', 'gender not f or m'),
        ('gender', 'x', 'gender not f or m'),
        ('age', '20s', 'age not in whole years'),
        ('age', '1987', 'age not in whole years'),
        ('age', '-3', 'age not in whole years'),
    ],
)
def test_a_cell_that_means_nothing_is_taken_as_not_stated(tmp_path, column, cell, reason):
    for i in range(2):
        write(tmp_path / f'{i}.wav')
    good = {'gender': 'f', 'age': '30'}[column]
    text = f'path,emotion,speaker,{column}\n0.wav,sad,ann,{good}\n1.wav,sad,bob,{cell}\n'
    corpus = read_corpus(table(tmp_path, text))
    first, second = corpus.clips
    assert getattr(first, column) is not None
    assert getattr(second, column) is None
    (problem,) = corpus.problems
    assert (problem.reason, problem.is_used) == (reason, True)
    assert f"row 3: '{cell}'" in problem.detail


@pytest.mark.parametrize('suffix', ['m4a', 'AAC', 'wma', 'sph', 'amr', 'webm'])
def test_sounds_in_a_format_that_is_not_read_are_named(tmp_path, suffix):
    write(tmp_path / 'sad' / 'ann_1.wav')
    path = tmp_path / 'sad' / f'ann_2.{suffix}'
    shutil.copy(tmp_path / 'sad' / 'ann_1.wav', path)
    (problem,) = read_corpus(tmp_path).problems
    assert (problem.path, problem.is_used) == (path, False)
    assert problem.reason == 'format that is not read'
    (tmp_path / 'sad' / 'ann_1.wav').unlink()
    with pytest.raises(SerError, match=f'no sound files.*only 1 .{suffix.lower()}'):
        read_corpus(tmp_path)


@pytest.mark.parametrize('suffix', ['au', 'caf', 'w64', 'rf64', 'oga'])
def test_other_formats_that_are_read_are_used(tmp_path, suffix):
    path = tmp_path / 'sad' / f'ann_1.{suffix}'
    path.parent.mkdir()
    soundfile.write(path, noise(1), RATE, format='OGG' if suffix == 'oga' else suffix.upper())
    corpus = read_corpus(tmp_path)
    assert (len(corpus.clips), corpus.problems) == (1, [])


def test_a_folder_per_speaker(tmp_path):
    write(tmp_path / 'mine' / 'ann' / 'anger' / '1.wav')
    write(tmp_path / 'mine' / 'bob' / 'anger' / '1.wav')
    write(tmp_path / 'mine' / 'Joy' / 'sad' / 'take' / '1.wav')  # a name that is an emotion
    write(tmp_path / 'mine' / 'bob' / 'bored' / '1.wav')
    corpus = read_corpus(tmp_path / 'mine')
    assert {(clip.emotion, clip.speaker, clip.name) for clip in corpus.clips} == {
        ('angry', 'ann', 'ann/anger/1.wav'),
        ('angry', 'bob', 'bob/anger/1.wav'),
        ('sad', 'Joy', 'Joy/sad/take/1.wav'),
    }
    assert corpus.labels == {'anger': 'angry', 'sad': 'sad'}
    (problem,) = corpus.problems
    assert (problem.reason, problem.detail) == ('unknown label', "'bored' is not a known emotion")
    assert read_corpus(tmp_path / 'mine', 'folders') == corpus


def test_names_that_are_not_utf_8(tmp_path):
    """Of a folder, a speaker and a file; and the same files in a table."""
    folder = tmp_path / os.fsdecode(b'm\xefne')
    files = [os.fsdecode(b'J\xfcrgen/sad/\xe9.wav'), os.fsdecode(b'J\xe4rgen/sad/\xe9.wav')]
    for i, file in enumerate(files):
        (folder / file).parent.mkdir(parents=True)
        write(tmp_path / 'a.wav', noise(i)).replace(folder / file)
    corpus = read_corpus(folder)
    assert corpus.name == r'm\xefne'
    assert [clip.name for clip in corpus.clips] == [
        r'J\xe4rgen/sad/\xe9.wav',
        r'J\xfcrgen/sad/\xe9.wav',
    ]
    assert [clip.speaker for clip in corpus.clips] == [r'J\xe4rgen', r'J\xfcrgen']
    path = folder / 'mine.csv'
    rows = b''.join(os.fsencode(file) + b',sad,J\xfcrgen,\n' for file in files)
    path.write_bytes(b'path,emotion,speaker,gender\n' + rows)
    corpus = read_corpus(path)
    assert [clip.path for clip in corpus.clips] == [folder / file for file in files]
    assert {clip.speaker for clip in corpus.clips} == {r'J\xfcrgen'}
    assert json.dumps([clip.name for clip in corpus.clips], ensure_ascii=False).encode()


# Several corpora.


def test_recordings_of_an_earlier_corpus_are_left_out_of_a_later(tmp_path):
    write(tmp_path / 'one' / '03a01Fa.wav', noise(1))
    write(tmp_path / 'one' / '03a01Wa.wav', noise(2))
    write(tmp_path / 'two' / 'happy' / 'ann_1.wav', noise(1))
    write(tmp_path / 'two' / 'happy' / 'ann_2.wav', noise(3))
    first, second = read_corpora([tmp_path / 'one', tmp_path / 'two'])
    assert first == read_corpus(tmp_path / 'one')
    assert [clip.name for clip in second.clips] == ['happy/ann_2.wav']
    assert reasons(second) == {'recording of an earlier corpus': 1}


def test_two_corpora_of_one_name(tmp_path):
    for folder in ('a', 'b'):
        write(tmp_path / folder / '03a01Fa.wav')
    with pytest.raises(SerError, match='there are two corpora EmoDB'):
        read_corpora([tmp_path / 'a', tmp_path / 'b'])


def test_classes_are_merged_by_choice():
    clips = [Clip(Path('a.wav'), name, '01', 'RAVDESS') for name in EMOTIONS]
    merged = merge_labels(clips, {'calm': 'neutral'})
    assert [clip.emotion for clip in merged] == [
        'neutral' if name == 'calm' else name for name in EMOTIONS
    ]
    assert merge_labels(clips, {}) == clips
    swapped = merge_labels(clips[:2], {'calm': 'neutral', 'neutral': 'calm'})
    assert [clip.emotion for clip in swapped] == ['calm', 'neutral']


@pytest.mark.parametrize('merges', [{'clam': 'neutral'}, {'neutral': 'clam'}])
def test_what_is_no_class_is_not_merged(merges):
    with pytest.raises(SerError, match="'clam' is not a class; did you mean 'calm'"):
        merge_labels([], merges)


def test_licences():
    assert license_of(['RAVDESS']) == 'CC-BY-NC-SA-4.0'
    assert license_of(['BanglaSER', 'RAVDESS']) == 'CC-BY-NC-SA-4.0 AND CC-BY-4.0'
    assert license_of(['RAVDESS', 'nEMO']) == 'CC-BY-NC-SA-4.0'
    assert license_of(['my corpus', 'TESS']) == 'CC-BY-NC-ND-4.0 AND LicenseRef-my-corpus'


# The corpora themselves.


def test_ravdess_itself(ravdess):
    corpus = read_corpus(ravdess)
    check_ravdess(corpus)
    assert reasons(corpus) == {'identical recording': 1}
    assert min(clip.duration for clip in corpus.clips) > 2.9
    assert max(clip.duration for clip in corpus.clips) < 5.3


def test_ravdess_as_published(ravdess):
    folder = ravdess.with_name('ravdess_original')
    if not folder.is_dir():
        pytest.skip('needs originals of RAVDESS: SER_CORPORA holds no ravdess_original/')
    corpus = read_corpus(folder)
    assert len(corpus.clips) == 9
    assert reasons(corpus) == {'identical recording': 1, 'not mono': 5}


def test_banglaser_itself(ravdess):
    folder = ravdess.with_name('banglaser')
    if not folder.is_dir():
        pytest.skip('needs BanglaSER: SER_CORPORA holds no banglaser/')
    corpus = read_corpus(folder)
    assert (corpus.name, corpus.problems) == ('BanglaSER', [])
    assert len(corpus.clips) == 1_466
    assert Counter(clip.emotion for clip in corpus.clips) == {
        **dict.fromkeys(('happy', 'sad', 'angry', 'surprised'), 306),
        'neutral': 242,
    }
    genders = {clip.speaker: clip.gender for clip in corpus.clips}
    assert Counter(genders.values()) == {'female': 17, 'male': 17}
    calm = {clip.speaker for clip in corpus.clips if clip.emotion == 'neutral'}
    assert set(genders) - calm == {'11', '12', '13', '16', '18', '20', '29'}


def listed(corpus):
    return {(p.path.name, p.reason, p.is_used): p.detail for p in corpus.problems}


def test_channels_that_cannot_be_averaged_are_said(corpus, speech):
    name = '03-01-05-01-01-01-03.wav'
    half = len(speech) // 2
    write(corpus / name, np.stack([speech[:half], speech[half : 2 * half]], axis=1))
    detail = listed(read_corpus(corpus))[name, 'not mono', True]
    assert 'channels 0 and 1 have different sound' in detail
    assert '--channel' in detail
    write(corpus / name, np.stack([speech, -speech], axis=1))
    detail = listed(read_corpus(corpus))[name, 'silent', False]
    assert 'cancel each other' in detail
    write(corpus / name, np.stack([speech, 0.8 * speech], axis=1))
    detail = listed(read_corpus(corpus))[name, 'not mono', True]
    assert detail == 'the average of its 2 channels is used'


def test_one_channel_is_used_of_all_files(tmp_path, speech):
    for number in (1, 2):
        frames = np.stack([speech, noise(number, len(speech) / RATE)[: len(speech)]], axis=1)
        write(tmp_path / f'03-01-05-01-01-01-0{number}.wav', frames)
    write(tmp_path / '03-01-05-01-01-01-03.wav', speech)
    corpus = read_corpus(tmp_path, 'RAVDESS', Reading(channel=1))
    assert listed(corpus).keys() == {('03-01-05-01-01-01-03.wav', 'no such channel', False)}
    for number, clip in enumerate(corpus.clips, 1):
        samples = clip.read(RATE)
        np.testing.assert_allclose(samples, noise(number, len(speech) / RATE), atol=1e-3)
    # Channel 0 is the same in all three.
    with pytest.raises(SerError, match='3 collision'):
        read_corpora([(tmp_path, 'RAVDESS', Reading(channel=0))])


def test_two_people_on_two_channels_are_two_rows(tmp_path):
    write(tmp_path / 'a.wav', np.stack([noise(1), noise(2)], axis=1))
    write(tmp_path / 'b.wav', np.stack([noise(3), noise(4)], axis=1))
    path = table(
        tmp_path,
        'path,emotion,speaker,channel\na.wav,sad,ann,0\na.wav,angry,bob,1\nb.wav,sad,ann,\n',
    )
    corpus = read_corpus(path, reading=Reading(channel=1))
    assert corpus.problems == []
    assert [(c.speaker, c.reading.channel) for c in corpus.clips] == [
        ('ann', 0),
        ('bob', 1),
        ('ann', 1),
    ]
    for clip, seed in zip(corpus.clips, (1, 2, 4)):
        samples = clip.read(RATE)
        np.testing.assert_allclose(samples, noise(seed), atol=1e-3)


@pytest.mark.parametrize('channel', ['left', '-2', '1.0', '²'])
def test_a_channel_in_a_table_is_a_number(tmp_path, channel):
    path = table(tmp_path, f'path,emotion,speaker,channel\na.wav,sad,ann,{channel}\n')
    with pytest.raises(SerError, match=f"mine.csv: row 2: channel is '{channel}'"):
        read_corpus(path)


def test_float_sound_beyond_full_scale(corpus):
    name = '03-01-05-01-01-01-03.wav'
    soundfile.write(corpus / name, 2.4 * noise(1), RATE, subtype='FLOAT')
    detail = listed(read_corpus(corpus))[name, 'beyond full scale', True]
    assert '(the largest is 1.' in detail
    soundfile.write(corpus / name, 32_768 * noise(1), RATE, subtype='FLOAT')
    detail = listed(read_corpus(corpus))[name, 'beyond full scale', False]
    assert 'integers with a full scale of 32768' in detail
    assert '--full-scale' in detail
    scaled = read_corpus(corpus, reading=Reading(full_scale=32_768.0))
    assert scaled.problems == []
    (clip,) = (clip for clip in scaled.clips if clip.path.name == name)
    samples = clip.read(RATE)
    np.testing.assert_allclose(samples, noise(1), atol=1e-3)


def test_parts_of_channels_have_names_of_their_own(tmp_path):
    frames = np.stack([noise(1, 4.0), noise(2, 4.0)], axis=1)
    write(tmp_path / 'a.wav', frames)
    text = 'path,emotion,speaker,channel,start,end\n' + ''.join(
        f'a.wav,{emotion},{speaker},{channel},{start},{end}\n'
        for emotion, speaker, channel, start, end in (
            ('sad', 'ann', 0, '', 1.5),
            ('angry', 'ann', 0, 2, ''),
            ('sad', 'bob', 1, '', 1.5),
            ('angry', 'bob', 1, 2, ''),
        )
    )
    corpus = read_corpus(table(tmp_path, text))
    assert corpus.problems == []
    names = [clip.name for clip in corpus.clips]
    assert names == [
        'a.wav#t=,1.5&channel=0',
        'a.wav#t=2&channel=0',
        'a.wav#t=,1.5&channel=1',
        'a.wav#t=2&channel=1',
    ]
    for clip, (seed, part) in zip(
        corpus.clips, itertools.product((1, 2), (slice(12_000), slice(16_000, None)))
    ):
        np.testing.assert_allclose(clip.read(RATE), noise(seed, 4.0)[part], atol=1e-3)


def test_channels_and_labels_are_chosen_together(tmp_path):
    for number in (1, 2):
        path = tmp_path / 'mine' / 'bored' / f'ann_{number}.wav'
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, np.stack([noise(1), noise(1 + number)], axis=1))
    given = [(tmp_path / 'mine', 'folders', Reading(channel=1))]
    (corpus,) = read_corpora(given, {'bored': 'bored'})
    assert {clip.emotion for clip in corpus.clips} == {'bored'}
    assert corpus.problems == []
    assert {clip.expression for clip in corpus.clips} == {'bored'}
    for clip, seed in zip(corpus.clips, (2, 3)):
        np.testing.assert_allclose(clip.read(RATE), noise(seed), atol=1e-3)

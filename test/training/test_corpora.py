"""Corpora by their file names, with the traps that real copies hold."""

import shutil

import pytest

from ser_ros import SerError
from ser_ros.emotions import RAVDESS_LABELS
from ser_ros.training.corpora import RAVDESS_TWIN, read_ravdess
from ser_ros.training.splits import RAVDESS_FOLDS, speaker_split


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


def touch(folder, name, suffix='.wav'):
    path = folder / f'Actor_{name[-2:]}' / (name + suffix)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


@pytest.fixture(scope='module')
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp('ravdess')
    for name in names():
        touch(folder, name)
    return folder


def check(clips):
    assert len(clips) == 1_439
    assert [clip.path.stem for clip in clips] == sorted({clip.path.stem for clip in clips})
    assert RAVDESS_TWIN not in {clip.path.stem for clip in clips}
    by_emotion = dict.fromkeys(RAVDESS_LABELS.values(), 0)
    for clip in clips:
        by_emotion[clip.emotion] += 1
        assert clip.path.stem.split('-')[2] == f'{list(by_emotion).index(clip.emotion) + 1:02}'
        assert clip.path.stem.endswith(f'-{clip.speaker}')
    assert by_emotion == {
        name: {'neutral': 96, 'happy': 191}.get(name, 192) for name in by_emotion
    }
    assert {clip.speaker for clip in clips} == {f'{actor:02}' for actor in range(1, 25)}


def test_every_recording_counts_once(published):
    check(read_ravdess(published))


def test_a_doubled_folder_changes_nothing(published, tmp_path):
    """Corpora downloaded by hand often hold every actor twice, and what macOS leaves."""
    shutil.copytree(published, tmp_path / 'audio_speech_actors_01-24')
    for name in names():
        touch(tmp_path, name)
        touch(tmp_path, name, '.flac')
    touch(tmp_path, f'._{next(names())}')
    clips = read_ravdess(tmp_path)
    check(clips)
    assert [clip.path.name[:2] for clip in clips] == ['03'] * len(clips)


def test_what_is_no_speech_of_ravdess_is_left(tmp_path):
    name = '03-01-05-02-01-01-12'
    touch(tmp_path, name, '.WAV')
    for other in (
        '03-02-05-02-01-01-12.wav',  # song
        '01-01-05-02-01-01-12.mp4',  # video
        '03-01-05-02-01-01-13.txt',
        '03-01-05-02-01-01.wav',
        '._03-01-05-02-01-01-14.wav',
        'notes.wav',
    ):
        (tmp_path / other).touch()
    (clip,) = read_ravdess(tmp_path)
    assert (clip.path.stem, clip.emotion, clip.speaker) == (name, 'angry', '12')


def test_an_emotion_that_ravdess_does_not_have_names_the_file(tmp_path):
    touch(tmp_path, '03-01-09-01-01-01-12')
    with pytest.raises(SerError, match='03-01-09-01-01-01-12'):
        read_ravdess(tmp_path)


@pytest.mark.parametrize('folder', ['empty', 'missing'])
def test_a_folder_without_ravdess_is_named(tmp_path, folder):
    (tmp_path / 'empty').mkdir()
    with pytest.raises(SerError, match=folder):
        read_ravdess(tmp_path / folder)


def test_the_corpus_itself(ravdess):
    check(read_ravdess(ravdess))


def test_a_doubled_copy_of_the_corpus_itself(ravdess, tmp_path):
    for copy in ('ravdess', 'ravdess/audio_speech_actors_01-24'):
        for path in ravdess.rglob('*.flac'):
            folder = tmp_path / copy / path.parent.name
            folder.mkdir(parents=True, exist_ok=True)
            (folder / path.name).symlink_to(path)
            (folder / f'._{path.name}').write_bytes(b'\0\5\x16\7')
    check(read_ravdess(tmp_path))


@pytest.mark.parametrize('fold', RAVDESS_FOLDS)
def test_no_speaker_of_the_corpus_is_in_two_parts(ravdess, fold):
    validation = [s for s in ('03', '08', '13', '18') if s not in RAVDESS_FOLDS[fold]]
    clips = read_ravdess(ravdess)
    split = speaker_split(clips, RAVDESS_FOLDS[fold], validation)
    speakers = split.speakers()
    assert sorted(sum(speakers.values(), [])) == [f'{actor:02}' for actor in range(1, 25)]
    assert sum(len(part) for part in vars(split).values()) == len(clips)

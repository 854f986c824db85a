"""The command `enroll`, and `predict` with what it wrote."""

import json

import numpy as np
import pytest
import soundfile

from ser_ros.backends import load_backend
from ser_ros.stream.enrolment import Phrase, enrol, load_enrolment


@pytest.fixture
def voice(tmp_path, speech, segments):
    """A folder for each emotion, with phrases of about a second."""
    root = tmp_path / 'anna'
    words = ('neutral', 'angry', 'angry')
    silence = np.zeros(8_000)
    for number, (word, segment) in enumerate(zip(words, segments)):
        (root / word).mkdir(parents=True, exist_ok=True)
        sound = np.concatenate((silence, speech[segment.start : segment.start + 17_600], silence))
        soundfile.write(root / word / f'{number}.wav', sound, 16_000, 'FLOAT')
    (root / '.DS_Store').write_bytes(b'left by a file manager')
    return root


@pytest.fixture
def enroll(run, by_voice_path, tmp_path):
    """A function: arguments → exit status, lines on stdout, lines on stderr."""
    return lambda *arguments: run(
        'enroll', *arguments, '--bundle', by_voice_path, '--out', tmp_path / 'anna.json'
    )


def test_it_writes_an_enrolment_of_a_folder(enroll, voice, by_voice_path, tmp_path):
    status, out, err = enroll(voice)
    assert (status, out, err) == (0, [f'{tmp_path / "anna.json"}: 2 angry, 1 neutral'], [])
    backend = load_backend(by_voice_path)
    phrases = [
        Phrase(path.name, path.parent.name, soundfile.read(path, dtype='float32')[0])
        for path in sorted(voice.glob('*/*.wav'))
    ]
    assert load_enrolment(tmp_path / 'anna.json', backend) == enrol(backend, phrases)


def test_files_may_be_named_one_by_one(enroll, voice, tmp_path):
    _, lines, _ = enroll(voice)
    whole = (tmp_path / 'anna.json').read_bytes()
    words = [
        f'{word}={path}'
        for word, name in (('Anger', 'angry'), ('neutral', 'neutral'))
        for path in sorted((voice / name).iterdir())
    ]
    status, out, _ = enroll(*words)
    assert (status, out) == (0, lines)
    assert (tmp_path / 'anna.json').read_bytes() == whole


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        (['sleepy={root}/angry/1.wav'], "angry/1.wav: 'sleepy' is not an emotion"),
        (['neutral={root}/none.wav'], 'none.wav'),
        (['{root}/angry/1.wav'], 'is neither EMOTION=FILE nor a folder'),
        ([''], "'' is neither"),
        (['{root}/angry'], "1.wav: '1.wav' is not an emotion"),
        (['{root}/empty'], 'empty: there are no files in it'),
        (['angry={root}/angry/1.wav'], 'at least two expressions, these are angry'),
        (['{root}', 'sad={silence}'], 'silence.wav: no speech'),
        (['{root}', 'sad={root}/.DS_Store'], '.DS_Store'),
    ],
)
def test_what_cannot_be_enrolled_changes_nothing(
    enroll, voice, silence, tmp_path, arguments, expected
):
    (voice / 'empty').mkdir()
    old = tmp_path / 'anna.json'
    old.write_text('as before')
    status, out, err = enroll(*(text.format(root=voice, silence=silence) for text in arguments))
    assert (status, out, len(err)) == (1, [], 1)
    assert err[0].startswith('ser_ros: ')
    assert expected in err[0]
    assert old.read_text() == 'as before'


def test_a_bundle_that_does_not_adapt_is_refused(run, voice, bundle_path, tmp_path):
    status, out, err = run('enroll', voice, '--bundle', bundle_path, '--out', tmp_path / 'a.json')
    assert (status, out, len(err)) == (1, [], 1)
    assert 'does not adapt' in err[0]
    assert not (tmp_path / 'a.json').exists()


def test_predict_starts_from_it_in_each_file(enroll, run, voice, wav, by_voice_path, tmp_path):
    enroll(voice)
    arguments = ('--whole', '--bundle', by_voice_path, '--device', 'cpu')
    enrolment = ('--enrolment', tmp_path / 'anna.json')
    status, out, err = run('predict', wav, wav, *arguments, *enrolment)
    assert (status, err) == (0, [])
    first, second = map(json.loads, out)
    assert first == second
    assert first['utterances'] == 0
    (cold,) = map(json.loads, run('predict', wav, *arguments)[1])
    assert cold['unadapted'] == first['unadapted']
    assert cold['probabilities'] != first['probabilities']
    _, out, _ = run('predict', wav, wav, *arguments, *enrolment, '--one-voice')
    again, later = map(json.loads, out)
    assert again == first
    assert later['utterances'] == 1
    assert later['probabilities'] != first['probabilities']


def test_predict_refuses_another_bundles(enroll, run, voice, wav, bundle_path, tmp_path):
    enroll(voice)
    status, out, err = run(
        'predict', wav, '--bundle', bundle_path, '--enrolment', tmp_path / 'anna.json'
    )
    assert (status, out, len(err)) == (1, [], 1)
    assert 'does not adapt' in err[0]

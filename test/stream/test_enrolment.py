"""A few labelled phrases say how a voice usually sounds, or why they do not."""

import dataclasses
import json

import numpy as np
import pytest
from scipy.special import log_softmax

from ser_ros import SerError
from ser_ros.audio import SAMPLE_RATE
from ser_ros.bundle import load_bundle
from ser_ros.bundle_info import AdaptationInfo
from ser_ros.frontend_config import LogMelConfig
from ser_ros.stream.adaptation import Adaptation, Baseline, prior_shift
from ser_ros.stream.enrolment import Phrase, enrol, load_enrolment, save_enrolment
from ser_ros.stream.recognizer import Recognizer
from ser_ros.stream.torch_backend import TorchBackend

UTTERANCE = 1.1
"""Seconds of each phrase."""


@pytest.fixture(scope='module')
def sounds(speech, segments):
    """Three phrases, between half a second of silence."""
    silence = np.zeros(SAMPLE_RATE // 2, np.float32)
    n = round(UTTERANCE * SAMPLE_RATE)
    return [
        np.concatenate((silence, speech[s.start : s.start + n], silence)) for s in segments[:3]
    ]


@pytest.fixture(scope='module')
def by_voice(by_voice):
    """Ready to run."""
    return TorchBackend(by_voice, 'cpu')


@pytest.fixture(scope='module')
def phrases(sounds):
    return [
        Phrase(f'{emotion}.wav', emotion, sound)
        for emotion, sound in zip(('neutral', 'angry', 'angry'), sounds)
    ]


@pytest.fixture(scope='module')
def enrolment(by_voice, phrases):
    return enrol(by_voice, phrases)


def listen(backend, sound, baseline=None):
    """What is learned of the voice, and the decision of the phrase."""
    recognizer = Recognizer(backend, adaptation=Adaptation(baseline))
    estimates = recognizer.push(sound, 0) + recognizer.flush()
    (final,) = (e for e in estimates if e.is_final)
    return recognizer.voice.adaptation, final


# --- What is enrolled


def test_features_are_the_mean_over_the_classes(by_voice, sounds, enrolment):
    means = [listen(by_voice, s)[0].features_mean(by_voice.mean, 0.0) for s in sounds]
    expected = (means[0] + (means[1] + means[2]) / 2) / 2
    np.testing.assert_allclose(enrolment.baseline.clip_mean, expected, atol=1e-4)


def test_log_probabilities_are_the_mean_over_the_classes_under_these_features(
    by_voice, sounds, enrolment
):
    flat = Baseline(enrolment.baseline.clip_mean, np.zeros(8))
    shares = prior_shift(by_voice.info.class_names, 0.3, 1.0)
    answers = [np.log(listen(by_voice, s, flat)[1].probabilities) for s in sounds]
    scores = [log_softmax(answer - shares) for answer in answers]
    expected = (scores[0] + (scores[1] + scores[2]) / 2) / 2
    found = enrolment.baseline.score
    np.testing.assert_allclose(found, expected - expected.mean(), atol=1e-3)
    assert abs(found).max() > 0.1


def test_it_does_not_depend_on_how_often_a_class_was_said(by_voice, phrases):
    few, many = enrol(by_voice, phrases[:2]), enrol(by_voice, [phrases[0], *phrases[1:2] * 3])
    assert (few.phrases, many.phrases) == (
        {'angry': 1, 'neutral': 1},
        {'angry': 3, 'neutral': 1},
    )
    np.testing.assert_allclose(few.baseline.score, many.baseline.score, atol=2e-4)
    np.testing.assert_allclose(few.baseline.clip_mean, many.baseline.clip_mean, atol=2e-4, rtol=0)


def test_an_emotion_is_any_class_of_its_expression(write_bundle, phrases, tmp_path):
    path = write_bundle(
        tmp_path / 'merged.safetensors',
        architecture='perceptron',
        hyperparameters={},
        frontend=LogMelConfig(),
        adaptation=AdaptationInfo(by_voice=True),
        class_names=('neutral', 'happy', 'angry'),
    )
    backend = TorchBackend(load_bundle(path), 'cpu')
    calm = dataclasses.replace(phrases[0], emotion='calm')
    assert enrol(backend, [calm, phrases[1]]) == enrol(backend, phrases[:2])
    with pytest.raises(SerError, match=r'^sad\.wav: the bundle has no class sad, only neutral, '):
        enrol(backend, [*phrases, Phrase('sad.wav', 'sad', phrases[0].samples)])


def test_an_enrolled_voice_is_known_at_once_and_goes_on_being_learned(by_voice, sounds, enrolment):
    _, cold = listen(by_voice, sounds[0])
    known, first = listen(by_voice, sounds[0], enrolment.baseline)
    assert abs(first.probabilities - cold.probabilities).max() > 1e-3
    assert first.n_utterances == 0
    assert known.n_utterances == 1
    before = known.shift(8, 2.0)
    recognizer = Recognizer(by_voice, adaptation=known)
    recognizer.push(sounds[1], 0)
    recognizer.flush()
    assert known.n_utterances == 2
    assert abs(known.shift(8, 2.0) - before).max() > 1e-4
    recognizer.reset()
    assert known.n_utterances == 0
    np.testing.assert_array_equal(
        known.shift(8, 2.0), Adaptation(enrolment.baseline).shift(8, 2.0)
    )


# --- What cannot be enrolled


def refusal(function, *arguments):
    with pytest.raises(SerError) as caught:
        function(*arguments)
    message = str(caught.value)
    assert '\n' not in message
    return message


def test_one_expression_is_refused(by_voice, phrases):
    message = refusal(enrol, by_voice, phrases[1:])
    assert message == ('an enrolment needs phrases of at least two expressions, these are angry')
    calm = dataclasses.replace(phrases[0], emotion='calm')
    assert 'these are neutral' in refusal(enrol, by_voice, [phrases[0], calm])
    assert 'these are none' in refusal(enrol, by_voice, [])


def test_one_sound_as_two_classes_is_refused(by_voice, phrases):
    again = dataclasses.replace(phrases[0], name='d/again.wav', emotion='sad')
    message = refusal(enrol, by_voice, [*phrases, again])
    assert message == (
        f'd/again.wav: its sound is that of {phrases[0].name}, which is neutral, not sad'
    )


@pytest.mark.parametrize('kind', ['silence', 'white noise', 'mains hum', 'melody'])
def test_a_phrase_without_speech_is_refused(by_voice, phrases, not_speech, kind):
    phrase = Phrase('d/quiet.wav', 'sad', not_speech[kind])
    message = refusal(enrol, by_voice, [*phrases, phrase])
    assert message == 'd/quiet.wav: no speech of at least 0.3 s was detected'


def test_a_bundle_that_does_not_adapt_is_refused(bundle, phrases):
    message = refusal(enrol, bundle, phrases)
    assert message.startswith(f'bundle {bundle.path}: it does not adapt to voices')


# --- On disk


@pytest.fixture
def path(tmp_path, enrolment):
    path = tmp_path / 'anna.json'
    save_enrolment(path, enrolment)
    return path


def test_it_is_read_back(path, by_voice, enrolment):
    assert load_enrolment(path, by_voice) == enrolment
    values = json.loads(path.read_text(), parse_constant=pytest.fail)  # no NaN, which is not JSON
    assert values['format'] == 'ser_ros enrolment'
    assert values['phrases'] == {'angry': 2, 'neutral': 1}
    assert path.stat().st_size < 4_000
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_interrupted_save_leaves_the_old_file(path, enrolment, tmp_path):
    before = path.read_bytes()
    folder = tmp_path / 'folder'
    folder.mkdir()
    assert 'cannot be written' in refusal(save_enrolment, folder, enrolment)
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ['anna.json', 'folder']


def test_another_bundles_is_refused(path, by_voice, bundle, write_bundle, tmp_path):
    info = by_voice.info
    other = write_bundle(tmp_path / 'other.safetensors', **{**vars(info), 'seed': info.seed + 1})
    message = refusal(load_enrolment, path, load_bundle(other))
    assert message.startswith(f'enrolment {path}: it was made with another bundle (by_voice.safe')
    assert by_voice.digest[:12] in message
    assert 'it does not adapt' in refusal(load_enrolment, path, bundle)


@pytest.mark.parametrize(
    ('change', 'expected'),
    [
        ({'format': 'ser_ros bundle'}, "format is 'ser_ros bundle', not 'ser_ros enrolment'"),
        ({'format_version': 2}, 'format_version is 2, not 1'),
        ({'features': [0.0]}, 'damaged'),
        ({'log_probabilities': [0.0]}, 'damaged'),
        ({'class_names': ['neutral', 'sad']}, 'damaged'),
        ({'features': ['x'] * 66}, "features is 'x'"),
        ({'log_probabilities': [float('nan')] * 8}, 'log_probabilities is nan'),
        ({'log_probabilities': [None] * 8}, 'log_probabilities is None'),
        ({'log_probabilities': [1e300, -1e300] * 4}, 'damaged: some of its numbers are far too'),
        ({'phrases': {'happy': 1, 'sad': -3}}, 'damaged: a class has no phrases'),
        ({'phrases': {}}, 'damaged: a class has no phrases'),
        ({'colour': 'red'}, "unknown key 'colour'"),
    ],
)
def test_changed_files_are_refused(path, by_voice, change, expected):
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    message = refusal(load_enrolment, path, by_voice)
    assert message.startswith(f'enrolment {path}: ')
    assert expected in message


def test_features_beyond_32_bits_are_refused(path, by_voice):
    values = json.loads(path.read_text())
    values['features'][0] = 1e39
    path.write_text(json.dumps(values))
    assert 'numbers are far too large' in refusal(load_enrolment, path, by_voice)


def test_damaged_and_missing_files_are_refused(path, by_voice, tmp_path):
    whole = path.read_bytes()
    large = whole.replace(
        b'"log_probabilities": [', b'"log_probabilities": [1' + 400 * b'0' + b', '
    )
    assert large != whole
    deep = 100_000 * b'['
    for content in (whole[: len(whole) // 2], b'', b'\xff\xfe\x00', b'[]', large, deep):
        path.write_bytes(content)
        assert refusal(load_enrolment, path, by_voice).startswith(f'enrolment {path}: ')
    missing = tmp_path / 'none.json'
    assert refusal(load_enrolment, missing, by_voice).endswith('No such file or directory')
    assert refusal(load_enrolment, tmp_path, by_voice).endswith('Is a directory')

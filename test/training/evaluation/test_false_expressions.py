"""Expressions for sound in which no emotion is meant are counted as a robot would receive them."""

import json

import numpy as np
import pytest
import soundfile
from scipy.stats import poisson

from ser_ros.audio.sources import SourceError
from ser_ros.bundle import load_bundle
from ser_ros.stream.recognizer import Recognizer
from ser_ros.training.data.nonspeech import hum
from ser_ros.training.evaluation import false_expressions
from ser_ros.training.evaluation.false_expressions import (
    count_expressions,
    count_for_generated,
    poisson_interval,
    protocol,
)


@pytest.fixture
def paths(utterance, tmp_path):
    """One utterance, two with a second of silence between them, and five seconds of silence."""
    sounds = {
        'one': utterance,
        'two': np.concatenate((utterance, utterance)),
        'none': np.zeros(5 * 16_000, np.float32),
    }
    for name, samples in sounds.items():
        soundfile.write(tmp_path / f'{name}.wav', samples, 16_000)
    return [tmp_path / f'{name}.wav' for name in sounds]


@pytest.mark.parametrize(
    ('threshold', 'class_names', 'expressions', 'emotions'),
    [
        (0.0, ('happy', 'sad'), 3, 3),
        (0.0, ('neutral', 'calm'), 3, 0),
        (1.0, ('happy', 'sad'), 0, 0),
    ],
)
def test_expressions_are_counted(
    write_bundle, paths, tmp_path, threshold, class_names, expressions, emotions
):
    path = tmp_path / 'bundle.safetensors'
    bundle = load_bundle(write_bundle(path, threshold=threshold, class_names=class_names))
    counts = count_expressions(Recognizer(bundle, 'cpu'), paths)
    assert json.loads(json.dumps(counts, allow_nan=False)) == counts
    seconds = sum(soundfile.info(path).duration for path in paths)
    assert (counts['files'], counts['utterances']) == (3, 3)
    assert counts['seconds'] == pytest.approx(seconds)
    for name, count in (('expressions', expressions), ('emotions', emotions)):
        assert counts[name] == count
        assert counts[f'{name}_per_hour'] == pytest.approx(3600 * count / seconds)
        low, high = counts[f'{name}_per_hour_interval']
        expected = [3600 * end / seconds for end in poisson_interval(count)]
        assert [low, high] == pytest.approx(expected)
        assert low <= counts[f'{name}_per_hour'] < high


def test_a_file_that_is_no_sound_is_named(bundle, tmp_path):
    (tmp_path / 'notes.wav').write_text('no sound')
    with pytest.raises(SourceError, match='notes.wav'):
        count_expressions(Recognizer(bundle, 'cpu'), [tmp_path / 'notes.wav'])


def test_one_bad_file_does_not_end_the_count(bundle, paths, tmp_path, capsys):
    (tmp_path / 'notes.wav').write_text('no sound')
    recognizer = Recognizer(bundle, 'cpu')
    expected = count_expressions(recognizer, paths[:1])
    assert capsys.readouterr().err.count('ser_ros: ') == 0
    recognizer.reset()
    assert count_expressions(recognizer, [tmp_path / 'notes.wav', *paths[:1]]) == expected
    assert f'ser_ros: sound file {tmp_path / "notes.wav"}: ' in capsys.readouterr().err


def test_what_is_done_to_a_sound_is_counted(bundle, paths):
    def remove(samples, rng):
        return np.zeros_like(samples)

    counts = count_expressions(Recognizer(bundle, 'cpu'), paths, degrade=remove)
    assert (counts['files'], counts['utterances']) == (3, 0)


def test_generated_sounds_are_of_a_kind(bundle, monkeypatch):
    monkeypatch.setattr(false_expressions, 'N_GENERATED', 2)
    counts = count_for_generated(Recognizer(bundle, 'cpu'), hum)
    assert (counts['files'], counts['seconds'], counts['utterances']) == (2, 60.0, 0)
    assert counts == count_for_generated(Recognizer(bundle, 'cpu'), hum)


def test_the_protocol_says_how_the_rows_were_made():
    plain = protocol(['television', 'babble'])
    assert 'loudspeaker' not in plain
    assert protocol(['orders, television', 'babble']).startswith(f'{plain}; television: ')
    assert protocol(['hum (generated)']) == f'{plain}; generated: 20 sounds of 30 s'


@pytest.mark.parametrize('count', [0, 1, 7, 300])
def test_the_interval_is_exact(count):
    """At its ends such a count, or one farther away, has a probability of 2.5 %."""
    low, high = poisson_interval(count)
    assert poisson.cdf(count, high) == pytest.approx(0.025)
    assert (poisson.sf(count - 1, low) if count else 0.025) == pytest.approx(0.025)
    assert low == 0 if count == 0 else low < count < high

"""The command `predict`."""

import dataclasses
import json

import numpy as np
import pytest
import soundfile
import torch

from ser_ros.bundle import load_bundle, save_bundle
from ser_ros.features import ResearchConfig
from ser_ros.stream.recognizer import Recognizer

KEYS = [
    'file',
    'time',
    'kind',
    'expression',
    'confidence',
    'valence',
    'arousal',
    'probabilities',
]


@pytest.fixture
def predict(run, bundle_path):
    """A function: arguments → exit status, lines on stdout, lines on stderr."""
    return lambda *arguments: run(
        'predict', '--bundle', bundle_path, '--device', 'cpu', *arguments
    )


def test_it_prints_a_json_line_for_each_estimate(predict, wav, bundle_path, utterance):
    status, out, err = predict(wav)
    assert (status, err) == (0, [])
    *estimates, whole = [json.loads(line) for line in out]
    recognizer = Recognizer(load_bundle(bundle_path), 'cpu')
    samples, _ = soundfile.read(wav, dtype='float32')
    expected = recognizer.push(samples, 0) + recognizer.flush()
    assert len(estimates) == len(expected) > 5
    for estimate, other in zip(estimates, expected):
        assert list(estimate) == KEYS
        assert estimate['file'] == str(wav)
        assert estimate['time'] == pytest.approx(other.stamp_ns / 1e9, abs=1e-3)
        assert estimate['kind'] == ('utterance' if other.is_final else 'window')
        assert estimate['expression'] == other.expression
        assert estimate['confidence'] == pytest.approx(other.confidence, abs=1e-3)
        assert estimate['valence'] == pytest.approx(other.valence, abs=1e-3)
        assert estimate['arousal'] == pytest.approx(other.arousal, abs=1e-3)
        assert list(estimate['probabilities']) == list(recognizer.bundle.info.class_names)
        assert list(estimate['probabilities'].values()) == pytest.approx(
            other.probabilities, abs=1e-3
        )
    assert [estimate['kind'] for estimate in estimates].count('utterance') == 1
    # There is one utterance in it, so that the whole is what that one is.
    assert whole == {**estimates[-1], 'kind': 'clip', 'time': round(len(utterance) / 16_000, 3)}


def test_the_whole_of_several_utterances_is_the_mean_of_the_longest_windows(
    predict, speech_path, speech, bundle
):
    status, out, _ = predict(speech_path, '--whole')
    assert status == 0
    (whole,) = map(json.loads, out)
    assert list(whole) == KEYS
    assert whole['kind'] == 'clip'
    recognizer = Recognizer(bundle, 'cpu')
    estimates = recognizer.push(speech, 0) + recognizer.flush()
    assert sum(e.is_final for e in estimates) > 1
    windows = [e for e in estimates if e.is_window]
    longest = max(e.n_samples for e in windows)
    assert sum(e.n_samples == longest for e in windows) > 1
    pooled = [np.log(e.probabilities) for e in windows if e.n_samples == longest]
    score = np.mean(pooled, axis=0)
    expected = np.exp(score) / np.exp(score).sum()
    assert list(whole['probabilities'].values()) == pytest.approx(expected, abs=1e-3)
    summed = recognizer.voice.expressions.sum_classes(expected)
    assert whole['confidence'] == pytest.approx(summed.max(), abs=1e-3)
    name = recognizer.voice.expressions.expressions[summed.argmax()]
    assert whole['expression'] == (name if summed.max() >= bundle.info.threshold else None)


def test_each_file_starts_a_new_stream(predict, wav):
    _, once, _ = predict(wav)
    _, twice, _ = predict(wav, wav)
    assert twice == once + once


def test_a_bundle_for_whole_clips_gives_one_line(run, wav, utterance, write_bundle, tmp_path):
    path = write_bundle(tmp_path / 'whole.safetensors', frontend=ResearchConfig(), threshold=0.0)
    status, out, err = run('predict', wav, '--bundle', path, '--device', 'cpu')
    assert (status, err) == (0, [])
    (whole,) = map(json.loads, out)
    assert list(whole) == KEYS
    assert (whole['kind'], whole['time']) == ('clip', round(len(utterance) / 16_000, 3))
    bundle = load_bundle(path)
    from ser_ros.audio.sources import read_audio

    score = bundle.classify(torch.from_numpy(read_audio(wav, 48_000)))
    assert list(whole['probabilities'].values()) == pytest.approx(score.exp().numpy(), abs=1e-3)
    short = tmp_path / 'short.wav'
    soundfile.write(short, utterance[:2_000], 16_000)
    status, out, err = run('predict', short, wav, '--bundle', path, '--device', 'cpu')
    assert (status, len(out), len(err)) == (1, 1, 1)
    assert err[0].startswith(f'ser_ros: {short}: a clip of 0.125 s is too short')


def test_uncertain_files_have_no_expression(run, wav, write_bundle, tmp_path):
    path = write_bundle(tmp_path / 'unsure.safetensors', threshold=1.0, temperature=100.0)
    _, out, _ = run('predict', wav, '--bundle', path, '--device', 'cpu')
    assert {json.loads(line)['expression'] for line in out} == {None}


def test_certainty_beyond_all_numbers_is_still_json(run, speech_path, tmp_path):
    path, bundle = tmp_path / 'sure.safetensors', load_bundle()
    info = dataclasses.replace(bundle.info, temperature=1e-5)
    save_bundle(path, info, bundle.frontend, bundle.model)
    _, out, _ = run('predict', speech_path, '--bundle', path, '--device', 'cpu')
    lines = [json.loads(line) for line in out]
    # Windows that are sure of different classes, which no mean of infinities can weigh.
    assert len({max(line['probabilities'], key=line['probabilities'].get) for line in lines}) > 1
    assert all(0 <= p <= 1 for line in lines for p in line['probabilities'].values())
    assert sum(lines[-1]['probabilities'].values()) == pytest.approx(1, abs=1e-3)


def test_it_says_where_nobody_speaks(predict, silence):
    status, out, err = predict(silence)
    assert (status, out) == (0, [])
    (line,) = err
    assert 'silence.wav: no speech' in line


def test_it_goes_on_after_a_file_that_is_not_there(predict, wav, tmp_path):
    missing = tmp_path / 'missing.wav'
    status, out, err = predict(missing, wav)
    assert status == 1
    (line,) = err
    assert line.startswith('ser_ros: ')
    assert 'missing.wav' in line
    assert {json.loads(line)['file'] for line in out} == {str(wav)}


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('--bundle', '/nowhere/b.safetensors'), '/nowhere/b.safetensors'),
        (('--device', 'gpu'), "'gpu'"),
    ],
)
def test_errors_are_one_line(predict, wav, arguments, message):
    status, out, err = predict(wav, *arguments)
    assert (status, out) == (1, [])
    (line,) = err
    assert line.startswith('ser_ros: ')
    assert message in line

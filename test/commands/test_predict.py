"""The command `predict`."""

import dataclasses
import json
import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import soundfile
import torch

from ser_ros.bundle import load_bundle, save_bundle
from ser_ros.frontend_config import ResearchConfig
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
    'smoothed',
    'unadapted',
    'utterances',
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
        assert list(estimate['probabilities']) == list(recognizer.backend.bundle.info.class_names)
        assert list(estimate['probabilities'].values()) == pytest.approx(
            other.probabilities, abs=1e-3
        )
        expressions = recognizer.voice.expressions
        smoothed = np.array(list(estimate['smoothed'].values()))
        if other.expression is not None:  # the confidence is of these
            index = expressions.expressions.index(other.expression)
            confidence = expressions.sum_classes(smoothed)[index]
            assert confidence == pytest.approx(other.confidence, abs=1e-3)
    differ = [e['smoothed'] != e['probabilities'] for e in estimates if e['kind'] == 'window']
    assert differ[0] is False
    assert any(differ)
    assert all(e['smoothed'] == e['probabilities'] for e in estimates if e['kind'] == 'utterance')
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
    is_certain = np.diff(np.sort(summed))[-1] >= bundle.info.threshold
    assert whole['expression'] == (name if is_certain else None)


def test_each_file_starts_a_new_stream(predict, wav):
    _, once, _ = predict(wav)
    _, twice, _ = predict(wav, wav)
    assert twice == once + once


def test_a_bundle_that_does_not_adapt_says_the_same_before_and_after(predict, wav):
    _, once, _ = predict(wav)
    lines = [json.loads(line) for line in once]
    assert all(line['unadapted'] == line['probabilities'] for line in lines)
    assert {line['utterances'] for line in lines} == {0}
    _, twice, _ = predict(wav, wav, '--one-voice')
    assert twice == once + once


# --- A bundle that adapts


@pytest.fixture
def adapt(run, by_voice_path):
    """A function: arguments → the lines on stdout as objects."""

    def lines(*arguments):
        command = ('predict', '--bundle', by_voice_path, '--device', 'cpu', *arguments)
        status, out, err = run(*command)
        assert (status, err) == (0, [])
        return [json.loads(line) for line in out]

    return lines


@pytest.fixture
def word(tmp_path, utterance):
    """A file with half a second of silence and 1.2 s of speech."""
    path = tmp_path / 'word.wav'
    soundfile.write(path, utterance[: 8_000 + 19_200], 16_000)
    return path


def test_the_utterances_of_a_file_are_of_one_voice(adapt, speech, segments, by_voice, tmp_path):
    speech, path = speech[: segments[2].end], tmp_path / 'three.wav'
    soundfile.write(path, speech, 16_000, 'FLOAT')
    *lines, whole = adapt(path)
    recognizer = Recognizer(by_voice, 'cpu')
    estimates = recognizer.push(speech, 0) + recognizer.flush()
    assert [line['utterances'] for line in lines] == [e.n_utterances for e in estimates]
    assert max(e.n_utterances for e in estimates) > 1
    for line, estimate in zip(lines, estimates):
        for key in ('probabilities', 'unadapted'):
            expected = getattr(estimate, key)
            assert list(line[key].values()) == pytest.approx(expected, abs=1e-4)
    assert (whole['kind'], whole['utterances']) == ('clip', 0)
    windows = [e for e in estimates if e.is_window]
    longest = max(e.n_samples for e in windows)
    for key in ('probabilities', 'unadapted'):
        scores = [np.log(getattr(e, key)) for e in windows if e.n_samples == longest]
        expected = np.exp(np.mean(scores, axis=0))
        values = list(whole[key].values())
        assert values == pytest.approx(expected / expected.sum(), abs=1e-3)


def test_files_are_of_new_voices_or_of_one(adapt, word, silence, run, by_voice_path):
    once = adapt(word)
    assert adapt(word, word) == once + once
    first, second, third = adapt(word, word, word, '--whole', '--one-voice')
    assert first == once[-1]
    assert [line['utterances'] for line in (first, second, third)] == [0, 1, 2]
    assert third['unadapted'] == second['unadapted'] == first['unadapted']
    assert third['confidence'] != second['confidence'] != first['confidence']
    # Times begin anew with each file, and a file that fails changes nothing.
    command = ('predict', '--whole', '--bundle', by_voice_path, '--device', 'cpu', '--one-voice')
    status, out, err = run(*command, word, 'missing.word', silence, word)
    assert (status, len(err)) == (1, 2)
    assert [json.loads(line) for line in out] == [first, second]


def test_adaptation_can_be_switched_off_and_neutral_be_expected(adapt, word):
    (cold,) = adapt(word, '--whole')
    off = adapt(word, word, '--whole', '--one-voice', '--adaptation', 'off')
    assert [line['probabilities'] for line in off] == [cold['unadapted']] * 2
    assert [line['utterances'] for line in off] == [0, 0]
    (calm,) = adapt(word, '--whole', '--neutral-share', '0.9')
    assert calm['unadapted'] == cold['unadapted']
    neutral = {
        share: line['probabilities']['neutral'] + line['probabilities']['calm']
        for share, line in ((0.3, cold), (0.9, calm))
    }
    assert neutral[0.9] > neutral[0.3]


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


def test_it_says_where_all_speech_is_too_short(predict, speech, segments, tmp_path):
    call = np.zeros(16_000, np.float32)
    start = segments[0].start
    call[8_000:11_000] = speech[start : start + 3_000]
    path = tmp_path / 'call.wav'
    soundfile.write(path, call, 16_000)
    status, out, (line,) = predict(path)
    assert (status, out) == (0, [])
    assert 'call.wav: no speech of at least 0.3 s was detected' in line


def test_it_goes_on_after_a_file_that_is_not_there(predict, wav, tmp_path):
    missing = tmp_path / 'missing.wav'
    status, out, err = predict(missing, wav)
    assert status == 1
    (line,) = err
    assert line.startswith('ser_ros: ')
    assert 'missing.wav' in line
    assert {json.loads(line)['file'] for line in out} == {str(wav)}


def test_one_bad_file_never_ends_a_batch(predict, wav, tmp_path):
    def write(name, data):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    good = wav.read_bytes()
    flac = tmp_path / 'half.flac'
    soundfile.write(flac, *soundfile.read(wav))
    flac.write_bytes(flac.read_bytes()[:60])
    bad = {
        tmp_path: 'it is a folder',
        flac: 'half.flac: ',
        write('empty.wav', b''): 'empty.wav: ',
        write('header.wav', good[:44]): 'it holds no samples',
        write('text.wav', b'no sound'): 'text.wav: ',
        write('slow.wav', good[:24] + b'\1\0\0\0' + good[28:]): '1 Hz is not between',
        write('raw.raw', good): 'raw.raw: ',
        'a\0b.wav': 'no such file',
        'a' * 5_000 + '.wav': 'File name too long',
        os.fsdecode(b'/nowhere/\xff.wav'): r'/nowhere/\xff.wav: no such file',
    }
    status, out, err = predict(*bad, wav, '--whole')
    assert status == 1
    (line,) = out
    assert json.loads(line)['file'] == str(wav)
    assert len(err) == len(bad)
    for line, message in zip(err, bad.values()):
        assert line.startswith('ser_ros: ')
        assert message in line


def test_any_other_failure_is_of_its_file_alone(predict, wav, monkeypatch):
    push, failures = Recognizer.push, iter([RuntimeError('CUDA:\n no memory'), None])

    def fail_once(*arguments):
        if error := next(failures, None):
            raise error
        return push(*arguments)

    monkeypatch.setattr(Recognizer, 'push', fail_once)
    status, out, err = predict(wav, wav, '--whole')
    assert (status, len(out)) == (1, 1)
    assert err == [f'ser_ros: {wav}: CUDA: no memory']


def test_names_that_are_not_utf_8_are_printed_with_replacement(wav, bundle_path, tmp_path):
    """In a process of its own, whose stdout is strict."""
    path = tmp_path / os.fsdecode(b'gr\xfc\xdfe.wav')
    wav.rename(path)
    silent = tmp_path / os.fsdecode(b'\xff.wav')
    soundfile.write(os.fsencode(silent), np.zeros(16_000), 16_000)
    command = [sys.executable, '-m', 'ser_ros', 'predict', '--bundle', bundle_path, '--whole']
    done = subprocess.run([*command, silent, path], capture_output=True, check=True)
    line = json.loads(done.stdout.decode())
    assert line['file'] == rf'{tmp_path}/gr\xfc\xdfe.wav'
    assert rf'{tmp_path}/\xff.wav: no speech' in done.stderr.decode()


@pytest.mark.parametrize(
    ('size', 'n_left', 'message'),
    [
        (bytes(4), None, 'recorder was not closed'),
        (b'\xff' * 4, None, 'recorder was not closed'),
        (None, -20_000, 'cut short: it holds '),
    ],
)
def test_it_says_what_is_wrong_with_a_file_that_it_reads(predict, wav, size, n_left, message):
    _, whole, _ = predict(wav)
    data = wav.read_bytes()
    if size is not None:
        data = data[:40] + size + data[44:]
    wav.write_bytes(data[:n_left])
    status, out, err = predict(wav)
    assert status == 0
    assert (out == whole) == (n_left is None)
    (line,) = err
    assert line.startswith(f'ser_ros: sound file {wav}: {message}')


@pytest.mark.parametrize('rate', [48_000, 16_000])
def test_a_long_file_is_read_in_blocks(predict, tmp_path, rate):
    """A minute of stereo at 48 kHz has 23 MB; its length does not change what is needed."""
    path = tmp_path / 'long.flac'
    soundfile.write(path, np.zeros((60 * rate, 2), np.int16), rate)
    predict(path)
    tracemalloc.start()
    try:
        status, _, err = predict(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (status, len(err)) == (0, 1)
    assert peak < 8e6


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('--bundle', '/nowhere/b.safetensors'), '/nowhere/b.safetensors'),
        (('--device', 'gpu'), "'gpu'"),
        (('--neutral-share', '1.5'), 'neutral_share is 1.5, not between'),
        (('--neutral-share', 'nan'), 'neutral_share is nan, not between'),
        (('--rare-ratio', '0'), 'rare_ratio is 0.0, not between'),
        (('--enrolment', '/nowhere/a.json'), 'does not adapt'),
    ],
)
def test_errors_are_one_line(predict, wav, arguments, message):
    status, out, err = predict(wav, *arguments)
    assert (status, out) == (1, [])
    (line,) = err
    assert line.startswith('ser_ros: ')
    assert message in line


def write_channels(path, *channels, subtype='PCM_16'):
    soundfile.write(path, np.stack(channels, axis=1), 16_000, subtype=subtype)
    return path


def test_channels_that_cancel_are_said_and_one_can_be_chosen(predict, wav, tmp_path, utterance):
    stereo = write_channels(tmp_path / 'stereo.wav', -utterance, utterance)
    status, out, err = predict('--whole', stereo)
    assert (status, out) == (0, [])
    assert len(err) == 2
    assert 'its 2 channels cancel each other' in err[0]
    assert '--channel (0 to 1)' in err[0]
    _, (expected,), _ = predict('--whole', wav)
    status, (line,), err = predict('--whole', '--channel', 1, stereo)
    assert (status, err) == (0, [])
    assert {**json.loads(line), 'file': ''} == {**json.loads(expected), 'file': ''}


def test_six_channels_without_a_choice_are_said_once(predict, tmp_path, utterance):
    files = [write_channels(tmp_path / f'{n}.wav', *([utterance] * 6)) for n in 'ab']
    status, out, err = predict('--whole', *files)
    assert (status, len(out)) == (0, 2)
    assert len(err) == 1
    assert 'its 6 channels are averaged' in err[0]
    assert predict('--whole', '--channel', 5, *files)[::2] == (0, [])


def test_a_fault_is_said_of_each_file(predict, wav, tmp_path, utterance):
    files = [write_channels(tmp_path / f'{n}.wav', *([utterance] * 6)) for n in 'ab']
    for file in files:
        file.write_bytes(file.read_bytes()[:-20_000])
    for _ in range(2):
        status, out, err = predict('--whole', *files)
        assert (status, len(out), len(err)) == (0, 2, 3)
        assert 'a.wav: cut short' in err[0]
        assert 'a.wav: its 6 channels are averaged' in err[1]
        assert 'b.wav: cut short' in err[2]


def test_a_channel_that_a_file_does_not_have_is_one_line(predict, wav, tmp_path, utterance):
    stereo = write_channels(tmp_path / 'stereo.wav', utterance, utterance)
    status, out, err = predict('--whole', '--channel', 1, wav, stereo)
    assert (status, len(out)) == (1, 1)
    assert err == [
        f'ser_ros: sound file {wav}: there is no channel 1: the sound has one channel, 0; choose '
        'one that it has, or -1 for the average'
    ]


@pytest.mark.parametrize('channel', ['left', '-2', '1.5', ''])
def test_what_is_no_channel_is_a_usage_error(predict, wav, channel, capsys):
    with pytest.raises(SystemExit) as exit_:
        predict('--channel', channel, wav)
    assert exit_.value.code == 2
    assert 'is not the number of a channel' in capsys.readouterr().err


def test_float_sound_beyond_full_scale_is_said_and_scaled_if_that_is_asked_for(
    predict, wav, tmp_path, utterance
):
    loud = write_channels(tmp_path / 'loud.wav', 32_768 * utterance, subtype='FLOAT')
    _, _, err = predict('--whole', loud)
    assert 'beyond full scale and clipped' in err[0]
    assert 'integers with a full scale of 32768' in err[0]
    _, (expected,), _ = predict('--whole', wav)
    status, (line,), err = predict('--whole', '--full-scale', 32768, loud)
    assert (status, err) == (0, [])
    line, expected = json.loads(line), json.loads(expected)
    assert line['expression'] == expected['expression']
    assert line['probabilities'] == pytest.approx(expected['probabilities'], abs=1e-2)


@pytest.mark.parametrize('value', ['0', '-1', 'nan', 'inf', 'loud'])
def test_what_is_no_full_scale_is_a_usage_error(predict, wav, value, capsys):
    with pytest.raises(SystemExit) as exit_:
        predict(f'--full-scale={value}', wav)
    assert exit_.value.code == 2
    assert '--full-scale' in capsys.readouterr().err

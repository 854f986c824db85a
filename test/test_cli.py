"""The command line, as it is typed."""

import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from ser_ros import __version__
from ser_ros.__main__ import main
from ser_ros.bundle import load_bundle
from ser_ros.recognizer import Recognizer

KEYS = {
    'file',
    'time',
    'kind',
    'expression',
    'confidence',
    'valence',
    'arousal',
    'probabilities',
}
COMMANDS = ['train', 'evaluate', 'predict', 'devices']


@pytest.fixture
def run(capsys):
    """A function: arguments → exit status, lines on stdout, lines on stderr."""

    def run_command(*arguments):
        status = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        # Progress bars overwrite their line.
        return status, out.splitlines(), [e for e in err.splitlines() if '\r' not in e and e]

    return run_command


@pytest.fixture
def wav(tmp_path, utterance):
    path = tmp_path / 'speech.wav'
    soundfile.write(path, utterance, 16_000)
    return path


@pytest.fixture
def silence(tmp_path):
    path = tmp_path / 'silence.wav'
    soundfile.write(path, np.zeros(48_000), 16_000)
    return path


def test_predict_prints_a_json_line_for_each_estimate(run, wav, bundle_path):
    status, out, err = run('predict', wav, '--bundle', bundle_path, '--device', 'cpu')
    assert (status, err) == (0, [])
    estimates = [json.loads(line) for line in out]
    recognizer = Recognizer(load_bundle(bundle_path), 'cpu')
    samples, _ = soundfile.read(wav, dtype='float32')
    expected = recognizer.push(samples, 0) + recognizer.flush()
    assert len(estimates) == len(expected) > 5
    for estimate, other in zip(estimates, expected):
        assert set(estimate) == KEYS
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


def test_predict_hears_each_file_anew(run, wav, bundle_path):
    _, once, _ = run('predict', wav, '--bundle', bundle_path, '--device', 'cpu')
    _, twice, _ = run('predict', wav, wav, '--bundle', bundle_path, '--device', 'cpu')
    assert twice == once + once


def test_predict_says_where_nobody_speaks(run, silence, bundle_path):
    status, out, err = run('predict', silence, '--bundle', bundle_path, '--device', 'cpu')
    assert (status, out) == (0, [])
    (line,) = err
    assert 'silence.wav: no speech' in line


def test_predict_goes_on_after_a_file_that_is_not_there(run, wav, tmp_path, bundle_path):
    missing = tmp_path / 'missing.wav'
    status, out, err = run('predict', missing, wav, '--bundle', bundle_path, '--device', 'cpu')
    assert status == 1
    (line,) = err
    assert line.startswith('ser_ros: ')
    assert 'missing.wav' in line
    assert {json.loads(line)['file'] for line in out} == {str(wav)}


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        (['predict', 'a.wav', '--bundle', '/nowhere/b.safetensors'], '/nowhere/b.safetensors'),
        (['predict', 'a.wav', '--device', 'gpu'], "'gpu'"),
        (['evaluate', '/nowhere/b.safetensors', '--corpus', '/nowhere'], '/nowhere/b.safetensors'),
        (['train', 'no_such_recipe', '--corpus', '/nowhere'], 'no_such_recipe.yaml'),
        (['train', '/nowhere/recipe.yaml', '--corpus', '/nowhere'], '/nowhere/recipe.yaml'),
    ],
)
def test_what_is_not_there_is_said_in_one_line(
    run, arguments, said, bundle_path, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    if arguments[0] == 'predict' and '--bundle' not in arguments:
        arguments = [*arguments, '--bundle', bundle_path]
    status, out, err = run(*arguments)
    assert (status, out) == (1, [])
    (line,) = err
    assert line.startswith('ser_ros: ')
    assert said in line


def test_devices_lists_what_can_compute(run):
    status, out, _ = run('devices')
    assert status == 0
    assert out[0] == 'compute'
    assert out[1].split()[0] == 'cpu'
    assert 'microphones' in out


def test_evaluate_prints_figures_and_protocol(run, tiny_corpus, bundle_path):
    arguments = ('evaluate', bundle_path, '--corpus', tiny_corpus, '--device', 'cpu')
    status, out, _ = run(*arguments)
    assert status == 0
    text = '\n'.join(out)
    assert '3 clips of speakers 03' in text
    assert 'protocol: speaker-independent' in text
    assert 'unweighted accuracy' in text


def test_evaluate_prints_json(run, tiny_corpus, bundle_path):
    status, out, _ = run(
        *('evaluate', bundle_path, '--corpus', tiny_corpus, '--device', 'cpu'),
        *('--part', 'test', '--gain-db', '-20', '--json'),
    )
    assert status == 0
    figures = json.loads(out[0])
    assert figures['clips'] == 6
    assert figures['speakers'] == ['01', '11']
    assert 0 <= figures['unweighted_accuracy'] <= 1


def test_evaluate_records_in_the_bundle_and_its_card(run, tiny_corpus, write_bundle, tmp_path):
    path = write_bundle(tmp_path / 'mine.safetensors')
    before = load_bundle(path)
    status, _, _ = run(
        *('evaluate', path, '--corpus', tiny_corpus, '--device', 'cpu'),
        *('--part', 'test', '--record'),
    )
    assert status == 0
    after = load_bundle(path)
    assert after.info.metrics['test']['speakers'] == ['01', '11']
    for name, weight in before.model.state_dict().items():
        assert (after.model.state_dict()[name] == weight).all()
    assert '| test | 6 | 01 11 |' in (tmp_path / 'mine.md').read_text()


def test_evaluate_on_a_corpus_without_the_speakers(run, tiny_corpus, write_bundle, tmp_path):
    path = write_bundle(
        tmp_path / 'others.safetensors',
        corpora={'RAVDESS speech': {'train': ['01'], 'validation': ['23'], 'test': ['24']}},
    )
    status, out, err = run('evaluate', path, '--corpus', tiny_corpus, '--device', 'cpu')
    assert (status, out) == (1, [])
    (line,) = err
    assert '23' in line


def test_evaluate_a_bundle_of_another_corpus(run, tiny_corpus, write_bundle, tmp_path):
    path = write_bundle(tmp_path / 'other.safetensors', corpora={})
    status, out, err = run('evaluate', path, '--corpus', tiny_corpus, '--device', 'cpu')
    assert (status, out) == (1, [])
    (line,) = err
    assert 'other.safetensors' in line


RECIPE = """
split: {validation_speakers: ['03']}
augmentation: {crop: [1.0, 1.5]}
optimization: {epochs: 1, batch_size: 8}
"""


@pytest.mark.filterwarnings('ignore::UserWarning', 'ignore::FutureWarning')
def test_train_writes_a_bundle_with_its_card(run, tiny_corpus, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'short.yaml').write_text(RECIPE)
    status, out, _ = run('train', 'short.yaml', '--corpus', tiny_corpus, '--device', 'cpu')
    assert status == 0
    assert out[-1] == 'bundle: runs/short/short.safetensors'
    assert any('unweighted accuracy' in line for line in out)
    bundle = load_bundle(tmp_path / 'runs' / 'short' / 'short.safetensors')
    assert '# short' in bundle.path.with_suffix('.md').read_text()


def exits(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    return caught.value.code, *capsys.readouterr()


@pytest.mark.parametrize('command', [None, *COMMANDS])
def test_help(capsys, command):
    status, out, err = exits(capsys, *([command] if command else []), '--help')
    assert (status, err) == (0, '')
    assert out.startswith('usage: python -m ser_ros')
    if command is None:
        assert all(name in out for name in COMMANDS)


def test_version(capsys):
    assert exits(capsys, '--version')[:2] == (0, f'{__version__}\n')


@pytest.mark.parametrize('arguments', [[], ['predict'], ['evaluate'], ['sing']])
def test_what_is_no_command(capsys, arguments):
    status, out, err = exits(capsys, *arguments)
    assert (status, out) == (2, '')
    assert 'usage' in err


def test_it_runs_as_a_module(root):
    help_text = subprocess.run(
        [sys.executable, '-m', 'ser_ros', '--help'],
        check=True,
        capture_output=True,
        text=True,
        cwd=root,
    ).stdout
    assert help_text.startswith('usage: python -m ser_ros')


def test_only_clips_as_they_are_are_recorded(run, tiny_corpus, bundle_path):
    before = bundle_path.read_bytes()
    status, out, err = run(
        'evaluate', bundle_path, '--corpus', tiny_corpus, '--record', '--gain-db', '-20'
    )
    assert (status, out) == (1, [])
    assert '--gain-db' in err[0]
    assert bundle_path.read_bytes() == before

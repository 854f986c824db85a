"""The command line."""

import signal
import subprocess
import sys

import pytest

from ser_ros import __version__
from ser_ros.__main__ import main

COMMANDS = [
    'train',
    'evaluate',
    'false-expressions',
    'learning-curve',
    'enroll',
    'predict',
    'inspect',
    'export',
    'devices',
]


@pytest.fixture
def run(capsys):
    """A function: arguments → exit status, lines on stdout, lines on stderr."""

    def run_command(*arguments):
        status = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        # Progress bars overwrite their line.
        return status, out.splitlines(), [e for e in err.splitlines() if '\r' not in e and e]

    return run_command


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        (['train', 'no_such_recipe', '--corpus', '/nowhere'], 'no_such_recipe'),
        (['train', '/nowhere/recipe.yaml', '--corpus', '/nowhere'], '/nowhere/recipe.yaml'),
    ],
)
def test_errors_are_one_line(run, arguments, expected, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    status, out, err = run(*arguments)
    assert (status, out) == (1, [])
    (line,) = err
    assert line.startswith('ser_ros: ')
    assert expected in line


def test_devices_lists_what_can_compute(run):
    status, out, _ = run('devices')
    assert status == 0
    assert out[0] == 'compute'
    assert out[1].split()[0] == 'cpu'
    assert 'microphones' in out


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
def test_invalid_commands(capsys, arguments):
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


@pytest.mark.parametrize(
    ('reader', 'status', 'expected'),
    [('| true', 128 + signal.SIGPIPE, ''), ('> /dev/full', 1, 'No space left on device')],
)
def test_output_that_nobody_reads(root, reader, status, expected):
    script = f'{sys.executable} -m ser_ros models {reader}; exit ${{PIPESTATUS[0]}}'
    end = subprocess.run(['bash', '-c', script], capture_output=True, text=True, cwd=root)
    assert end.returncode == status
    assert end.stderr.startswith('ser_ros: ' if expected else '')
    assert expected in end.stderr
    assert end.stderr.count('\n') == bool(expected)


@pytest.mark.parametrize(
    'arguments',
    [
        ['corpus', ''],
        ['train', 'vgg', '--corpus', ''],
        ['evaluate', '--corpus', 'RAVDESS='],
        ['evaluate', '--corpus', '.', '--gain-db', 'nan'],
    ],
)
def test_an_empty_path_or_an_invalid_number_is_refused(capsys, arguments):
    status, out, err = exits(capsys, *arguments)
    assert (status, out) == (2, '')
    assert 'is empty' in err or 'nan is not from' in err


TWICE = """
import atexit, signal, sys
from ser_ros import __main__
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it in the background
atexit.register(signal.raise_signal, signal.SIGINT)  # while torch and others clean up
sys.argv[1:] = ['models']
from ser_ros.commands import models
models.run = lambda _: signal.raise_signal(signal.SIGINT)
sys.exit(__main__.main())
"""


def test_a_second_interruption_prints_no_traceback():
    run = subprocess.run([sys.executable, '-c', TWICE], capture_output=True, text=True)
    assert run.stderr == 'ser_ros: interrupted\n'
    assert run.returncode in (128 + signal.SIGINT, -signal.SIGINT)

"""What the tests of several commands share."""

import numpy as np
import pytest
import soundfile

from ser_ros.__main__ import main


@pytest.fixture(scope='session', autouse=True)
def evaluate_shortly(short_evaluations):
    """For all tests of this folder; others need not import the workshop."""


@pytest.fixture
def run(capsys):
    """A function: arguments → exit status, lines on stdout, lines on stderr."""

    def run_command(*arguments):
        status = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        # Progress bars wipe their line off again.
        shown = [line.rpartition('\r')[2].rstrip() for line in err.split('\n')]
        return status, out.splitlines(), [line for line in shown if line]

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

"""What the tests of several commands share."""

import csv

import numpy as np
import pytest
import soundfile

from ser_ros.__main__ import main
from ser_ros.audio import SAMPLE_RATE


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


@pytest.fixture(scope='session')
def three_corpora(speech, segments, tmp_path_factory):
    """Three tables of clips in the basic classes, of two speakers each."""
    folder = tmp_path_factory.mktemp('corpora')
    pieces = [speech[s.start : s.start + 12_000] for s in segments if s.end - s.start > 12_000]
    edge, number = np.zeros(4_000, np.float32), 0
    for name in 'ABC':
        rows = []
        for speaker in ('p', 'q'):
            for emotion in ('neutral', 'happy', 'sad', 'angry'):
                for i in range(2):
                    number += 1
                    piece = pieces[number % len(pieces)]
                    sound = np.concatenate((edge, piece * np.float32(0.3 + 0.01 * number), edge))
                    path = f'{name}_{speaker}_{emotion}_{i}.wav'
                    soundfile.write(folder / path, sound, SAMPLE_RATE)
                    rows.append({'path': path, 'emotion': emotion, 'speaker': speaker})
        with (folder / f'{name}.csv').open('w', newline='') as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)
    return folder


@pytest.fixture(scope='session')
def words(speech, segments, tmp_path_factory):
    """Six files, each a different second of speech."""
    folder, paths = tmp_path_factory.mktemp('words'), []
    for number in range(6):
        start = segments[number % len(segments)].start + 160 * number
        paths.append(folder / f'{number}.wav')
        soundfile.write(paths[-1], np.pad(speech[start : start + 20_000], 4_000), 16_000)
    return paths


@pytest.fixture(scope='session')
def long(speech, tmp_path_factory):
    """A file that takes seconds."""
    path = tmp_path_factory.mktemp('long').resolve() / 'long.flac'
    soundfile.write(path, np.concatenate((speech, np.zeros(90 * 16_000, np.float32))), 16_000)
    return path

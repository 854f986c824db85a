"""The command `predict` in several processes, interrupted and resumed."""

import fcntl
import json
import os
import pty
import shutil
import signal
import struct
import subprocess
import sys
import termios

import numpy as np
import pytest
import soundfile
from tasks import children, holders, is_running, wait_until

from ser_ros.frontend_config import ResearchConfig

RATE = 16_000


@pytest.fixture
def predict(run):
    return lambda *arguments: run('predict', '--device', 'cpu', *arguments)


@pytest.fixture
def start():
    """A function: arguments → the command as a process group of its own, as a shell starts it."""
    started = []

    def start_process(*arguments, **streams):
        command = [sys.executable, '-m', 'ser_ros', 'predict', '--device', 'cpu']
        streams = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, **streams}
        process = subprocess.Popen(
            [*command, *map(str, arguments)], text=True, start_new_session=True, **streams
        )
        started.append(process)
        return process

    yield start_process
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_several_processes_print_what_one_does(predict, words, silence, tmp_path, utterance):
    six = [tmp_path / f'six{n}.wav' for n in range(2)]
    for path in six:
        soundfile.write(path, np.stack([utterance] * 6, axis=1), RATE)
    cut = tmp_path / 'cut.wav'
    cut.write_bytes(words[0].read_bytes()[:-2_000])
    files = [*words, silence, 'missing.wav', *six, cut, words[0]]
    one = predict(*files)
    assert (one[0], len(one[2])) == (1, 4)
    assert predict('--workers', 3, *files) == one
    whole = predict('--whole', *files)
    assert predict('--whole', '--workers', 2, *files) == whole
    assert len(whole[1]) == 10 < len(one[1])


def test_so_do_those_that_know_the_voice(predict, run, words, by_voice_path, tmp_path):
    pairs = [f'{name}={path}' for name, path in zip(('neutral', 'happy', 'sad'), words)]
    enrolment, bundle = tmp_path / 'anna.json', ('--bundle', by_voice_path)
    assert run('enroll', '--out', enrolment, *bundle, *pairs)[0] == 0
    options = (*bundle, '--whole', '--enrolment', enrolment, '--neutral-share', 0.4)
    one = predict(*options, *words)
    assert one[0] == 0
    assert predict(*options, *words, '--workers', 2) == one
    assert predict(*bundle, '--whole', *words)[1] != one[1]


def test_so_does_a_bundle_for_whole_clips(predict, words, write_bundle, tmp_path):
    path = write_bundle(tmp_path / 'whole.safetensors', frontend=ResearchConfig(), threshold=0.0)
    one = predict('--bundle', path, *words[:3])
    assert (one[0], len(one[1])) == (0, 3)
    assert predict('--bundle', path, *words[:3], '--workers', 2) == one


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('--one-voice', '--workers', 2), '--one-voice cannot be used with --workers'),
        (('--one-voice', '--cluster', 'local'), '--one-voice cannot be used with --cluster'),
        (('--one-voice', '--resume', 'a'), '--one-voice cannot be used with --resume'),
        (('--workers', 2, '--bundle', '/nowhere/b.safetensors'), '/nowhere/b.safetensors'),
        (('--workers', 2, '--resume', '/nowhere/journal'), '--resume /nowhere/journal: No such'),
    ],
)
def test_errors_are_one_line(predict, words, arguments, message):
    status, out, (line,) = predict(*arguments, *words)
    assert (status, out) == (1, [])
    assert line.startswith('ser_ros: ')
    assert message in line


@pytest.mark.parametrize('n', ['0', '-1', 'two', ''])
def test_a_number_of_workers_that_is_none_is_a_usage_error(predict, words, n, capsys):
    with pytest.raises(SystemExit) as exit_:
        predict('--workers', n, *words)
    assert exit_.value.code == 2
    assert 'is not a number from 1 on' in capsys.readouterr().err


def entries(path):
    """The finished files in a journal, of which another process may be writing the last line."""
    lines = path.read_text().splitlines(keepends=True)[1:] if path.exists() else []
    return [json.loads(line)['key'][0] for line in lines if line.endswith('\n')]


@pytest.mark.parametrize('n_workers', [1, 2])
@pytest.mark.parametrize('sign', [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_continues(predict, start, words, long, tmp_path, sign, n_workers):
    files = [*words[:3], long, *words[3:], 'missing.wav']
    expected = predict(*files)
    journal = tmp_path / 'journal'
    options = ('--workers', n_workers, '--resume', journal)
    process = start(*options, *files)
    # The files before the long one, and no half of a line.
    printed = [
        f'{line}\n' for line in expected[1] if json.loads(line)['file'] in map(str, words[:3])
    ]
    first = [process.stdout.readline() for _ in printed]
    wait_until(lambda: holders(long), f'{process.poll()}: too fast or slow')
    workers = children(process.pid)
    if sign == signal.SIGINT:  # as the terminal does
        os.killpg(process.pid, sign)
    else:
        process.kill()
    out, err = process.communicate(timeout=30)
    wait_until(lambda: not {p for p in workers if is_running(p)}, 'a worker stays')
    finished = entries(journal)
    assert str(long) not in finished
    if sign == signal.SIGINT:
        assert process.returncode == 130
        advice = 'the same command continues with the files that are left'
        assert err == f'ser_ros: interrupted; {advice}\n'
    assert (first, out) == (printed, '')
    assert predict(*options, *files) == expected
    assert sorted(entries(journal)) == sorted(map(str, files[:-1]))
    assert entries(journal)[: len(finished)] == finished
    # When all is done, one process prints it again, and nothing is added.
    before = journal.read_bytes()
    assert predict('--resume', journal, *files) == expected
    assert journal.read_bytes() == before


def test_a_file_that_has_changed_is_predicted_again(predict, words, tmp_path):
    files = [shutil.copy(path, tmp_path) for path in words[:2]]
    options = ('--whole', '--resume', tmp_path / 'journal')
    _, (first, second), _ = predict(*options, *files)
    shutil.copy(words[2], files[0])
    status, (changed, same), _ = predict(*options, *files)
    assert (status, same) == (0, second)
    assert changed != first
    assert predict('--whole', *files)[1] == [changed, same]


def test_a_journal_of_other_settings_is_refused(predict, words, silence, write_bundle, tmp_path):
    journal = tmp_path / 'journal'
    other = write_bundle(tmp_path / 'other.safetensors')
    assert predict('--resume', journal, '--backend', 'onnx', words[0])[0] == 0
    for options, names in (
        (('--whole',), 'whole'),
        (('--neutral-share', 0.3), 'stream'),
        (('--backend', 'torch', '--bundle', other), 'bundle, backend'),
    ):
        status, out, (line,) = predict('--resume', journal, *options, words[0])
        assert (status, out) == (1, [])
        assert f'{journal}: it was begun with another {names};' in line
    status, out, (line,) = predict('--resume', silence, words[0])
    assert (status, out) == (1, [])
    assert 'silence.wav: this is no journal' in line
    assert soundfile.info(silence).frames == 48_000


def test_the_file_of_a_killed_worker_is_predicted_by_another(predict, start, words, long):
    files = [words[0], long, *words[1:]]
    process = start('--workers', 2, *files)
    (worker,) = wait_until(lambda: holders(long), 'nobody reads it')
    assert worker != process.pid
    os.kill(worker, signal.SIGKILL)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out.splitlines(), err) == (0, predict(*files)[1], '')


def test_a_file_that_kills_two_workers_fails_alone(predict, start, words, long):
    process = start('--workers', 2, words[0], long, *words[1:])
    (first,) = wait_until(lambda: holders(long), 'nobody reads it')
    os.kill(first, signal.SIGKILL)
    (second,) = wait_until(lambda: holders(long) - {first}, 'nobody reads it again')
    os.kill(second, signal.SIGKILL)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out.splitlines()) == (1, predict(*words)[1])
    assert err == f'ser_ros: {long}: it ended two workers (killed by SIGKILL)\n'


def test_a_reader_that_closes_the_pipe_ends_all(start, words):
    process = start('--workers', 2, *words * 30)
    assert json.loads(process.stdout.readline())['file'] == str(words[0])
    workers = children(process.pid)
    process.stdout.close()
    assert process.wait(timeout=60) == 128 + signal.SIGPIPE
    assert process.stderr.read() == ''
    wait_until(lambda: not {p for p in workers if is_running(p)}, 'a worker stays')


def test_a_terminal_shows_the_progress(predict, start, words):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack('HHHH', 25, 80, 0, 0))
    process = start('--workers', 2, *words, stderr=theirs)
    os.close(theirs)
    out, shown = process.stdout.read(), b''
    while True:
        try:
            shown += os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
    os.close(ours)
    assert out.splitlines() == predict(*words)[1]
    assert b'predicting:   0%' in shown
    assert b'0/6' in shown

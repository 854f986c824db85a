"""The journal of an interrupted command."""

import json
import resource
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tasks import do

from ser_ros import SerError
from ser_ros.journal import Journal, Resumed
from ser_ros.workers import Lost, ThisProcess, in_order

SETTINGS = {'bundle': 'abc', 'reading': {'channel': -1}, 'names': ('a', 'b')}


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'run.journal'


def test_what_is_added_is_there_when_it_is_opened_again(path):
    with Journal(path, SETTINGS) as journal:
        assert journal.get('a') is None
        journal.add('a', {'x': 1})
        journal.add(['b', 2, None], [])
        journal.add('\udcff\n"', 0.1)
    with Journal(path, SETTINGS) as journal:
        assert journal.get('a') == {'x': 1}
        assert journal.get(['b', 2, None]) == []
        assert journal.get('\udcff\n"') == 0.1
        assert journal.get('b') is None
        journal.add('b', 3)
    with Journal(path, SETTINGS) as journal:
        assert (journal.get('b'), journal.get('a')) == (3, {'x': 1})


N_ENTRIES = 4


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp('journal') / 'whole'
    with Journal(path, SETTINGS) as journal:
        for n in range(N_ENTRIES):
            journal.add(f'ä{n}', {'n': n})
    return path.read_bytes()


@given(st.data())
def test_wherever_it_was_cut_off_the_lines_before_are_kept(whole, tmp_path_factory, data):
    n = data.draw(st.integers(0, len(whole)))
    path = tmp_path_factory.mktemp('cut') / 'journal'
    path.write_bytes(whole[:n])
    n_left = max(0, whole[:n].count(b'\n') - 1)
    with Journal(path, SETTINGS) as journal:
        found = [journal.get(f'ä{k}') for k in range(N_ENTRIES)]
        assert found == [{'n': k} for k in range(n_left)] + [None] * (N_ENTRIES - n_left)
        for k in range(n_left, N_ENTRIES):
            journal.add(f'ä{k}', {'n': k})
    assert path.read_bytes() == whole


@given(st.data())
def test_lines_that_are_damaged_are_not_there(whole, tmp_path_factory, data):
    path = tmp_path_factory.mktemp('damaged') / 'journal'
    header, *entries = whole.splitlines(keepends=True)
    line = data.draw(
        st.sampled_from([b'\0' * 30, b'', b'{}', b'[]', b'7', b'{"key": 1}', b'\xff'])
    )
    at = data.draw(st.integers(0, N_ENTRIES - 1))
    entries[at] = line + b'\n'
    path.write_bytes(header + b''.join(entries))
    with Journal(path, SETTINGS) as journal:
        found = [journal.get(f'ä{k}') for k in range(N_ENTRIES)]
    assert found == [None if k == at else {'n': k} for k in range(N_ENTRIES)]


def test_other_settings_are_refused_and_named(path):
    Journal(path, SETTINGS).close()
    before = path.read_bytes()
    with pytest.raises(SerError, match='begun with another bundle, channel;') as error:
        Journal(path, {**SETTINGS, 'bundle': 'abd', 'channel': 1})
    assert str(path) in str(error.value)
    path.write_bytes(before.replace(b'"format_version": 1', b'"format_version": 0'))
    with pytest.raises(SerError, match='begun with another version;'):
        Journal(path, SETTINGS)


@given(st.binary(min_size=1, max_size=200))
def test_a_file_that_is_no_journal_stays_as_it_is(tmp_path_factory, data):
    path = tmp_path_factory.mktemp('other') / 'speech.wav'
    path.write_bytes(data)
    if b'\n' not in data and b'{"format": "ser_ros journal"'.startswith(data):
        return  # a journal that was cut off at once
    with pytest.raises(SerError, match='this is no journal'):
        Journal(path, SETTINGS)
    assert path.read_bytes() == data


def test_a_place_where_it_cannot_be_is_one_line(tmp_path):
    for path in (tmp_path, tmp_path / 'missing' / 'journal', tmp_path / ('a' * 300)):
        with pytest.raises(SerError, match=f'--resume {path}: '):
            Journal(path, SETTINGS)


def test_a_full_disk_is_one_line_and_what_was_there_before_stays(path):
    with Journal(path, SETTINGS) as journal:
        journal.add('a', 1)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, hard))
        try:
            for _ in range(2):
                with pytest.raises(SerError, match=f'--resume {path}: (no space|File too)'):
                    journal.add('b', 'c' * 100)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with Journal(path, SETTINGS) as journal:
        assert (journal.get('a'), journal.get('b')) == (1, None)
        journal.add('b', 2)
    with Journal(path, SETTINGS) as journal:
        assert (journal.get('a'), journal.get('b')) == (1, 2)


def test_two_processes_do_not_use_it_at_the_same_time(path):
    code = 'import sys, ser_ros.journal as j, pathlib; j.Journal(pathlib.Path(sys.argv[1]), {})'
    command = [sys.executable, '-c', code, path]
    with Journal(path, {}):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.stderr.splitlines()[-1].endswith('another process uses it')
    assert subprocess.run(command).returncode == 0


def test_work_that_is_in_it_is_not_done_again(path):
    done = []

    def work(task):
        done.append(task)
        return Lost('why') if task == 'lost' else task if task == 'failed' else do(task)

    def run(tasks):
        done.clear()
        with Journal(path, SETTINGS) as journal, ThisProcess(work) as here:
            encode = lambda result: None if result == 'failed' else {'value': result}  # noqa: E731
            decode = lambda task, values: values['value']  # noqa: E731
            resumed = Resumed(here, journal, list, encode, decode)
            return list(in_order(resumed, tasks))

    squares = [('square', n) for n in range(6)]
    assert run(squares[1:4]) == [1, 4, 9]
    tasks = ['lost', *squares, 'failed']
    expected = [Lost('why'), 0, 1, 4, 9, 16, 25, 'failed']
    assert run(tasks) == expected
    assert done == ['lost', squares[0], squares[4], squares[5], 'failed']
    # What failed is tried again.
    assert run(tasks) == expected
    assert done == ['lost', 'failed']
    assert all(json.loads(line) for line in path.read_text().splitlines())
    assert len(path.read_text().splitlines()) == 7

"""The same work in several processes."""

import os
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tasks import Loading, children, do

from ser_ros import SerError, workers
from ser_ros.workers import Lost, Processes, ThisProcess, Workers, in_order


class Shuffled(Workers):
    """Does tasks in an order that is drawn, one or several at a time."""

    def __init__(self, capacity, draw):
        self.capacity, self._draw = capacity, draw
        self._running, self.submitted = {}, []

    def submit(self, index, task):
        assert len(self._running) < self.capacity
        self._running[index] = task
        self.submitted.append(index)

    def wait(self):
        indices = self._draw(
            st.lists(st.sampled_from(sorted(self._running)), min_size=1, unique=True)
        )
        return [(index, self._running.pop(index)) for index in indices]

    def close(self):
        self._running.clear()


@given(st.data(), st.integers(0, 30), st.integers(1, 8), st.integers(0, 5))
def test_results_come_in_order_whatever_the_order_of_the_work(data, n, capacity, ahead):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, 'AHEAD', ahead)
        shuffled = Shuffled(capacity, data.draw)
        for index, result in enumerate(in_order(shuffled, range(100, 100 + n))):
            assert result == 100 + index
            assert max(shuffled.submitted) < index + capacity + ahead
    assert shuffled.submitted == list(range(n))


@pytest.fixture
def loading(tmp_path):
    return Loading(tmp_path)


def test_this_process_does_the_same():
    with ThisProcess(do) as here:
        assert list(in_order(here, [('square', n) for n in range(5)])) == [0, 1, 4, 9, 16]


def test_each_process_loads_once_and_ends_with_the_context(loading):
    before = children(os.getpid())
    tasks = [('square', n) for n in range(40)]
    with Processes(loading, 2) as processes:
        assert list(in_order(processes, tasks)) == [n**2 for n in range(40)]
        ran = set(in_order(processes, [('process', None)] * 10))
        assert os.getpid() not in ran
        assert ran <= children(os.getpid())
        assert loading.n_loads == 2
    # multiprocessing's resource tracker stays.
    assert not children(os.getpid()) & ran
    assert len(children(os.getpid()) - before) <= 1


def test_no_more_processes_than_tasks(loading):
    with Processes(loading, 8) as processes:
        assert list(in_order(processes, [('square', 3)])) == [9]
        assert loading.n_loads == 1


def test_processes_work_in_this_folder(loading, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Processes(loading, 2) as processes:
        assert list(in_order(processes, [('folder', None)])) == [str(tmp_path)]


def test_a_task_whose_worker_dies_is_done_by_another(loading, tmp_path):
    tasks = [('square', 1), ('die once', str(tmp_path / 'died')), ('square', 2), ('square', 3)]
    with Processes(loading, 2) as processes:
        assert list(in_order(processes, tasks)) == [1, 'alive', 4, 9]
        assert loading.n_loads >= 2


def test_a_task_that_kills_two_workers_is_lost_alone(loading):
    tasks = [('square', 1), ('die', None), *[('square', n) for n in range(10)]]
    with Processes(loading, 2) as processes:
        one, lost, *others = in_order(processes, tasks)
    assert (one, others) == (1, [n**2 for n in range(10)])
    assert lost == Lost('killed by SIGKILL')
    assert loading.n_loads >= 2


def test_a_worker_that_is_killed_while_it_has_nothing_to_do_costs_no_task_its_try(
    loading, tmp_path
):
    with Processes(loading, 1) as processes:
        for _ in range(3):
            (pid,) = in_order(processes, [('process', None)])
            os.kill(pid, signal.SIGKILL)  # which may take effect before the next task or after it
        path = str(tmp_path / 'died')
        assert list(in_order(processes, [('die once', path)])) == ['alive']


def test_workers_that_die_while_they_load_end_the_work_in_one_line(tmp_path):
    loading = Loading(tmp_path, 'die')
    with (
        Processes(loading, 2) as processes,
        pytest.raises(SerError, match='end while they load the model .killed by SIGKILL.'),
    ):
        list(in_order(processes, [('square', n) for n in range(5)]))
    assert loading.n_loads <= workers.MAX_FAILED_STARTS + 1


def test_one_that_dies_while_it_loads_costs_nothing(tmp_path):
    with Processes(Loading(tmp_path, 'die once'), 2) as processes:
        assert list(in_order(processes, [('square', n) for n in range(5)])) == [0, 1, 4, 9, 16]


@pytest.mark.parametrize('action', ['complain', 'fail'])
def test_errors_of_the_work_are_raised_here(loading, action):
    kind, text = (SerError, 'a b c') if action == 'complain' else (RuntimeError, 'a b c\nTrace')
    with Processes(loading, 2) as processes, pytest.raises(kind, match=text):
        list(in_order(processes, [('square', 1), (action, 'a b c'), ('square', 1)]))


def test_errors_of_loading_are_raised_here(tmp_path):
    with (
        Processes(Loading(tmp_path, 'complain'), 2) as processes,
        pytest.raises(SerError, match='once'),
    ):
        list(in_order(processes, [('square', 1)]))

"""The same work over many inputs, in processes of this machine, with the results in order.

concurrent.futures would not do: there one worker that dies takes the whole pool with it, without a
word about which task it had, and the workers of a program that was killed stay.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
import traceback
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from ser_ros import SerError

Work = Callable[[Any], Any]
"""A task → its result."""

Load = Callable[[], Work]
"""Loads what the work needs, in the process that does it; it can be pickled, as tasks and results can."""

AHEAD = 1_000
"""How many tasks may be finished before an earlier one: their results wait in memory."""

MAX_FAILED_STARTS = 3
"""Workers that end while they load, without one between that does not, before all is given up."""


@dataclass(frozen=True)
class Lost:
    """In place of a result: of a task that has ended two workers."""

    reason: str


class Workers(ABC):
    """Does tasks, several at a time. A context: at its end all workers end at once."""

    capacity = 1
    """Tasks that it can use at a time."""

    @abstractmethod
    def submit(self, index: int, task: Any) -> None:
        """Begin a task, or queue it; `index` is its number."""

    @abstractmethod
    def wait(self) -> list[tuple[int, Any]]:
        """Wait until tasks are done; number and result of each, which is `Lost` for some.

        What the work raises, it raises. SerError if nothing can be done any more.
        """

    @abstractmethod
    def close(self) -> None:
        """End all workers, whatever they do."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def in_order(workers: Workers, tasks: Sequence[Any]) -> Iterator[Any]:
    """The result of each task, in the order of the tasks, as soon as it and those before are there."""
    done: dict[int, Any] = {}
    n_begun = n_running = 0
    for index in range(len(tasks)):
        while index not in done:
            end = min(len(tasks), index + workers.capacity + AHEAD)
            while n_begun < end and n_running < workers.capacity:
                workers.submit(n_begun, tasks[n_begun])
                n_begun += 1
                n_running += 1
            finished = workers.wait()
            n_running -= len(finished)
            done.update(finished)
        yield done.pop(index)


class ThisProcess(Workers):
    """No other process."""

    def __init__(self, work: Work):
        self._work = work
        self._queue: list[tuple[int, Any]] = []

    def submit(self, index: int, task: Any) -> None:
        """See `Workers`."""
        self._queue.append((index, task))

    def wait(self) -> list[tuple[int, Any]]:
        """See `Workers`."""
        index, task = self._queue.pop()
        return [(index, self._work(task))]

    def close(self) -> None:
        """See `Workers`."""


@dataclass(eq=False)
class _Worker:
    process: BaseProcess
    connection: Connection
    is_ready: bool = False
    """Whether it has loaded."""
    has_begun: bool = False
    """Whether it has received its task."""
    index: int = -1
    task: Any = None


class Processes(Workers):
    """Processes of this machine. Each is started when there is a task for it, and loads once.

    A task whose worker ends, killed for its memory for example, is tried once more in a new one.
    """

    def __init__(self, load: Load, capacity: int):
        self.capacity = capacity
        self._load = load
        self._context = multiprocessing.get_context('spawn')  # a fork of threads may hang
        self._workers: list[_Worker] = []
        self._idle: list[_Worker] = []
        self._deaths: Counter[int] = Counter()
        self._n_failed_starts = 0

    def submit(self, index: int, task: Any) -> None:
        """See `Workers`."""
        worker = self._idle.pop() if self._idle else self._start()
        worker.index, worker.task, worker.has_begun = index, task, False
        with contextlib.suppress(OSError):  # it has ended: `wait` finds out
            worker.connection.send(task)

    def wait(self) -> list[tuple[int, Any]]:
        """See `Workers`."""
        while True:
            busy = {w.connection: w for w in self._workers if w not in self._idle}
            results = []
            for connection in wait(list(busy)):
                worker = busy[connection]
                try:
                    kind, value = connection.recv()
                except (EOFError, OSError):
                    results += self._bury(worker)
                    continue
                if kind == 'ready':
                    worker.is_ready, self._n_failed_starts = True, 0
                elif kind == 'begun':
                    worker.has_begun = True
                elif kind == 'result':
                    results.append((worker.index, value))
                    self._deaths.pop(worker.index, None)
                    self._idle.append(worker)
                else:
                    raise value
            if results:
                return results

    def close(self) -> None:
        """See `Workers`."""
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()
            worker.connection.close()
        self._workers, self._idle = [], []

    def _start(self) -> _Worker:
        here, there = self._context.Pipe()
        process = self._context.Process(
            target=_serve, args=(there, self._load, Path.cwd()), daemon=True
        )
        # Ctrl-C is for the main process alone, which ends the others: they inherit the mask. The
        # tracker, which the first start would start, takes it away again.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        there.close()
        worker = _Worker(process, here)
        self._workers.append(worker)
        return worker

    def _bury(self, worker: _Worker) -> list[tuple[int, Any]]:
        """Remove a worker that has ended; try its task again, or return that it is lost."""
        worker.process.kill()  # in case that only its connection has ended
        worker.process.join()
        worker.connection.close()
        self._workers.remove(worker)
        reason = _how_it_ended(worker.process.exitcode)
        if worker.has_begun:
            self._deaths[worker.index] += 1
            if self._deaths[worker.index] > 1:
                del self._deaths[worker.index]
                return [(worker.index, Lost(reason))]
        elif not worker.is_ready:  # else it was killed while it had nothing to do
            self._n_failed_starts += 1
            if self._n_failed_starts >= MAX_FAILED_STARTS:
                raise SerError(
                    f'the workers end while they load the model ({reason}): is there memory for '
                    f'{self.capacity}? Use fewer --workers'
                )
        self.submit(worker.index, worker.task)
        return []


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f'exit status {code}'
    try:
        return f'killed by {signal.Signals(-code).name}'
    except ValueError:  # a real-time signal
        return f'killed by signal {-code}'


def _serve(connection: Connection, load: Load, folder: Path) -> None:
    """A worker: sends `ready` when it has loaded, then `begun` and the result of each task that comes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.chdir(folder)
    try:
        work = load()
        connection.send(('ready', None))
        while True:
            task = connection.recv()
            connection.send(('begun', None))
            connection.send(('result', work(task)))
    except (EOFError, BrokenPipeError):
        pass
    except SerError as error:
        connection.send(('error', error))
    except Exception as error:  # whose traceback would stay here
        connection.send(('error', RuntimeError(f'{error}\n{traceback.format_exc()}')))


def _end_with_parent() -> None:
    """Also in the middle of a task, and where the parent was killed."""
    multiprocessing.parent_process().join()
    os._exit(1)

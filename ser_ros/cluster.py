"""The same work over many inputs, as tasks on a Ray cluster.

Plain tasks, not ray.data: a file is a task that fails and is tried again by itself, results come one
by one, and neither pandas nor pyarrow is needed. Where one block of ray.data fails, its other files do,
too.
"""

import contextlib
import os
import platform
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

from ser_ros import SerError, __version__
from ser_ros.workers import Load, Lost, Work, Workers

QUEUE = 2
"""Tasks given out for each processor, so that none waits for this process."""

ENVIRONMENT = {
    'RAY_USAGE_STATS_ENABLED': '0',  # a cluster that it starts sends them to its makers
    'RAY_DEDUP_LOGS_SKIP_REGEX': '.*',  # what became of a task is in its result, not on stdout
}
"""Settings of Ray, as it reads them when it is imported, where there are no others."""

_works: dict[str, Work] = {}
"""In a worker: what it has loaded, by a name of the run."""


class Cluster(Workers):
    """A Ray cluster, one task a processor at a time; each of its workers loads once.

    Ray tries a task whose worker or machine ends once more.
    """

    def __init__(self, load: Load, address: str, n_workers: Optional[int] = None):
        """`address`: see `ray.init`; `local` starts a cluster on this machine, with `n_workers`.

        SerError if Ray is not installed, or the cluster does not answer.
        """
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        try:
            import ray
        except ModuleNotFoundError as error:
            raise SerError(
                "--cluster needs Ray, which is not installed: pip install '.[cluster]'"
            ) from error
        self._ray = ray
        _check_port(address)
        is_local = address == 'local'
        local = {'num_cpus': n_workers, 'include_dashboard': False} if is_local else {}
        try:
            with _quiet():
                ray.init(address=address, log_to_driver=False, logging_level='ERROR', **local)
        except Exception as error:
            ray.shutdown()
            reason = ' '.join(str(error).split())
            raise SerError(f'--cluster {address}: there is no Ray cluster: {reason}') from error
        try:
            n_processors = int(ray.cluster_resources().get('CPU', 0))
            if not n_processors:
                raise SerError(f'--cluster {address}: it has no processors')
            self.capacity = n_workers or QUEUE * n_processors
            self._run = ray.remote(max_retries=1)(_run)
            self._load = ray.put(load)
        except BaseException:
            self.close()
            raise
        self._indices: dict[Any, int] = {}

    def submit(self, index: int, task: Any) -> None:
        """See `Workers`."""
        # In a list it stays a reference: a worker that has loaded does not need it.
        reference = self._run.remote([self._load], task, Path.cwd(), __version__)
        self._indices[reference] = index

    def wait(self) -> list[tuple[int, Any]]:
        """See `Workers`."""
        exceptions = self._ray.exceptions
        (reference,), _ = self._ray.wait(list(self._indices), num_returns=1)
        index = self._indices.pop(reference)
        try:
            result = self._ray.get(reference)
        except exceptions.RayTaskError as error:
            # Without ser_ros, or what it needs, a machine fails here, too: the last line says so.
            reason = (
                error.cause if isinstance(error.cause, SerError) else str(error).splitlines()[-1]
            )
            raise SerError(f'on a machine of the cluster: {reason}') from error
        except exceptions.RayError as error:  # of Ray, not of the work
            return [(index, Lost(' '.join(str(error).split())))]
        return [(index, result)]

    def close(self) -> None:
        """See `Workers`."""
        with _quiet():
            self._ray.shutdown()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Nothing on stderr: there Ray's own code complains of no network, and of tasks not finished."""
    sys.stderr.flush()
    kept = os.dup(2)
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def _check_port(address: str) -> None:
    """Whether something listens there: Ray itself waits for minutes, and logs as long."""
    host, _, port = address.rpartition(':')
    if not port.isdecimal() or '/' in address:
        return
    try:
        socket.create_connection((host.strip('[]'), int(port)), timeout=10).close()
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, 'strerror', None) or error
        raise SerError(f'--cluster {address}: there is no Ray cluster: {reason}') from error


def _run(load: list[Any], task: Any, folder: Path, version: str) -> Any:
    """A task, in a worker of the cluster."""
    import ray

    name = load[0].hex()
    if name not in _works:
        if version != __version__:
            raise SerError(f'{platform.node()} has ser_ros {__version__}, not {version}')
        try:
            os.chdir(folder)
        except OSError as error:
            raise SerError(
                f'{platform.node()} has no folder {folder}: start in one that all machines have'
            ) from error
        _works[name] = ray.get(load[0])()
    return _works[name](task)

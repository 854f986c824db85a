"""Work for workers, in processes that import it by name; and what waits for them."""

import os
import signal
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from ser_ros import SerError


@dataclass(frozen=True)
class Loading:
    """Loads the work; each time it leaves a file in the folder, and may do something else."""

    folder: Path
    action: str = ''

    def __call__(self):
        (self.folder / f'{uuid.uuid4().hex}.loaded').touch()
        if self.action:
            do((self.action, str(self.folder / 'once')))
        return do

    @property
    def n_loads(self):
        return len(list(self.folder.glob('*.loaded')))


def do(task):
    """A pair: what to do, and with what."""
    action, value = task
    if action == 'square':
        return value**2
    if action == 'process':
        return os.getpid()
    if action == 'folder':
        return str(Path.cwd())
    if action == 'complain':
        raise SerError(value)
    if action == 'fail':
        raise ValueError(value)
    if action == 'die once':
        if Path(value).exists():
            return 'alive'
        Path(value).touch()
    os.kill(os.getpid(), signal.SIGKILL)


def wait_until(condition, what, timeout=60.0):
    """Wait until `condition()` is true, and return what it is."""
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.005)
    return found


def children(pid):
    """The processes that a process has started and that run, with their descendants."""
    found, parents = [], {pid}
    for stat in Path('/proc').glob('[0-9]*/stat'):
        try:
            state, parent = stat.read_text().rpartition(')')[2].split()[:2]
        except OSError:  # it has just ended
            continue
        if state != 'Z':
            found.append((int(stat.parent.name), int(parent)))
    size = 0
    while size != len(parents):
        size = len(parents)
        parents |= {child for child, parent in found if parent in parents}
    return parents - {pid}


def is_running(pid):
    """Whether the process has not ended."""
    try:
        stat = Path(f'/proc/{pid}/stat').read_text()
    except OSError:
        return False
    return stat.rpartition(')')[2].split()[0] != 'Z'


def holders(path):
    """The processes that have a file open."""
    found = set()
    for link in Path('/proc').glob('[0-9]*/fd/*'):
        try:
            if link.readlink() == path:
                found.add(int(link.parts[2]))
        except OSError:  # it has just ended, or closed the file
            continue
    return found

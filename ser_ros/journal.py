"""A file of finished work, by which an interrupted command continues."""

import fcntl
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

from ser_ros import SerError
from ser_ros.workers import Lost, Workers

FORMAT, FORMAT_VERSION = 'ser_ros journal', 1


class Journal:
    """JSON lines: the settings of the work, then a line for each result, appended as it comes.

    A line is written in one piece, so that a killed process loses no more than the one that it was
    writing. Lines that are damaged are not there; the work behind them is done again.
    """

    def __init__(self, path: Path, settings: dict[str, Any]):
        """Open or begin it. SerError for a file that is no journal, has other settings, or is in use.

        `settings`: plain values, all that results depend on besides their key.
        """
        self.path = path
        header = {'format': FORMAT, 'format_version': FORMAT_VERSION, 'settings': settings}
        line = json.dumps(header).encode() + b'\n'
        try:
            self._end = path.open('ab', buffering=0)
            self._file = path.open('rb')
        except OSError as error:
            raise SerError(f'--resume {path}: {error.strerror}') from error
        try:
            self._lock()
            first = self._file.readline(1 << 20)
            if not first.endswith(b'\n') and line.startswith(first):  # begun now, or cut off there
                self._end.truncate(0)
                self._write(line)
                self._file.seek(0)
                first = self._file.readline()
            self._check(first, json.loads(line))
            self._offsets = self._read()
        except BaseException:
            self.close()
            raise

    def get(self, key: Any) -> Optional[Any]:
        """The result of a key, which is of plain values; None if there is none."""
        offset = self._offsets.get(json.dumps(key))
        if offset is None:
            return None
        self._file.seek(offset)
        return json.loads(self._file.readline())['result']

    def add(self, key: Any, result: Any) -> None:
        """Append a result of plain values. SerError if it cannot be written."""
        self._write(json.dumps({'key': key, 'result': result}).encode() + b'\n')

    def close(self) -> None:
        """Close the file, which another process may use then."""
        self._file.close()
        self._end.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._end, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SerError(f'--resume {self.path}: another process uses it') from error
        except OSError:  # a file system without locks
            pass

    def _write(self, line: bytes) -> None:
        try:
            n_written = self._end.write(line)
        except OSError as error:
            raise SerError(f'--resume {self.path}: {error.strerror}') from error
        if n_written != len(line):
            raise SerError(f'--resume {self.path}: no space left')

    def _check(self, line: bytes, header: dict[str, Any]) -> None:
        """Whether the first line is `header`."""
        try:
            found = json.loads(line)
        except ValueError:
            found = None
        if not isinstance(found, dict) or found.get('format') != FORMAT:
            raise SerError(f'--resume {self.path}: this is no journal; name another file')
        settings = found.get('settings')
        if found == header:
            return
        wanted, other = header['settings'], settings if isinstance(settings, dict) else {}
        names = [name for name in {**wanted, **other} if wanted.get(name) != other.get(name)]
        raise SerError(
            f'--resume {self.path}: it was begun with another {", ".join(names) or "version"}; '
            'name another file, or remove this one'
        )

    def _read(self) -> dict[str, int]:
        """Key, as JSON → offset of its line. The end of a line that was cut off is removed."""
        offsets, offset = {}, self._file.tell()
        for line in self._file:
            if not line.endswith(b'\n'):
                self._end.truncate(offset)
                break
            try:
                entry = json.loads(line)
                entry['result']
                offsets[json.dumps(entry['key'])] = offset
            except (ValueError, LookupError, TypeError):
                pass
            offset += len(line)
        return offsets


class Resumed(Workers):
    """Other workers, and a journal of what they did: what is there is not done again."""

    def __init__(
        self,
        workers: Workers,
        journal: Journal,
        key: Callable[[Any], Any],
        encode: Callable[[Any], Optional[Any]],
        decode: Callable[[Any, Any], Any],
    ):
        """`key`: of a task. `encode`: a result as plain values, None for one to be done again.

        `decode`: a task and such values → the result. All may be called in this process only.
        """
        self.capacity = workers.capacity
        self._workers, self._journal = workers, journal
        self._key, self._encode, self._decode = key, encode, decode
        self._keys: dict[int, Any] = {}
        self._known: list[tuple[int, Any]] = []

    def submit(self, index: int, task: Any) -> None:
        """See `Workers`."""
        key = self._key(task)
        if (values := self._journal.get(key)) is not None:
            self._known.append((index, self._decode(task, values)))
            return
        self._keys[index] = key
        self._workers.submit(index, task)

    def wait(self) -> list[tuple[int, Any]]:
        """See `Workers`."""
        if self._known:
            known, self._known = self._known, []
            return known
        finished = self._workers.wait()
        for index, result in finished:
            key = self._keys.pop(index)
            if not isinstance(result, Lost) and (values := self._encode(result)) is not None:
                self._journal.add(key, values)
        return finished

    def close(self) -> None:
        """See `Workers`; the journal stays open."""
        self._workers.close()

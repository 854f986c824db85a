"""Writing files completely or not at all, and finding them."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Union

from ser_ros import SerError


def user_path(text: Union[str, Path]) -> Path:
    """A path as a user writes it: `~` and `~NAME` are home folders, wherever no shell expands them."""
    path = Path(text)
    if not str(text).startswith('~'):  # ./~ is a folder of that name
        return path
    try:
        return path.expanduser()
    except RuntimeError:  # a user that does not exist: a file may have that name
        return path


def printable(path: Union[str, Path]) -> str:
    r"""The path as text that can be printed and stored: `\xff` for a byte that is not UTF-8."""
    return os.fsencode(path).decode(errors='backslashreplace')


def make_folder(path: Path) -> None:
    """Make a folder and its parents; SerError if that is impossible."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SerError(f'{path} cannot be made: {error.strerror}') from error


def walk_files(root: Path) -> Iterator[Path]:
    """All files below a folder and linked folders; each folder is visited once."""
    seen = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        yield from (path for name in files if (path := Path(folder, name)).is_file())


def write_atomically(path: Path, data: bytes | str, mode: int = 0o666) -> None:
    """Write bytes, or text as UTF-8 (see `printable`), completely or not at all.

    `mode`: who may read and write the file, less what the process's umask forbids. A symbolic link
    stays one: its target is written (`colcon build --symlink-install`). SerError if the file cannot
    be written.
    """
    target = Path(os.path.realpath(path))
    # Processes of one training may write the same file at the same time.
    part = target.with_name(f'{target.name}.{uuid.uuid4().hex}.part')
    try:
        part.touch(mode)
        part.write_bytes(data.encode(errors='backslashreplace') if isinstance(data, str) else data)
        part.replace(target)
    except OSError as error:
        raise SerError(f'{path} cannot be written: {error.strerror or error}') from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)

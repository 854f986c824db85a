"""Arrays on disk that take long to compute, stored under a hash of their inputs."""

import hashlib
import json
import os
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Optional

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from ser_ros import SerError
from ser_ros.files import write_atomically


def default_cache() -> Path:
    """`ser_ros` in $XDG_CACHE_HOME, or in ~/.cache (XDG Base Directory Specification)."""
    home = Path(os.environ.get('XDG_CACHE_HOME', ''))
    # The specification requires that relative paths are ignored.
    return (home if home.is_absolute() else Path.home() / '.cache') / 'ser_ros'


def cache_key(content: bytes, settings: Mapping[str, Any]) -> str:
    """The key of the result computed from these bytes with these (JSON) settings."""
    head = json.dumps(settings, sort_keys=True).encode() + b'\0'
    return hashlib.sha256(head + content).hexdigest()


class Cache:
    """Entries of named arrays, one file each; several processes may use one folder at a time.

    Each file is written under a unique name and then renamed: the last writer wins, and no reader
    sees an incomplete file.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def get(self, key: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """The entry of this key; computed and stored if it is missing or damaged.

        SerError, naming the folder, if it cannot be stored; no incomplete file stays.
        """
        # A folder for each first byte of the hash: some file systems are slow in large ones.
        path = self.folder / key[:2] / key
        arrays = _read(path)
        if arrays is None:
            arrays = make()
            self._write(path, safetensors.numpy.save(arrays))
        return arrays

    def _write(self, path: Path, data: bytes) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, _checksum(data) + data)
        except (OSError, SerError) as error:
            raise SerError(
                f'the cache {self.folder} cannot be written ({error}): free some space, choose '
                'another folder with --cache, or use --no-cache'
            ) from error


def _read(path: Path) -> Optional[dict[str, np.ndarray]]:
    """The arrays in a file; None if it is missing or damaged."""
    try:
        stored = path.read_bytes()
        data = stored[4:]
        return safetensors.numpy.load(data) if stored[:4] == _checksum(data) else None
    except (OSError, SafetensorError):
        return None


def _checksum(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(4, 'little')

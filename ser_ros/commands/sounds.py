"""Sound files that a command is given: read, with a line about each that is faulty."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Optional, Union

if TYPE_CHECKING:
    import numpy as np

    from ser_ros.audio.reading import Reading


class SoundReader:
    """Reads sound files, and says what is wrong with those that are read in spite of it.

    What it says of the channels or the scale is the same for many files, and said once.
    """

    def __init__(self, reading: 'Reading'):
        """`reading`: what to use of the files, see `arguments.reading`."""
        self.reading = reading
        self._said: set[str] = set()

    def blocks(
        self,
        path: Union[str, Path],
        sample_rate: Optional[int] = None,
        end: Optional[float] = None,
    ) -> Iterator['np.ndarray']:
        """A file as float32 (n,) blocks in [-1, 1], until `end` in seconds.

        `sample_rate`: default that of the stream. SourceError for a file that cannot be read.
        """
        from ser_ros.audio import SAMPLE_RATE
        from ser_ros.audio.sound_file import SoundFile

        with SoundFile(path, self.reading) as file:
            yield from file.mono(sample_rate or SAMPLE_RATE, end=end)
            self._say(file.note, file.note)
            for line in file.mixdown.warnings:
                self._say(line, f'sound file {file.name}: {line}')

    def read(
        self,
        path: Union[str, Path],
        sample_rate: Optional[int] = None,
        end: Optional[float] = None,
    ) -> 'np.ndarray':
        """All of a file as one array, see `blocks`."""
        import numpy as np

        return np.concatenate(list(self.blocks(path, sample_rate, end)))

    def _say(self, key: str, line: str) -> None:
        if key and key not in self._said:
            self._said.add(key)
            print(f'ser_ros: {line}', file=sys.stderr)

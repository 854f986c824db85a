"""Sound files that a command is given: read, with a line about each that is faulty."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Optional, Union

if TYPE_CHECKING:
    import numpy as np

    from ser_ros.audio.reading import Reading


class Notes:
    """Prints lines about files on stderr; of those with the same key, which is not empty, the first."""

    def __init__(self):
        self._said: set[str] = set()

    def __call__(self, key: str, line: str) -> None:
        """Print a line, without the name of the program."""
        if not key or key not in self._said:
            self._said.add(key)
            print(f'ser_ros: {line}', file=sys.stderr)


class SoundReader:
    """Reads sound files, and says what is wrong with those that are read in spite of it.

    What it says of the channels or the scale is the same for many files, and said once.
    """

    def __init__(self, reading: 'Reading', say: Optional[Callable[[str, str], None]] = None):
        """`reading`: what to use of the files, see `arguments.reading`.

        `say`: a key and a line, see `Notes`, which is the default.
        """
        self.reading = reading
        self._say = say or Notes()

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
            if file.note:
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

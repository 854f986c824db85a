"""Sound files that a command is given: read, with a line about each that is faulty."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Optional, Union

if TYPE_CHECKING:
    import numpy as np


def read_blocks(
    path: Union[str, Path], sample_rate: Optional[int] = None, end: Optional[float] = None
) -> Iterator['np.ndarray']:
    """A file as float32 (n,) blocks, channels averaged, until `end` in seconds.

    `sample_rate`: default that of the stream. Then says what was wrong with the file, if it was
    read in spite of it. SourceError for a file that cannot be read.
    """
    from ser_ros.audio import SAMPLE_RATE
    from ser_ros.audio.sound_file import SoundFile

    with SoundFile(path) as file:
        yield from file.mono(sample_rate or SAMPLE_RATE, end=end)
        if file.note:
            print(f'ser_ros: {file.note}', file=sys.stderr)


def read_sound(
    path: Union[str, Path], sample_rate: Optional[int] = None, end: Optional[float] = None
) -> 'np.ndarray':
    """All of a file as one array, see `read_blocks`."""
    import numpy as np

    return np.concatenate(list(read_blocks(path, sample_rate, end)))

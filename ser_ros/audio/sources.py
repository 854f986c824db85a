"""Sources of sound: what they have in common, and files."""

import functools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Protocol, Union

import numpy as np

from ser_ros.audio import SAMPLE_RATE, SECOND
from ser_ros.audio.channels import ChannelError, check_channel
from ser_ros.audio.formats import AudioFormatError, PcmFormat, encode_s16le, sanitize
from ser_ros.audio.reading import DEFAULT_READING, Reading
from ser_ros.audio.sound_file import SoundFile, SourceError
from ser_ros.files import user_path


def read_audio(
    path: Union[str, Path],
    sample_rate: int = SAMPLE_RATE,
    start: float = 0.0,
    end: Optional[float] = None,
    reading: Reading = DEFAULT_READING,
    warn: Callable[[str], None] = lambda line: None,
) -> np.ndarray:
    """A sound file as float32 (n,) samples in [-1, 1] at `sample_rate`.

    Only from `start` to `end` (seconds) if they are given. `reading`: which channel, by default their
    average, and what counts as full scale. `warn` is called with a line for each fault of the sound
    that is put up with. Raises SourceError for a file that is missing, empty or not sound, or has no
    such channel.
    """
    with SoundFile(path, reading) as file:
        samples = np.concatenate(list(file.mono(sample_rate, start, end)))
        for line in file.warnings:
            warn(line)
    return samples


@dataclass(frozen=True)
class Block:
    """Interleaved S16LE bytes and the capture time of the first sample."""

    data: bytes
    stamp_ns: int


@dataclass
class SourceCounters:
    """What a source delivered and lost."""

    blocks: int = 0
    seconds: float = 0.0
    """Of sound in those blocks."""
    overflows: int = 0
    """Reported by PortAudio: samples lost before the callback."""
    dropped_blocks: int = 0
    """Blocks for which the queue behind the callback had no room."""
    losses: int = 0
    """Times that the source delivered nothing any more and was reopened."""
    samples_beyond_full_scale: int = 0
    """Float samples of a file that were clipped."""


class Source(Protocol):
    """A stream of S16LE blocks; its constructor checks that it is available."""

    description: str
    format: PcmFormat
    counters: SourceCounters
    problem: Optional[str]
    """Why there is no sound, while there is none."""
    warning: Optional[str]
    """What to know of it; of a file some of it shows only when that was played."""
    n_waiting: int
    """Blocks that have arrived and are not yielded yet."""

    def open(self) -> None:
        """Start; SourceError if that fails."""

    def blocks(self) -> Iterator[Block]:
        """Yield blocks as they come, until the end or `close`; SourceError when none can come."""

    def close(self) -> None:
        """End `blocks`, from any thread, and release the source; it can be opened again."""


class FileSource:
    """A sound file played at `speed` times real time, its stamps by the sample clock."""

    def __init__(
        self,
        path: Union[str, Path],
        block_duration: float = 0.032,
        speed: float = 1.0,
        loop: bool = False,
        trailing_silence: float = 1.0,
        full_scale: float = 1.0,
    ):
        """`trailing_silence`: seconds after each end, so that the last utterance closes.

        `full_scale`: the value of float samples that is full scale.
        Raises SourceError for a file that cannot be read.
        """
        if not speed > 0:
            raise SourceError(f'speed {speed} is not more than 0')
        with SoundFile(path, Reading(full_scale=full_scale)) as file:
            try:
                self.format = PcmFormat('S16LE', file.channels, file.sample_rate)
            except AudioFormatError as error:
                raise SourceError(f'sound file {file.name}: {error}') from error
            self.note = file.note
            """What is wrong with the file, '' for nothing; complete when it was played."""
            self._full_scale = file.mixdown.full_scale
        self._path = user_path(path)
        self._speed = speed
        self._loop = loop
        self._block_frames = max(1, round(block_duration * self.format.sample_rate))
        self._silent_frames = round(trailing_silence * self.format.sample_rate)
        self._closed = threading.Event()
        self.description = f'file {file.name} at {self.format.sample_rate} Hz with {self.format.channels} channels'
        self.counters = SourceCounters()
        self.problem = None
        self.n_waiting = 0

    @property
    def warning(self) -> Optional[str]:
        """See `Source`."""
        return self.note or None

    def open(self) -> None:
        """See `Source`."""
        self._closed.clear()
        self._file = SoundFile(self._path)

    def blocks(self) -> Iterator[Block]:
        """See `Source`."""
        rate = self.format.sample_rate
        start_ns, start = time.time_ns(), time.monotonic()
        n_played = 0
        for frames in self._frames():
            # A microphone has a block when its last sample is in.
            due = start + (n_played + len(frames)) / rate / self._speed
            if self._closed.wait(max(0.0, due - time.monotonic())):
                return
            self.counters.blocks += 1
            self.counters.seconds += len(frames) / rate
            yield Block(encode_s16le(frames), start_ns + n_played * SECOND // rate)
            n_played += len(frames)

    def _frames(self) -> Iterator[np.ndarray]:
        while True:
            with self._file as file:
                for frames in file.blocks(self._block_frames):
                    if self._full_scale is not None:
                        frames = self._full_scale.scale(frames)
                        self.counters.samples_beyond_full_scale = self._full_scale.beyond
                    yield sanitize(frames)
                self.note = file.note
            for first in range(0, self._silent_frames, self._block_frames):
                n = min(self._block_frames, self._silent_frames - first)
                yield np.zeros((n, file.channels), np.float32)
            if not self._loop:
                return
            self._file = SoundFile(self._path)

    @functools.cached_property
    def duration(self) -> float:
        """Seconds of sound, without the silence after it: counted, since headers may be wrong."""
        with SoundFile(self._path) as file:
            return sum(len(block) for block in file.blocks()) / file.sample_rate

    def close(self) -> None:
        """See `Source`."""
        self._closed.set()


class OneChannel:
    """One channel of another source."""

    def __init__(self, source: Source, channel: int):
        """Raises SourceError for a channel that the source does not have."""
        try:
            check_channel(channel, source.format.channels)
        except ChannelError as error:
            raise SourceError(f'{source.description}: {error}') from error
        self._source = source
        self._channel = channel
        self.format = PcmFormat('S16LE', 1, source.format.sample_rate)

    @property
    def description(self) -> str:
        """See `Source`."""
        return f'channel {self._channel} of {self._source.description}'

    @property
    def warning(self) -> Optional[str]:
        """See `Source`."""
        return self._source.warning

    @property
    def counters(self) -> SourceCounters:
        """See `Source`."""
        return self._source.counters

    @property
    def problem(self) -> Optional[str]:
        """See `Source`."""
        return self._source.problem

    @property
    def n_waiting(self) -> int:
        """See `Source`."""
        return self._source.n_waiting

    def open(self) -> None:
        """See `Source`."""
        self._source.open()

    def blocks(self) -> Iterator[Block]:
        """See `Source`."""
        n_channels = self._source.format.channels
        for block in self._source.blocks():
            frames = np.frombuffer(block.data, '<i2').reshape(-1, n_channels)
            yield Block(frames[:, self._channel].tobytes(), block.stamp_ns)

    def close(self) -> None:
        """See `Source`."""
        self._source.close()

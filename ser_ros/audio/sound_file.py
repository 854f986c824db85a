"""Sound files, decoded in blocks to the end of their sound, whatever their headers say."""

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Optional, Union

import numpy as np
import soundfile
import soxr

from ser_ros import SerError
from ser_ros.audio.channels import ChannelError
from ser_ros.audio.formats import MAX_SAMPLE_RATE, MIN_SAMPLE_RATE
from ser_ros.audio.headers import Header, read_header
from ser_ros.audio.reading import DEFAULT_READING, Mixdown, Reading
from ser_ros.files import printable, user_path

BLOCK = 1 << 18
"""Values in a block: what a long file needs in memory does not depend on its length."""

TOLERANCE = 0.02
"""Seconds; a header that promises so much more is not said to be wrong."""

CUT_SHORT = 'cut short'
NOT_CLOSED = 'recorder was not closed'

_WIDTHS = {
    'PCM_S8': 1,
    'PCM_U8': 1,
    'PCM_16': 2,
    'PCM_24': 3,
    'PCM_32': 4,
    'FLOAT': 4,
    'DOUBLE': 8,
}
"""Sample format → bytes."""

_EXACT = ('WAV', 'WAVEX', 'RF64', 'W64', 'AIFF', 'AU', 'CAF', 'FLAC')
"""Formats in which a sample is found without decoding those before it."""


class SourceError(SerError):
    """Sound that is not available; the message says which, and what there is instead."""


class EmptySoundError(SourceError):
    """A file, or the part of it that was asked for, has no samples."""


class NoSuchChannelError(SourceError):
    """A file does not have the channel that was chosen."""


class SoundFile:
    """A sound file, to be decoded once.

    SourceError for a file that is missing, has no sound, a rate that cannot be used, or not the
    channel of `reading`.
    """

    def __init__(self, path: Union[str, Path], reading: Reading = DEFAULT_READING):
        self._path = user_path(path)
        self.name = printable(self._path) if str(path) else repr('')
        try:
            self._check(str(path))
            with self._path.open('rb') as file:
                self._header = read_header(file) or Header()
            self._source = self._open()
            self._file = _Forward(self._source)
        except SourceError:
            raise
        # TypeError: a .raw file, which has no header. The others: headers with absurd numbers.
        except (OSError, soundfile.SoundFileError, TypeError, ValueError, MemoryError) as error:
            raise self._error(_reason(error)) from error
        self.sample_rate: int = self._file.samplerate
        self.channels: int = self._file.channels
        if not MIN_SAMPLE_RATE <= self.sample_rate <= MAX_SAMPLE_RATE:
            self.close()
            limits = f'{MIN_SAMPLE_RATE} and {MAX_SAMPLE_RATE}'
            raise self._error(f'its rate of {self.sample_rate} Hz is not between {limits}')
        if not self._file.frames:
            self.close()
            raise self._empty('it holds no samples')
        try:
            self.mixdown = Mixdown(self.channels, self.sample_rate, self._file.subtype, reading)
            """Makes one channel of the blocks, and knows what is to be said of those so far."""
        except ChannelError as error:
            self.close()
            raise NoSuchChannelError(f'sound file {self.name}: {error}') from error
        self._n_read = 0
        self._is_read = False
        self._damage = ''

    def _check(self, given: str) -> None:
        if not given or not self._path.exists():
            raise self._error('no such file')
        if not self._path.is_file():
            raise self._error('it is a folder' if self._path.is_dir() else 'it is not a file')

    def _error(self, reason: str) -> SourceError:
        return SourceError(f'sound file {self.name}: {reason}')

    def _empty(self, reason: str) -> EmptySoundError:
        return EmptySoundError(f'sound file {self.name}: {reason}')

    def _open(self) -> Union[bytes, '_Edited']:
        header = self._header
        if header.edits or header.begin or header.end is not None:
            return _Edited(self._path, header)
        return os.fsencode(self._path)  # soundfile encodes text without its own surrogates

    def __enter__(self) -> 'SoundFile':
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        if isinstance(self._source, _Edited):
            self._source.close()

    def blocks(
        self, n_frames: Optional[int] = None, start: float = 0.0, end: Optional[float] = None
    ) -> Iterator[np.ndarray]:
        """Float32 (frames, channels) blocks as they are in the file, from `start` to `end`, in seconds.

        The last block, or a damaged one, has fewer than `n_frames`. SourceError if there is
        nothing, or not enough memory.
        """
        n_frames = n_frames or max(1, BLOCK // self.channels)
        self._skip(round(start * self.sample_rate), n_frames)
        n_left = None if end is None else round(end * self.sample_rate) - self._n_read
        is_empty = True
        while n_left is None or n_left > 0:
            block = self._read(n_frames if n_left is None else min(n_frames, n_left))
            if not len(block):
                self._is_read = True
                break
            is_empty = False
            n_left = n_left and n_left - len(block)
            yield block
        if is_empty:
            raise self._error(self._damage) if self._damage else self._empty('nothing is there')

    def _skip(self, n: int, n_frames: int) -> None:
        if n and self._file.format in _EXACT and self._header.was_closed:
            try:
                self._n_read = self._file.seek(n)
            except soundfile.SoundFileError as error:
                raise self._empty(f'nothing is at {n / self.sample_rate:.3f} s') from error
            return
        while self._n_read < n and len(self._read(min(n_frames, n - self._n_read))):
            pass

    def _read(self, n_frames: int) -> np.ndarray:
        try:
            block = np.full((n_frames, self.channels), np.nan, np.float32)
            frames = self._file.read(out=block)
        except MemoryError as error:
            raise self._error('not enough memory') from error
        except (OSError, soundfile.SoundFileError) as error:
            if self._damage:
                return block[:0]
            self._damage = _reason(error)
            # What was decoded before the damage is there, but libsndfile does not say how much.
            missing = np.isnan(block).all(axis=1)
            frames = block[: int(missing.argmax()) if missing.any() else n_frames]
        self._n_read += len(frames)
        return frames

    def mono(
        self, sample_rate: int, start: float = 0.0, end: Optional[float] = None
    ) -> Iterator[np.ndarray]:
        """Float32 (n,) blocks in [-1, 1] at `sample_rate`, from `start` to `end`; see `mixdown`."""
        blocks = map(self.mixdown.push, self.blocks(None, start, end))
        if sample_rate == self.sample_rate:
            yield from blocks
            return
        resampler = soxr.ResampleStream(self.sample_rate, sample_rate, 1)
        for block in blocks:
            yield resampler.resample_chunk(block)  # the first may be empty: it delays
        yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)

    @property
    def duration(self) -> Optional[float]:
        """Seconds of sound that the header promises; None if it does not know."""
        if not self._header.was_closed or self._file.frames >= 1 << 35:
            return None
        header, frames = self._header, self._file.frames
        if header.held and header.promised and header.promised > header.held:
            width = _WIDTHS.get(self._file.subtype, 0) * self.channels
            frames = header.promised // width if width else frames * header.promised / header.held
        return frames / self.sample_rate

    @property
    def fault(self) -> tuple[str, str]:
        """`CUT_SHORT` or `NOT_CLOSED`, and more about it; ('', '') for a file without a fault.

        What decoding shows is known after all `blocks`.
        """
        duration, held = self.duration, self._n_read / self.sample_rate
        if not self._is_read:
            held = self._file.frames / self.sample_rate
        if duration is None:
            return NOT_CLOSED, 'it does not say where it ends; all of its sound is used'
        if duration - held > TOLERANCE:
            why = f', then: {self._damage}' if self._damage else ''
            return CUT_SHORT, f'it holds {held:.3f} of the {duration:.3f} s in its header{why}'
        return '', ''

    @property
    def note(self) -> str:
        """The `fault` as a line about this file; '' for none."""
        return self._fault and f'sound file {self.name}: {self._fault}'

    @property
    def warnings(self) -> list[str]:
        """A line for the `fault`, and for each of the `mixdown`, complete after all blocks of `mono`."""
        return [line for line in (self._fault, *self.mixdown.warnings) if line]

    @property
    def _fault(self) -> str:
        reason, detail = self.fault
        return reason and f'{reason}: {detail}'


def _reason(error: Exception) -> str:
    text = getattr(error, 'error_string', None) or getattr(error, 'strerror', None) or str(error)
    text = ' '.join(text.split()).removeprefix('Error : ').rstrip('.')
    if text.startswith('File does not exist'):  # what libsndfile says of a broken MP3
        text = ''
    return text or 'it cannot be decoded'


class _Forward(soundfile.SoundFile):
    """Reads forwards only: soundfile seeks after each block, which an unfinished file refuses."""

    def seekable(self) -> bool:
        return False


class _Edited(io.FileIO):
    """A file of which some bytes are read as others, and that may begin later and end earlier."""

    def __init__(self, path: Path, header: Header):
        super().__init__(path)
        self._edits = header.edits
        self._begin = header.begin
        self._end = super().seek(0, os.SEEK_END) if header.end is None else header.end
        self.seek(0)

    def tell(self) -> int:
        return super().tell() - self._begin

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origins = {os.SEEK_SET: self._begin, os.SEEK_CUR: super().tell(), os.SEEK_END: self._end}
        return super().seek(max(0, origins[whence] + offset)) - self._begin

    def readinto(self, buffer: memoryview) -> int:
        start = super().tell()
        n = max(0, min(super().readinto(buffer), self._end - start))
        for position, data in self._edits:
            for i, byte in enumerate(data, position - start):
                if 0 <= i < n:
                    buffer[i : i + 1] = bytes([byte])
        return n

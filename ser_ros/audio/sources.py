"""Where sound comes from: files and microphones."""

import contextlib
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Union

import numpy as np
import soundfile
import soxr

from ser_ros import SerError
from ser_ros.audio import SAMPLE_RATE, SECOND
from ser_ros.audio.clock import SampleClock
from ser_ros.audio.formats import AudioFormatError, PcmFormat, encode_s16le, sanitize


class SourceError(SerError):
    """Sound that cannot be had; the message says which and what there is instead."""


def read_audio(path: Union[str, Path], sample_rate: int = SAMPLE_RATE) -> np.ndarray:
    """A sound file as float32 (n,) samples at `sample_rate`, channels averaged.

    Raises SourceError for a file that is missing, empty or no sound.
    """
    with _open_file(path) as file:
        samples = sanitize(_read(file, file.frames)).mean(axis=1)
    return (
        samples
        if file.samplerate == sample_rate
        else soxr.resample(samples, file.samplerate, sample_rate)
    )


def _open_file(path: Union[str, Path]) -> soundfile.SoundFile:
    if not Path(path).is_file():
        what = 'it is a folder' if str(path) and Path(path).is_dir() else 'no such file'
        raise SourceError(f'sound file {str(path)!r}: {what}')
    try:
        file = soundfile.SoundFile(path)
    except (soundfile.SoundFileError, TypeError) as error:  # TypeError: a headerless .raw
        raise SourceError(f'sound file {path}: {error}') from error
    if not file.frames:
        file.close()
        raise SourceError(f'sound file {path}: it holds no samples')
    return file


def _read(file: soundfile.SoundFile, n_frames: int) -> np.ndarray:
    """Up to `n_frames` float32 (frames, channels)."""
    try:
        return file.read(n_frames, dtype='float32', always_2d=True)
    # The last two: a header that does not know the length, or promises more than memory holds.
    except (soundfile.SoundFileError, ValueError, MemoryError) as error:
        raise SourceError(f'sound file {file.name}: {error}') from error


@dataclass(frozen=True)
class Block:
    """Interleaved S16LE bytes and the capture time of the first sample."""

    data: bytes
    stamp_ns: int


@dataclass
class SourceCounters:
    """What a source delivered and lost."""

    blocks: int = 0
    overflows: int = 0
    """Reported by PortAudio: samples lost before the callback."""
    dropped_blocks: int = 0
    """Blocks for which the queue behind the callback had no room."""


class Source(Protocol):
    """A stream of S16LE blocks; its constructor checks that it can be had."""

    description: str
    format: PcmFormat
    counters: SourceCounters

    def open(self) -> None:
        """Begin; SourceError if that fails."""

    def blocks(self) -> Iterator[Block]:
        """Yield blocks as they come, until the end or `close`; SourceError when they stop."""

    def close(self) -> None:
        """End `blocks`, from any thread, and release the source; it can be opened again."""


class FileSource:
    """A sound file played at `speed` times real time, its stamps by the sample clock."""

    def __init__(
        self,
        path: Union[str, Path],
        block_duration: float = 0.02,
        speed: float = 1.0,
        loop: bool = False,
        trailing_silence: float = 1.0,
    ):
        """`trailing_silence`: seconds after each end, so that the last utterance closes.

        Raises SourceError for a file that cannot be read.
        """
        if not speed > 0:
            raise SourceError(f'speed {speed} is not more than 0')
        with _open_file(path) as file:
            try:
                self.format = PcmFormat('S16LE', file.channels, file.samplerate)
            except AudioFormatError as error:
                raise SourceError(f'sound file {path}: {error}') from error
            self.duration = file.frames / file.samplerate
            """Seconds of sound, without the silence after it."""
        self._path = path
        self._speed = speed
        self._loop = loop
        self._block_frames = max(1, round(block_duration * self.format.sample_rate))
        self._silent_frames = round(trailing_silence * self.format.sample_rate)
        self._closed = threading.Event()
        self.description = (
            f'file {path} at {self.format.sample_rate} Hz with {self.format.channels} channels'
        )
        self.counters = SourceCounters()

    def open(self) -> None:
        """See `Source`."""
        self._closed.clear()
        self._file = _open_file(self._path)

    def blocks(self) -> Iterator[Block]:
        """See `Source`."""
        rate = self.format.sample_rate
        start_ns, start = time.time_ns(), time.monotonic()
        n_played = 0
        with self._file:
            for frames in self._frames():
                # A microphone has a block when its last sample is in.
                due = start + (n_played + len(frames)) / rate / self._speed
                if self._closed.wait(max(0.0, due - time.monotonic())):
                    return
                self.counters.blocks += 1
                yield Block(encode_s16le(frames), start_ns + n_played * SECOND // rate)
                n_played += len(frames)

    def _frames(self) -> Iterator[np.ndarray]:
        while True:
            while len(frames := _read(self._file, self._block_frames)):
                yield sanitize(frames)
            for first in range(0, self._silent_frames, self._block_frames):
                n = min(self._block_frames, self._silent_frames - first)
                yield np.zeros((n, self._file.channels), np.float32)
            if not self._loop:
                return
            self._file.seek(0)

    def close(self) -> None:
        """See `Source`."""
        self._closed.set()


class Microphone:
    """An input device of PortAudio."""

    TIMEOUT = 5.0
    """Seconds without a callback after which the microphone counts as gone."""

    def __init__(
        self,
        device: str = 'default',
        sample_rate: int = 0,
        channels: int = 1,
        block_duration: float = 0.02,
        queue_duration: float = 2.0,
    ):
        """`device`: index, part of a name, or `default`; a rate or channels of 0: the device's own.

        `queue_duration` seconds may wait between the callback and `blocks`. Raises SourceError,
        naming the devices there are, for one that cannot be opened so.
        """
        sounddevice = import_sounddevice()
        index = find_input_device(device)
        info = sounddevice.query_devices(index, 'input')
        rate = sample_rate or round(info['default_samplerate'])
        channels = channels or info['max_input_channels']
        self.description = f'microphone {info["name"]!r} at {rate} Hz with {channels} channels'
        self.counters = SourceCounters()
        self._queue_blocks = max(2, round(queue_duration / block_duration))
        self._block_frames = round(block_duration * rate)
        self._settings = {
            'device': index,
            'channels': channels,
            'samplerate': rate,
            'dtype': 'int16',
        }
        try:
            self.format = PcmFormat('S16LE', channels, rate)
            sounddevice.check_input_settings(**self._settings)
        except (AudioFormatError, sounddevice.PortAudioError) as error:
            raise self._refusal(error) from error

    def _refusal(self, error: Exception) -> SourceError:
        return SourceError(
            f'{self.description} does not open ({error}); there are: {list_input_devices()}'
        )

    def open(self) -> None:
        """See `Source`."""
        sounddevice = import_sounddevice()
        self._queue: queue.Queue = queue.Queue(self._queue_blocks)
        self._clock = SampleClock(self.format.sample_rate)
        try:
            self._stream = sounddevice.RawInputStream(
                blocksize=self._block_frames, callback=self._callback, **self._settings
            )
            self._stream.start()
        except sounddevice.PortAudioError as error:
            raise self._refusal(error) from error

    def _callback(self, data: Any, n_frames: int, times: Any, status: Any) -> None:
        """Copy only: PortAudio's thread waits for it."""
        age = times.currentTime - times.inputBufferAdcTime
        if not 0.0 <= age <= 2.0:  # some host APIs do not say
            age = n_frames / self.format.sample_rate
        captured_ns = time.time_ns() - round(age * SECOND)
        if status.input_overflow:
            self.counters.overflows += 1
        try:
            self._queue.put_nowait((bytes(data), captured_ns, n_frames))
        except queue.Full:
            self.counters.dropped_blocks += 1

    def blocks(self) -> Iterator[Block]:
        """See `Source`."""
        while True:
            try:
                item = self._queue.get(timeout=self.TIMEOUT)
            except queue.Empty:
                raise SourceError(
                    f'{self.description} delivered nothing for {self.TIMEOUT:g} s'
                ) from None
            if item is None:
                return
            data, captured_ns, n_frames = item
            self.counters.blocks += 1
            yield Block(data, self._clock.stamp(captured_ns, n_frames))

    def close(self) -> None:
        """See `Source`."""
        self._stream.close()
        while True:  # make room for the end mark
            try:
                self._queue.put_nowait(None)
                return
            except queue.Full:
                with contextlib.suppress(queue.Empty):
                    self._queue.get_nowait()


def import_sounddevice() -> Any:
    """The sounddevice module, which loads PortAudio; SourceError where that is not installed."""
    try:
        import sounddevice
    except (ImportError, OSError) as error:
        raise SourceError(
            f'no microphone access ({error}); install PortAudio (apt install libportaudio2) '
            'and sounddevice (pip install sounddevice)'
        ) from error
    return sounddevice


def input_devices() -> list[tuple[int, dict]]:
    """Index and PortAudio's description of every device with inputs; SourceError as above."""
    devices = import_sounddevice().query_devices()
    return [(index, d) for index, d in enumerate(devices) if d['max_input_channels'] > 0]


def list_input_devices() -> str:
    """The input devices in one line."""
    names = [f'{index} {device["name"]!r}' for index, device in input_devices()]
    return ', '.join(names) or 'no input devices at all'


def find_input_device(name: str) -> int:
    """The index of the device that `name` means; SourceError naming those there are."""
    devices = input_devices()
    if name in ('', 'default'):
        default = import_sounddevice().default.device[0]
        matches = [index for index, _ in devices if index == default]
    elif name.isdecimal():
        matches = [index for index, _ in devices if index == int(name)]
    else:
        exact = [index for index, device in devices if device['name'] == name]
        matches = exact or [i for i, device in devices if name.lower() in device['name'].lower()]
    if not matches:
        raise SourceError(f'no microphone {name!r}; there are: {list_input_devices()}')
    return matches[0]

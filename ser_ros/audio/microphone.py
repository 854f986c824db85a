"""A microphone that may disappear and come back."""

import contextlib
import ctypes
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Optional, TypeVar

from ser_ros import HangError, TransientError
from ser_ros.audio import SECOND
from ser_ros.audio.clock import SampleClock
from ser_ros.audio.formats import MAX_CHANNELS, AudioFormatError, PcmFormat
from ser_ros.audio.sources import Block, SourceCounters, SourceError
from ser_ros.audio.twins import AmbiguousError, Opened, rivals

T = TypeVar('T')

OPENING_GRACE = 3.0
"""Seconds that the first callback may take: PulseAudio needs 1.2 to 1.8."""

PATIENCE = 4.0
"""Seconds after which a call into PortAudio counts as hanging: opening takes up to two."""

LEAST_BLOCKS = 4
"""The watchdog waits for at least so many blocks, however short its timeout is."""

FIRST_PAUSE, LONGEST_PAUSE = 0.25, 1.0
"""Seconds between two attempts to open a microphone again; each is twice the last."""

WRONG_SETTINGS = ((-9997,), (-9998,))
"""PortAudio's errors for a sample rate or a number of channels that a device does not have."""


class MicrophoneAwayError(SourceError, TransientError):
    """A microphone that is not there, or not free; it may come back."""


class PortAudioHangError(SourceError, HangError):
    """A call into PortAudio that does not return."""


class Microphone:
    """An input device of PortAudio.

    When it delivers nothing any more, it is searched by its name and reopened until it is back; a
    twin, another device of that name, is not taken for it. A
    PortAudio that hangs, for example because the sound server was stopped, cannot be freed from
    within the process: then `blocks` and `close` raise PortAudioHangError.
    """

    def __init__(
        self,
        device: str = 'default',
        sample_rate: int = 0,
        channels: int = 1,
        block_duration: float = 0.032,
        queue_duration: float = 2.0,
        watchdog_timeout: float = 1.0,
    ):
        """`device`: index, part of a name, or `default`; a rate or channels of 0: the device's own.

        `queue_duration` seconds may wait between the callback and `blocks`; after
        `watchdog_timeout` seconds, or four blocks, without a callback the microphone counts as
        gone. Raises SourceError, which lists the devices, for one that cannot be opened like this.
        """
        self.description = f'microphone {device!r}'
        self._hangs = False
        self._asked = device
        index, info, self._opened, others = self._patiently(lambda: _look_up(device))
        rate = sample_rate or round(info['default_samplerate'])
        channels = channels or min(info['max_input_channels'], MAX_CHANNELS)
        self._way = f'at {rate} Hz with {channels} channels'
        self.description = f'microphone {info["name"]!r} {self._way}'
        self.warning: Optional[str] = None
        if others:
            self.warning = (
                f'{self.description} is one of several that {device!r} or its name could mean, the '
                f'others are {", ".join(others)}: choose it by its index, or unplug the others'
            )
        self.counters = SourceCounters()
        self.problem: Optional[str] = None
        self._watchdog_timeout = max(watchdog_timeout, LEAST_BLOCKS * block_duration)
        self._queue_blocks = max(2, round(queue_duration / block_duration))
        self._block_frames = round(block_duration * rate)
        self._settings = {'channels': channels, 'samplerate': rate, 'dtype': 'int16'}
        self._stream: Any = None
        self._queue: queue.Queue = queue.Queue(self._queue_blocks)
        self._closed = threading.Event()
        self._lock = threading.Lock()
        """Held while the stream is opened or closed."""
        sounddevice = import_sounddevice()
        try:
            self.format = PcmFormat('S16LE', channels, rate)
            self._patiently(
                lambda: sounddevice.check_input_settings(device=index, **self._settings)
            )
        except (AudioFormatError, sounddevice.PortAudioError) as error:
            raise self._refusal(error) from error

    @property
    def n_waiting(self) -> int:
        """See `Source`."""
        return self._queue.qsize()

    def _refusal(self, error: Exception) -> SourceError:
        is_setting = isinstance(error, AudioFormatError) or error.args[1:2] in WRONG_SETTINGS
        return (SourceError if is_setting else MicrophoneAwayError)(
            f'{self.description} does not open ({error}); there are: {list_input_devices()}'
        )

    def open(self) -> None:
        """See `Source`."""
        self._closed.clear()
        self.problem = None
        try:
            self._open_stream()
        except import_sounddevice().PortAudioError as error:
            raise self._refusal(error) from error

    def _open_stream(self) -> None:
        """Find and start the device; raises SourceError, or PortAudio's own error."""
        sounddevice = import_sounddevice()
        self._queue = queue.Queue(self._queue_blocks)
        self._clock = SampleClock(self.format.sample_rate)
        self._has_called = False

        def make() -> tuple[Any, Opened]:
            before = self._opened
            index = find_again(before.name, self._asked, before.there, before.place)
            opened = Opened.of(index, input_devices())
            stream = sounddevice.RawInputStream(
                device=index,
                blocksize=self._block_frames,
                callback=self._callback,
                **self._settings,
            )
            try:
                stream.start()
            except sounddevice.PortAudioError:
                stream.close()
                raise
            return stream, opened

        with self._lock:
            if not self._closed.is_set():
                self._stream, self._opened = self._patiently(make)
                # The number in it may be another one.
                self.description = f'microphone {self._opened.name!r} {self._way}'

    def _close_stream(self) -> None:
        with self._lock:
            stream, self._stream = self._stream, None
            if stream is not None:
                self._patiently(stream.close)

    def _patiently(self, call: Callable[[], T]) -> T:
        """Call into PortAudio; return or raise what the call does."""
        if self._hangs:
            raise PortAudioHangError(f'{self.description}: PortAudio still hangs')
        outcome: queue.SimpleQueue = queue.SimpleQueue()

        def run() -> None:
            try:
                outcome.put((call(), None))
            except Exception as error:
                outcome.put((None, error))

        threading.Thread(target=run, name='portaudio', daemon=True).start()
        try:
            result, error = outcome.get(timeout=PATIENCE)
        except queue.Empty:
            self._hangs = True
            raise PortAudioHangError(
                f'{self.description}: PortAudio hangs, as it does when the sound server does; '
                'only a new process helps'
            ) from None
        if error is not None:
            raise error
        return result

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
        while not self._closed.is_set():
            grace = self._watchdog_timeout if self._has_called else OPENING_GRACE
            try:
                item = self._queue.get(timeout=max(grace, self._watchdog_timeout))
            except queue.Empty:
                self._recover()
                continue
            if item is None:
                return
            self._has_called = True
            self.problem = None
            data, captured_ns, n_frames = item
            self.counters.blocks += 1
            self.counters.seconds += n_frames / self.format.sample_rate
            yield Block(data, self._clock.stamp(captured_ns, n_frames))

    def _recover(self) -> None:
        """Reopen it as soon as it is there."""
        sounddevice = import_sounddevice()
        if self.problem is None:
            self.counters.losses += 1
        pause, reason = FIRST_PAUSE, 'it delivers nothing'
        while True:
            self.problem = f'{self.description} is gone ({reason}): looking for it'
            with contextlib.suppress(sounddevice.PortAudioError):
                self._close_stream()
            if self._closed.wait(pause):
                return
            pause = min(2 * pause, LONGEST_PAUSE)
            try:
                self._restart_portaudio()
                self._open_stream()
                return
            except sounddevice.PortAudioError as error:
                reason = f'it does not open: {error.args[0]}'
            except PortAudioHangError:
                raise
            except SourceError as error:
                reason = str(error)

    def _restart_portaudio(self) -> None:
        """PortAudio lists the devices only when it is initialised.

        sounddevice's own functions are not used: while they initialise, the process has no stderr.
        """
        sounddevice = import_sounddevice()
        with self._lock:
            # An error means that it was terminated already, and could not be initialised again.
            self._patiently(sounddevice._lib.Pa_Terminate)
            self._patiently(lambda: sounddevice._check(sounddevice._lib.Pa_Initialize()))

    def close(self) -> None:
        """See `Source`."""
        self._closed.set()
        while True:  # make room for the end mark
            try:
                self._queue.put_nowait(None)
                break
            except queue.Full:
                with contextlib.suppress(queue.Empty):
                    self._queue.get_nowait()
        self._close_stream()


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


def _look_up(asked: str) -> tuple[int, dict, Opened, list[str]]:
    """Index and description of a device, what identifies it, and its rivals."""
    _quieten_libraries()
    index, devices = find_input_device(asked), input_devices()
    info = import_sounddevice().query_devices(index, 'input')
    return index, info, Opened.of(index, devices), rivals(asked, index, devices)


@ctypes.CFUNCTYPE(None, ctypes.c_void_p)
def _ignore(_: object) -> None:
    """Receives a message of ALSA or JACK, and does nothing with it."""


def _quieten_libraries() -> None:
    """Otherwise they log every failed attempt of PortAudio to stderr at each search."""
    with contextlib.suppress(OSError):  # not there, or not on this system
        ctypes.CDLL('libasound.so.2').snd_lib_error_set_handler(_ignore)
    with contextlib.suppress(OSError):
        jack = ctypes.CDLL('libjack.so.0')
        jack.jack_set_error_function(_ignore)
        jack.jack_set_info_function(_ignore)


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
        raise MicrophoneAwayError(f'no microphone {name!r}; there are: {list_input_devices()}')
    return matches[0]


def find_again(name: str, asked: str, there: Sequence[str] = (), place: int = 0) -> int:
    """The index of the device of this name that was found by `asked` before, and lost since.

    `there`, `place`: see `Opened`. When it is plugged in again, ALSA may number it differently, also
    in its name. An index and `default` may mean another microphone by now. MicrophoneAwayError naming
    the devices that there are.
    """
    try:
        return Opened(name, place, tuple(there)).find(asked, input_devices())
    except AmbiguousError as error:
        reason = f' that is surely the one from before: {error}'
    except KeyError:
        reason = ''
    raise MicrophoneAwayError(f'no microphone {name!r}{reason}; there are: {list_input_devices()}')

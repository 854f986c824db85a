"""Microphones of one name: none is taken for another one."""

import queue
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ser_ros.audio import microphone
from ser_ros.audio.microphone import Microphone
from ser_ros.audio.sources import SourceError
from ser_ros.audio.twins import AmbiguousError, Opened, rivals, without_number

HDA = 'HDA Intel: ALC256 (hw:0,0)'
WEBCAM = 'Webcam: Audio (hw:4,0)'


def usb(number):
    return f'USB PnP Sound Device: Audio (hw:{number},0)'


def devices(*names, hostapi=0):
    return [(i, {'name': name, 'hostapi': hostapi}) for i, name in enumerate(names)]


def find(before, index, now, asked='USB'):
    return Opened.of(index, devices(*before)).find(asked, devices(*now))


@pytest.mark.parametrize('asked', ['USB', 'default', '1', usb(1)])
@pytest.mark.parametrize(
    ('before', 'now', 'found'),
    [
        # Plugged in again, with the same number or another one.
        ([HDA, usb(1)], [HDA, usb(1)], 1),
        ([HDA, usb(1)], [HDA, usb(2)], 1),
        ([HDA, usb(1), usb(2)], [HDA, usb(2), usb(1)], 2),
        ([HDA, usb(1), usb(2)], [HDA, usb(2), usb(3)], 2),
        # Only its twin is there, or what is there cannot be told apart.
        ([HDA, usb(1), usb(2)], [HDA, usb(2)], None),
        ([HDA, usb(1), usb(2), usb(3)], [HDA, usb(2), usb(3)], None),
        ([HDA, usb(1)], [HDA, usb(2), usb(3)], None),
        ([HDA, usb(1), usb(2)], [HDA, usb(2), usb(3), usb(4)], None),
        ([HDA, usb(1)], [HDA, WEBCAM], None),
        ([HDA, usb(1)], [], None),
        # Names without a number.
        ([HDA, 'USB mic'], [HDA, 'USB mic'], 1),
        ([HDA, 'USB mic', 'USB mic'], ['USB mic', HDA, 'USB mic'], 0),
        ([HDA, 'USB mic', 'USB mic'], [HDA, 'USB mic'], None),
        ([HDA, 'USB mic'], [HDA, 'USB mic', 'USB mic'], None),
    ],
)
def test_a_twin_is_not_taken_for_the_one_that_was_lost(asked, before, now, found):
    if found is not None:
        assert find(before, 1, now, asked) == found
        return
    with pytest.raises((AmbiguousError, KeyError)):
        find(before, 1, now, asked)


@pytest.mark.parametrize(
    ('before', 'now', 'found'),
    [
        ([HDA, usb(1)], [HDA, 'USB PnP Sound Device #2'], 1),
        ([HDA, usb(1), 'USB camera'], [HDA, 'USB camera'], None),
        ([HDA, usb(1)], [HDA, 'USB camera', 'USB stick'], None),
    ],
)
def test_another_device_that_was_asked_for_is_only_taken_if_it_is_new_and_alone(
    before, now, found
):
    if found is not None:
        assert find(before, 1, now) == found
        return
    with pytest.raises(AmbiguousError):
        find(before, 1, now)


@given(st.lists(st.sampled_from([HDA, WEBCAM, *map(usb, range(1, 5))]), unique=True), st.data())
def test_what_was_there_before_is_never_opened_instead(names, data):
    """Whatever else is plugged in and out."""
    before = [usb(0), *names]
    now = data.draw(st.permutations([*names, usb(7)]))[: data.draw(st.integers(0, len(names) + 1))]
    try:
        index = find(before, 0, now)
    except (AmbiguousError, KeyError):
        assert usb(7) not in now
        return
    assert now[index] == usb(7)


def test_rivals_are_named():
    there = devices(HDA, usb(1), WEBCAM, usb(2), 'usb camera')
    twin, camera = f"3 '{usb(2)}'", "4 'usb camera'"
    assert rivals('USB PnP', 1, there) == [twin]
    assert rivals('USB', 1, there) == [twin, camera]
    assert rivals(usb(1), 1, there) == [twin]
    assert rivals('1', 1, there) == [twin]
    assert rivals('default', 0, there) == []
    # The same microphone by another host API is no rival.
    assert (
        rivals('USB mic', 0, [*devices('USB mic'), (1, {'name': 'USB mic', 'hostapi': 1})]) == []
    )


def test_a_name_without_its_number():
    assert without_number(usb(3)) == 'USB PnP Sound Device: Audio'
    assert without_number('pulse') == 'pulse'


class FakePortAudio:
    """Devices by name; a stream delivers blocks of zeros while its device is there."""

    class PortAudioError(Exception):
        pass

    def __init__(self, *names):
        self.names = list(names)
        self._listed = list(names)
        self.opened = queue.Queue()
        self._lib = self
        self.default = type('default', (), {'device': (0, 0)})

    def Pa_Terminate(self):  # noqa: N802
        pass

    def Pa_Initialize(self):  # noqa: N802
        self._listed = list(self.names)

    def _check(self, _):
        pass

    def query_devices(self, index=None, kind=None):
        described = [
            {'name': n, 'hostapi': 0, 'max_input_channels': 1, 'default_samplerate': 16_000.0}
            for n in self._listed
        ]
        return described if index is None else described[index]

    def check_input_settings(self, **settings):
        pass

    def RawInputStream(self, device, callback, blocksize, **settings):  # noqa: N802
        return FakeStream(self, self._listed[device], callback, blocksize)


class FakeStream:
    def __init__(self, portaudio, name, callback, n_frames):
        self._portaudio, self._name = portaudio, name
        self._callback, self._n_frames = callback, n_frames
        self._closed = threading.Event()

    def start(self):
        self._portaudio.opened.put(self._name)
        threading.Thread(target=self._deliver, daemon=True).start()

    def _deliver(self):
        times = type('times', (), {'currentTime': 0.0, 'inputBufferAdcTime': -0.01})
        status = type('status', (), {'input_overflow': False})
        while not self._closed.wait(0.01) and self._name in self._portaudio.names:
            self._callback(bytes(2 * self._n_frames), self._n_frames, times, status)

    def close(self):
        self._closed.set()


@pytest.fixture
def capture(monkeypatch):
    """A function: names of the devices → PortAudio, and a microphone that captures 'USB'."""
    opened = []

    def start(*names):
        portaudio = FakePortAudio(*names)
        monkeypatch.setattr(microphone, 'import_sounddevice', lambda: portaudio)
        source = Microphone('USB', block_duration=0.01, watchdog_timeout=0.1)
        source.open()
        thread = threading.Thread(target=lambda: list(source.blocks()), daemon=True)
        thread.start()
        opened.append((source, thread))
        assert portaudio.opened.get(timeout=5) == names[1]
        return portaudio, source

    yield start
    for source, thread in opened:
        source.close()
        thread.join(5)


def wait_until(condition):
    event = threading.Event()
    for _ in range(1_000):
        if condition():
            return
        event.wait(0.01)
    pytest.fail('waited in vain')


def test_a_twin_is_not_opened_when_the_microphone_is_pulled_out(capture):
    portaudio, source = capture(HDA, usb(1), usb(2))
    assert usb(2) in source.warning
    assert 'by its index' in source.warning
    wait_until(lambda: source.counters.blocks > 5)
    portaudio.names.remove(usb(1))
    wait_until(lambda: source.problem and 'was there before' in source.problem)
    assert usb(2) in source.problem
    assert portaudio.opened.empty()
    # It comes back with another number, is lost again, and its old number goes to a stranger.
    portaudio.names.append(usb(3))
    assert portaudio.opened.get(timeout=5) == usb(3)
    wait_until(lambda: source.problem is None)
    assert usb(3) in source.description
    portaudio.names[:] = [HDA, usb(1), usb(2)]
    wait_until(lambda: source.problem and usb(3) in source.problem)
    assert source.counters.losses == 2


def test_one_microphone_has_no_rival_and_is_found_by_another_number(capture):
    portaudio, source = capture(HDA, usb(1))
    assert source.warning is None
    portaudio.names[:] = [HDA, usb(2)]
    assert portaudio.opened.get(timeout=5) == usb(2)


def test_a_stream_that_stalls_is_opened_again_though_a_twin_is_there(capture):
    portaudio, source = capture(HDA, 'USB mic', 'USB mic')
    source._stream.close()
    assert portaudio.opened.get(timeout=5) == 'USB mic'
    wait_until(lambda: source.problem is None)


def test_when_all_is_gone_the_devices_are_listed(capture):
    portaudio, source = capture(HDA, usb(1))
    portaudio.names.remove(usb(1))
    wait_until(lambda: source.problem and f"there are: 0 '{HDA}'" in source.problem)
    with pytest.raises(SourceError, match='no microphone'):
        Microphone('USB')

"""A real PortAudio on a virtual microphone, which is pulled out and put back."""

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ser_ros.audio import microphone
from ser_ros.audio.sources import SourceError

WATCH = Path(__file__).with_name('watch_microphone.py')


class Watch:
    """A process that listens, as PortAudio looks for devices only once in each."""

    def __init__(self, environment, *arguments):
        self.process = subprocess.Popen(
            [sys.executable, WATCH, *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.reports = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            with self._news:
                self.reports.append(json.loads(line))
                self._news.notify_all()

    def wait(self, condition, what, timeout=20.0):
        """The first report from now on of which the condition holds."""
        start = len(self.reports)

        def found():
            return next((r for r in self.reports[start:] if condition(r)), None)

        with self._news:
            assert self._news.wait_for(found, timeout), f'{what}: {self.reports[-3:]}'
            return found()

    def end(self):
        """Have it close the microphone; its last report."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(5) == 0
        self._reader.join()
        return self.reports[-1]

    def blocks(self):
        """Wait for sound; the report of it."""
        before = self.reports[-1].get('blocks', 0) if self.reports else 0
        return self.wait(lambda r: r.get('blocks', 0) > before + 20, 'sound')


@pytest.fixture
def start_watch(virtual_microphone):
    """Begin to listen."""
    watches = []

    def start(*arguments):
        watches.append(Watch(virtual_microphone.environment, *arguments))
        return watches[-1]

    yield start
    for watch in watches:
        if watch.process.poll() is None:
            watch.process.kill()
        watch.process.wait()


@pytest.fixture
def watch(start_watch):
    return start_watch()


def test_it_is_heard_again_each_time_it_comes_back(virtual_microphone, watch):
    first = watch.blocks()
    assert first['trouble'] is None
    settled = None
    for pulled in range(1, 6):
        virtual_microphone.unplug()
        gone = watch.wait(lambda r: r['trouble'], 'that it is gone', 5.0)
        assert 'is gone' in gone['trouble']
        assert gone['losses'] == pulled
        virtual_microphone.plug()
        since = time.monotonic()
        again = watch.blocks()
        assert time.monotonic() - since < 5.0
        assert again['trouble'] is None
        assert again['stamp'] > time.time_ns() - 2 * 10**9
        settled = settled or again
    assert again['threads'] <= settled['threads']
    assert again['descriptors'] <= settled['descriptors'] + 2
    assert watch.end()['ended'] >= again['blocks']


def test_a_sound_server_that_hangs_is_said_to(virtual_microphone, watch):
    watch.blocks()
    virtual_microphone.server.send_signal(signal.SIGSTOP)
    try:
        error = watch.wait(lambda r: 'error' in r, 'the end', 15.0)['error']
        assert 'PortAudio hangs' in error
        assert 'only a new process helps' in error
        assert watch.process.wait(5) == 3
    finally:
        virtual_microphone.server.send_signal(signal.SIGCONT)


def test_a_sound_server_that_hangs_from_the_beginning_is_said_to(virtual_microphone, start_watch):
    virtual_microphone.server.send_signal(signal.SIGSTOP)
    try:
        watch = start_watch()
        assert watch.process.wait(20) == 3
        watch._reader.join()
        assert 'PortAudio hangs' in watch.reports[-1]['error']
    finally:
        virtual_microphone.server.send_signal(signal.SIGCONT)


def test_it_is_heard_again_though_portaudio_failed_to_begin_anew(virtual_microphone, start_watch):
    watch = start_watch('fail')
    watch.blocks()
    virtual_microphone.unplug()
    watch.wait(lambda r: 'does not open' in (r['trouble'] or ''), 'the failure')
    virtual_microphone.plug()
    assert watch.blocks()['trouble'] is None
    watch.end()
    said = watch.process.stderr.read()
    assert 'ALSA' not in said
    assert 'jack' not in said.lower()


@pytest.mark.parametrize(
    ('asked', 'now', 'found'),
    [
        ('ReSpeaker', 'ReSpeaker 4 Mic: USB Audio (hw:1,0)', True),
        ('ReSpeaker', 'ReSpeaker 4 Mic: USB Audio (hw:2,0)', True),
        ('ReSpeaker', 'ReSpeaker 6 Mic: USB Audio (hw:2,0)', True),
        ('default', 'ReSpeaker 4 Mic: USB Audio (hw:2,0)', True),
        ('1', 'ReSpeaker 4 Mic: USB Audio (hw:2,0)', True),
        ('default', 'Webcam: USB Audio (hw:1,0)', False),
        ('1', 'Webcam: USB Audio (hw:1,0)', False),
        ('ReSpeaker', 'Webcam: USB Audio (hw:1,0)', False),
    ],
)
def test_plugged_in_again_it_may_have_another_number(monkeypatch, asked, now, found):
    there = [(0, {'name': 'HDA: ALC256 (hw:0,0)'}), (1, {'name': now})]
    monkeypatch.setattr(microphone, 'input_devices', lambda: there)
    name = 'ReSpeaker 4 Mic: USB Audio (hw:1,0)'
    if found:
        assert microphone.find_again(name, asked) == 1
    else:
        with pytest.raises(SourceError, match='Webcam'):
            microphone.find_again(name, asked)


def test_the_watchdog_waits_for_long_blocks(start_watch):
    """Half a second each, and 0.3 s is all that it was told to wait."""
    watch = start_watch('slow')
    report = watch.wait(lambda r: r.get('blocks', 0) >= 6, 'sound')
    assert report['losses'] == 0


def test_it_can_be_closed_while_it_is_looked_for(virtual_microphone, watch):
    watch.blocks()
    virtual_microphone.unplug()
    watch.wait(lambda r: r['trouble'], 'that it is gone', 5.0)
    assert 'ended' in watch.end()

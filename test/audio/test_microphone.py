"""The real PortAudio with a virtual microphone that is unplugged and plugged in again."""

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ser_ros.audio import microphone

WATCH = Path(__file__).with_name('watch_microphone.py')


class Watch:
    """A process that captures: PortAudio looks for devices only once in each process."""

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
        """Wait for a new report that fulfils the condition; returns it."""
        start = len(self.reports)

        def found():
            return next((r for r in self.reports[start:] if condition(r)), None)

        with self._news:
            assert self._news.wait_for(found, timeout), f'{what}: {self.reports[-3:]}'
            return found()

    def end(self):
        """Make the process close the microphone; returns its last report."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(20) == 0
        self._reader.join()
        return self.reports[-1]

    def wait_for_blocks(self):
        """Wait for more than 20 further blocks; returns the report."""
        before = self.reports[-1].get('blocks', 0) if self.reports else 0
        return self.wait(lambda r: r.get('blocks', 0) > before + 20, 'sound')


@pytest.fixture
def start_watch(virtual_microphone):
    """A function that starts a process that captures."""
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


def test_capture_continues_each_time_it_is_plugged_in_again(virtual_microphone, watch):
    first = watch.wait_for_blocks()
    assert first['trouble'] is None
    settled = None
    for n_losses in range(1, 6):
        virtual_microphone.unplug()
        gone = watch.wait(lambda r: r['trouble'], 'the report that it is gone')
        assert 'is gone' in gone['trouble']
        assert gone['losses'] == n_losses
        virtual_microphone.plug()
        again = watch.wait_for_blocks()
        assert again['trouble'] is None
        assert again['stamp'] > time.time_ns() - 2 * 10**9
        settled = settled or again
    assert again['threads'] <= settled['threads']
    assert again['descriptors'] <= settled['descriptors'] + 2
    assert watch.end()['ended'] >= again['blocks']


def test_a_sound_server_that_hangs_is_reported(virtual_microphone, watch):
    watch.wait_for_blocks()
    virtual_microphone.server.send_signal(signal.SIGSTOP)
    try:
        error = watch.wait(lambda r: 'error' in r, 'the end', 15.0)['error']
        assert 'PortAudio hangs' in error
        assert 'only a new process helps' in error
        assert watch.process.wait(5) == 3
    finally:
        virtual_microphone.server.send_signal(signal.SIGCONT)


def test_a_sound_server_that_hangs_from_the_start_is_reported(virtual_microphone, start_watch):
    virtual_microphone.server.send_signal(signal.SIGSTOP)
    try:
        watch = start_watch()
        assert watch.process.wait(20) == 3
        watch._reader.join()
        assert 'PortAudio hangs' in watch.reports[-1]['error']
    finally:
        virtual_microphone.server.send_signal(signal.SIGCONT)


def test_capture_continues_after_portaudio_failed_to_restart(virtual_microphone, start_watch):
    watch = start_watch('fail')
    watch.wait_for_blocks()
    virtual_microphone.unplug()
    watch.wait(lambda r: 'does not open' in (r['trouble'] or ''), 'the failure')
    virtual_microphone.plug()
    assert watch.wait_for_blocks()['trouble'] is None
    watch.end()
    output = watch.process.stderr.read()
    assert 'ALSA' not in output
    assert 'jack' not in output.lower()


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
def test_a_device_is_found_again_under_another_number(monkeypatch, asked, now, found):
    there = [(0, {'name': 'HDA: ALC256 (hw:0,0)'}), (1, {'name': now})]
    monkeypatch.setattr(microphone, 'input_devices', lambda: there)
    name = 'ReSpeaker 4 Mic: USB Audio (hw:1,0)'
    if found:
        assert microphone.find_again(name, asked) == 1
    else:
        with pytest.raises(microphone.MicrophoneAwayError, match='Webcam'):
            microphone.find_again(name, asked)


def test_the_watchdog_waits_for_long_blocks(start_watch):
    """Blocks of 0.5 s, although its timeout is set to 0.3 s."""
    watch = start_watch('slow')
    report = watch.wait(lambda r: r.get('blocks', 0) >= 6, 'sound')
    assert report['losses'] == 0


def test_it_can_be_closed_while_it_is_unplugged(virtual_microphone, watch):
    watch.wait_for_blocks()
    virtual_microphone.unplug()
    watch.wait(lambda r: r['trouble'], 'the report that it is gone')
    assert 'ended' in watch.end()

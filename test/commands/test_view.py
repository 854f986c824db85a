"""view: a page, a file of its own, or a picture."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request

import pytest
import soundfile


def test_it_writes_a_file_and_a_picture(run, wav, tmp_path):
    if shutil.which('chromium') is None:
        pytest.skip('needs a browser: Debian has it as chromium')
    page, picture = tmp_path / 'out.html', tmp_path / 'out.png'
    status, out, err = run('view', wav, '--html', page, '--picture', picture, '--device', 'cpu')
    assert (status, out, err) == (0, [str(page), str(picture)], [])
    assert 'id="recording"' in page.read_text()
    assert picture.read_bytes()[:8] == b'\x89PNG\r\n\x1a\n'
    assert {path.name for path in tmp_path.iterdir()} == {wav.name, page.name, picture.name}


def test_without_a_browser_it_names_the_alternative(run, wav, tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', str(tmp_path))
    status, _, err = run('view', wav, '--picture', tmp_path / 'out.png')
    assert status == 1
    assert len(err) == 1
    assert 'inspect' in err[0]


def test_what_cannot_be_read_is_one_line(run, tmp_path):
    for path in (tmp_path / 'none.wav', tmp_path / 'none.mcap', tmp_path):
        status, out, err = run('view', path)
        assert (status, out, len(err)) == (1, [], 1)


class Served:
    """A command that serves a page, as a process."""

    def __init__(self, *arguments, environment=None):
        self.process = subprocess.Popen(
            [sys.executable, '-m', 'ser_ros', *map(str, arguments), '--port', '0'],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment or os.environ,
        )
        watchdog = threading.Timer(60.0, self.process.kill)
        watchdog.start()
        line = self.process.stdout.readline()
        watchdog.cancel()
        match = re.fullmatch(r'page: (http://127\.0\.0\.1:\d+)/#token=\S+\n', line)
        assert match, line + self.process.stderr.read()
        self.url = match[1]

    def get(self, path):
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return answer.read()

    def end(self):
        self.process.send_signal(signal.SIGINT)
        try:
            error = self.process.communicate(timeout=30)[1]
        finally:
            self.process.kill()
        assert 'Traceback' not in error
        assert self.process.returncode == 130, error


def test_it_serves_the_page_and_the_sound_until_it_is_interrupted(wav, tmp_path):
    served = Served('view', wav)
    try:
        assert b'What the robot recognises' in served.get('/')
        (tmp_path / 'sound.flac').write_bytes(served.get('/recording'))
        assert soundfile.info(tmp_path / 'sound.flac').duration == pytest.approx(
            soundfile.info(wav).duration
        )
    finally:
        served.end()


def test_listen_hears_a_microphone(virtual_microphone, root):
    pytest.importorskip('aiohttp')
    from looking import look

    virtual_microphone.play_in_a_loop(root / 'examples' / 'demo.flac')
    served = Served(
        *('listen', '--device', 'cpu', '--microphone', 'pulse'),
        environment=virtual_microphone.environment,
    )
    try:
        with look(f'{served.url}/') as received:
            found = threading.Event()
            deadline = threading.Timer(60.0, found.set)
            deadline.start()
            while not found.wait(0.05):
                windows = [w for m in received for w in m['lanes'][''].get('windows', [])]
                if windows:
                    break
            deadline.cancel()
            assert windows
            assert received[0]['about']['commands'] == ['enable', 'reset']
    finally:
        served.end()

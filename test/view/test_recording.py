"""A whole recording, and the one file that shows it."""

import json
import re

import numpy as np
import pytest
from browsing import complaints, requested, resize, start_browser

from ser_ros.audio import SAMPLE_RATE, SECOND
from ser_ros.audio.sources import read_audio
from ser_ros.backends import load_backend
from ser_ros.stream.recognizer import Recognizer
from ser_ros.view import recording as module
from ser_ros.view.recording import lay_out, of_sound, to_html

TITLE = '</script><img src=x onerror=alert(1)><b>'


@pytest.fixture(scope='module')
def recording(root):
    samples = read_audio(root / 'examples' / 'demo.flac')
    return of_sound(TITLE, samples, load_backend(device='cpu'))


def lane_of(recording):
    return recording.model.frame_and_snapshot()[1]['lanes']['']


def test_it_has_what_the_recogniser_says(root, recording):
    recognizer = Recognizer(load_backend(device='cpu'))
    samples = read_audio(root / 'examples' / 'demo.flac')
    estimates = recognizer.push(samples, 0) + recognizer.flush()
    lane = lane_of(recording)
    finals = [e for e in estimates if e.is_final]
    assert {e.expression for e in finals} == {'neutral', 'happy', 'angry', 'sad', None}
    assert [u['expression'] for u in lane['utterances']] == [e.expression for e in finals]
    times = [e.stamp_ns / SECOND for e in finals]
    assert [u['time'] for u in lane['utterances']] == pytest.approx(times, abs=1e-3)
    assert len(lane['windows']) == sum(e.is_window for e in estimates)
    assert [said for _, said in lane['speech']] == [True, False] * len(finals)
    assert recording.duration == pytest.approx(len(samples) / SAMPLE_RATE)
    assert recording.flac()[:4] == b'fLaC'


def test_its_beginning_is_shown_if_it_is_long(monkeypatch, root):
    monkeypatch.setattr(module, 'MAX_SECONDS', 3.0)
    samples = read_audio(root / 'examples' / 'demo.flac')
    recording = of_sound('long', samples, load_backend(device='cpu'))
    assert recording.duration == 3.0
    assert recording.model.status()['lanes']['']['classes']


def test_parts_are_laid_out_at_their_times():
    ones = np.ones(1_600, np.float32)
    laid = lay_out([(ones, 5 * SECOND), (2 * ones, 5 * SECOND + SECOND // 5)], 5 * SECOND)
    assert len(laid) == 4_800
    np.testing.assert_array_equal(laid[::1_600], [1, 0, 2])
    assert len(lay_out([], 0)) == 0


def test_one_file_shows_it_in_a_browser(recording, tmp_path):
    page = to_html(recording, 'a <b>bundle</b>')
    assert '<img' not in page
    assert 'import {' not in page
    data = re.search(r'id="recording">(.*?)</script>', page, re.DOTALL)[1]
    assert json.loads(data)['about']['title'] == TITLE
    path = tmp_path / 'recording.html'
    path.write_text(page)
    chromium = start_browser(tmp_path / 'profile')
    try:
        resize(chromium, width=360)
        requested(chromium)
        chromium.get(path.as_uri())
        text = 'return document.querySelector("%s").textContent'
        assert chromium.execute_script(text % 'h1') == TITLE
        wait = (
            'const done = arguments[0]; const look = () => '
            "document.querySelectorAll('.utterances li').length == 6 && "
            "document.getElementById('sound').readyState >= 1 ? done() : setTimeout(look, 20); look()"
        )
        chromium.execute_async_script(wait)
        assert chromium.execute_script(text % '.expression') == 'uncertain'
        move = (
            "const done = arguments[0], cursor = document.getElementById('cursor');"
            "cursor.value = 5.5; cursor.dispatchEvent(new Event('input'));"
            'requestAnimationFrame(() => setTimeout(done, 200))'
        )
        chromium.execute_async_script(move)
        assert chromium.execute_script(text % '.expression') == 'happy'
        assert (
            chromium.execute_script("return document.querySelectorAll('.utterances li').length")
            == 2
        )
        assert chromium.execute_script("return document.getElementById('sound').duration") == (
            pytest.approx(recording.duration, abs=0.1)
        )
        assert chromium.execute_script('return document.documentElement.scrollWidth') <= 360
        assert complaints(chromium) == []
        urls = [u for u in requested(chromium) if not u.startswith(('file:', 'data:', 'chrome:'))]
        assert urls == []
    finally:
        chromium.quit()

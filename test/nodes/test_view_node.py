"""The page in a real browser, from real nodes with real speech."""

import contextlib
import os
import re
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pytest

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2: . tools/ros_env.sh')
pytest.importorskip('aiohttp', reason="needs the page's server: pip install '.[view]'")
pytest.importorskip('selenium')

import numpy as np  # noqa: E402
from browsing import complaints, requested, resize, start_browser  # noqa: E402
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue  # noqa: E402
from feeding import START, AudioPublisher  # noqa: E402
from hri_msgs.msg import Expression, IdsList  # noqa: E402
from looking import look  # noqa: E402
from ports import free_port, is_free  # noqa: E402
from rig import Rig  # noqa: E402
from selenium.common.exceptions import StaleElementReferenceException  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from std_msgs.msg import Bool  # noqa: E402
from vision_msgs.msg import Classification, ObjectHypothesis  # noqa: E402

from ser_ros.audio import SECOND  # noqa: E402
from ser_ros.audio.formats import encode_s16le  # noqa: E402
from ser_ros.nodes.audio_capture_node import AudioCaptureNode  # noqa: E402
from ser_ros.nodes.diagnostics import Level  # noqa: E402
from ser_ros.nodes.messages import TRANSIENT_LOCAL, to_header  # noqa: E402
from ser_ros.nodes.view_node import ViewNode  # noqa: E402
from ser_ros.view import server as server_module  # noqa: E402

DEMO = Path(__file__).parents[2] / 'examples' / 'demo.flac'
HTML = '<img src=x onerror=alert(1)><b>bold</b>'
RECOGNISING = {'device': 'cpu', 'max_backlog': 60.0}
STATE = 60.0
"""Seconds in which what is waited for happens on the busiest machine."""


@pytest.fixture(scope='module')
def chromium(tmp_path_factory):
    chromium = start_browser(tmp_path_factory.mktemp('chromium'))
    yield chromium
    chromium.quit()


class Page:
    """What a person sees."""

    def __init__(self, chromium):
        self.chromium = chromium

    def open(self, address, **size):
        resize(self.chromium, **size)
        self.chromium.get('about:blank')
        complaints(self.chromium)
        requested(self.chromium)
        self.chromium.get(address)

    def text(self, selector):
        for _ in range(10):
            with contextlib.suppress(StaleElementReferenceException):
                found = self.chromium.find_elements(By.CSS_SELECTOR, selector)
                return '\n'.join(element.get_property('textContent') for element in found)
        return ''

    def label(self, selector):
        return self.chromium.find_element(By.CSS_SELECTOR, selector).get_attribute('aria-label')

    def click(self, selector):
        self.chromium.find_element(By.CSS_SELECTOR, selector).click()

    def run(self, script):
        return self.chromium.execute_script(f'return {script}')

    def wait(self, condition, what, timeout=STATE):
        """Wait; return the seconds it took."""
        start = time.monotonic()
        while not condition():
            assert time.monotonic() - start < timeout, f'waited {timeout} s for: {what}'
            time.sleep(0.05)
        return time.monotonic() - start

    def wait_for(self, selector, text, timeout=STATE):
        return self.wait(
            lambda: text in self.text(selector),
            f'{text!r} in {selector}; it has {self.text(selector)!r}',
            timeout,
        )

    def wait_without(self, selector, text, timeout=STATE):
        return self.wait(lambda: text not in self.text(selector), f'no {text!r}', timeout)


@pytest.fixture
def page(chromium):
    page = Page(chromium)
    yield page
    chromium.get('about:blank')


@pytest.fixture
def view(graph):
    return graph.make(ViewNode, port=0)


def silence(page):
    """Seconds for which something is missing, as the page says."""
    return int(re.search(r'for (\d+) s', page.text('#missing'))[1])


def capture(graph, **settings):
    return graph.make(
        AudioCaptureNode,
        **{'source': 'file', 'file': str(DEMO), 'loop': True, 'speed': 3.0, **settings},
    )


@pytest.fixture
def processes(domain_id):
    """Nodes as processes, in the domain of `graph`."""
    with contextlib.closing(Rig(domain_id)) as rig:
        yield rig


def test_it_shows_what_is_said_and_what_goes_missing(graph, view, page, processes):
    processes.start('emotion_node', RECOGNISING)
    page.open(view.address)
    page.wait_for('#nodes', 'emotion_node: active')
    microphone = capture(graph)
    for label in ('uncertain ', 'sad ', 'angry ', 'neutral '):
        page.wait_for('.utterances .what', label)
    assert 'token' not in page.run('location.href')
    page.wait_for('#nodes', 'audio_capture_node: active')
    page.wait_for('#bundle', 'companion')
    page.wait_for('#tiles', 'median latency')
    probabilities = '.probabilities canvas'
    page.wait(lambda: 'happy' in page.label(probabilities), 'probabilities')
    assert re.search(r'happy \d+ %, sad \d+ %', page.label(probabilities))
    page.wait(lambda: 'Valence' in page.label('.plane canvas'), 'the plane')
    page.wait_for('.mood', 'Mood over the last utterances')
    picture = (
        "[...document.querySelector('%s').getContext('2d')"
        '.getImageData(0, 0, 600, 80).data].filter((v, i) => i %% 4 == 3 && v).length'
    )
    for canvas in ('.wave', '.spectrogram', '.probabilities canvas', '.plane canvas'):
        assert page.run(picture % canvas) > 500, canvas
    assert not page.text('#missing')

    # The sound of an utterance.
    page.click('.utterances li:first-child button')
    page.wait(lambda: page.run("document.getElementById('sound').duration > 0.5"), 'sound')
    # One after another, before the one before has begun.
    page.chromium.execute_script(
        "document.querySelectorAll('.utterances li button').forEach((b) => b.click())"
    )

    # A command, with the token that was in the address.
    page.click('[data-command=enable][data-value=false]')
    page.wait_for('#answer', 'not listening')
    assert page.run("document.getElementById('answer').dataset.success") == 'true'
    page.click('[data-command=enable][data-value=true]')
    page.wait_for('#answer', 'Listen: listening')
    page.click('[data-command=reset]')
    page.wait_for('#answer', 'all voices are reset')
    page.click('[data-command=reload_bundle]')
    page.wait_for('#answer', 'Reload model: bundle companion')

    # The capture node stops.
    graph.run(microphone.trigger_deactivate)
    page.wait_for('#missing', 'no sound on /audio_stamped for')
    assert silence(page) <= 2
    page.wait_for('#nodes', 'audio_capture_node: inactive')
    page.wait_for('.speaking', 'no news for')
    assert page.run("document.querySelectorAll('.lane.stale').length") == 1
    graph.run(microphone.trigger_activate)
    page.wait_without('#missing', 'no sound')

    # The emotion node crashes while somebody speaks, and is started again.
    page.wait(lambda: page.text('.speaking .text') == 'speaking', 'speech')
    processes.kill('emotion_node')
    page.wait_for('#missing', 'emotion_node has said nothing for')
    assert silence(page) <= 4
    page.wait_for('#nodes', 'emotion_node: silent')
    page.wait_for('.speaking', 'silent')
    page.wait_for('#tiles', 'median latency, old')
    # A screen reader says it once, not each second.
    said = page.text('#warning')
    assert said == f'emotion_node has said nothing for {said.split()[-2]} s'
    page.wait(lambda: silence(page) > int(said.split()[-2]) + 1, 'another second')
    assert page.text('#warning') == said
    assert page.text('#connection') == 'live'
    last = page.text('.utterances li:first-child')
    processes.start('emotion_node', RECOGNISING)
    page.wait_without('#missing', 'has said nothing')
    page.wait_for('#nodes', 'emotion_node: active')
    page.wait(lambda: page.text('.utterances li:first-child') != last, 'another utterance')
    page.wait(lambda: page.text('.age') == 'now', 'a decision')

    assert complaints(page.chromium) == []
    host = urlsplit(view.address).netloc
    addresses = [urlsplit(url) for url in requested(page.chromium)]
    assert {url.scheme for url in addresses} <= {'http', 'ws', 'blob'}
    assert {url.netloc for url in addresses if url.scheme != 'blob'} == {host}


def test_sound_is_subscribed_to_only_while_somebody_looks(graph, monkeypatch):
    monkeypatch.setattr(server_module, 'LINGER', 0.2)
    view = graph.make(ViewNode, port=0)
    graph.wait(lambda: graph.node.count_subscribers('emotion') == 1, 'discovery')
    assert not graph.node.count_subscribers('audio_stamped')
    for _ in range(2):
        with look(view.address):
            graph.wait(lambda: graph.node.count_subscribers('audio_stamped') == 1, 'sound')
            assert view.diagnose().values['keeps sound'] == 'yes'
        graph.wait(lambda: graph.node.count_subscribers('audio_stamped') == 0, 'no sound')
        graph.wait(lambda: view.diagnose().values['keeps sound'] == 'no', 'that it says so')
    assert view.diagnose().level == Level.OK


def test_foxglove_gets_the_sound_and_only_then_it_is_subscribed_to(graph, speech):
    pytest.importorskip('foxglove', reason="needs foxglove-sdk: pip install '.[foxglove]'")
    pytest.importorskip('google.protobuf')
    from foxglove_client import listen

    port = free_port()
    view = graph.make(ViewNode, namespace='/robot', port=0, foxglove_port=port)
    publisher = AudioPublisher(graph, topic='/robot/audio_stamped', info_topic='/robot/audio_info')
    publisher.announce()
    pcm = encode_s16le(speech[:8_000])
    for _ in range(2):
        with listen(f'ws://127.0.0.1:{port}', '/robot/audio') as received:
            graph.wait(lambda: graph.node.count_subscribers('/robot/audio_stamped') == 1, 'sound')
            publisher.wait_for_subscriber(view)
            publisher.play(pcm, period=0.001)
            graph.wait(lambda: sum(len(b.data) for _, b in received) == len(pcm), 'all of it')
            assert view.diagnose().values['keeps sound'] == 'no'
        graph.wait(lambda: not graph.node.count_subscribers('/robot/audio_stamped'), 'no sound')
    assert b''.join(block.data for _, block in received) == pcm
    assert received[0][0] == received[0][1].timestamp.ToNanoseconds() == START
    graph.run(view.trigger_deactivate)
    # Foxglove's server closes its sockets in a thread of its own.
    graph.wait(lambda: is_free(port), 'a free port')


def test_what_is_missing_has_its_topic(graph, page):
    view = graph.make(ViewNode, namespace='/robot', port=0)
    page.open(view.address)
    page.wait_for('#missing', 'no sound on /robot/audio_stamped yet: nobody publishes there')
    page.wait_for('#missing', 'no /diagnostics of robot/emotion_node yet')
    page.wait_for('#nodes', 'robot/emotion_node: not seen yet')
    graph.wait(lambda: view.diagnose().level == Level.WARN, 'a warning')
    publisher = AudioPublisher(graph, topic='/robot/audio_stamped', info_topic='/robot/audio_info')
    for number in range(20):
        publisher.publish_block(bytes(640), START + number * SECOND // 50)
    page.wait_for('#missing', 'no audio_info on /robot/audio_info yet')
    publisher.announce(sample_format=HTML)
    page.wait_for('#missing', f'sample_format {HTML!r} is not one of')
    publisher.announce()
    page.wait_without('#missing', 'audio_info')
    assert page.run('document.images.length') == 0
    # Without the node that has the services, commands say so.
    page.click('[data-command=reset]')
    page.wait_for('#answer', '/robot/emotion_node/reset: nobody offers this service now')


def test_names_are_text_and_uncertain_is_a_state(graph, view, page):
    node = graph.node
    sent = {
        topic: node.create_publisher(kind, topic, 10)
        for topic, kind in {
            'emotion': Expression,
            'emotion/utterance': Expression,
            'emotion/probabilities': Classification,
            'is_speaking': Bool,
            '/diagnostics': DiagnosticArray,
        }.items()
    }
    page.open(view.address)
    graph.wait(lambda: all(p.get_subscription_count() for p in sent.values()), 'discovery')

    def window(second, **scores):
        results = [ObjectHypothesis(class_id=n, score=s) for n, s in scores.items()]
        sent['emotion/probabilities'].publish(
            Classification(header=to_header(START + second * SECOND, HTML), results=results)
        )

    window(1, **{HTML: 0.9, 'sad': 0.1})
    values = {'header': to_header(START + SECOND, HTML), 'expression': HTML, 'confidence': 0.9}
    sent['emotion'].publish(Expression(**values))
    sent['emotion/utterance'].publish(Expression(**values))
    status = DiagnosticStatus(
        name='emotion_node',
        level=b'\1',
        message=HTML,
        values=[KeyValue(key=HTML, value=HTML), KeyValue(key='bundle', value=HTML)],
    )
    sent['/diagnostics'].publish(DiagnosticArray(status=[status]))
    page.wait_for('.expression', HTML)
    page.wait_for('.utterances .what', HTML)
    page.wait_for('#bundle', HTML)
    page.wait_for('#reports summary', HTML)
    page.click('#reports summary')
    page.wait_for('#reports th', HTML)
    page.wait(lambda: HTML in page.label('.probabilities canvas'), 'the class')
    assert page.run('document.images.length') == 0
    assert page.run("document.querySelectorAll('b').length") == 0

    window(2, **{HTML: 0.4, 'sad': 0.35, 'happy': 0.25})
    page.wait_for('.expression', 'uncertain')
    page.wait_for('.detail', f'most probable: {HTML}, 40 %')
    assert complaints(page.chromium) == []


def test_each_voice_has_a_lane(graph, page):
    view = graph.make(ViewNode, port=0, ros4hri=True)
    tracked = graph.node.create_publisher(IdsList, '/humans/voices/tracked', TRANSIENT_LOCAL)
    tracked.publish(IdsList(ids=['anna', 'ben', HTML]))
    page.open(view.address)
    page.wait(lambda: page.text('.lane .name') == 'anna\nben', 'two lanes')
    speech = graph.node.create_publisher(Expression, '/humans/voices/ben/utterance', 10)
    graph.wait_for_subscriber(speech)
    speech.publish(
        Expression(header=to_header(START, ''), expression='sad', confidence=0.8, valence=-0.5)
    )
    page.wait_for('.lane:nth-of-type(2) .utterances .what', 'sad 80 %')
    assert not page.text('.lane:nth-of-type(1) .utterances .what')
    tracked.publish(IdsList(ids=['ben']))
    page.wait(lambda: page.text('.lane .name') == 'ben', 'one lane')


def test_the_page_comes_back_by_itself(graph, page):
    view = graph.make(ViewNode, port=0, token='fixed')
    page.open(view.address)
    page.wait_for('#connection', 'live')
    port = urlsplit(view.address).port
    graph.remove(view)
    page.wait_for('#connection', 'connection lost')
    graph.make(ViewNode, port=port, token='fixed')
    page.wait_for('#connection', 'live')


SOCKET = "new WebSocket(`ws://${location.host}/live`, ['ser-view'])"
STATES = """
    window.states = [];
    const connection = document.getElementById('connection');
    new MutationObserver(() => window.states.push(connection.dataset.state))
        .observe(connection, { attributes: true });
"""
"""JavaScript that keeps what the page says of its connection from now on."""


def test_two_hundred_rapid_reconnects_disturb_nobody(graph, view, page):
    capture(graph)
    page.open(view.address)
    page.wait_for('#connection', 'live')
    page.chromium.execute_script(STATES)
    opened = page.chromium.execute_async_script(
        f"""
        const done = arguments[0];
        let opened = 0;
        const again = (left) => left === 0 ? done(opened) : (() => {{
            const socket = {SOCKET};
            socket.onopen = () => {{ opened++; socket.close(); }};
            socket.onclose = () => again(left - 1);
        }})();
        again(200);
        """
    )
    assert opened == 200
    graph.wait(lambda: view.diagnose().values['viewers'] == 1, 'one viewer left')
    page.wait(lambda: 'dB' in page.text('.level'), 'sound')
    assert page.text('#connection') == 'live'
    assert set(page.run('window.states')) <= {'live'}
    assert complaints(page.chromium) == []


def test_a_page_that_hangs_delays_no_other(graph, view, page):
    """Its main thread neither draws nor reads for a while; then it shows what is now."""
    capture(graph)
    page.open(view.address)
    page.wait_for('#connection', 'live')
    page.chromium.execute_script(STATES)
    page.chromium.execute_script(
        f'window.times = []; {SOCKET}.onmessage = () => window.times.push(Date.now());'
    )
    first = page.chromium.current_window_handle
    page.chromium.switch_to.new_window('window')
    try:
        # To the browser another site, whose pages have a process of their own.
        page.open(view.address.replace('127.0.0.1', 'localhost'))
        page.wait_for('#connection', 'live')
        graph.wait(lambda: view.diagnose().values['viewers'] == 3, 'all')
        hung = page.chromium.execute_async_script(
            """
            const done = arguments[0];
            setTimeout(() => {
                const begin = Date.now();
                while (Date.now() < begin + 3000);
                done([begin, Date.now()]);
            });
            """
        )
        page.wait(lambda: 'dB' in page.text('.level'), 'sound')
        page.wait_for('#connection', 'live')
        assert complaints(page.chromium) == []
    finally:
        page.chromium.close()
        page.chromium.switch_to.window(first)
    # Meanwhile the other one received a frame each tenth of a second.
    times = np.array([t for t in page.run('window.times') if hung[0] <= t <= hung[1]])
    assert max(np.diff([hung[0], *times, hung[1]])) < 1_000
    assert set(page.run('window.states')) <= {'live'}
    assert page.text('#connection') == 'live'


def test_from_elsewhere_it_asks_for_the_token(graph, page):
    view = graph.make(ViewNode, port=0, host='0.0.0.0', token='right-one')
    page.open(f'http://127.0.0.1:{urlsplit(view.address).port}/')
    is_asked = "document.getElementById('ask').open"
    page.wait(lambda: page.run(is_asked), 'the question')
    assert page.run("document.querySelectorAll('.lane').length") == 0
    page.click('#no-token')
    page.wait_for('#connection', 'needs the token')
    page.chromium.refresh()
    page.wait(lambda: page.run(is_asked), 'the question')
    page.chromium.find_element(By.ID, 'token').send_keys('wrong-one')
    page.click('#use-token')
    is_asked_again = f"{is_asked} && !document.getElementById('token').value"
    page.wait(lambda: page.run(is_asked_again), 'the question again')
    page.chromium.find_element(By.ID, 'token').send_keys('right-one')
    page.click('#use-token')
    page.wait_for('#connection', 'live')
    assert page.run("document.querySelectorAll('.lane').length") == 1


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_it_fits_on_a_telephone_and_is_named_for_screen_readers(view, page, scheme):
    page.open(view.address, width=360, scheme=scheme)
    page.wait_for('#connection', 'live')
    page.wait(lambda: page.run("document.querySelectorAll('.lane').length"), 'a lane')
    assert page.run('document.documentElement.scrollWidth') <= 360
    nameless = (
        "[...document.querySelectorAll('canvas, button:not([hidden]), input')].filter("
        'e => !e.ariaLabel && !e.textContent.trim() && !e.labels?.length).map(e => e.outerHTML)'
    )
    assert page.run(nameless) == []
    paper = page.run('getComputedStyle(document.body).backgroundColor')
    assert paper == {'light': 'rgb(244, 245, 247)', 'dark': 'rgb(15, 19, 23)'}[scheme]


def test_ten_viewers_see_the_same(graph, view):
    with contextlib.ExitStack() as stack:
        seen = [stack.enter_context(look(view.address)) for _ in range(10)]
        graph.wait(lambda: graph.node.count_subscribers('audio_stamped') == 1, 'sound')
        publisher = AudioPublisher(graph)
        publisher.wait_for_subscriber(view)
        publisher.announce()
        publisher.play(encode_s16le(np.zeros(32_000, np.float32)), period=0.005)

        def n_pieces(received):
            return sum(len(m['lanes'][''].get('sound', [])) for m in received)

        graph.wait(
            lambda: all(n_pieces(received) >= 1 for received in seen), 'sound for all', STATE
        )
        assert view.diagnose().values['viewers'] == 10


def test_its_life_cycle_leaves_nothing_behind(graph):
    view = graph.make(ViewNode, port=0, autostart=False)
    for _ in range(3):
        graph.run(view.trigger_configure)
        graph.run(view.trigger_activate)
        with look(view.address):
            graph.wait(lambda: graph.node.count_subscribers('audio_stamped') == 1, 'sound')
            graph.run(view.trigger_deactivate)
        assert view.failure is None
        graph.run(view.trigger_cleanup)
        graph.wait(lambda: graph.node.count_subscribers('audio_stamped') == 0, 'no sound')
        assert graph.node.count_subscribers('emotion') == 0


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'host': 'nowhere.invalid'}, 'not an address of this machine'),
        ({'token': 'a b'}, 'letters, digits'),
        ({'reliability': 'maybe'}, 'reliability'),
        ({'audio_topic': 'a b'}, 'topic'),
        ({'emotion_node': 'a b'}, 'name'),
        ({'host': '0.0.0.0', 'foxglove_port': 8765}, 'knows no token'),
    ],
)
def test_wrong_settings_are_one_line(graph, settings, message):
    view = graph.make(ViewNode, **{'port': 0, **settings})
    assert view.is_misconfigured
    assert message in view.diagnose().message


def test_a_port_in_use_may_become_free(graph, view):
    other = graph.make(ViewNode, port=urlsplit(view.address).port)
    assert other.failed
    assert not other.is_misconfigured


def test_nothing_is_written_to_the_disk(graph, view, monkeypatch, tmp_path):
    """Neither sound, nor what is looked at, nor a command."""
    opened = []

    def watch(event, arguments):
        if event == 'open' and arguments[2] & (os.O_WRONLY | os.O_RDWR):
            opened.append(str(arguments[0]))

    sys.addaudithook(watch)
    monkeypatch.chdir(tmp_path)
    publisher = AudioPublisher(graph)
    publisher.announce()
    with look(view.address) as received:
        publisher.wait_for_subscriber(view)
        publisher.play(encode_s16le(np.zeros(16_000, np.float32)), period=0.001)
        graph.wait(lambda: any('sound' in m['lanes'][''] for m in received), 'sound')
        base = view.address.partition('#')[0]
        request = urllib.request.Request(f'{base}command/enable', b'{"value": true}')
        request.add_header('Authorization', f'Bearer {urlsplit(view.address).fragment[6:]}')
        with pytest.raises(urllib.error.HTTPError, match='409'):
            urllib.request.urlopen(request, timeout=20)
    assert [p for p in opened if not p.startswith('/dev/') and '__pycache__' not in p] == []
    assert list(tmp_path.iterdir()) == []

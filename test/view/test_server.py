"""The server, asked by a real client over real sockets."""

import asyncio
import contextlib
import gc
import io
import json
import socket
import threading
import time
import wave
from concurrent.futures import Future
from pathlib import Path

import aiohttp
import numpy as np
import pytest

from ser_ros import SerError, TransientError
from ser_ros.audio import SAMPLE_RATE, SECOND
from ser_ros.view import server as module
from ser_ros.view.lane import Decision
from ser_ros.view.model import Model, Topics
from ser_ros.view.server import HEADERS, MAX_MESSAGE, Server

FILES = ('/', '/style.css', '/view.js')


@pytest.fixture
def model():
    model = Model(keep_audio=30.0, nodes=('emotion_node',))
    model.set_lanes({'': Topics('/audio_stamped', '/audio_info')})
    speak(model, 0)
    return model


def speak(model, second):
    """Two seconds of an utterance, and a second of sound after it."""
    model.set_speaking('', False, second)
    model.set_speaking('', True, second)
    model.add_sound('', np.ones(3 * SAMPLE_RATE, np.float32) / 4, second * SECOND)
    decision = Decision(second + 2.0, 'sad', 0.9, -0.5, -0.5)
    model.add_decision('', decision, is_utterance=True)


class Watched(list):
    """The calls of `on_watched`."""

    def wait_for(self, expected):
        wait(lambda: self == expected, f'{expected}, not {self}')


def wait(condition, what, timeout=20.0):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f'waited {timeout} s without success for: {what}'
        time.sleep(0.01)


@pytest.fixture
def make(model):
    servers = []

    def make_server(**settings):
        server = Server(model, **settings)
        server.start()
        servers.append(server)
        return server

    yield make_server
    for server in servers:
        server.stop()
    assert not [t for t in threading.enumerate() if t.name == 'view_server']


class Client:
    """A session, and where it goes."""

    def __init__(self, server, session):
        self.base, self._session = f'http://127.0.0.1:{server.port}', session

    def get(self, path, **headers):
        return self._session.get(self.base + path, headers=headers)

    def post(self, path, body=b'', **headers):
        return self._session.post(self.base + path, data=body, headers=headers)

    def look(self, protocols=('ser-view',), **headers):
        return self._session.ws_connect(
            f'{self.base}/live', protocols=protocols, headers=headers, max_msg_size=0
        )


def ask(server, function, timeout=30.0):
    """Run an async function of a client."""

    async def run():
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            return await asyncio.wait_for(function(Client(server, session)), timeout)

    return asyncio.run(run())


def status_of(server, path='/', method='get', body=b'', **headers):
    async def request(client):
        sent = (
            client.get(path, **headers) if method == 'get' else client.post(path, body, **headers)
        )
        async with sent as response:
            return response.status, await response.text(errors='replace')

    return ask(server, request)


def test_the_page_is_there_with_its_headers(make):
    server = make()

    async def request(client):
        for path in FILES:
            async with client.get(path) as response:
                assert response.status == 200
                assert {k: response.headers[k] for k in HEADERS} == HEADERS
                assert await response.read()

    ask(server, request)
    assert status_of(server, '/../server.py')[0] == 404
    assert status_of(server, '/page/..%2fserver.py')[0] == 404
    assert "script-src 'self'" in HEADERS['Content-Security-Policy']
    assert 'unsafe' not in HEADERS['Content-Security-Policy']


def test_a_viewer_gets_all_and_then_what_is_new(make, model):
    watched = Watched()
    server = make(on_watched=watched.append, linger=0.0)

    async def look(client):
        async with client.look() as viewer:
            snapshot = json.loads(await viewer.receive_str())
            assert snapshot['type'] == 'snapshot'
            assert snapshot['lanes']['']['utterances'][0]['expression'] == 'sad'
            model.add_window('', 2.5, {'sad': 0.7, 'happy': 0.3})
            while not (
                windows := json.loads(await viewer.receive_str())['lanes'][''].get('windows')
            ):
                pass
            assert windows == [[2.5, [0.7, 0.3]]]
            while 'status' not in (frame := json.loads(await viewer.receive_str())):
                pass
            assert frame['status']['nodes'][0]['name'] == 'emotion_node'

    ask(server, look)
    watched.wait_for([True, False])
    assert not model.is_watched


def test_nothing_is_drawn_before_anybody_looks_and_long_after(make, model):
    watched = Watched()
    server = make(on_watched=watched.append, linger=60.0)
    assert not model.is_watched

    async def look(client):
        async with client.look() as viewer:
            await viewer.receive_str()

    for _ in range(2):
        ask(server, look)
        wait(lambda: not server.n_viewers, 'it is gone')
    assert watched == [True]
    server.stop()
    assert watched == [True, False]


def test_the_sound_of_an_utterance_is_a_wav_file(make, model):
    server = make()

    async def request(client):
        async with client.look() as viewer:
            await viewer.receive_str()
            speak(model, 10)
            async with client.get('/sound?voice=&id=2') as response:
                return response.content_type, await response.read()

    kind, data = ask(server, request)
    assert kind == 'audio/wav'
    with wave.open(io.BytesIO(data)) as reader:
        assert reader.getnframes() / SAMPLE_RATE == pytest.approx(2.2, abs=0.1)
    # Of the first one, before anybody looked, nothing was kept.
    for query in ('id=1', 'id=3', 'voice=x&id=2'):
        assert status_of(server, f'/sound?{query}')[0] == 404
    for query in ('', 'id=x', 'id=-1', 'id=99999999999', 'id=²'):
        assert status_of(server, f'/sound?{query}')[0] == 400


def done(*result):
    future = Future()
    future.set_result(result)
    return future


def test_commands_need_the_token(make):
    called = []

    def enable(value):
        called.append(value)
        return done(True, 'listening')

    server = make(commands={'enable': enable})
    path, body = '/command/enable', b'{"value": true}'
    for headers in ({}, {'Authorization': 'Bearer wrong'}, {'Authorization': server.token}):
        assert status_of(server, path, 'post', body, **headers)[0] == 401
    assert not called
    right = {'Authorization': f'Bearer {server.token}'}
    assert status_of(server, path, 'post', body, Origin='http://evil.example', **right)[0] == 403
    assert status_of(server, path, 'post', body, Host='evil.example', **right)[0] == 403
    assert not called
    status, text = status_of(server, path, 'post', body, **right)
    assert (status, json.loads(text)) == (200, {'success': True, 'message': 'listening'})
    assert called == [True]
    assert status_of(server, '/command/other', 'post', b'', **right)[0] == 404
    assert status_of(server, path, 'post', b'{', **right)[0] == 400
    assert status_of(server, path, 'post', b'[]', **right)[0] == 400
    assert status_of(server, path, **right)[0] == 405
    assert status_of(server, path, 'post', b'x' * (MAX_MESSAGE + 1), **right)[0] == 413
    statuses = [status_of(server, path, 'post', body, **right)[0] for _ in range(12)]
    assert statuses[-1] == 429


def test_a_command_that_fails_or_never_ends_is_an_answer(make, monkeypatch):
    monkeypatch.setattr(module, 'PATIENCE', 0.2)

    def refuse(_):
        raise SerError('the emotion node is not there')

    server = make(commands={'reset': refuse, 'reload_bundle': lambda _: Future()})
    right = {'Authorization': f'Bearer {server.token}'}
    status, text = status_of(server, '/command/reset', 'post', b'', **right)
    assert (status, json.loads(text)['message']) == (409, 'the emotion node is not there')
    assert status_of(server, '/command/reload_bundle', 'post', b'', **right)[0] == 504


def test_other_hosts_and_origins_are_refused_everything(make):
    server = make()
    for headers in (
        {'Host': 'evil.example'},
        {'Origin': 'http://evil.example'},
        {'Sec-Fetch-Site': 'cross-site'},
    ):
        for path in (*FILES, '/live', '/sound?id=1'):
            assert status_of(server, path, **headers)[0] == 403


def test_bound_elsewhere_data_needs_the_token(make, model):
    server = make(host='0.0.0.0')
    assert status_of(server)[0] == 200
    assert status_of(server, '/sound?id=1')[0] == 401
    right = {'Authorization': f'Bearer {server.token}'}

    async def look(client):
        for protocols in (('ser-view',), ('ser-view', 'token.wrong')):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
                await client.look(protocols)
            assert refusal.value.status == 401
        async with client.look(('ser-view', f'token.{server.token}')) as viewer:
            assert viewer.protocol == 'ser-view'
            assert json.loads(await viewer.receive_str())['type'] == 'snapshot'
            speak(model, 10)
            async with client.get('/sound?id=2', **right) as response:
                assert response.status == 200

    ask(server, look)
    assert server.token in server.url
    assert server.url.partition('#')[0].endswith('/')


@pytest.mark.parametrize('text', ['hello', 'x' * (MAX_MESSAGE + 1), 'x' * 1_000_000])
def test_a_viewer_that_talks_is_disconnected(make, text):
    server = make()

    async def look(client):
        async with client.look() as viewer:
            with contextlib.suppress(ConnectionError):
                await viewer.send_str(text)
                async for _ in viewer:
                    pass
            assert viewer.closed

    ask(server, look)
    wait(lambda: not server.n_viewers, 'it is gone')


def test_viewers_are_limited(make):
    server = make(max_viewers=3)

    async def look(client):
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(3):
                viewer = await stack.enter_async_context(client.look())
                await viewer.receive_str()
            with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
                await client.look()
            assert refusal.value.status == 503

    ask(server, look)


def test_viewers_who_come_at_once_are_limited(make):
    server = make(max_viewers=3)

    async def look(client):
        came = await asyncio.gather(*(client.look() for _ in range(40)), return_exceptions=True)
        looking = [viewer for viewer in came if not isinstance(viewer, Exception)]
        assert len(looking) == 3
        assert {error.status for error in came if isinstance(error, Exception)} == {503}
        for viewer in looking:
            await viewer.close()

    ask(server, look)


def test_requests_are_limited(make):
    server = make()

    async def hammer(client):
        async def one():
            async with client.get('/') as response:
                return response.status

        return [s for _ in range(8) for s in await asyncio.gather(*(one() for _ in range(90)))]

    assert 429 in ask(server, hammer)


def test_another_site_does_not_use_up_what_others_may_ask(make):
    server = make()

    async def hammer(client):
        async def one():
            async with client.get('/', Origin='http://evil.example') as response:
                return response.status

        refused = [s for _ in range(8) for s in await asyncio.gather(*(one() for _ in range(90)))]
        assert set(refused) == {403}
        async with client.get('/') as response:
            assert response.status == 200

    ask(server, hammer)


def test_connections_are_limited_and_viewers_stay(make, monkeypatch):
    monkeypatch.setattr(module, 'MAX_CONNECTIONS', 20)
    server = make()

    async def look(client):
        async with client.look() as viewer:
            await viewer.receive_str()
            idle = [socket.create_connection(('127.0.0.1', server.port)) for _ in range(40)]
            idle[0].settimeout(20.0)
            loop = asyncio.get_running_loop()
            closed = await loop.run_in_executor(None, _is_closed, idle[0])
            assert closed
            assert json.loads(await viewer.receive_str())['type'] == 'frame'
            for connection in idle:
                connection.close()

    ask(server, look)


def _is_closed(connection):
    try:
        return connection.recv(1) == b''
    except ConnectionResetError:
        return True


def test_a_viewer_that_never_reads_is_dropped_and_delays_nobody(make, model, monkeypatch):
    monkeypatch.setattr(module, 'BACKLOG', 5)
    server = make()
    request = (
        f'GET /live HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nConnection: Upgrade\r\n'
        'Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n'
        'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: ser-view\r\n\r\n'
    )
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        deaf.connect(('127.0.0.1', server.port))
        deaf.sendall(request.encode())
        wait(lambda: server.n_viewers == 1, 'it looks')

        async def look(client):
            gaps, last = [], time.monotonic()
            async with client.look() as viewer:
                while server.n_viewers == 2 or not gaps:
                    # More than sound is, so that the buffers of the system are full soon.
                    model.add_status('emotion_node', 0, 'x', {})
                    for _ in range(1_000):
                        model.add_window(
                            '', 3.0, {'c' * 60: 0.5, **{f'{n}': 0.1 for n in range(60)}}
                        )
                    await viewer.receive_str()
                    gaps.append(time.monotonic() - last)
                    last = time.monotonic()
                assert server.n_viewers == 1
                assert json.loads(await viewer.receive_str())['type'] == 'frame'
            return gaps

        gaps = ask(server, look, 60.0)
    assert np.median(gaps) < 1.0


def test_many_rapid_reconnects(make):
    server = make()

    async def look(client):
        for _ in range(200):
            async with client.look() as viewer:
                assert json.loads(await viewer.receive_str())['type'] == 'snapshot'

    ask(server, look, 60.0)
    wait(lambda: not server.n_viewers, 'all are gone')


def test_a_port_in_use_may_become_free_and_a_wrong_address_stays_wrong(make):
    server = make()
    with pytest.raises(TransientError, match=f'port {server.port}'):
        Server(Model(), port=server.port)
    with pytest.raises(SerError, match='203.0.113.1') as error:
        Server(Model(), host='203.0.113.1')
    assert not isinstance(error.value, TransientError)
    with pytest.raises(SerError, match='not an address'):
        Server(Model(), host='no such name!')


@pytest.mark.skipif(not Path('/proc/self/fd').exists(), reason='needs Linux')
def test_a_server_that_is_never_run_leaves_nothing_open():
    gc.collect()  # what earlier tests left
    opened = Path('/proc/self/fd')
    before = len(list(opened.iterdir()))
    for _ in range(5):
        Server(Model()).close()
    assert len(list(opened.iterdir())) <= before


def test_it_ends_while_somebody_looks(make):
    server = make()

    async def look(client):
        async with client.look() as viewer:
            await viewer.receive_str()
            start = time.monotonic()
            await asyncio.get_running_loop().run_in_executor(None, server.stop)
            assert time.monotonic() - start < 20.0  # aiohttp itself waits for a minute

    ask(server, look)

"""The page's server: an event loop in a thread of its own, which nobody waits for."""

import asyncio
import contextlib
import errno
import json
import socket
import threading
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Optional

from aiohttp import WSCloseCode, WSMsgType, web

from ser_ros import SerError, TransientError
from ser_ros.view.access import WEBSOCKET_PROTOCOL, Access, make_token
from ser_ros.view.model import Model
from ser_ros.view.sound import to_wav

PAGE = Path(__file__).parent / 'page'
TYPES = {
    '.html': 'text/html',
    '.css': 'text/css',
    '.js': 'text/javascript',
    '.svg': 'image/svg+xml',
}

PERIOD = 0.1
"""Seconds between two frames."""
IDLE_PERIOD = 0.5
"""The same while nobody looks."""
STATUS_EVERY = 5
"""Frames between two that have a status."""
LINGER = 20.0
"""Seconds after the last viewer has gone in which the page's sound is still prepared: a page that is
loaded again finds it."""
BACKLOG = 30
"""Frames that may wait for a viewer; one that is slower is dropped."""
MAX_MESSAGE = 1_024
"""Bytes of a message or a request's body: viewers have nothing to say."""
MAX_CONNECTIONS = 100
"""Of any kind; those of no viewer are closed where there are more."""
PATIENCE = 130.0
"""Seconds that a command may take: a bundle is loaded."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    'Content-Security-Policy': POLICY,
    'X-Content-Type-Options': 'nosniff',
    'Referrer-Policy': 'no-referrer',
    'Cross-Origin-Resource-Policy': 'same-origin',
    'Cross-Origin-Opener-Policy': 'same-origin',
    'Cache-Control': 'no-store',
}

Command = Callable[[Any], 'Future[tuple[bool, str]]']
"""Called with the `value` of a request, in the server's thread; its future has success and message."""


class Viewer:
    """A browser that looks: its WebSocket, and the frames that wait for it."""

    def __init__(self, socket_: web.WebSocketResponse, transport: asyncio.Transport):
        self.socket = socket_
        self.transport = transport
        self._frames: asyncio.Queue[str] = asyncio.Queue(BACKLOG)

    def put(self, frame: str) -> None:
        """Queue a frame; drop the viewer if it is too slow."""
        try:
            self._frames.put_nowait(frame)
        except asyncio.QueueFull:
            self.drop()

    def drop(self) -> None:
        """Close the connection at once: a closing handshake would wait for it."""
        self.transport.abort()

    async def send(self) -> None:
        """Send the frames, until it is cancelled or the connection is closed."""
        with contextlib.suppress(ConnectionError):
            while True:
                await self.socket.send_str(await self._frames.get())


class Server:
    """Serves one page, its WebSocket, the sound of utterances, and commands."""

    def __init__(
        self,
        model: Model,
        host: str = '127.0.0.1',
        port: int = 0,
        token: str = '',
        commands: Optional[Mapping[str, Command]] = None,
        max_viewers: int = 16,
        on_watched: Callable[[bool], None] = lambda _: None,
        linger: Optional[float] = None,
        recording: bytes = b'',
    ):
        """`port`: 0 for any that is free. `token`: by default a new one.

        `on_watched` is called in the server's thread when somebody begins to look, and `linger`
        seconds (default `LINGER`) after nobody does any more. `recording`: FLAC of the whole sound.
        """
        self.token = token or make_token()
        self._model = model
        self._access = Access(host, self.token)
        self._commands = dict(commands or {})
        self._max_viewers = max_viewers
        self._on_watched = on_watched
        self._recording = recording
        self._linger = LINGER if linger is None else linger
        self._viewers: set[Viewer] = set()
        self._last_seen = 0.0
        self._n_ticks = 0
        self._files = {
            f'/{path.name}': (path.read_bytes(), TYPES[path.suffix])
            for path in PAGE.iterdir()
            if path.suffix in TYPES
        }
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._thread: Optional[threading.Thread] = None
        self._socket = _bind(host, port)
        self.host, self.port = self._socket.getsockname()[:2]

    @property
    def url(self) -> str:
        """Where the page is, for a browser on this machine or, by its address, on another.

        The token is after a #: browsers send it to nobody.
        """
        host = {'0.0.0.0': '127.0.0.1', '::': '::1'}.get(self.host, self.host)
        host = f'[{host}]' if ':' in host else host
        return f'http://{host}:{self.port}/#token={self.token}'

    @property
    def n_viewers(self) -> int:
        """How many look."""
        return len(self._viewers)

    def start(self) -> None:
        """Serve in a thread."""
        self._thread = threading.Thread(target=self.run, name='view_server', daemon=True)
        self._thread.start()

    def run(self) -> None:
        """Serve until `stop`."""
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._socket.close()
            self._loop.close()

    def stop(self) -> None:
        """End it; from any thread, also before it runs, and more than once."""
        with contextlib.suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(self._stopping.set)
        if self._thread is not None:
            self._thread.join()

    def close(self) -> None:
        """Free the port of a server that was never run, and what else it has open."""
        self._socket.close()
        if not self._loop.is_running():
            self._loop.close()

    async def _serve(self) -> None:
        app = web.Application(middlewares=[self._guard], client_max_size=MAX_MESSAGE)
        app.router.add_get('/', self._file)
        for name in self._files:
            app.router.add_get(name, self._file)
        app.router.add_get('/live', self._live)
        app.router.add_get('/sound', self._sound)
        app.router.add_get('/recording', self._whole_sound)
        app.router.add_post('/command/{name}', self._command)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        try:
            await web.SockSite(runner, self._socket).start()
            while not self._stopping.is_set():
                self._tick(runner)
                with contextlib.suppress(asyncio.TimeoutError):
                    period = PERIOD if self._viewers else IDLE_PERIOD
                    await asyncio.wait_for(self._stopping.wait(), period)
        finally:
            for viewer in list(self._viewers):
                viewer.drop()
            self._watch(False)
            await runner.cleanup()

    # Frames.

    def _tick(self, runner: web.AppRunner) -> None:
        self._n_ticks += 1
        now = self._loop.time()
        if self._viewers:
            self._last_seen = now
            frame = self._model.frame(has_status=self._n_ticks % STATUS_EVERY == 0)
            self._send(frame)
        elif self._model.is_watched:
            self._model.frame()  # nobody gets it
            if now - self._last_seen > self._linger:
                self._watch(False)
        self._limit_connections(runner)

    def _limit_connections(self, runner: web.AppRunner) -> None:
        connections = runner.server.connections if runner.server is not None else []
        if len(connections) > MAX_CONNECTIONS:
            watching = {viewer.transport for viewer in self._viewers}
            for handler in connections:
                if handler.transport is not None and handler.transport not in watching:
                    handler.transport.abort()

    def _send(self, frame: Mapping[str, Any]) -> None:
        text = _to_json(frame)
        for viewer in list(self._viewers):
            viewer.put(text)

    def _watch(self, is_watched: bool) -> None:
        if is_watched != self._model.is_watched:
            self._model.is_watched = is_watched
            self._on_watched(is_watched)

    # Requests.

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        # Refused first: another site's page must not use up what others may ask.
        if reason := self._access.refuses(request.headers):
            response: web.StreamResponse = _text(f'refused: {reason}', 403)
        elif not self._access.requests.take():
            response = _text('too many requests', 429)
        else:
            try:
                response = await handler(request)
            except web.HTTPException as error:
                response = _text(error.reason, error.status)
        if not response.prepared:
            response.headers.update(HEADERS)
        return response

    async def _file(self, request: web.Request) -> web.Response:
        """A file of the page; it is the same for everybody, and has no data."""
        body, kind = self._files['/index.html' if request.path == '/' else request.path]
        return web.Response(body=body, content_type=kind, charset='utf-8')

    async def _live(self, request: web.Request) -> web.StreamResponse:
        if not self._access.may_look(request.headers):
            return _text('the token is missing or wrong', 401)
        if len(self._viewers) >= self._max_viewers:
            return _text(f'{self._max_viewers} look already', 503)
        connection = web.WebSocketResponse(
            protocols=(WEBSOCKET_PROTOCOL,), max_msg_size=MAX_MESSAGE, heartbeat=15.0
        )
        await connection.prepare(request)
        if request.transport is None:
            return connection
        viewer = Viewer(connection, request.transport)
        self._last_seen = self._loop.time()
        self._watch(True)
        frame, snapshot = self._model.frame_and_snapshot()
        self._send(frame)
        viewer.put(_to_json(snapshot))
        self._viewers.add(viewer)
        sending = asyncio.create_task(viewer.send())
        try:
            # It has nothing to say: whatever it sends ends the connection.
            message = await connection.receive()
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                await connection.close(code=WSCloseCode.POLICY_VIOLATION)
        finally:
            self._viewers.discard(viewer)
            sending.cancel()
        return connection

    async def _sound(self, request: web.Request) -> web.Response:
        """The sound of an utterance."""
        if not self._access.may_look(request.headers):
            return _text('the token is missing or wrong', 401)
        number = request.query.get('id', '')
        if not (number.isascii() and number.isdecimal() and len(number) < 10):
            return _text('id must be the number of an utterance', 400)
        data = self._model.sound_of(request.query.get('voice', ''), int(number))
        if data is None:
            return _text('the sound of this utterance is not kept', 404)
        return web.Response(body=to_wav(data), content_type='audio/wav')

    async def _whole_sound(self, request: web.Request) -> web.Response:
        """That of a recording."""
        if not self._access.may_look(request.headers):
            return _text('the token is missing or wrong', 401)
        if not self._recording:
            return _text('there is no recording', 404)
        return web.Response(body=self._recording, content_type='audio/flac')

    async def _command(self, request: web.Request) -> web.Response:
        if not self._access.may_command(request.headers):
            return _answer(False, 'the token is missing or wrong', 401)
        if not self._access.commands.take():
            return _answer(False, 'too many commands: wait a few seconds', 429)
        command = self._commands.get(request.match_info['name'])
        if command is None:
            return _answer(False, 'there is no such command', 404)
        try:
            body = await request.read()
            value = json.loads(body)['value'] if body else None
        except (ValueError, KeyError, TypeError):
            return _answer(False, 'the body must be {"value": …}', 400)
        try:
            future = asyncio.wrap_future(command(value))
            success, message = await asyncio.wait_for(future, PATIENCE)
        except asyncio.TimeoutError:
            return _answer(False, f'no answer within {PATIENCE:g} s', 504)
        except SerError as error:
            return _answer(False, str(error), 409)
        return _answer(success, message, 200)


def _bind(host: str, port: int) -> socket.socket:
    """A socket that listens."""
    try:
        ((family, kind, protocol, _, address), *_) = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        bound = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise SerError(f'host {host!r} is not an address of this machine: {error}') from error
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
        bound.listen()  # who comes before it serves waits
    except OSError as error:
        bound.close()
        kind = TransientError if error.errno == errno.EADDRINUSE else SerError
        raise kind(
            f'the page cannot be served on {host} port {port} ({error.strerror}); choose another'
        ) from error
    return bound


def _to_json(value: Any) -> str:
    return json.dumps(value, separators=(',', ':'), allow_nan=False)


def _text(text: str, status: int) -> web.Response:
    return web.Response(text=text, status=status)


def _answer(success: bool, message: str, status: int) -> web.Response:
    return web.json_response({'success': success, 'message': message}, status=status)

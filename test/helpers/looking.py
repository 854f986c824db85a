"""A viewer that is no browser: it follows the page's WebSocket."""

import asyncio
import contextlib
import json
import threading
from urllib.parse import urlsplit

import aiohttp


@contextlib.contextmanager
def look(address):
    """Look at the page of this address until the block or the page ends; gives the list of what it receives."""
    where = urlsplit(address)
    received, is_there, stopping = [], threading.Event(), threading.Event()

    async def follow():
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(
                f'http://{where.netloc}/live',
                protocols=('ser-view', where.fragment.replace('token=', 'token.')),
                max_msg_size=0,
            ) as connection,
        ):
            while not stopping.is_set() and not connection.closed:
                with contextlib.suppress(asyncio.TimeoutError):
                    message = await connection.receive(timeout=0.2)
                    if message.type == aiohttp.WSMsgType.TEXT:
                        received.append(json.loads(message.data))
                        is_there.set()

    thread = threading.Thread(target=lambda: asyncio.run(follow()))
    thread.start()
    try:
        assert is_there.wait(20.0), 'nothing came'
        yield received
    finally:
        stopping.set()
        thread.join()

"""A client of Foxglove's WebSocket protocol that listens to one voice."""

import asyncio
import base64
import contextlib
import json
import struct
import threading

import aiohttp
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PROTOCOL = 'foxglove.sdk.v1'
MESSAGE = struct.Struct('<BIQ')
"""Before a message: its kind, the subscription, and its time in nanoseconds."""
MESSAGE_DATA = 1


def decoder(channel):
    """A function that parses the messages of a channel, by the schema that it was advertised with."""
    assert (channel['encoding'], channel['schemaEncoding']) == ('protobuf', 'protobuf')
    schema = descriptor_pb2.FileDescriptorSet.FromString(base64.b64decode(channel['schema']))
    pool = descriptor_pool.DescriptorPool()
    for file in schema.file:
        pool.Add(file)
    kind = message_factory.GetMessageClass(pool.FindMessageTypeByName(channel['schemaName']))
    return kind.FromString


@contextlib.contextmanager
def listen(address, topic):
    """Subscribe to a topic until the block ends; gives the list of times and messages that come."""
    received, subscribed, stopping = [], threading.Event(), threading.Event()

    async def follow():
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(address, protocols=(PROTOCOL,)) as connection,
        ):
            assert connection.protocol == PROTOCOL
            decode = None
            while not stopping.is_set() and not connection.closed:
                with contextlib.suppress(asyncio.TimeoutError):
                    message = await connection.receive(timeout=0.05)
                    if message.type == aiohttp.WSMsgType.BINARY:
                        kind, _, time_ns = MESSAGE.unpack_from(message.data)
                        assert kind == MESSAGE_DATA
                        received.append((time_ns, decode(message.data[MESSAGE.size :])))
                    elif message.type == aiohttp.WSMsgType.TEXT:
                        for channel in json.loads(message.data).get('channels', []):
                            if channel['topic'] == topic:
                                decode = decoder(channel)
                                wanted = [{'id': 7, 'channelId': channel['id']}]
                                await connection.send_json(
                                    {'op': 'subscribe', 'subscriptions': wanted}
                                )
                                subscribed.set()

    thread = threading.Thread(target=lambda: asyncio.run(follow()))
    thread.start()
    try:
        assert subscribed.wait(20.0), f'{topic} is not offered'
        yield received
    finally:
        stopping.set()
        thread.join()

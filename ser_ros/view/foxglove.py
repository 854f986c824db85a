"""The sound of each voice for Foxglove's audio panel, by Foxglove's SDK, which is optional."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ser_ros import SerError, TransientError
from ser_ros.audio import SAMPLE_RATE, SECOND
from ser_ros.audio.formats import encode_s16le
from ser_ros.view.access import is_loopback

FORMAT = 'pcm-s16'
"""The one format of Foxglove's `RawAudio`: little-endian."""
BACKLOG = 100
"""Blocks that may wait for a client; of one that is slower the oldest are dropped."""


class FoxgloveServer:
    """A WebSocket server of the SDK, with a channel of `RawAudio` for each voice.

    It has no token and checks no origin, so it is bound to this machine alone.
    """

    def __init__(
        self,
        host: str,
        port: int,
        name: str = '',
        on_watched: Callable[[bool], None] = lambda _: None,
    ):
        """`port`: 0 for any that is free. `name`: of the source, as Foxglove shows it.

        `on_watched` is called in a thread of the SDK when the first client subscribes to a voice,
        and when the last one no longer does.
        """
        if not is_loopback(host):
            raise SerError(
                f"foxglove_port: Foxglove's server knows no token, so it is not served on host "
                f'{host}: set foxglove_port to 0, or host to 127.0.0.1'
            )
        try:
            import foxglove
            from foxglove.channels import RawAudioChannel
            from foxglove.messages import RawAudio, Timestamp
        except ImportError as error:
            raise SerError(
                f"foxglove_port needs foxglove-sdk ({error}): pip install '.[foxglove]'"
            ) from error
        self._channel_type, self._message, self._timestamp = RawAudioChannel, RawAudio, Timestamp
        self._on_watched = on_watched
        self._subscriptions: set[tuple[int, str]] = set()
        """Clients and topics."""
        self._channels: dict[str, Any] = {}
        self._context = foxglove.Context()
        try:
            self._server = foxglove.start_server(
                name=name,
                host=host,
                port=port,
                server_listener=self,
                context=self._context,
                message_backlog_size=BACKLOG,
            )
        except RuntimeError as error:
            kind = TransientError if 'in use' in str(error) else SerError
            raise kind(f'foxglove_port {port} on {host}: {error}; choose another') from error
        self.address = f'ws://{f"[{host}]" if ":" in host else host}:{self._server.port}'
        """For Foxglove's connection."""

    @property
    def is_watched(self) -> bool:
        """Whether anybody subscribes to a voice."""
        return bool(self._subscriptions)

    def set_voices(self, topics: Mapping[str, str]) -> None:
        """Offer these voices, each on its topic, and no others; all calls from one thread."""
        for name in self._channels.keys() - topics.keys():
            self._channels.pop(name).close()
        for name in topics.keys() - self._channels.keys():
            self._channels[name] = self._channel_type(topics[name], context=self._context)

    def add_sound(self, name: str, samples: np.ndarray, stamp_ns: int) -> None:
        """Send float32 (n,) samples at 16 kHz of a voice to those who subscribe to it.

        `stamp_ns`: of the first sample, in nanoseconds; Foxglove has no time before 1970.
        """
        channel = self._channels.get(name)
        if channel is None or not channel.has_sinks() or stamp_ns < 0:
            return
        block = self._message(
            timestamp=self._timestamp(sec=stamp_ns // SECOND, nsec=stamp_ns % SECOND),
            data=encode_s16le(samples),
            format=FORMAT,
            sample_rate=SAMPLE_RATE,
            number_of_channels=1,
        )
        channel.log(block, log_time=stamp_ns)

    def stop(self) -> None:
        """End it, more than once, too; `on_watched` is not called any more."""
        self._on_watched = lambda _: None
        self.set_voices({})
        self._server.stop()
        self._subscriptions.clear()

    # Called by the SDK, in threads of its own: see foxglove.websocket.ServerListener.

    def on_subscribe(self, client: Any, channel: Any) -> None:
        """A client subscribes to a voice."""
        self._count(lambda: self._subscriptions.add((client.id, channel.topic)))

    def on_unsubscribe(self, client: Any, channel: Any) -> None:
        """A client no longer subscribes, or has gone, or the voice has."""
        self._count(lambda: self._subscriptions.discard((client.id, channel.topic)))

    def _count(self, change: Callable[[], None]) -> None:
        was_watched = self.is_watched
        change()
        if self.is_watched != was_watched:
            self._on_watched(self.is_watched)

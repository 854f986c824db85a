"""What is published of voices and nodes in, a page out."""

from typing import Any, Optional

import numpy as np
from hri_msgs.msg import IdsList
from rclpy.subscription import Subscription

from ser_ros import SerError
from ser_ros.nodes import messages, parameters
from ser_ros.nodes.audio_messages import SOUND
from ser_ros.nodes.diagnostics import Level, Report
from ser_ros.nodes.managed_node import ManagedNode
from ser_ros.nodes.publishers import Topics, topics_of
from ser_ros.nodes.subscription_thread import SubscriptionThread
from ser_ros.nodes.subscriptions import stated_format
from ser_ros.nodes.viewed_nodes import Commands, ViewedDiagnostics, ViewedNode
from ser_ros.nodes.viewed_voices import SoundSource, ViewedVoice
from ser_ros.nodes.voices import TRACKED, is_voice_id, topic_of
from ser_ros.view import model
from ser_ros.view.foxglove import FoxgloveServer
from ser_ros.view.server import Server

OWN = ''
"""The lane of the one voice without ROS4HRI."""


def _offered(name: str) -> str:
    """The topic on which Foxglove gets a voice."""
    return 'audio' if name == OWN else topic_of(name, 'audio')


class ViewNode(ManagedNode):
    """Subscribes to topics, and serves what comes to browsers. To sound only while somebody looks."""

    def __init__(self, **kwargs: Any):
        super().__init__('view_node', parameters.VIEW, **kwargs)
        self._model: Optional[model.Model] = None
        self._server: Optional[Server] = None
        self._foxglove: Optional[FoxgloveServer] = None
        self._receiver: Optional[SubscriptionThread] = None
        self._voices: dict[str, ViewedVoice] = {}
        self._sources: dict[str, SoundSource] = {}
        self._nodes: list[ViewedNode] = []
        self._diagnostics_view: Optional[ViewedDiagnostics] = None
        self._commands: Optional[Commands] = None
        self._tracked: list[Subscription] = []
        self._watching = self.create_guard_condition(self._follow_viewers)

    @property
    def address(self) -> str:
        """Where the page is while the node is active, with its token."""
        return self._server.url if self._server is not None else ''

    # The life cycle.

    def setup(self) -> None:
        """See `ManagedNode`."""
        self._pcm_format = stated_format(self.value)
        token = self.value('token')
        if token and not (token.isascii() and token.replace('-', '').replace('_', '').isalnum()):
            raise SerError('token may have letters, digits, - and _ only')
        try:
            for name in ('audio_topic', 'info_topic'):
                self.resolve_topic_name(self.value(name))
            self._node_names = [
                self._full_name(self.value(name))
                for name in ('emotion_node', 'capture_node')
                if self.value(name)
            ]
            for full_name in self._node_names:
                self.resolve_service_name(f'{full_name}/get_state')
        except RuntimeError as error:  # of rcl
            raise SerError(str(error).partition(', at ')[0]) from error

    def _full_name(self, node_name: str) -> str:
        if node_name.startswith('/'):
            return node_name
        return f'{self.get_namespace().rstrip("/")}/{node_name}'

    def start(self) -> None:
        """See `ManagedNode`."""
        emotion_node = self.value('emotion_node')
        self._commands = Commands(self, self._full_name(emotion_node)) if emotion_node else None
        commands = self._commands.commands if self._commands is not None else {}
        self._model = model.Model(
            keep_audio=self.value('keep_audio'),
            nodes=[name.lstrip('/') for name in self._node_names],
            about={'commands': list(commands), 'title': self.get_namespace().strip('/')},
            recogniser=self._full_name(emotion_node).lstrip('/'),
        )
        self._server = Server(
            self._model,
            self.value('host'),
            self.value('port'),
            self.value('token'),
            commands,
            self.value('max_viewers'),
            on_watched=lambda _: self._watching.trigger(),
        )
        if self.value('foxglove_port'):
            self._foxglove = FoxgloveServer(
                self.value('host'),
                self.value('foxglove_port'),
                self.get_fully_qualified_name(),
                on_watched=lambda _: self._watching.trigger(),
            )
            self.get_logger().info(f'Foxglove finds the sound at {self._foxglove.address}')
        self._nodes = [ViewedNode(self, name, self._model) for name in self._node_names]
        self._diagnostics_view = ViewedDiagnostics(self, self._model)
        if self.value('ros4hri'):
            self._tracked = messages.subscribe_transient_local(
                self, IdsList, TRACKED, lambda message: self._set_voices(message.ids)
            )
        else:
            self._set_voices([OWN])
        self.get_logger().info(
            f'the page is at http://{self._server.host}:{self._server.port}; its token is printed'
        )
        # Not into the log, which is published and written to the disk.
        print(f'page: {self._server.url}', flush=True)

    def work(self) -> None:
        """See `ManagedNode`."""
        self._server.run()

    def stop(self) -> None:
        """See `ManagedNode`."""
        self._server.stop()

    def after_stop(self) -> None:
        """See `ManagedNode`."""
        for subscription in self._tracked:
            self.destroy_subscription(subscription)
        self._tracked = []
        self._set_voices([])
        self._close_sound()
        for part in (*self._nodes, self._diagnostics_view, self._commands):
            if part is not None:
                part.close()
        self._nodes, self._diagnostics_view, self._commands = [], None, None
        if self._foxglove is not None:
            self._foxglove.stop()
        self._foxglove = None
        if self._server is not None:
            self._server.close()
        self._server = self._model = None

    # Voices.

    def _set_voices(self, ids: list[str]) -> None:
        """Show these voices and no others."""
        names = [name for name in dict.fromkeys(ids) if name == OWN or is_voice_id(name)]
        names = names[: self.value('max_voices')]
        for name in [name for name in self._voices if name not in names]:
            self._voices.pop(name).close()
        for name in names:
            if name not in self._voices:
                topics = Topics() if name == OWN else topics_of(name)
                self._voices[name] = ViewedVoice(self, self._model, name, topics, self._add_sound)
        if self._model is not None:
            self._find_sound(names)

    def _find_sound(self, names: list[str]) -> None:
        """Subscribe to the sound of new voices, and anew where it has moved."""
        sources = {name: self._source_of(name, len(names) == 1) for name in names}
        self._model.set_lanes(
            {
                name: model.Topics(
                    self.resolve_topic_name(source.topic),
                    self.resolve_topic_name(source.info_topic) if source.info_topic else '',
                )
                for name, source in sources.items()
            }
        )
        self._sources = sources
        if self._foxglove is not None:
            self._foxglove.set_voices(
                {name: self.resolve_topic_name(_offered(name)) for name in names}
            )
        self._follow_viewers()

    def _source_of(self, name: str, is_only: bool) -> SoundSource:
        """Where the sound of a voice is: one that nobody else tracks has no topic of its own."""
        topic = topic_of(name, 'audio')
        # rclpy counts those of the very name, without remapping it.
        if name == OWN or (is_only and not self.count_publishers(self.resolve_topic_name(topic))):
            return SoundSource(
                topic=self.value('audio_topic'),
                is_stamped=self.value('stamped'),
                info_topic=self.value('info_topic') if SOUND.info is not None else None,
                pcm_format=self._pcm_format if self.value('sample_format') else None,
            )
        return SoundSource(topic=topic, is_stamped=SOUND.info is None, pcm_format=self._pcm_format)

    @property
    def _is_watched(self) -> bool:
        """Whether anybody wants sound, on the page or in Foxglove."""
        return any(
            server is not None and server.is_watched for server in (self._model, self._foxglove)
        )

    def _add_sound(self, name: str, samples: np.ndarray, stamp_ns: int) -> None:
        """Of a voice, in the thread that receives it."""
        self._model.add_sound(name, samples, stamp_ns)
        if self._foxglove is not None:
            self._foxglove.add_sound(name, samples, stamp_ns)

    def _follow_viewers(self) -> None:
        """Subscribe to sound where somebody looks, and no longer where nobody does."""
        if not self._is_watched:
            self._close_sound()
            return
        if self._receiver is None:
            self._receiver = SubscriptionThread(self, 'sound', self.end_work)
        for name, voice in self._voices.items():
            voice.follow_sound(self._receiver.node, self._sources[name])

    def _close_sound(self) -> None:
        for voice in self._voices.values():
            voice.close_sound()
        if self._receiver is not None:
            self._receiver.close()
            self._receiver = None

    # Diagnostics.

    def every_second(self) -> None:
        """See `ManagedNode`."""
        if not self._is_watched:
            return
        for node in self._nodes:
            node.ask()
        if self.value('ros4hri'):
            self._find_sound(list(self._voices))
        self._model.set_reasons({name: voice.reason for name, voice in self._voices.items()})

    def report(self) -> Report:
        """See `ManagedNode`."""
        if self._server is None:
            return Report(Level.OK, 'not active')
        server = self._server
        values = {
            'address': f'http://{server.host}:{server.port}',
            'viewers': server.n_viewers,
            'voices': ', '.join(self._voices) or 'none',
            'keeps sound': 'yes' if self.value('keep_audio') and self._model.is_watched else 'no',
        }
        if server.n_viewers and (missing := self._model.missing()):
            return Report(
                Level.WARN, f'the page shows that something is missing: {missing[0]}', values
            )
        return Report(Level.OK, f'serving {values["address"]}', values)

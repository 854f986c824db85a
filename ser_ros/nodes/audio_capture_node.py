"""A microphone or a sound file in, audio messages out."""

import array
import math
import threading
from typing import Any, Optional

from audio_common_msgs.msg import AudioData, AudioDataStamped, AudioInfo
from rclpy.qos import QoSProfile

from ser_ros import SerError
from ser_ros.audio.sources import Block, FileSource, Microphone, Source
from ser_ros.nodes import messages
from ser_ros.nodes.managed_node import ManagedNode, figures


class AudioCaptureNode(ManagedNode):
    """Publishes what a source delivers, as S16LE."""

    def __init__(self, **kwargs: Any):
        super().__init__('audio_capture_node', **kwargs)
        self.declare('source', 'microphone', 'microphone or file.')
        self.declare(
            'microphone', 'default', 'Index, part of the name, or default.', any_type=True
        )
        self.declare('sample_rate', 0, "Hz; 0 for the microphone's own.", (0, 768_000))
        self.declare('channels', 1, 'Channels; 0 for all the microphone has.', (0, 64))
        self.declare('block_duration', 0.02, 'Seconds of sound in a message.', (0.001, 1.0))
        self.declare('file', '', 'Sound file (WAV, FLAC, ...) to play when source is file.')
        self.declare('speed', 1.0, 'Speed of the file, times real time.', (0.01, 1000.0))
        self.declare('loop', False, 'Play the file again and again.')
        self.declare('trailing_silence', 1.0, 'Seconds of silence after the file.', (1.0, 60.0))
        self.declare('frame_id', 'microphone', 'Frame of the microphone.')
        self.declare('publish_unstamped', False, 'Publish AudioData on audio, too.')
        self._source: Optional[Source] = None
        self._has_ended = False
        self._stopping = threading.Event()

    def setup(self) -> None:
        """See `ManagedNode`."""
        messages.check_audio_messages()
        if self.value('source') not in ('microphone', 'file'):
            raise SerError(f'source {self.value("source")!r} is not microphone or file')
        self._source = self._make_source()
        self._frame_id = self.value('frame_id')
        # Two seconds of sound, so that a subscriber that stalls for less loses nothing here.
        depth = QoSProfile(depth=math.ceil(2.0 / self.value('block_duration')))
        self._stamped = self.make_output(AudioDataStamped, 'audio_stamped', depth)
        self._unstamped = (
            self.make_output(AudioData, 'audio', depth)
            if self.value('publish_unstamped')
            else None
        )
        self._info = self.make_output(AudioInfo, 'audio_info', messages.LATCHED)

    def _make_source(self) -> Source:
        if self.value('source') == 'file':
            return FileSource(
                self.value('file'),
                self.value('block_duration'),
                self.value('speed'),
                self.value('loop'),
                self.value('trailing_silence'),
            )
        return Microphone(
            str(self.value('microphone')),
            self.value('sample_rate'),
            self.value('channels'),
            self.value('block_duration'),
        )

    def start(self) -> None:
        """See `ManagedNode`."""
        if self.value('use_sim_time'):
            self.get_logger().warning('use_sim_time is set; sound is stamped with system time')
        self._has_ended = False
        self._stopping.clear()
        self._source.open()
        self.get_logger().info(f'capturing {self._source.description}')

    def stop(self) -> None:
        """See `ManagedNode`."""
        self._stopping.set()
        self._source.close()

    def teardown(self) -> None:
        """See `ManagedNode`."""
        self._source = None

    def work(self) -> None:
        """See `ManagedNode`."""
        self._info.publish(messages.to_audio_info(self._source.format))
        if self.value('source') == 'file':
            self._wait_for_listener()
        for block in self._source.blocks():
            self._publish(block)
        self._has_ended = not self._stopping.is_set()

    def _wait_for_listener(self) -> None:
        """A file's beginning would be lost while nobody has subscribed yet."""
        while not self._stamped.get_subscription_count() and not self._stopping.wait(0.05):
            self.get_logger().info('the file waits for a subscriber', once=True)
        # This side has matched; a best-effort subscriber may need a moment more.
        self._stopping.wait(0.2)

    def _publish(self, block: Block) -> None:
        audio = AudioData(data=array.array('B', block.data))
        header = messages.to_header(block.stamp_ns, self._frame_id)
        self._stamped.publish(AudioDataStamped(header=header, audio=audio))
        if self._unstamped is not None:
            self._unstamped.publish(audio)

    def diagnose(self) -> tuple[str, dict[str, Any]]:
        """See `ManagedNode`."""
        if self._source is None:
            return 'not active', {}
        values = {'source': self._source.description, 'format': self._source.format}
        return (
            'end of file' if self._has_ended else 'capturing' if self._worker else 'not active',
            {**values, **figures(self._source.counters)},
        )

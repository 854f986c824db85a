"""A microphone or a sound file in, audio messages out."""

import array
import math
import threading
from collections.abc import Callable
from typing import Any, Optional

from audio_common_msgs.msg import AudioData, AudioDataStamped, AudioInfo
from rclpy.qos import QoSProfile

from ser_ros import SerError
from ser_ros.audio.formats import PcmFormat
from ser_ros.audio.level import LevelMeter
from ser_ros.audio.microphone import Microphone, PortAudioHangError
from ser_ros.audio.sources import Block, FileSource, Source
from ser_ros.nodes import messages
from ser_ros.nodes.lately import Lately
from ser_ros.nodes.managed_node import ERROR, OK, WARN, ManagedNode, Report, figures

Hearer = Callable[[PcmFormat, Block, str], None]
"""Is given blocks with their format and frame id, in the worker's thread."""


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
        self.declare(
            'watchdog_timeout',
            1.0,
            'Seconds without sound, at least four blocks, until the microphone is looked for anew.',
            (0.2, 60.0),
        )
        self.declare('file', '', 'Sound file (WAV, FLAC, ...) to play when source is file.')
        self.declare('speed', 1.0, 'Speed of the file, times real time.', (0.01, 1000.0))
        self.declare('loop', False, 'Play the file again and again.')
        self.declare('trailing_silence', 1.0, 'Seconds of silence after the file.', (1.0, 60.0))
        self.declare('frame_id', 'microphone', 'Frame of the microphone.')
        self.declare(
            'publish_audio',
            True,
            'Publish the sound; false keeps it in the process, for an emotion node there.',
        )
        self.declare('publish_unstamped', False, 'Publish AudioData on audio, too.')
        self.hearer: Optional[Hearer] = None
        """Who hears the sound in this process where it is not published."""
        self._source: Optional[Source] = None
        self._has_ended = False
        self._stopping = threading.Event()

    def setup(self) -> None:
        """See `ManagedNode`."""
        messages.check_audio_messages()
        if self.value('source') not in ('microphone', 'file'):
            raise SerError(f'source {self.value("source")!r} is not microphone or file')
        if not self.value('publish_audio') and self.hearer is None:
            raise SerError(
                'publish_audio is false and nobody else is in this process to hear: start both '
                'nodes in one, with ros2 run ser_ros ser'
            )
        self._source = self._make_source()
        self._meter = LevelMeter(self._source.format.sample_rate)
        self._lately = Lately()
        self._lately.add({})
        self._frame_id = self.value('frame_id')
        self._stamped = self._unstamped = None
        if not self.value('publish_audio'):
            return
        # Two seconds of sound, so that a subscriber that stalls for less loses nothing here.
        depth = QoSProfile(depth=math.ceil(2.0 / self.value('block_duration')))
        self._stamped = self.make_output(AudioDataStamped, 'audio_stamped', depth)
        if self.value('publish_unstamped'):
            self._unstamped = self.make_output(AudioData, 'audio', depth)
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
            watchdog_timeout=self.value('watchdog_timeout'),
        )

    def start(self) -> None:
        """See `ManagedNode`."""
        if self.value('use_sim_time'):
            self.get_logger().warning('use_sim_time is set; sound is stamped with system time')
        self._has_ended = False
        self._stopping.clear()
        self._meter.reset()
        self._source.open()
        self.get_logger().info(f'capturing {self._source.description}')

    def look_around(self) -> None:
        """See `ManagedNode`; says the format again, lest somebody else's be believed."""
        if self._stamped is not None:
            self._info.publish(messages.to_audio_info(self._source.format))

    def stop(self) -> None:
        """See `ManagedNode`."""
        self._stopping.set()
        self._source.close()

    def teardown(self) -> None:
        """See `ManagedNode`."""
        self._source = None

    def is_beyond_repair(self, error: Exception) -> bool:
        """See `ManagedNode`."""
        return isinstance(error, PortAudioHangError)

    def work(self) -> None:
        """See `ManagedNode`."""
        self.look_around()
        if self._stamped is not None and self.value('source') == 'file':
            self._wait_for_listener()
        for block in self._source.blocks():
            self._meter.push(self._source.format.decode(block.data))
            self._publish(block)
        self._has_ended = not self._stopping.is_set()

    def _wait_for_listener(self) -> None:
        """A file's beginning would be lost while nobody has subscribed yet."""
        while not self._stamped.get_subscription_count() and not self._stopping.wait(0.05):
            self.get_logger().info('the file waits for a subscriber', once=True)
        # This side has matched; a best-effort subscriber may need a moment more.
        self._stopping.wait(0.2)

    def _publish(self, block: Block) -> None:
        if self._stamped is None:
            self.hearer(self._source.format, block, self._frame_id)
            return
        audio = AudioData(data=array.array('B', block.data))
        header = messages.to_header(block.stamp_ns, self._frame_id)
        self._stamped.publish(AudioDataStamped(header=header, audio=audio))
        if self._unstamped is not None:
            self._unstamped.publish(audio)

    def report(self) -> Report:
        """See `ManagedNode`."""
        counters = figures(self._source.counters)
        gained, seconds = self._lately.add(counters)
        lost = gained['overflows'] + gained['dropped blocks']
        values = {
            'source': self._source.description,
            'format': self._source.format,
            'level dB': round(self._meter.decibels, 1),
            'peak': round(self._meter.peak, 4),
            'waiting blocks': self._source.n_waiting,
            'blocks per second': round(gained['blocks'] / seconds, 1) if seconds else 0.0,
            **counters,
        }
        if trouble := self._source.trouble:
            return Report(ERROR, trouble, values)
        if self._has_ended:
            return Report(OK, 'end of file', values)
        if trouble := self.value('source') == 'microphone' and self._meter.trouble:
            return Report(WARN, trouble, values)
        if lost:
            told = f'sound was lost {lost:.0f} times in {seconds:.0f} s: the machine is too busy'
            return Report(WARN, told, values)
        return Report(OK, 'capturing', values)

"""A microphone or a sound file in, audio messages out."""

import math
import threading
from collections.abc import Callable
from typing import Any, Optional

from rclpy.qos import QoSProfile

from ser_ros import SerError
from ser_ros.audio import SECOND
from ser_ros.audio.channels import AVERAGE, ChannelMeter, averaging
from ser_ros.audio.formats import PcmFormat
from ser_ros.audio.level import LevelMeter
from ser_ros.audio.microphone import Microphone
from ser_ros.audio.sources import Block, FileSource, OneChannel, Source
from ser_ros.nodes import messages, parameters
from ser_ros.nodes.audio_messages import SOUND
from ser_ros.nodes.counter_window import CounterWindow
from ser_ros.nodes.diagnostics import (
    BEYOND_FULL_SCALE,
    CHOOSE_CHANNEL,
    Level,
    Report,
    counter_values,
)
from ser_ros.nodes.managed_node import ManagedNode

BlockReceiver = Callable[[PcmFormat, Block, str], None]
"""Called with blocks, their format and their frame id, in the worker's thread."""


class AudioCaptureNode(ManagedNode):
    """Publishes the sound of a source as S16LE."""

    def __init__(self, **kwargs: Any):
        super().__init__('audio_capture_node', parameters.CAPTURE, **kwargs)
        self.receiver: Optional[BlockReceiver] = None
        """Receives the sound in this process where it is not published."""
        self.on_end: Optional[Callable[[], None]] = None
        """Called in the worker's thread when that sound has ended."""
        self._source: Optional[Source] = None
        self._has_ended = False
        self._first_stamp_ns: Optional[int] = None
        self._awaited: Optional[str] = None
        """The topics on which the file waits for a subscriber, while it does."""
        self._stopping = threading.Event()

    def setup(self) -> None:
        """See `ManagedNode`."""
        if self.value('source') not in ('microphone', 'file'):
            raise SerError(f'source {self.value("source")!r} is not microphone or file')
        if not self.value('publish_audio') and self.receiver is None:
            raise SerError(
                'publish_audio is false and no emotion node is in this process: start both '
                'nodes in one, with ros2 run ser_ros ser'
            )
        self._source = self._make_source()
        self._meter = LevelMeter(self._source.format.sample_rate)
        self._channels = self._make_channel_meter()
        self._window = CounterWindow()
        self._window.add({})
        self._frame_id = self.value('frame_id')
        self._stamped = self._unstamped = self._info = None
        if not self.value('publish_audio'):
            return
        # Two seconds of sound, so that a subscriber that stalls for less loses nothing here.
        depth = QoSProfile(depth=math.ceil(2.0 / self.value('block_duration')))
        self._stamped = self.make_output(SOUND.stamped, 'audio_stamped', depth)
        if self.value('publish_unstamped'):
            self._unstamped = self.make_output(SOUND.unstamped, 'audio', depth)
        if SOUND.info is not None:
            self._info = self.make_output(SOUND.info, 'audio_info', messages.TRANSIENT_LOCAL)

    def _make_channel_meter(self) -> ChannelMeter:
        return ChannelMeter(self._source.format.channels, self._source.format.sample_rate)

    def _make_source(self) -> Source:
        channel, source = self.value('channel'), self._make_whole_source()
        return source if channel == AVERAGE else OneChannel(source, channel)

    def _make_whole_source(self) -> Source:
        if self.value('source') == 'file':
            return FileSource(
                self.value('file'),
                block_duration=self.value('block_duration'),
                speed=self.value('speed'),
                loop=self.value('loop'),
                trailing_silence=self.value('trailing_silence'),
                full_scale=self.value('full_scale'),
            )
        n_channels = self.value('channels')
        if self.value('channel') != AVERAGE and n_channels == 1:
            n_channels = 0  # of one, which may be an average already, none can be chosen
        return Microphone(
            str(self.value('microphone')),
            sample_rate=self.value('sample_rate'),
            channels=n_channels,
            block_duration=self.value('block_duration'),
            watchdog_timeout=self.value('watchdog_timeout'),
        )

    def start(self) -> None:
        """See `ManagedNode`."""
        if self.value('use_sim_time'):
            self.get_logger().warning('use_sim_time is set; sound is stamped with system time')
        self._has_ended = False
        self._first_stamp_ns = None
        self._warned_of: Optional[str] = None
        self._stopping.clear()
        self._meter.reset()
        self._channels = self._make_channel_meter()
        self._warn_of_source()
        self._source.open()
        self.get_logger().info(f'capturing {self._source.description}')
        if about := averaging(self._source.format.channels):
            self.get_logger().warning(f'{about}: {CHOOSE_CHANNEL}', once=True)

    def every_second(self) -> None:
        """See `ManagedNode`; publishes the format again, in case another node published one.

        After the end of a file an empty format says that no sound follows.
        """
        if self._info is not None:
            pcm_format = self._source.format
            self._info.publish(
                SOUND.info() if self._has_ended else messages.to_audio_info(pcm_format)
            )

    def stop(self) -> None:
        """See `ManagedNode`."""
        self._stopping.set()
        self._source.close()

    def teardown(self) -> None:
        """See `ManagedNode`."""
        self._source = None

    def work(self) -> None:
        """See `ManagedNode`."""
        self.every_second()
        if self._stamped is not None and self.value('source') == 'file':
            self._wait_for_subscriber()
        for block in self._source.blocks():
            frames = self._source.format.decode(block.data)
            self._meter.push(frames)
            self._channels.push(frames)
            self._publish(block)
        self._warn_of_source()
        if not self._stopping.is_set():
            self._end()

    def _end(self) -> None:
        """Say that the file has ended."""
        self.get_logger().info(f'end of {self._source.description}')
        self._has_ended = True
        self.every_second()
        if self._stamped is None and self.on_end is not None:
            self.on_end()

    def _warn_of_source(self) -> None:
        """What there is to know of it; some faults of a file show only when it was decoded."""
        warning = self._source.warning
        if warning and warning != self._warned_of:
            self._warned_of = warning
            self.get_logger().warning(warning)

    def _wait_for_subscriber(self) -> None:
        """Without one, of either topic of sound, the beginning of the file would be lost."""
        outputs = [output for output in (self._stamped, self._unstamped) if output is not None]
        self._awaited = ' or '.join(output.topic_name for output in outputs)
        while not any(output.get_subscription_count() for output in outputs):
            self.get_logger().info(
                f'the file waits for a subscriber of {self._awaited}', once=True
            )
            if self._stopping.wait(0.05):
                break
        self._awaited = None
        # This side has matched; the subscriber's side may need a moment more, about which nothing is
        # said here. On a loaded machine it needed 0.3 s.
        self._stopping.wait(0.5)

    def _publish(self, block: Block) -> None:
        if self._first_stamp_ns is None:
            self._first_stamp_ns = block.stamp_ns
        if self._stamped is None:
            self.receiver(self._source.format, block, self._frame_id)
            return
        audio = SOUND.pack(block.data, self._source.format)
        header = messages.to_header(block.stamp_ns, self._frame_id)
        self._stamped.publish(SOUND.stamped(header=header, audio=audio))
        if self._unstamped is not None:
            self._unstamped.publish(audio)

    def report(self) -> Report:
        """See `ManagedNode`."""
        counters = counter_values(self._source.counters)
        increase, seconds = self._window.add(counters)
        lost = increase['overflows'] + increase['dropped blocks']
        first_ns = self._first_stamp_ns
        values = {
            'source': self._source.description,
            'format': self._source.format,
            'first stamp': f'{first_ns / SECOND:.3f}' if first_ns is not None else 'none',
            'level dB': round(self._meter.decibels, 1),
            'peak': round(self._meter.peak, 4),
            'waiting blocks': self._source.n_waiting,
            'blocks per second': round(increase['blocks'] / seconds, 1) if seconds else 0.0,
            **counters,
        }
        if problem := self._source.problem:
            return Report(Level.ERROR, problem, values)
        if self._has_ended:
            return Report(Level.OK, 'end of file', values)
        if awaited := self._awaited:
            return Report(Level.OK, f'the file waits for a subscriber of {awaited}', values)
        if problem := self.value('source') == 'microphone' and self._meter.problem:
            return Report(Level.WARN, problem, values)
        if problem := self._channels.problem:
            return Report(Level.WARN, f'{problem}: {CHOOSE_CHANNEL}', values)
        if increase['samples beyond full scale']:
            return Report(Level.WARN, f'{self._source.description}: {BEYOND_FULL_SCALE}', values)
        if lost:
            message = (
                f'sound was lost {lost:.0f} times in {seconds:.0f} s: the machine is too busy'
            )
            return Report(Level.WARN, message, values)
        return Report(Level.OK, 'capturing', values)

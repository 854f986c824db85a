"""Blocks on their way from a subscription to the worker: a bounded backlog, then decoding."""

import dataclasses
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Optional

import numpy as np

from ser_ros.audio import SECOND
from ser_ros.audio.arrival_clock import ArrivalClock
from ser_ros.audio.channels import AVERAGE, ChannelError, check_channel
from ser_ros.audio.formats import AudioFormatError, PcmFormat
from ser_ros.audio.full_scale import FullScale
from ser_ros.audio.pace import Pace
from ser_ros.audio.stream import LossMeter, PcmStream

Part = tuple[np.ndarray, int]
"""Samples and the stamp of the first."""

UNKNOWN_BYTES_PER_SECOND = 48_000 * 2 * 4
"""Assumed for the backlog's bound before the format is known."""

BEHIND = 0.5
"""Share of `max_backlog` from which on a worker is behind."""


@dataclass
class BlockCounters:
    """What happened to the blocks so far."""

    blocks: int = 0
    empty_blocks: int = 0
    cut_blocks: int = 0
    """Ended in the middle of a frame; their whole frames were used."""
    refused_blocks: int = 0
    """Came in a format that cannot be decoded."""
    refused_formats: int = 0
    skipped_blocks: int = 0
    """Came while sound was ignored, or waited when the queue was cleared."""
    dropped_blocks: int = 0
    """Oldest blocks, dropped because more than `max_backlog` waited."""
    seconds: float = 0.0
    """Of sound in the blocks that no longer wait, where their format was known."""
    skipped_seconds: float = 0.0
    dropped_seconds: float = 0.0
    """Of these, in blocks that were skipped and dropped."""
    lost_seconds: float = 0.0
    """Missing between those blocks, by their stamps."""
    samples_beyond_full_scale: int = 0
    """Float samples that were clipped."""
    samples_not_numbers: int = 0
    """Float samples that were NaN, for which zero was used."""


@dataclass(frozen=True)
class DecodedBlock:
    """Float32 (n,) parts at 16 kHz with their stamps."""

    ended: list[Part]
    """What the resampler held back of the sound before, where this block does not continue it."""
    parts: list[Part]
    frame_id: str
    is_broken: bool
    """Blocks before this one were dropped, skipped or refused: the stream must restart."""


@dataclass(frozen=True)
class _Item:
    data: bytes
    stamp_ns: Optional[int]
    arrival_ns: int
    arrived: float
    """By the monotonic clock, in seconds."""
    frame_id: str
    format: Optional[PcmFormat]
    """At the time the block came; None when none was known yet."""
    is_broken: bool


@dataclass(frozen=True)
class _Time:
    """When a block was captured, and how long it is."""

    stamp_ns: int
    duration_ns: int
    continues: bool
    """Whether nothing is missing before it."""

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.duration_ns / SECOND


class BlockQueue:
    """Takes formats and blocks from callbacks, returns samples in order to one worker thread.

    The condition `ready` guards it and is notified when a block is available, or `gather` seconds
    are; several queues may share one.

    While no format is known, blocks wait; while the announced one cannot be decoded, or lacks the
    chosen channel, they are refused. When more than `max_backlog` seconds of sound wait, the oldest
    are dropped; a block that is longer than that itself does not count, so that it is not dropped on
    an idle machine.
    """

    def __init__(
        self,
        max_backlog: float = 5.0,
        gap_tolerance: float = 0.1,
        pcm_format: Optional[PcmFormat] = None,
        ready: Optional[threading.Condition] = None,
        clock: Callable[[], float] = time.monotonic,
        channel: int = AVERAGE,
        full_scale: float = 1.0,
    ):
        """`pcm_format`: used until another is announced; `clock`: one that always advances.

        `channel`: of the sound, or `AVERAGE`; `full_scale`: value of float samples that is full scale.
        """
        self.counters = BlockCounters()
        self._max_backlog = max_backlog
        self.gap_tolerance = gap_tolerance
        """Seconds; may be changed at any time."""
        self._format: Optional[PcmFormat] = None
        self._announced: Optional[tuple] = None
        self._channel = channel
        self._full_scale = FullScale(full_scale)
        self.refusal: Optional[str] = None
        """Why the announced format cannot be decoded, while it cannot."""
        self.has_ended = False
        """Whether no sound follows, until a format is announced."""
        self.gather = 0.0
        """Seconds of sound that must wait before `ready` is notified; set by the worker."""
        self._is_broken = False
        self._items: deque[_Item] = deque()
        self._n_bytes = 0
        self._longest: deque[int] = deque()
        """Bytes of those blocks that are longer than all after them: the first is the longest, which
        need not be searched for among thousands of short blocks."""
        self._stream: Optional[PcmStream] = None
        self._arrivals = ArrivalClock()
        self._losses = LossMeter()
        self._clock = clock
        self._last_block = clock()
        self.pace = Pace()
        """How the blocks come that `get` returns; for its thread."""
        self.ready = ready or threading.Condition()
        if pcm_format is not None:
            self.announce(*dataclasses.astuple(pcm_format))

    @property
    def n_channels(self) -> Optional[int]:
        """Of the announced format, decodable or not; None while there is none."""
        return self._announced[1] if self._announced else None

    @property
    def channel_problem(self) -> Optional[str]:
        """Why the channels should not be averaged, if they are: see `ChannelMeter`."""
        return self._stream.channel_problem if self._stream is not None else None

    def choose_channel(self, channel: int) -> None:
        """Use another channel, or the average; it starts a new stream. See also `refusal`."""
        with self.ready:
            self._channel = channel
            self._mark_broken()
            if self._announced is not None:
                self._use_format(self._announced)

    @property
    def format(self) -> Optional[PcmFormat]:
        """The current format; None while it is unknown or refused."""
        return self._format

    def seconds(self, data: bytes) -> float:
        """How long a block is that comes now; 0 while no format is known."""
        pcm_format = self._format
        return _duration_ns(data, pcm_format) / SECOND if pcm_format is not None else 0.0

    @property
    def seconds_without_block(self) -> float:
        """Since the last block came, or since the queue was created, by the monotonic clock."""
        return self._clock() - self._last_block

    @property
    def waits_for_format(self) -> bool:
        """Whether blocks have waited for a second because their format is unknown."""
        with self.ready:
            if self._format is not None or self.refusal or not self._items:
                return False
            return self._clock() - self._items[0].arrived >= 1.0

    @property
    def backlog_bytes(self) -> int:
        """Bytes that wait."""
        return self._n_bytes

    @property
    def is_behind(self) -> bool:
        """Whether so much waits that the worker should do less with it: see `BEHIND`."""
        with self.ready:
            return self._exceeds(BEHIND * self._max_backlog)

    def announce(
        self, sample_format: str, channels: int, sample_rate: int, coding_format: str
    ) -> None:
        """Set the format of the blocks that follow, as in AudioInfo; see `refusal`."""
        self.has_ended = False
        announced = (sample_format, channels, sample_rate, coding_format)
        with self.ready:
            if announced != self._announced:
                self._use_format(announced)

    def _use_format(self, announced: tuple) -> None:
        self._announced = announced
        try:
            self._format = PcmFormat(*announced)
            check_channel(self._channel, self._format.channels)
            self.refusal = None
        except (AudioFormatError, ChannelError) as error:
            self._format = None
            self.refusal = str(error)
            self.counters.refused_formats += 1
        self.ready.notify()

    def announce_end(self) -> None:
        """Say that no sound follows, as an AudioInfo without any value does; see `has_ended`."""
        self.has_ended = True

    def put(self, data: bytes, stamp_ns: Optional[int], arrival_ns: int, frame_id: str) -> None:
        """Queue a block; one without a stamp gets it from an `ArrivalClock`."""
        with self.ready:
            self._count_block()
            if self.refusal:
                self.counters.refused_blocks += 1
                self._is_broken = True
                return
            if not data:
                self.counters.empty_blocks += 1
                return
            self._items.append(
                _Item(
                    data=data,
                    stamp_ns=stamp_ns,
                    arrival_ns=arrival_ns,
                    arrived=self._last_block,
                    frame_id=frame_id,
                    format=self._format,
                    is_broken=self._is_broken,
                )
            )
            self._is_broken = False
            self._n_bytes += len(data)
            while self._longest and self._longest[-1] < len(data):
                self._longest.pop()
            self._longest.append(len(data))
            while self._exceeds(self._max_backlog):
                dropped = self._pop()
                self.counters.dropped_blocks += 1
                self.counters.dropped_seconds += self._account(dropped).seconds
                self._mark_broken()
            if self.has_gathered:
                self.ready.notify()

    def skip(self, data: bytes, stamp_ns: Optional[int], arrival_ns: int) -> None:
        """Count a block that is ignored; the next block starts a new stream."""
        with self.ready:
            self._count_block()
            self._skip(
                _Item(
                    data=data,
                    stamp_ns=stamp_ns,
                    arrival_ns=arrival_ns,
                    arrived=self._last_block,
                    frame_id='',
                    format=self._format,
                    is_broken=False,
                )
            )

    def clear(self, seconds: float = 0.0) -> None:
        """Remove all blocks; the next block starts a new stream. To be called where `get` is.

        `seconds`: of sound that `get` returned and that was not processed either.
        """
        self.end_stream()
        with self.ready:
            self.counters.skipped_seconds += seconds
            for item in self._items:
                self._skip(item)
            self._items.clear()
            self._longest.clear()
            self._n_bytes = 0
            self._is_broken = True

    def _count_block(self) -> None:
        self.counters.blocks += 1
        self._last_block = self._clock()

    def _skip(self, item: _Item) -> None:
        self.counters.skipped_blocks += 1
        self.counters.skipped_seconds += self._account(item).seconds
        self._is_broken = True

    def _account(self, item: _Item) -> _Time:
        """Count a block that no longer waits, and what is missing before it; return its time."""
        pcm_format = item.format or self._format
        if pcm_format is None or not (duration_ns := _duration_ns(item.data, pcm_format)):
            return _Time(0, 0, continues=False)
        if item.is_broken:
            self._arrivals.reset()
        if (stamp_ns := item.stamp_ns) is None:
            stamp_ns = self._arrivals.stamp(item.arrival_ns, duration_ns, self.gap_tolerance)
        else:
            self._arrivals.follow(stamp_ns, duration_ns, self.gap_tolerance)
        self.counters.lost_seconds += self._losses.advance(stamp_ns, duration_ns) / SECOND
        self.counters.seconds += duration_ns / SECOND
        return _Time(stamp_ns, duration_ns, self._arrivals.continues)

    @property
    def has_block(self) -> bool:
        """Whether `get` returns one."""
        return bool(self._items and (self._format or self.refusal))

    @property
    def has_gathered(self) -> bool:
        """Whether a block waits, and `gather` seconds of sound in all."""
        if not self.has_block:
            return False
        pcm_format = self._format
        if pcm_format is None:
            return True
        return (
            self._n_bytes >= round(self.gather * pcm_format.sample_rate) * pcm_format.frame_bytes
        )

    def get(self) -> Optional[DecodedBlock]:
        """The next block, decoded; None where there is none, or its format is not known yet."""
        with self.ready:
            if not self.has_block:
                return None
            item = self._pop()
            when = self._account(item)
            pcm_format, channel = item.format or self._format, self._channel
            if pcm_format is None or channel >= pcm_format.channels:
                pcm_format = None
                self.counters.refused_blocks += 1
                self._mark_broken()
        return self._decode(item, pcm_format, channel, when)

    def end_stream(self) -> list[Part]:
        """What the resampler holds back: nothing follows. To be called where `get` is."""
        # The stream stays, since it knows whether its channels can be averaged.
        return self._stream.flush() if self._stream is not None else []

    def _exceeds(self, seconds: float) -> bool:
        """Whether more waits than this, besides the longest block if that alone is more."""
        limit = seconds * UNKNOWN_BYTES_PER_SECOND
        if self._format is not None:
            limit = seconds * self._format.sample_rate * self._format.frame_bytes
        if self._n_bytes <= limit:
            return False
        longest = self._longest[0]
        return longest <= limit or self._n_bytes - longest > limit

    def _pop(self) -> _Item:
        """Remove the oldest block."""
        item = self._items.popleft()
        self._n_bytes -= len(item.data)
        if len(item.data) == self._longest[0]:
            self._longest.popleft()
        return item

    def _mark_broken(self) -> None:
        if self._items:
            self._items[0] = dataclasses.replace(self._items[0], is_broken=True)
        else:
            self._is_broken = True

    def _decode(
        self, item: _Item, pcm_format: Optional[PcmFormat], channel: int, when: _Time
    ) -> DecodedBlock:
        """Decode in the worker; no callback uses the attributes it changes."""
        ended, parts = [], []
        if pcm_format is not None:
            if len(item.data) % pcm_format.frame_bytes:
                self.counters.cut_blocks += 1
            is_same = self._stream is not None and self._stream.is_of(pcm_format, channel)
            if item.is_broken or not is_same:
                ended = self.end_stream()
            if not is_same:
                self._stream = PcmStream(pcm_format, channel=channel, full_scale=self._full_scale)
            self._stream.gap_tolerance = self.gap_tolerance
            if when.duration_ns:
                end_ns = None if item.stamp_ns is None else item.stamp_ns + when.duration_ns
                self.pace.add(item.arrived, end_ns, when.continues)
            before_gap, parts = self._stream.divide(item.data, when.stamp_ns)
            ended += before_gap
            self.counters.samples_beyond_full_scale = self._full_scale.beyond
            self.counters.samples_not_numbers = self._full_scale.not_numbers
        return DecodedBlock(ended, parts, item.frame_id, item.is_broken)


def _duration_ns(data: bytes, pcm_format: PcmFormat) -> int:
    """Of its whole frames."""
    return len(data) // pcm_format.frame_bytes * SECOND // pcm_format.sample_rate

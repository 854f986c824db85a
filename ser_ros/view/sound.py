"""The sound behind the page: decoded as it comes, kept for a while, cut out as a file."""

import io
import wave
from collections import deque
from collections.abc import Callable
from typing import Any, Optional

import numpy as np

from ser_ros.audio import SAMPLE_RATE, SECOND
from ser_ros.audio.block_queue import BlockQueue
from ser_ros.audio.formats import encode_s16le

MAX_PIECES = 100_000
"""Blocks that are kept, however short they are."""
MISSING_NS = SECOND // 2
"""Of the beginning of a stretch, which may be silence before it."""


class SoundRing:
    """The last seconds of one voice's sound, in memory."""

    def __init__(self, seconds: float):
        """`seconds`: how much is kept; 0 for nothing."""
        self._capacity = round(seconds * SAMPLE_RATE)
        self._pieces: deque[tuple[int, bytes]] = deque()
        """The stamp of each piece in nanoseconds, and its S16LE."""
        self._n_samples = 0

    def add(self, samples: np.ndarray, stamp_ns: int) -> None:
        """Add float32 (n,) samples at 16 kHz; `stamp_ns` is the time of the first."""
        if not self._capacity:
            return
        samples = samples[-self._capacity :]
        self._pieces.append((stamp_ns, encode_s16le(samples)))
        self._n_samples += len(samples)
        while self._n_samples > self._capacity or len(self._pieces) > MAX_PIECES:
            self._n_samples -= len(self._pieces.popleft()[1]) // 2

    def cut(self, start_ns: int, end_ns: int) -> Optional[bytes]:
        """The S16LE of a stretch of time; None where more than `MISSING_NS` of its beginning is gone."""
        if not self._pieces or self._pieces[0][0] > start_ns + MISSING_NS:
            return None
        found = bytearray()
        for stamp_ns, data in self._pieces:
            first = max(0, (start_ns - stamp_ns) * SAMPLE_RATE // SECOND)
            last = min(len(data) // 2, (end_ns - stamp_ns) * SAMPLE_RATE // SECOND)
            if first < last:
                found += data[2 * first : 2 * last]
        return bytes(found) or None

    def clear(self) -> None:
        """Forget all of it."""
        self._pieces.clear()
        self._n_samples = 0


def to_wav(data: bytes) -> bytes:
    """S16LE at 16 kHz as a WAV file."""
    file = io.BytesIO()
    with wave.open(file, 'wb') as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(SAMPLE_RATE)
        writer.writeframes(data)
    return file.getvalue()


class LiveQueue(BlockQueue):
    """Decodes each block in the thread that brings it, and hands the samples on."""

    def __init__(self, on_samples: Callable[[np.ndarray, int], None], **settings: Any):
        """`on_samples`: called with float32 (n,) samples at 16 kHz and the stamp of the first."""
        super().__init__(**settings)
        self._on_samples = on_samples

    def put(self, data: bytes, stamp_ns: Optional[int], arrival_ns: int, frame_id: str) -> None:
        """See `BlockQueue`."""
        super().put(data, stamp_ns, arrival_ns, frame_id)
        self._drain()

    def announce(
        self, sample_format: str, channels: int, sample_rate: int, coding_format: str
    ) -> None:
        """See `BlockQueue`; blocks may have waited for their format."""
        super().announce(sample_format, channels, sample_rate, coding_format)
        self._drain()

    def _drain(self) -> None:
        while (block := self.get()) is not None:
            for samples, stamp_ns in block.ended + block.parts:
                self._on_samples(samples, stamp_ns)

"""PCM in messages: the accepted formats, and bytes ↔ samples."""

from dataclasses import dataclass

import numpy as np

from ser_ros import SerError

SAMPLE_FORMATS = {'U8': 1, 'S16LE': 2, 'S24LE': 3, 'S32LE': 4, 'F32LE': 4}
"""GStreamer's names of the accepted sample formats → bytes a sample."""

RAW_CODINGS = ('', 'raw', 'pcm', 'wave', 'wav')
"""Values of AudioInfo.coding_format that mean plain PCM ("wave" is ros-drivers' word for it)."""

MAX_CHANNELS = 64
MIN_SAMPLE_RATE = 1_000
MAX_SAMPLE_RATE = 768_000


class AudioFormatError(SerError):
    """A stream that cannot be decoded; the message names its format."""


@dataclass(frozen=True)
class PcmFormat:
    """Interleaved PCM: a name of `SAMPLE_FORMATS` in any case, channels, Hz.

    Raises AudioFormatError for what cannot be decoded.
    """

    sample_format: str
    channels: int
    sample_rate: int
    coding_format: str = ''

    def __post_init__(self):
        stated = self.sample_format
        object.__setattr__(self, 'sample_format', stated.upper())
        if self.coding_format.lower() not in RAW_CODINGS:
            raise AudioFormatError(
                f'coding_format {self.coding_format!r} is not PCM; have the publisher send "wave"'
            )
        if self.sample_format not in SAMPLE_FORMATS:
            raise AudioFormatError(
                f'sample_format {stated!r} is not one of {", ".join(SAMPLE_FORMATS)}'
            )
        if not 1 <= self.channels <= MAX_CHANNELS:
            raise AudioFormatError(
                f'{self.channels} channels are not between 1 and {MAX_CHANNELS}'
            )
        if not MIN_SAMPLE_RATE <= self.sample_rate <= MAX_SAMPLE_RATE:
            raise AudioFormatError(
                f'{self.sample_rate} Hz is not between {MIN_SAMPLE_RATE} and {MAX_SAMPLE_RATE}'
            )

    def __str__(self) -> str:
        channels = 'mono' if self.channels == 1 else f'{self.channels} channels'
        return f'{self.sample_format}, {channels}, {self.sample_rate} Hz'

    @property
    def is_float(self) -> bool:
        """Whether samples may be beyond full scale."""
        return self.sample_format == 'F32LE'

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of every channel."""
        return SAMPLE_FORMATS[self.sample_format] * self.channels

    def decode(self, data: bytes) -> np.ndarray:
        """Bytes → float32 (frames, channels) in [-1, 1]; bytes after the last whole frame are left.

        Float samples beyond full scale are clipped and those that are not numbers become zero:
        one NaN would stay in the state of every filter behind.
        """
        frames = self.unpack(data)
        return sanitize(frames) if self.is_float else frames

    def unpack(self, data: bytes) -> np.ndarray:
        """As `decode`, with float samples as they came."""
        n_samples = len(data) // self.frame_bytes * self.channels
        return self._samples(data, n_samples).reshape(-1, self.channels)

    def _samples(self, data: bytes, n: int) -> np.ndarray:
        if self.sample_format == 'U8':
            return (np.frombuffer(data, np.uint8, n).astype(np.float32) - 128.0) / 128.0
        if self.sample_format == 'S16LE':
            return np.frombuffer(data, '<i2', n).astype(np.float32) / 2.0**15
        if self.sample_format == 'S24LE':
            wide = np.zeros((n, 4), np.uint8)
            wide[:, 1:] = np.frombuffer(data, np.uint8, 3 * n).reshape(n, 3)
            return wide.view('<i4')[:, 0].astype(np.float32) / 2.0**31
        if self.sample_format == 'S32LE':
            return np.frombuffer(data, '<i4', n).astype(np.float32) / 2.0**31
        return np.frombuffer(data, '<f4', n)


def sanitize(samples: np.ndarray) -> np.ndarray:
    """Float samples clipped to full scale, NaN as zero."""
    return np.clip(np.nan_to_num(samples, nan=0.0), -1.0, 1.0)


def encode_s16le(samples: np.ndarray) -> bytes:
    """Float samples in [-1, 1], of any shape, → S16LE bytes; what is louder is clipped."""
    return np.clip(np.rint(samples * 2.0**15), -(2**15), 2**15 - 1).astype('<i2').tobytes()

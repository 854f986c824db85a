"""Settings of the front-ends: what a bundle's metadata says of them, without torch."""

from dataclasses import dataclass, field
from typing import ClassVar, Union

from ser_ros import SerError


def _kind(name: str) -> str:
    """A constant field that identifies the front-end of a mapping of settings."""
    return field(default=name, init=False)


@dataclass(frozen=True)
class LogMelConfig:
    """Settings of `LogMel`; lengths in samples, frequencies in Hz.

    Raises SerError for settings that cannot work together.
    """

    is_streaming: ClassVar[bool] = True
    """Whether each frame depends on its own samples alone, see `Frontend`."""
    sample_rate: int = 16_000
    n_fft: int = 512
    win_length: int = 400
    hop_length: int = 160
    n_mels: int = 64
    f_min: float = 50.0
    f_max: float = 7_000.0
    """Below the transition band of any resampler to 16 kHz, so that the original rate has no effect."""
    floor_db: float = -100.0
    """Power below this, relative to a full-scale constant 1.0, is raised to it."""
    kind: str = _kind('log_mel')

    def __post_init__(self):
        _check_frames(self.sample_rate, self.hop_length, self.win_length, self.n_fft)
        if not 0 <= self.f_min < self.f_max <= self.sample_rate / 2:
            raise SerError('f_min, f_max and half of sample_rate must rise')
        _check_bands(self.n_mels, self.n_fft)


@dataclass(frozen=True)
class MfccConfig(LogMelConfig):
    """Settings of `Mfcc`: of its log-mel spectrogram, and of the coefficients computed from it."""

    n_mfcc: int = 20
    deltas: int = 2
    """0: coefficients alone; 1: with their slopes; 2: with the slopes' slopes as well."""
    kind: str = _kind('mfcc')

    def __post_init__(self):
        super().__post_init__()
        if not 1 <= self.n_mfcc <= self.n_mels:
            raise SerError(f'n_mfcc is {self.n_mfcc}, not between 1 and n_mels')
        if not 0 <= self.deltas <= 2:
            raise SerError(f'deltas is {self.deltas}, not 0, 1 or 2')


@dataclass(frozen=True)
class ResearchConfig:
    """Settings of `Research`; lengths in samples, `offset` and `duration` in seconds."""

    is_streaming: ClassVar[bool] = False
    sample_rate: int = 48_000
    offset: float = 0.5
    duration: float = 3.0
    """The part of each clip that is used begins at `offset` and is this long."""
    n_fft: int = 1024
    win_length: int = 512
    hop_length: int = 256
    n_mels: int = 128
    floor_db: float = -80.0
    """Decibels relative to the loudest of the clip's mel bins."""
    kind: str = _kind('research')

    def __post_init__(self):
        _check_frames(self.sample_rate, self.hop_length, self.win_length, self.n_fft)
        _check_bands(self.n_mels, self.n_fft)
        if not (0 <= self.offset <= 60 and 0 < self.duration <= 60):
            raise SerError('offset and duration must be within a minute')
        if self.floor_db >= 0:
            raise SerError(f'floor_db is {self.floor_db}, not below the maximum')


@dataclass(frozen=True)
class VggishConfig:
    """`Vggish` has no settings: its published weights need the published ones."""

    is_streaming: ClassVar[bool] = True
    sample_rate: ClassVar[int] = 16_000
    kind: str = _kind('vggish')


@dataclass(frozen=True)
class SpeechEncoderConfig:
    """Settings of `SpeechEncoder`; all others are those that its published weights need."""

    is_streaming: ClassVar[bool] = True
    sample_rate: ClassVar[int] = 16_000
    range_db: float = 60.0
    """What is further below the loudest bin of a clip is raised to this: digital silence is a mark of a
    recording, not of a voice."""
    kind: str = _kind('speech_encoder')

    def __post_init__(self):
        if self.range_db <= 0:
            raise SerError(f'range_db is {self.range_db}, not positive')


FrontendConfig = Union[
    LogMelConfig,
    MfccConfig,
    ResearchConfig,
    SpeechEncoderConfig,
    VggishConfig,
]


MAX_SAMPLE_RATE = 768_000
MAX_FFT = 2**16
MAX_MELS = 1_024
"""Bounds of what no tensor of a bundle belongs to, so that no table has more than 2**25 values."""


def _check_frames(sample_rate: int, hop_length: int, win_length: int, n_fft: int) -> None:
    if not 1 <= sample_rate <= MAX_SAMPLE_RATE:
        raise SerError(f'sample_rate is {sample_rate}, not from 1 to {MAX_SAMPLE_RATE}')
    if not 0 < hop_length <= win_length <= n_fft:
        raise SerError('hop_length, win_length and n_fft must be positive and rise')
    if n_fft > MAX_FFT:
        raise SerError(f'n_fft is {n_fft}, above {MAX_FFT}')


def _check_bands(n_mels: int, n_fft: int) -> None:
    if not 1 <= n_mels <= n_fft // 2:
        raise SerError(f'n_mels is {n_mels}, not from 1 to half of n_fft, {n_fft // 2}')
    if n_mels > MAX_MELS:
        raise SerError(f'n_mels is {n_mels}, above {MAX_MELS}')

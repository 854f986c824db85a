"""Front-ends: waveform → log-mel spectrogram, standardised per mel band."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

import torch
from torch import Tensor, nn
from torchaudio.transforms import MelSpectrogram

from ser_ros import SerError


@dataclass(frozen=True)
class LogMelConfig:
    """Settings of `LogMel`; lengths in samples, frequencies in Hz.

    Raises SerError for settings that cannot work together.
    """

    sample_rate: int = 16_000
    n_fft: int = 512
    win_length: int = 400
    hop_length: int = 160
    n_mels: int = 64
    f_min: float = 50.0
    f_max: float = 7_000.0
    """Below the transition band of any resampler to 16 kHz, so that a rate leaves no trace."""
    floor_db: float = -100.0
    """Power below this, relative to a full-scale constant 1.0, is raised to it."""

    def __post_init__(self):
        if not 0 < self.hop_length <= self.win_length <= self.n_fft:
            raise SerError('hop_length, win_length and n_fft must be positive and rise')
        if not 0 <= self.f_min < self.f_max <= self.sample_rate / 2:
            raise SerError('f_min, f_max and half of sample_rate must rise')
        if self.n_mels < 1:
            raise SerError(f'n_mels is {self.n_mels}, not 1 or more')


class LogMel(nn.Module):
    """Mel power spectrogram (Hann window, Slaney scale and norm) in decibels.

    The reference is fixed, so that silence stays quiet whatever it stands beside, and frames are
    not padded: frame t needs samples t·hop_length to t·hop_length + n_fft and no others, which is
    what lets a stream compute only its new frames.
    """

    def __init__(
        self,
        config: LogMelConfig,
        mean: Optional[Sequence[float]] = None,
        std: Optional[Sequence[float]] = None,
    ):
        """`mean` and `std`: n_mels decibel statistics of the training part (default: none)."""
        super().__init__()
        self.config = config
        self.mel = MelSpectrogram(
            sample_rate=config.sample_rate,
            n_fft=config.n_fft,
            win_length=config.win_length,
            hop_length=config.hop_length,
            f_min=config.f_min,
            f_max=config.f_max,
            n_mels=config.n_mels,
            power=2.0,
            center=False,
            norm='slaney',
            mel_scale='slaney',
        )
        mean = [0.0] * config.n_mels if mean is None else mean
        std = [1.0] * config.n_mels if std is None else std
        self.register_buffer('mean', torch.tensor(mean, dtype=torch.float32)[:, None])
        self.register_buffer('std', torch.tensor(std, dtype=torch.float32)[:, None])

    def n_frames(self, n_samples: int) -> int:
        """Whole frames in `n_samples` samples."""
        return max(0, (n_samples - self.config.n_fft) // self.config.hop_length + 1)

    def decibels(self, waveform: Tensor) -> Tensor:
        """(..., samples) → (..., n_mels, frames) in dB, before standardisation."""
        power = self.mel(waveform)
        return 10.0 * power.clamp(min=10.0 ** (self.config.floor_db / 10.0)).log10()

    def forward(self, waveform: Tensor) -> Tensor:
        """(..., samples) at `sample_rate` → (..., n_mels, frames), zero mean and unit variance."""
        return (self.decibels(waveform) - self.mean) / self.std

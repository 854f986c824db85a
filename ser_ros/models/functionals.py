"""Utterance functionals and a linear classifier: what the field used before deep networks."""

from typing import Optional

import torch
from torch import Tensor, nn

from ser_ros.models.blocks import frame_mask, prepare
from ser_ros.models.parallel_pitch_cnn import N_PITCH_ROWS

N_CEPSTRA, N_DELTAS, N_VOICED = 20, 13, 10
MODULATIONS = ((0.02, 0.08), (0.08, 0.16), (0.16, 0.32), (0.32, 0.5))
"""Bands of the level's modulation, in cycles a frame: 0.5 to 12.5 Hz with 40 ms frames."""
N_MODULATION = 64
"""Frames of the level's spectrum."""


class Functionals(nn.Module):
    """Means, deviations and slopes of spectrum, pitch and level, and a linear classifier.

    Such functionals (Eyben et al., 2016, eGeMAPS) depend less on a corpus than what a network
    learns. In a prototype similar ones were as accurate as a CNN on corpora that neither was trained
    on, and both together were better than either. For `LogMelPitch`, whose last two features are
    pitch and voicing.
    """

    min_frames = 4

    def __init__(
        self, n_features: int, n_classes: int, active_range: float = 2.0, dropout: float = 0.1
    ):
        """`active_range`: frames count that are at most so many deviations below the loudest."""
        super().__init__()
        n_mels = n_features - N_PITCH_ROWS
        if n_mels < 2:
            raise ValueError(f'{n_features} features are not mel bands, pitch and voicing')
        self.active_range = active_range
        row = torch.arange(n_mels)
        order = torch.arange(1, min(N_CEPSTRA + 1, n_mels))[:, None]
        cosines = (2 / n_mels) ** 0.5 * torch.cos(torch.pi / n_mels * (row + 0.5) * order)
        self.register_buffer('cosines', cosines, persistent=False)
        frequency = torch.arange(1, N_MODULATION // 2) / N_MODULATION
        angle = 2 * torch.pi * frequency[:, None] * torch.arange(N_MODULATION)
        self.register_buffer('waves', torch.stack((angle.cos(), angle.sin())), persistent=False)
        bands = torch.stack([(frequency >= low) & (frequency < high) for low, high in MODULATIONS])
        bands = bands / bands.sum(dim=1, keepdim=True)
        self.register_buffer('bands', bands, persistent=False)
        n_cepstra = 2 * len(order) + min(N_DELTAS, len(order)) + min(N_VOICED, len(order))
        n_functionals = n_cepstra + 9 + 8 + len(MODULATIONS)
        self.norm = nn.BatchNorm1d(n_functionals, affine=False)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(n_functionals, n_classes)

    def forward(self, x: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """(batch, n_features, frames ≥ 4), true lengths (batch,) → logits (batch, n_classes)."""
        x, lengths = prepare(x, lengths, self.min_frames, level_invariant=False)
        # Differences of sums need all digits.
        with torch.autocast(x.device.type, enabled=False):
            functionals = self.functionals(x.float(), lengths)
        return self.classifier(self.dropout(self.norm(functionals)))

    def functionals(self, x: Tensor, lengths: Tensor) -> Tensor:
        """(batch, n_features, frames), true lengths (batch,) → (batch, n_functionals)."""
        real = frame_mask(lengths, x.shape[-1]).float()
        mels, pitch, voicing = x[:, :-N_PITCH_ROWS], x[:, -2], x[:, -1].clamp(0.0, 1.0)
        level = mels.mean(dim=1)
        loudest = level.masked_fill(real == 0, -torch.inf).amax(dim=1, keepdim=True)
        active = real * (level > loudest - self.active_range)
        cepstra = self.cosines @ mels
        both = real[:, 1:] * real[:, :-1]
        slopes = cepstra[:, :N_DELTAS, 1:] - cepstra[:, :N_DELTAS, :-1]
        parts = [
            *_moments(cepstra, active[:, None]),
            _moments(slopes, both[:, None])[1],
            _moments(cepstra[:, :N_VOICED], (active * voicing)[:, None])[0],
            self._of_pitch(pitch, voicing, level, real),
            self._of_level(level, voicing, active, real),
            self._modulation(level, real),
        ]
        return torch.cat(parts, dim=1)

    def _of_pitch(self, pitch: Tensor, voicing: Tensor, level: Tensor, real: Tensor) -> Tensor:
        """(batch, frames) each → (batch, 9); frames count by their voicing."""
        # The front-end multiplied pitch by voicing.
        pitch = pitch / voicing.clamp(min=1e-3)
        mean, deviation = _moments(pitch, voicing)
        time = _time(real)
        centred = (time - _moments(time, voicing)[0]) * voicing
        slope = (centred * pitch).sum(1, keepdim=True) / (centred * time).sum(
            1, keepdim=True
        ).clamp(min=0.5)
        step = pitch[:, 1:] - pitch[:, :-1]
        both = torch.minimum(voicing[:, 1:], voicing[:, :-1]) * (step.abs() < 1.0)
        start, _ = _moments(pitch, voicing * (time < -0.5))
        end, _ = _moments(pitch, voicing * (time > 0.5))
        joint = ((pitch - mean) * (level - _moments(level, voicing)[0]) * voicing).sum(
            1, keepdim=True
        ) / voicing.sum(1, keepdim=True).clamp(min=1.0)
        steps = torch.cat((_moments(step.abs(), both)[0], _moments(step, both)[1]), dim=1)
        voiced = _moments(voicing, real)
        return torch.cat(
            (mean, deviation, slope, steps, start - mean, end - mean, joint, voiced[1]), dim=1
        )

    def _of_level(self, level: Tensor, voicing: Tensor, active: Tensor, real: Tensor) -> Tensor:
        """(batch, frames) each → (batch, 8)."""
        step = (level[:, 1:] - level[:, :-1]).abs()
        time = _time(real)
        first, second = (
            _moments(level, real * half)[0] for half in ((time < 0).float(), (time >= 0).float())
        )
        change = (voicing[:, 1:] - voicing[:, :-1]).abs()
        both = real[:, 1:] * real[:, :-1]
        parts = (
            *_moments(level, active),
            _moments(step, both)[0],
            first - second,
            _moments(voicing, active)[0],
            _moments(active, real)[0],
            _moments(change, both)[0],
            real.sum(1, keepdim=True).log(),
        )
        return torch.cat(parts, dim=1)

    def _modulation(self, level: Tensor, real: Tensor) -> Tensor:
        """(batch, frames) each → (batch, bands), the logarithm of the level's power in each."""
        level = (level - _moments(level, real)[0]) * real
        # One period for each frame: a longer clip is folded, so that any length has one spectrum.
        n = level.shape[-1]
        folded = torch.arange(n, device=level.device) % N_MODULATION
        parts = level @ self.waves[:, :, folded].mT
        power = parts.square().sum(dim=0) / real.sum(1, keepdim=True)
        return (power @ self.bands.T + 1e-3).log()


def _moments(values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted mean and deviation over time: (..., frames) → (..., 1), or (..., rows) for rows.

    0 and almost 0 where nothing has weight.
    """
    count = weights.sum(dim=-1, keepdim=True).clamp(min=1e-2)
    mean = (values * weights).sum(dim=-1, keepdim=True) / count
    variance = ((values - mean).square() * weights).sum(dim=-1, keepdim=True) / count
    deviation = (variance + 1e-6).sqrt()
    return (mean[..., 0], deviation[..., 0]) if values.dim() == 3 else (mean, deviation)


def _time(real: Tensor) -> Tensor:
    """(batch, frames) from -1 in the first to 1 in the last true frame."""
    position = torch.arange(real.shape[-1], device=real.device)
    return 2 * position / (real.sum(1, keepdim=True) - 1).clamp(min=1) - 1

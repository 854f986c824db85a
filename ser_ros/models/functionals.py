"""Utterance functionals and a small classifier: what the field used before deep networks."""

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
N_CORRELATED, N_CORRELATED_DELTAS, N_CORRELATED_WITH = 10, 8, 4
"""Cepstra whose correlations are functionals: in a frame, of differences, and of what they differ from."""


class Functionals(nn.Module):
    """Means, deviations, slopes and correlations of spectrum, pitch and level, and a perceptron.

    Such functionals (Eyben et al., 2016, eGeMAPS) depend less on a corpus than what a network
    learns. In a prototype, on corpora that it was not trained on, the perceptron was as accurate as a
    CNN: docs/RESULTS.md, "What was tried". For `LogMelPitch`, whose last two features are pitch and
    voicing.
    """

    min_frames = 4

    def __init__(
        self,
        n_features: int,
        n_classes: int,
        active_range: float = 2.0,
        dropout: float = 0.1,
        width: int = 256,
        hidden_dropout: float = 0.5,
    ):
        """`active_range`: frames count that are at most so many deviations below the loudest.

        `width`: of the hidden layer.
        """
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
        n_rows = min(N_CORRELATED, len(order)) + 3
        n_deltas = min(N_CORRELATED_DELTAS, len(order)) + min(N_CORRELATED_WITH, len(order)) + 2
        n_correlations = (n_rows * (n_rows - 1) + n_deltas * (n_deltas - 1)) // 2
        n_functionals = (
            n_cepstra + 9 + 8 + len(MODULATIONS) + n_correlations + min(N_DELTAS, len(order))
        )
        self.norm = nn.BatchNorm1d(n_functionals, affine=False)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Sequential(
            nn.Linear(n_functionals, width, bias=False),  # the norm has one
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Dropout(hidden_dropout),
            nn.Linear(width, n_classes),
        )

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
            _moments(slopes.abs(), both[:, None])[0],
            _correlations(
                torch.cat(
                    (cepstra[:, :N_CORRELATED], level[:, None], x[:, -N_PITCH_ROWS:]), dim=1
                ),
                active,
            ),
            _correlations(
                torch.cat(
                    (
                        slopes[:, :N_CORRELATED_DELTAS],
                        (level[:, 1:] - level[:, :-1])[:, None],
                        cepstra[:, :N_CORRELATED_WITH, 1:],
                        level[:, None, 1:],
                    ),
                    dim=1,
                ),
                both,
            ),
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


def _correlations(values: Tensor, weights: Tensor) -> Tensor:
    """(batch, rows, frames), weights (batch, frames) → (batch, rows (rows - 1) / 2).

    0 where a row does not vary.
    """
    n, count = values.shape[1], weights.sum(dim=1).clamp(min=1.0)[:, None, None]
    weights = weights[:, None]
    centred = (values - (values * weights).sum(dim=-1, keepdim=True) / count) * weights.sqrt()
    products = centred @ centred.mT / count
    deviations = products.diagonal(dim1=1, dim2=2).clamp(min=1e-3).sqrt()
    first, second = torch.triu_indices(n, n, 1)
    return products[:, first, second] / (deviations[:, first] * deviations[:, second])


def _time(real: Tensor) -> Tensor:
    """(batch, frames) from -1 in the first to 1 in the last true frame."""
    position = torch.arange(real.shape[-1], device=real.device)
    return 2 * position / (real.sum(1, keepdim=True) - 1).clamp(min=1) - 1

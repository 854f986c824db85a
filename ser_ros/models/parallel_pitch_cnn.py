"""A CNN over the mel bands parallel to one over pitch and voicing; small enough for any robot."""

from collections.abc import Sequence
from typing import Optional

import torch
from torch import Tensor, nn

from ser_ros.models.blocks import AttentionPool, ConvStack, frame_mask, prepare

N_PITCH_ROWS = 2
"""Rows of pitch and voicing, after the mel bands: see `features.LogMelPitch`."""


class ParallelPitchCnn(nn.Module):
    """Conv blocks over the mel bands, parallel to convolutions over pitch and voicing.

    Both have one step every four frames and are added. Attention, mean and deviation over time
    (statistics pooling, Snyder et al., 2018) go into a linear classifier. For `LogMelPitch`, whose
    last two features are pitch and voicing. In a prototype, on corpora that it was not trained on,
    neither a transformer layer, nor twice the width, nor domain-adversarial training changed the
    accuracy by more than another seed does: docs/RESULTS.md, "What was tried".
    """

    min_frames = 4

    def __init__(
        self,
        n_features: int,
        n_classes: int,
        channels: Sequence[int] = (16, 32, 48, 64),
        pools: Sequence[Sequence[int]] = ((4, 1), (2, 2), (2, 1), (2, 2)),
        kernel_sizes: Sequence[int] = (5, 3, 3, 3),
        width: int = 128,
        pitch_channels: int = 16,
        dropout: float = 0.3,
    ):
        """`pools`: (features, frames) of each conv block.

        ValueError for sizes that do not fit together.
        """
        super().__init__()
        if n_features <= N_PITCH_ROWS:
            raise ValueError(f'{n_features} features are not mel bands, pitch and voicing')
        self.stack = ConvStack(
            channels, pools, nn.Identity(), kernel_sizes, shortest=self.min_frames
        )
        n_rows, self.stride = n_features - N_PITCH_ROWS, 1
        for pool in pools:
            n_rows, self.stride = max(1, n_rows // pool[0]), self.stride * pool[1]
        if self.stride > self.min_frames:
            raise ValueError(f'pools reduce {self.stride} frames to one step, at most 4 can be')
        self.join = nn.Linear(n_rows * channels[-1], width)
        self.pitch = nn.Sequential(
            nn.Conv1d(N_PITCH_ROWS, pitch_channels, 5, padding=2),
            nn.ReLU(),
            nn.Conv1d(pitch_channels, width, 5, padding=2),
        )
        self.norm = nn.LayerNorm(width)
        self.attention = AttentionPool(width)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(3 * width, n_classes)

    def forward(self, x: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """(batch, n_features, frames ≥ 4), true lengths (batch,) → logits (batch, n_classes)."""
        x, lengths = prepare(x, lengths, self.min_frames, level_invariant=False)
        maps, steps = self.stack(x[:, :-N_PITCH_ROWS], lengths)
        # Convolutions over pitch reach into the padding, which must stay zero.
        pitch = x[:, -N_PITCH_ROWS:]
        for layer in self.pitch:
            pitch = layer(pitch) * frame_mask(lengths, x.shape[-1])[:, None]
        n_steps = maps.shape[-1]
        pitch = nn.functional.pad(pitch, (0, n_steps * self.stride - pitch.shape[-1]))
        pitch = pitch.unflatten(-1, (n_steps, self.stride)).mean(dim=-1)
        real = frame_mask(steps, n_steps)
        h = self.join(maps.flatten(1, 2).transpose(1, 2)) + pitch.transpose(1, 2)
        h = self.norm(h.relu())
        summary, _ = self.attention(h, real)
        mean, deviation = _mean_and_deviation(h, real)
        return self.classifier(self.dropout(torch.cat((summary, mean, deviation), dim=1)))


def _mean_and_deviation(h: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """(batch, n, width), real (batch, n) → two times (batch, width), over the true steps."""
    real = real[..., None].to(h.dtype)
    count = real.sum(dim=1)
    mean = (h * real).sum(dim=1) / count
    variance = ((h - mean[:, None]).square() * real).sum(dim=1) / count
    return mean, (variance + 1e-4).sqrt()

"""Layers that several architectures share; all of them keep padding out of the result."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def frame_mask(lengths: Tensor, n_frames: int) -> Tensor:
    """True (batch, n_frames) where a frame is real, from true lengths (batch,)."""
    return torch.arange(n_frames, device=lengths.device) < lengths[:, None]


def pooled(lengths: Tensor, kernel: int) -> Tensor:
    """Lengths (batch,) after pooling by `kernel`, which is clipped to a shorter clip's length."""
    return (lengths // kernel).clamp(min=1)


def remove_level(x: Tensor, lengths: Tensor) -> Tensor:
    """Subtract from (batch, n_mels, frames) each clip's mean over its true frames.

    In decibels a gain is an offset: a voice sounds the same near and far. Contrast is kept, so
    that silence stays flat instead of becoming the loudest thing there is.
    """
    real = frame_mask(lengths, x.shape[-1])[:, None]
    level = (x * real).sum(dim=(1, 2)) / (lengths * x.shape[1])
    return (x - level[:, None, None]) * real


def clipped_max_pool(x: Tensor, kernel: Sequence[int]) -> Tensor:
    """Max-pool (..., height, width) by `kernel`, each side clipped to the axis it meets."""
    size = tuple(min(k, n) for k, n in zip(kernel, x.shape[-2:]))
    return nn.functional.max_pool2d(x, size)


class ConvBlock(nn.Module):
    """Conv 3×3 → batch norm → ReLU → max-pool → dropout, on (batch, channels, mels, frames)."""

    def __init__(self, in_channels: int, out_channels: int, pool: int, dropout: float):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(out_channels)
        self.pool = pool
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pooled map, zero beyond each clip's length, and the pooled lengths."""
        x = self.norm(self.conv(x)).relu()
        # ReLU leaves nothing below zero, so that zeroed padding never wins a maximum.
        x = x * frame_mask(lengths, x.shape[-1])[:, None, None]
        lengths = pooled(lengths, self.pool)
        x = clipped_max_pool(x, (self.pool, self.pool))
        x = x * frame_mask(lengths, x.shape[-1])[:, None, None]
        return self.dropout(x), lengths


class ConvStack(nn.Module):
    """Conv blocks, then the average of each of four equal parts of the time axis, flattened.

    On the research shape (128 mels × 563 frames) four columns are left and the average changes
    nothing; on any other it makes the width independent of the clip's length.
    """

    COLUMNS = 4

    def __init__(self, channels: Sequence[int], pools: Sequence[int], dropout: float):
        super().__init__()
        self.blocks = nn.ModuleList(
            ConvBlock(n_in, n_out, pool, dropout)
            for n_in, n_out, pool in zip((1, *channels), channels, pools)
        )
        self.out_features = channels[-1] * self.COLUMNS

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """(batch, n_mels, frames), lengths (batch,) → (batch, out_features)."""
        x = x[:, None]
        for block in self.blocks:
            x, lengths = block(x, lengths)
        return (x.mean(dim=2) @ self._column_weights(lengths, x.shape[-1])).flatten(1)

    def _column_weights(self, lengths: Tensor, n_frames: int) -> Tensor:
        """(batch, n_frames, COLUMNS) weights of adaptive average pooling over each true length."""
        column = torch.arange(self.COLUMNS, device=lengths.device)
        start = column * lengths[:, None] // self.COLUMNS
        end = -(-(column + 1) * lengths[:, None] // self.COLUMNS)
        frame = torch.arange(n_frames, device=lengths.device)[None, :, None]
        inside = (frame >= start[:, None]) & (frame < end[:, None])
        return inside / (end - start)[:, None]

"""A CNN parallel to an LSTM with attention (the research's system of that name)."""

from typing import Optional

import torch
from torch import Tensor, nn

from ser_ros.models.blocks import (
    MIN_FRAMES,
    AttentionPool,
    BiLstm,
    CnnBranch,
    clipped_max_pool,
    frame_mask,
    pooled,
    prepare,
    width_projection,
)


class ParallelCnnAttentionLstm(nn.Module):
    """CNN branch parallel to a BiLSTM with attention over max-pooled frames, concatenated.

    CNN: four conv blocks 1→16→32→64→64, pooled by 2, 4, 4, 4, averaged in four equal parts of
    the time → 256. LSTM: max-pool 2×4, both ways 64→128, attention over time → 256. With 128
    mels it has the research's 263,593 parameters for eight classes; with another number a linear
    layer brings the pooled mels to the LSTM's width.
    """

    WIDTH = 64
    LSTM_WIDTH = 128
    POOL = (2, 4)
    min_frames = MIN_FRAMES

    def __init__(
        self,
        n_features: int,
        n_classes: int,
        conv_dropout: float = 0.3,
        lstm_dropout: float = 0.1,
        level_invariant: bool = True,
    ):
        """`level_invariant`: take the mean level out of each window first."""
        super().__init__()
        self.level_invariant = level_invariant
        self.cnn = CnnBranch((16, 32, 64, 64), (2, 4, 4, 4), conv_dropout, grid=(1, 4))
        self.project = width_projection(n_features // self.POOL[0], self.WIDTH)
        self.lstm = BiLstm(self.WIDTH, self.LSTM_WIDTH)
        self.dropout = nn.Dropout(lstm_dropout)
        self.attention = AttentionPool(2 * self.LSTM_WIDTH)
        self.classifier = nn.Linear(self.cnn.out_features + 2 * self.LSTM_WIDTH, n_classes)

    def forward(self, x: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """(batch, n_features, frames ≥ 16), true lengths (batch,) → logits (batch, n_classes)."""
        x, lengths = prepare(x, lengths, self.min_frames, self.level_invariant)
        return self.classifier(torch.cat((self.cnn(x, lengths), self._encode(x, lengths)), dim=1))

    def _encode(self, x: Tensor, lengths: Tensor) -> Tensor:
        """(batch, n_features, frames) → (batch, 2 · LSTM_WIDTH), attended over true steps."""
        # A pooled step counts only if all of its frames are real.
        steps = clipped_max_pool(x, self.POOL)
        lengths = pooled(lengths, self.POOL[1])
        real = frame_mask(lengths, steps.shape[-1])
        steps = self.dropout(self.lstm(self.project(steps.transpose(1, 2)), lengths))
        return self.attention(steps, real)[0]

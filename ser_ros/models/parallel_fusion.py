"""Parallel CNN branches, and a transformer and an attention-LSTM over the output of both."""

from collections.abc import Sequence
from typing import Optional

import torch
from torch import Tensor, nn

from ser_ros.models.blocks import (
    MIN_FRAMES,
    AttentionPool,
    BiLstm,
    ConvStack,
    frame_mask,
    prepare,
)


class ParallelFusion(nn.Module):
    """3×3 and 5×5 CNN branches, a transformer and a BiLSTM over both, attention over time.

    The columns of the branches, side by side, become one sequence of width `width`. The sequence
    itself, a pre-norm transformer over it and a BiLSTM over it are each pooled by attention over
    time and concatenated into a linear classifier. Branches drop whole channels (Tompson et al.,
    2015). The research announced this fusion; the sizes are this project's.
    """

    min_frames = MIN_FRAMES

    def __init__(
        self,
        n_features: int,
        n_classes: int,
        channels_3x3: Sequence[int] = (24, 48, 96, 128),
        channels_5x5: Sequence[int] = (16, 24, 48, 64),
        pools: Sequence[Sequence[int]] = ((2, 2), (2, 2), (2, 1), (2, 1)),
        width: int = 160,
        encoder_layers: int = 2,
        heads: int = 4,
        feedforward: int = 320,
        lstm_width: int = 64,
        conv_dropout: float = 0.1,
        encoder_dropout: float = 0.1,
        classifier_dropout: float = 0.3,
        level_invariant: bool = True,
    ):
        """`pools`: (features, frames) of each conv block, the same in both branches.

        For ablation, () for a branch's channels, 0 `encoder_layers` or an `lstm_width` of 0
        leave that part out. `level_invariant`: take the mean level out of each window first.
        ValueError for sizes that do not fit together.
        """
        super().__init__()
        self.level_invariant = level_invariant
        branches = {3: channels_3x3, 5: channels_5x5}
        if not any(branches.values()):
            raise ValueError('channels_3x3 and channels_5x5 are both empty')
        if width % heads:
            raise ValueError(f'a width of {width} cannot be shared by {heads} heads')
        conv_dropout = nn.Dropout2d(conv_dropout)
        self.branches = nn.ModuleList(
            ConvStack(channels, pools, conv_dropout, kernel_size)
            for kernel_size, channels in branches.items()
            if channels
        )
        n_rows = n_features
        for pool in pools:
            n_rows = max(1, n_rows // pool[0])
        n_joint = n_rows * sum(channels[-1] for channels in branches.values() if channels)
        self.join = nn.Sequential(
            nn.Linear(n_joint, width), nn.LayerNorm(width), nn.Dropout(encoder_dropout)
        )
        self.attention = AttentionPool(width, width // 2)
        n_summary = width
        self.encoder = None
        if encoder_layers:
            layer = nn.TransformerEncoderLayer(
                width, heads, feedforward, encoder_dropout, batch_first=True, norm_first=True
            )
            self.encoder = nn.TransformerEncoder(layer, encoder_layers, enable_nested_tensor=False)
            self.encoder_attention = AttentionPool(width, width // 2)
            n_summary += width
        self.lstm = None
        if lstm_width:
            self.lstm = BiLstm(width, lstm_width)
            self.lstm_attention = AttentionPool(2 * lstm_width, lstm_width)
            n_summary += 2 * lstm_width
        self.dropout = nn.Dropout(classifier_dropout)
        self.classifier = nn.Linear(n_summary, n_classes)

    def forward(self, x: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """(batch, n_features, frames ≥ 16), true lengths (batch,) → logits (batch, n_classes)."""
        x, lengths = prepare(x, lengths, self.min_frames, self.level_invariant)
        maps, columns = zip(*(branch(x, lengths) for branch in self.branches))
        lengths = columns[0]
        steps = self.join(torch.cat([m.flatten(1, 2) for m in maps], dim=1).transpose(1, 2))
        real = frame_mask(lengths, steps.shape[1])
        summaries = [self.attention(steps, real)[0]]
        if self.encoder is not None:
            encoded = self.encoder(steps, src_key_padding_mask=~real)
            summaries.append(self.encoder_attention(encoded, real)[0])
        if self.lstm is not None:
            summaries.append(self.lstm_attention(self.lstm(steps, lengths), real)[0])
        return self.classifier(self.dropout(torch.cat(summaries, dim=1)))

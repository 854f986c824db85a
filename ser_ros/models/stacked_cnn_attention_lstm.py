"""A CNN over each chunk, an LSTM with attention over the chunks (the research's system)."""

from typing import Optional

from torch import Tensor, nn

from ser_ros.models.blocks import (
    MIN_FRAMES,
    AttentionPool,
    BiLstm,
    Chunks,
    CnnBranch,
    map_real,
    prepare,
)


class StackedCnnAttentionLstm(nn.Module):
    """CNN over overlapping chunks, then a BiLSTM with attention over the chunks.

    Each chunk: three conv blocks 1→16→32→64, pooled by 2, 4, 4, averaged in 4 × 4 equal parts
    → 1024. BiLSTM 1024→64 each way, attention over the chunks → 128. 582,761 parameters for
    eight classes, whatever the number of features. See `Chunks` for how it treats short clips
    and the last frames.
    """

    LSTM_WIDTH = 64
    min_frames = MIN_FRAMES

    def __init__(
        self,
        n_features: int,
        n_classes: int,
        chunk_frames: int = 128,
        chunk_stride: int = 64,
        conv_dropout: float = 0.3,
        lstm_dropout: float = 0.4,
        level_invariant: bool = True,
    ):
        """`level_invariant`: take the mean level out of each window first."""
        super().__init__()
        self.level_invariant = level_invariant
        self.chunks = Chunks(chunk_frames, chunk_stride)
        self.cnn = CnnBranch((16, 32, 64), (2, 4, 4), conv_dropout, grid=(4, 4))
        self.lstm = BiLstm(self.cnn.out_features, self.LSTM_WIDTH)
        self.dropout = nn.Dropout(lstm_dropout)
        self.attention = AttentionPool(2 * self.LSTM_WIDTH)
        self.classifier = nn.Linear(2 * self.LSTM_WIDTH, n_classes)

    def forward(self, x: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """(batch, n_features, frames ≥ 16), true lengths (batch,) → logits (batch, n_classes)."""
        has_padding = lengths is not None
        x, lengths = prepare(x, lengths, self.min_frames, self.level_invariant)
        chunks, real = self.chunks(x, lengths)
        steps = map_real(self.cnn, chunks, real if has_padding else None)
        steps = self.dropout(self.lstm(steps, real.sum(dim=1)))
        return self.classifier(self.attention(steps, real)[0])

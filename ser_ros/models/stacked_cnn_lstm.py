"""A CNN over each chunk, an LSTM over the chunks (the research's `stacked_cnn_lstm`)."""

from typing import Optional

from torch import Tensor, nn

from ser_ros.models.blocks import (
    MIN_FRAMES,
    Chunks,
    CnnBranch,
    last_step,
    map_real,
    prepare,
)


class StackedCnnLstm(nn.Module):
    """CNN over overlapping chunks, then an LSTM over the chunks; its last step decides.

    Each chunk: four conv blocks 1→16→32→64→128, pooled by 2, 4, 4, 4 → 128. LSTM 128→64 one way.
    147,816 parameters for eight classes, whatever the number of features. See `Chunks` for how it
    treats short clips and the last frames.
    """

    WIDTH = 128
    LSTM_WIDTH = 64
    min_frames = MIN_FRAMES

    def __init__(
        self,
        n_features: int,
        n_classes: int,
        chunk_frames: int = 128,
        chunk_stride: int = 64,
        conv_dropout: float = 0.4,
        lstm_dropout: float = 0.3,
        level_invariant: bool = True,
    ):
        """`level_invariant`: take the mean level out of each window first."""
        super().__init__()
        self.level_invariant = level_invariant
        self.chunks = Chunks(chunk_frames, chunk_stride)
        self.cnn = CnnBranch((16, 32, 64, self.WIDTH), (2, 4, 4, 4), conv_dropout, grid=(1, 1))
        self.lstm = nn.LSTM(self.WIDTH, self.LSTM_WIDTH, batch_first=True)
        self.dropout = nn.Dropout(lstm_dropout)
        self.classifier = nn.Linear(self.LSTM_WIDTH, n_classes)

    def forward(self, x: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """(batch, n_features, frames ≥ 16), true lengths (batch,) → logits (batch, n_classes)."""
        has_padding = lengths is not None
        x, lengths = prepare(x, lengths, self.min_frames, self.level_invariant)
        chunks, real = self.chunks(x, lengths)
        steps, _ = self.lstm(map_real(self.cnn, chunks, real if has_padding else None))
        return self.classifier(self.dropout(last_step(steps, real.sum(dim=1))))

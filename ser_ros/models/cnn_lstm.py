"""The baseline: one CNN stack, and one LSTM over its columns."""

from typing import Optional

from torch import Tensor, nn

from ser_ros.models.blocks import MIN_FRAMES, ConvStack, last_step, prepare


class CnnLstm(nn.Module):
    """The baseline: one CNN stack, one LSTM over its columns, classified by the last step.

    The research names this system but never built it, so its shape is this project's: the CNN
    branch of the parallel systems (conv blocks 1→16→32→64→64, features pooled by 2, 4, 4, 4) with
    the frames pooled by 2 each time, so that a column is left for every 16 frames, and an LSTM
    64→64 one way. 94,376 parameters for eight classes, whatever the number of features.
    """

    WIDTH = 64
    POOLS = ((2, 2), (4, 2), (4, 2), (4, 2))
    min_frames = MIN_FRAMES

    def __init__(
        self,
        n_features: int,
        n_classes: int,
        conv_dropout: float = 0.3,
        lstm_dropout: float = 0.3,
        level_invariant: bool = True,
    ):
        """`level_invariant`: take the mean level out of each window first."""
        super().__init__()
        self.level_invariant = level_invariant
        self.cnn = ConvStack((16, 32, 64, self.WIDTH), self.POOLS, nn.Dropout(conv_dropout))
        self.lstm = nn.LSTM(self.WIDTH, self.WIDTH, batch_first=True)
        self.dropout = nn.Dropout(lstm_dropout)
        self.classifier = nn.Linear(self.WIDTH, n_classes)

    def forward(self, x: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """(batch, n_features, frames ≥ 16), true lengths (batch,) → logits (batch, n_classes)."""
        x, lengths = prepare(x, lengths, self.min_frames, self.level_invariant)
        maps, lengths = self.cnn(x, lengths)
        # Up to 128 features are pooled to one row; for more features, the mean of the rows.
        steps, _ = self.lstm(maps.mean(dim=2).transpose(1, 2))
        return self.classifier(self.dropout(last_step(steps, lengths)))

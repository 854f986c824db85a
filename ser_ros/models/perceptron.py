"""A small classifier for features that are already learned, and pooled over time."""

from typing import Optional

from torch import Tensor, nn

from ser_ros.models.blocks import prepare


class Perceptron(nn.Module):
    """One hidden layer on the mean of the features over time, for `features.SpeechEncoder`.

    The features come from a network that was trained on far more speech than any corpus of
    emotions has: the less is learned on top of them, the less depends on those corpora.
    """

    min_frames = 1

    def __init__(
        self,
        n_features: int,
        n_classes: int,
        dropout: float = 0.3,
        width: int = 128,
        hidden_dropout: float = 0.5,
    ):
        """`dropout`: of the features; `width`: of the hidden layer."""
        super().__init__()
        self.hidden = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(n_features, width, bias=False),  # the norm has one
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Dropout(hidden_dropout),
        )
        self.classifier = nn.Linear(width, n_classes)

    def forward(self, x: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """(batch, n_features, steps ≥ 1), true lengths (batch,) → logits (batch, n_classes)."""
        x, lengths = prepare(x, lengths, self.min_frames, level_invariant=False)
        mean = x.sum(dim=-1) / lengths[:, None]
        return self.classifier(self.hidden(mean))

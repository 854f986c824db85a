"""A CNN parallel to a transformer (the research's `parallel_cnn_transformer`)."""

from typing import Optional

import torch
from torch import Tensor, nn

from ser_ros.models.blocks import (
    MIN_FRAMES,
    CnnBranch,
    clipped_max_pool,
    frame_mask,
    pooled,
    prepare,
    width_projection,
)


class ParallelCnnTransformer(nn.Module):
    """CNN branch parallel to a transformer over max-pooled frames, concatenated.

    CNN: four conv blocks 1→16→32→64→64, pooled by 2, 4, 4, 4, averaged in four equal parts of
    the time → 256. Transformer: max-pool 2×4, four post-norm encoder layers of width 64 without
    positional encoding, mean over time → 64. With 128 mels it has the research's 395,176
    parameters for eight classes; with another number a linear layer brings the pooled mels to
    the encoder's width.
    """

    WIDTH = 64
    POOL = (2, 4)
    min_frames = MIN_FRAMES

    def __init__(
        self,
        n_features: int,
        n_classes: int,
        conv_dropout: float = 0.3,
        encoder_dropout: float = 0.4,
        level_invariant: bool = True,
    ):
        """`level_invariant`: take the mean level out of each window first."""
        super().__init__()
        self.level_invariant = level_invariant
        self.cnn = CnnBranch((16, 32, 64, 64), (2, 4, 4, 4), conv_dropout, grid=(1, 4))
        self.project = width_projection(n_features // self.POOL[0], self.WIDTH)
        layer = nn.TransformerEncoderLayer(
            self.WIDTH, nhead=4, dim_feedforward=512, dropout=encoder_dropout, batch_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, num_layers=4, enable_nested_tensor=False)
        self.classifier = nn.Linear(self.cnn.out_features + self.WIDTH, n_classes)

    def forward(self, x: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """(batch, n_features, frames ≥ 16), true lengths (batch,) → logits (batch, n_classes)."""
        x, lengths = prepare(x, lengths, self.min_frames, self.level_invariant)
        return self.classifier(torch.cat((self.cnn(x, lengths), self._encode(x, lengths)), dim=1))

    def _encode(self, x: Tensor, lengths: Tensor) -> Tensor:
        """(batch, n_features, frames) → (batch, WIDTH), the mean over each clip's true steps."""
        # A pooled step counts only if all of its frames are real.
        steps = clipped_max_pool(x, self.POOL)
        real = frame_mask(pooled(lengths, self.POOL[1]), steps.shape[-1])
        steps = self.encoder(self.project(steps.transpose(1, 2)), src_key_padding_mask=~real)
        return (steps * real[..., None]).sum(dim=1) / real.sum(dim=1, keepdim=True)

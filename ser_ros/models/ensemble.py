"""Several models that are trained side by side; their log-probabilities are averaged."""

from collections.abc import Mapping, Sequence
from typing import Any, Optional

import torch
from torch import Tensor, nn

MEMBERS = ({'architecture': 'parallel_pitch_cnn'}, {'architecture': 'functionals'})


class Ensemble(nn.Module):
    """The mean log-probability of its members (a product of experts; Hinton, 2002).

    In training each member has its own loss: members that only had to be right together would
    lean on each other, and err together.
    """

    def __init__(
        self, n_features: int, n_classes: int, members: Sequence[Mapping[str, Any]] = MEMBERS
    ):
        """`members`: `architecture` and hyperparameters of each; ValueError if there are none."""
        from ser_ros.models import build_model  # the registry, which has this class

        super().__init__()
        if not members:
            raise ValueError('an ensemble needs members')
        self.members = nn.ModuleList(
            build_model(
                member['architecture'],
                n_features,
                n_classes,
                **{key: value for key, value in member.items() if key != 'architecture'},
            )
            for member in members
        )
        self.min_frames = max(member.min_frames for member in self.members)

    def member_logits(self, x: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """(batch, n_features, frames), true lengths (batch,) → (members, batch, n_classes)."""
        return torch.stack([member(x, lengths) for member in self.members])

    def forward(self, x: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """(batch, n_features, frames), true lengths (batch,) → (batch, n_classes).

        The result are mean log-probabilities, which are valid logits.
        """
        return self.member_logits(x, lengths).log_softmax(dim=-1).mean(dim=0)

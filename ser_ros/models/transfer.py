"""Models whose early layers others have trained and published; what `vgg` and `vggish` share.

A model is always built untrained, so that a bundle needs nothing but itself. Only training calls
`load_published` and then `freeze`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Union

import torch
from torch import Tensor, nn

from ser_ros import SerError
from ser_ros.models.blocks import (
    MIN_FRAMES,
    Chunks,
    average_grid,
    clipped_max_pool,
    map_real,
    prepare,
)


@dataclass(frozen=True)
class Published:
    """Where trained weights of the early layers can be had."""

    url: str
    unused: str
    """Prefix of weights that are published too but replaced here; '' for none."""

    @property
    def cached(self) -> Path:
        """The file's place in the torch hub cache, $TORCH_HOME/hub/checkpoints."""
        return Path(torch.hub.get_dir(), 'checkpoints', self.url.rsplit('/', 1)[1])


class TransferModel(nn.Module):
    """Published layers over chunks of a spectrogram, and a head of this project's own.

    A clip's logits are the mean log-probability of its chunks. `stages` are the published layers
    from the input on, in the pieces in which they can be frozen. All that is not in `head` has
    the names under which it was published.
    """

    PUBLISHED: Published
    GRID: tuple[int, int]
    """Height and width to which the feature map is averaged before the flatten."""
    min_frames = MIN_FRAMES

    def __init__(self, features: nn.Sequential, chunks: Chunks, head: nn.Module):
        super().__init__()
        self.features = features
        self.chunks = chunks
        self.head = head

    def forward(self, x: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """(batch, n_features, frames ≥ 16), true lengths (batch,) → (batch, n_classes).

        What comes out are log-probabilities, which are logits of themselves.
        """
        has_padding = lengths is not None
        x, lengths = prepare(x, lengths, self.min_frames, level_invariant=False)
        chunks, real = self.chunks(x, lengths)
        scores = map_real(self._classify, chunks, real if has_padding else None)
        return (scores * real[..., None]).sum(dim=1) / real.sum(dim=1, keepdim=True)

    def _classify(self, chunks: Tensor) -> Tensor:
        """(n, n_features, chunk frames) → log-probabilities (n, n_classes)."""
        return self.head(self.embed(chunks)).log_softmax(dim=1)

    def embed(self, chunks: Tensor) -> Tensor:
        """(n, n_features, chunk frames) → what the head reads, (n, width)."""
        raise NotImplementedError

    def stages(self) -> list[list[nn.Parameter]]:
        """The parameters of the convolutions up to each max-pool."""
        stages = [[]]
        for layer in self.features:
            stages[-1] += layer.parameters()
            if isinstance(layer, nn.MaxPool2d):
                stages.append([])
        return stages[:-1]

    def _map(self, images: Tensor) -> Tensor:
        """(n, channels, height, width) → (n, channels, *GRID); pools clipped to small images."""
        for layer in self.features:
            is_pool = isinstance(layer, nn.MaxPool2d)
            images = clipped_max_pool(images, (2, 2)) if is_pool else layer(images)
        widths = torch.full(images.shape[:1], images.shape[-1], device=images.device)
        return average_grid(images, widths, self.GRID)


def initialise(layers: nn.Module) -> None:
    """Draw weights as He et al. (2015) do, since no batch norm keeps a deep stack's scale."""
    for layer in layers.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity='relu')
            nn.init.zeros_(layer.bias)


def published_parameters(model: nn.Module) -> int:
    """The number of parameters that a published file gives; 0 for a model from scratch."""
    stages = model.stages() if isinstance(model, TransferModel) else []
    return sum(parameter.numel() for stage in stages for parameter in stage)


def freeze(model: nn.Module, n_stages: int) -> None:
    """Keep the first `n_stages` of `model.stages()` as they are; let all others be trained.

    `vgg` and `vggish` have five each: the convolutions up to each max-pool, and last `vggish`'s
    embedding. 0 trains everything. SerError for a number that the model does not have.
    """
    stages = model.stages() if isinstance(model, TransferModel) else []
    if not 0 <= n_stages <= len(stages):
        raise SerError(
            f'{n_stages} stages cannot be frozen: {type(model).__name__} has {len(stages)}'
        )
    for index, stage in enumerate(stages):
        for parameter in stage:
            parameter.requires_grad_(index >= n_stages)


def load_published(model: nn.Module, source: Union[str, Path] = 'published') -> Path:
    """Load the published layers of `model`; return the file that they came from.

    `source` is a file, or 'published' for the one in the torch hub cache. Nothing is downloaded.
    SerError says which file is missing, broken or of something else.
    """
    name = type(model).__name__
    if not isinstance(model, TransferModel):
        raise SerError(f'{name} has no published weights: train it from scratch')
    published = model.PUBLISHED
    path = published.cached if str(source) == 'published' else Path(source)
    if not path.is_file():
        raise SerError(
            f'{path}: no such file; the published weights of {name} are at {published.url}: put '
            f'them there, name another file, or train from scratch (pretrained="" and freeze=0)'
        )
    try:
        weights = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # whatever a broken file leads the unpickler to
        raise SerError(f'{path}: broken, or no file of weights') from error
    if not isinstance(weights, dict):
        raise SerError(f'{path}: no dictionary of weights')
    wanted = {k: v for k, v in model.state_dict().items() if not k.startswith('head.')}
    given = {
        k: v
        for k, v in weights.items()
        if not (published.unused and str(k).startswith(published.unused))
    }
    if wrong := [
        str(key)
        for key in wanted.keys() | given.keys()
        if getattr(wanted.get(key), 'shape', None) != getattr(given.get(key), 'shape', ())
    ]:
        raise SerError(
            f'{path}: not the published weights of {name}; {len(wrong)} of its tensors are '
            f'missing, unknown or of another shape, {min(wrong)} among them'
        )
    model.load_state_dict(given, strict=False)
    return path

"""Transfer: the stages of every model, and the published early layers of `vgg` and `vggish`.

A model is always built untrained, so that a bundle needs nothing but itself. Only training loads
weights to start from, and then calls `freeze`.
"""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Union

import torch
from torch import Tensor, nn

from ser_ros import SerError
from ser_ros.models.blocks import (
    MIN_FRAMES,
    Chunks,
    ConvStack,
    average_grid,
    clipped_max_pool,
    map_real,
    prepare,
)


@dataclass(frozen=True)
class Published:
    """The published weights of the early layers."""

    url: str
    unused: str
    """Prefix of published weights that are replaced here; '' for none."""

    @property
    def cached(self) -> Path:
        """Path of the file in the torch hub cache, $TORCH_HOME/hub/checkpoints."""
        return Path(torch.hub.get_dir(), 'checkpoints', self.url.rsplit('/', 1)[1])


class TransferModel(nn.Module):
    """Published layers over chunks of a spectrogram, and a head of this project's own.

    A clip's logits are the mean log-probability of its chunks. `stages` are the published layers.
    All parameters outside of `head` have their published names.
    """

    PUBLISHED: Published
    GRID: tuple[int, int]
    """Height and width to which the feature map is averaged before the flatten."""
    min_frames = MIN_FRAMES

    def __init__(
        self, features: nn.Sequential, chunks: Chunks, head: nn.Module, level_invariant: bool
    ):
        """`level_invariant`: take the mean level out of each clip first.

        Not for the published layers, which know inputs with their level.
        """
        super().__init__()
        self.level_invariant = level_invariant
        self.features = features
        self.chunks = chunks
        self.head = head

    def forward(self, x: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """(batch, n_features, frames ≥ 16), true lengths (batch,) → (batch, n_classes).

        The result are log-probabilities, which are valid logits.
        """
        has_padding = lengths is not None
        x, lengths = prepare(x, lengths, self.min_frames, self.level_invariant)
        chunks, real = self.chunks(x, lengths)
        scores = map_real(self._classify, chunks, real if has_padding else None)
        return (scores * real[..., None]).sum(dim=1) / real.sum(dim=1, keepdim=True)

    def _classify(self, chunks: Tensor) -> Tensor:
        """(n, n_features, chunk frames) → log-probabilities (n, n_classes)."""
        return self.head(self.embed(chunks)).log_softmax(dim=1)

    def embed(self, chunks: Tensor) -> Tensor:
        """(n, n_features, chunk frames) → input of the head, (n, width)."""
        raise NotImplementedError

    def stages(self) -> list[list[nn.Module]]:
        """The convolutions up to each max-pool, each layer without those inside it."""
        stages = [[]]
        for layer in self.features:
            stages[-1].append(layer)
            if isinstance(layer, nn.MaxPool2d):
                stages.append([])
        return stages[:-1]

    def _map(self, images: Tensor) -> Tensor:
        """(n, channels, height, width) → (n, channels, *GRID); pools are clipped to small images."""
        for layer in self.features:
            is_pool = isinstance(layer, nn.MaxPool2d)
            images = clipped_max_pool(images, (2, 2)) if is_pool else layer(images)
        widths = torch.full(images.shape[:1], images.shape[-1], device=images.device)
        return average_grid(images, widths, self.GRID)


def initialise(layers: nn.Module) -> None:
    """Draw weights as in He et al. (2015), since a deep stack without batch norm needs the scale."""
    for layer in layers.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity='relu')
            nn.init.zeros_(layer.bias)


def stages(model: nn.Module) -> list[list[nn.Module]]:
    """The layers of a model in groups that can be frozen, from the input on.

    Each conv block is a stage, together with that of the same depth in a parallel branch; the
    last stage is all else but the classifier. Those of `vgg` and `vggish` are the published
    layers: the convolutions up to each max-pool, and as the last one `vggish`'s embedding.
    """
    if isinstance(model, TransferModel):
        return model.stages()
    stacks = [module for module in model.modules() if isinstance(module, ConvStack)]
    groups = [
        [layer for block in blocks if block is not None for layer in block.modules()]
        for blocks in itertools.zip_longest(*(stack.blocks for stack in stacks))
    ]
    others = {layer for group in groups for layer in group}
    for name, module in model.named_modules():
        if name.rpartition('.')[2] == 'classifier':
            others.update(module.modules())
    return [*groups, [layer for layer in model.modules() if layer not in others]]


def published_parameters(model: nn.Module) -> int:
    """The number of parameters in the published file; 0 for a model without one."""
    published = model.stages() if isinstance(model, TransferModel) else []
    return sum(p.numel() for stage in published for p in _own_parameters(stage))


def freeze(model: nn.Module, n_stages: int) -> None:
    """Freeze the first `n_stages` of `stages`; train all others.

    Frozen batch norms are in evaluation mode, so that they keep their statistics in training.
    SerError if the model has fewer stages.
    """
    groups = stages(model)
    if not 0 <= n_stages <= len(groups):
        raise SerError(
            f'{n_stages} stages cannot be frozen: {type(model).__name__} has {len(groups)}'
        )
    for index, stage in enumerate(groups):
        for parameter in _own_parameters(stage):
            parameter.requires_grad_(index >= n_stages)
    for layer in itertools.chain.from_iterable(groups[:n_stages]):
        # Norms alone: a dropout may be shared with stages that are trained.
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            layer.eval()


def _own_parameters(layers: Iterable[nn.Module]) -> Iterator[nn.Parameter]:
    """The layers' parameters, without those of layers inside them."""
    return itertools.chain.from_iterable(layer.parameters(recurse=False) for layer in layers)


def load_published(model: nn.Module, source: Union[str, Path] = 'published') -> Path:
    """Load the published layers of `model`; return the path of their file.

    `source` is a file, or 'published' for the one in the torch hub cache. Nothing is downloaded.
    SerError if the file is missing, damaged or of another model.
    """
    name = type(model).__name__
    if not isinstance(model, TransferModel):
        raise SerError(
            f'{name} has no published weights, and {source} is not a bundle: name a bundle in '
            'pretrained, or leave it out'
        )
    published = model.PUBLISHED
    path = published.cached if str(source) == 'published' else Path(source)
    if not path.is_file():
        raise SerError(
            f'{path}: no such file; download the published weights of {name} from {published.url} '
            f'to it, name another file, or train from scratch (pretrained="" and freeze=0)'
        )
    try:
        weights = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # any error of the unpickler for a damaged file
        raise SerError(f'{path}: damaged, or not a file of weights') from error
    if not isinstance(weights, dict):
        raise SerError(f'{path}: not a dictionary of weights')
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
            f'missing, unknown or of another shape, such as {min(wrong)}'
        )
    model.load_state_dict(given, strict=False)
    return path

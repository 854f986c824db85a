"""VGG16 on spectrograms as images, with convolutions trained on photographs."""

from torch import Tensor, nn

from ser_ros import SerError
from ser_ros.models.blocks import Chunks
from ser_ros.models.transfer import Published, TransferModel, initialise


class Vgg(TransferModel):
    """VGG16 (Simonyan & Zisserman, 2015) over chunks as three-channel images, and a head.

    A chunk's features × frames are its image, in three equal channels; with the research's shape
    it is 128 × 128, in steps of 64 frames. torchvision's convolutions, 14,714,688 parameters,
    leave 512 × 4 × 4 (averaged to that for another size); head 8192→512→256→classes, 4,328,200
    parameters for eight. See `Chunks` for how it treats short clips and the last frames.
    """

    PUBLISHED = Published('https://download.pytorch.org/models/vgg16-397923af.pth', 'classifier.')
    GRID = (4, 4)

    def __init__(
        self,
        n_features: int,
        n_classes: int,
        chunk_frames: int = 128,
        chunk_stride: int = 64,
        dropout: float = 0.5,
        level_invariant: bool = True,
    ):
        """Untrained (see `transfer`); SerError without a torchvision that fits this torch."""
        try:
            from torchvision.models.vgg import cfgs, make_layers
        except (
            ImportError,
            RuntimeError,
        ) as error:  # the latter for the torchvision of another torch
            raise SerError(
                "vgg needs a torchvision that fits this torch; install it with pip install '.[train]'"
            ) from error
        head = nn.Sequential(
            nn.Linear(512 * self.GRID[0] * self.GRID[1], 512),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(512, 256),
            nn.ReLU(),
            nn.Linear(256, n_classes),
        )
        chunks = Chunks(chunk_frames, chunk_stride)
        super().__init__(make_layers(cfgs['D']), chunks, head, level_invariant)
        initialise(self.features)

    def embed(self, chunks: Tensor) -> Tensor:
        """(n, n_features, chunk_frames) → (n, 8192)."""
        return self._map(chunks[:, None].expand(-1, 3, -1, -1)).flatten(1)

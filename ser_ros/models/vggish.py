"""VGGish: a smaller VGG, trained on the sound of videos."""

from torch import Tensor, nn

from ser_ros.models.blocks import Chunks
from ser_ros.models.transfer import Published, TransferModel, initialise

EXAMPLE_FRAMES = 96
"""0.96 s of the `vggish` front-end, to which the published weights belong."""


class Vggish(TransferModel):
    """VGGish (Hershey et al., 2017) over examples of 96 frames, and a light head.

    Convolutions 64, 128, 256 × 2, 512 × 2 and three layers 4096, 4096, 128, each behind ReLU as
    in the published port (72,141,184 parameters); head 128→64→classes. 64 features leave
    512 × 6 × 4; another number is averaged to that. Examples do not overlap, except the last
    one, which ends with the clip (see `Chunks`).
    """

    PUBLISHED = Published(
        'https://github.com/harritaylor/torchvggish/releases/download/v0.1/vggish-10086976.pth', ''
    )
    GRID = (6, 4)

    def __init__(
        self,
        n_features: int,
        n_classes: int,
        dropout: float = 0.3,
        embedding_dropout: float = 0.0,
        level_invariant: bool = True,
    ):
        """Untrained (see `transfer`).

        `embedding_dropout` is behind each of the two layers of 4096, as in VGG; the published
        port has none.
        """
        layers, n_in = [], 1
        for stage in ((64,), (128,), (256, 256), (512, 512)):
            for n_out in stage:
                layers += [nn.Conv2d(n_in, n_out, 3, padding=1), nn.ReLU()]
                n_in = n_out
            layers.append(nn.MaxPool2d(2))
        head = nn.Sequential(
            nn.Linear(128, 64), nn.ReLU(), nn.Dropout(dropout), nn.Linear(64, n_classes)
        )
        chunks = Chunks(EXAMPLE_FRAMES, EXAMPLE_FRAMES)
        super().__init__(nn.Sequential(*layers), chunks, head, level_invariant)
        self.embeddings = nn.Sequential(
            nn.Linear(512 * self.GRID[0] * self.GRID[1], 4096),
            nn.ReLU(),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Linear(4096, 128),
            nn.ReLU(),
        )
        self.embedding_dropout = nn.Dropout(embedding_dropout)
        initialise(self.features)
        initialise(self.embeddings)

    def stages(self) -> list[list[nn.Module]]:
        """The convolutions up to each max-pool, then the embedding."""
        return [*super().stages(), list(self.embeddings)]

    def embed(self, chunks: Tensor) -> Tensor:
        """(n, n_features, 96) → embeddings (n, 128)."""
        # The published layers have time as the first axis of an image, and are flattened channels last.
        maps = self._map(chunks[:, None].transpose(2, 3))
        x = maps.permute(0, 2, 3, 1).flatten(1)
        for wide in (self.embeddings[0:2], self.embeddings[2:4]):
            x = self.embedding_dropout(wide(x))
        return self.embeddings[4:](x)

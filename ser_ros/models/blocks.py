"""Layers that several architectures share; padding never changes their results.

A clip's spectrogram is (n_features, frames); clips of a batch are padded to the longest, and
`lengths` (batch,) are the numbers of their real frames.
"""

from collections.abc import Callable, Sequence
from typing import Optional, Union

import torch
from torch import Tensor, nn

MIN_FRAMES = 16
"""The least number of frames that a model accepts: 0.18 s of the default front-end."""

MAX_CHUNK, MAX_OVERLAP = 4_096, 64
"""The longest chunk in frames, and how many chunks may share a frame: see `Chunks`."""


def prepare(
    x: Tensor, lengths: Optional[Tensor], min_frames: int, level_invariant: bool
) -> tuple[Tensor, Tensor]:
    """(batch, n_features, frames) → the same, zero after each clip's length, and the lengths.

    Without lengths every clip is as long as `x`. `level_invariant`: subtract each clip's mean
    level. ValueError for a clip shorter than `min_frames`.
    """
    if lengths is None:
        shortest = x.shape[-1]
        lengths = torch.full(x.shape[:1], x.shape[-1], device=x.device)
    else:
        # An exported program cannot look into its input.
        shortest = min_frames if torch.compiler.is_exporting() else int(lengths.min())
    if shortest < min_frames:
        raise ValueError(f'{shortest} frames are too few, at least {min_frames} are needed')
    x = x * frame_mask(lengths, x.shape[-1])[:, None]
    return (remove_level(x, lengths) if level_invariant else x), lengths


def frame_mask(lengths: Tensor, n_frames: int) -> Tensor:
    """(batch, n_frames), True for real frames, from true lengths (batch,)."""
    return torch.arange(n_frames, device=lengths.device) < lengths[:, None]


def pooled(lengths: Tensor, kernel: int) -> Tensor:
    """Lengths (batch,) after pooling by `kernel`, which is clipped to a shorter clip's length."""
    return (lengths // kernel).clamp(min=1)


def remove_level(x: Tensor, lengths: Tensor) -> Tensor:
    """Subtract from (batch, n_mels, frames) each clip's mean over its true frames.

    In decibels a gain is an offset, so that near and far voices become equal. The contrast is not
    normalised, so that silence stays flat.
    """
    real = frame_mask(lengths, x.shape[-1])[:, None]
    level = (x * real).sum(dim=(1, 2)) / (lengths * x.shape[1])
    return (x - level[:, None, None]) * real


def clipped_max_pool(x: Tensor, kernel: Sequence[int]) -> Tensor:
    """Max-pool (..., height, width) by `kernel`, each side clipped to the size of its axis.

    The result may have columns after the pooled length (see `pooled`), without meaning.
    """
    height, width = min(kernel[0], x.shape[-2]), kernel[1]
    if isinstance(n := x.shape[-1], torch.SymInt):
        # While exporting: max_pool2d would bind the program to this length's remainder, so fill
        # up to a multiple. Zeros suffice: a map is not negative, or is longer than the kernel.
        x = nn.functional.pad(x, (0, ((n + width - 1) // width + 1) * width - n))
    else:
        width = min(width, n)
    return nn.functional.max_pool2d(x, (height, width))


def average_grid(maps: Tensor, lengths: Tensor, grid: tuple[int, int]) -> Tensor:
    """(batch, channels, rows, frames) → (batch, channels, *grid), averages of equal parts.

    Adaptive average pooling as `nn.AdaptiveAvgPool2d`, of each clip over its true length.
    """
    n_rows = torch.full((1,), maps.shape[2], device=maps.device)
    rows = _average_weights(n_rows, maps.shape[2], grid[0])
    columns = _average_weights(lengths, maps.shape[3], grid[1])
    return rows.transpose(1, 2) @ maps @ columns[:, None]


def _average_weights(lengths: Tensor, size: int, n_parts: int) -> Tensor:
    """(batch, size, n_parts) weights of adaptive average pooling over each true length."""
    part = torch.arange(n_parts, device=lengths.device)
    start = part * lengths[:, None] // n_parts
    end = -(-(part + 1) * lengths[:, None] // n_parts)
    position = torch.arange(size, device=lengths.device)[None, :, None]
    inside = (position >= start[:, None]) & (position < end[:, None])
    return inside / (end - start)[:, None]


def width_projection(n_in: int, width: int) -> nn.Module:
    """A linear layer from `n_in` values to `width`; the identity if both are equal."""
    return nn.Identity() if n_in == width else nn.Linear(n_in, width)


def last_step(steps: Tensor, lengths: Tensor) -> Tensor:
    """(batch, n, width), true lengths (batch,) → (batch, width), each clip's last true step."""
    return steps.gather(1, (lengths - 1)[:, None, None].expand(-1, 1, steps.shape[2]))[:, 0]


class ConvBlock(nn.Module):
    """Conv → batch norm → ReLU → max-pool → dropout, on (batch, channels, features, frames)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        pool: Union[int, Sequence[int]],
        dropout: nn.Module,
        kernel_size: int = 3,
        shortest: int = 1,
    ):
        """`pool`: of both axes, or (features, frames); the convolution keeps the size.

        `shortest`: the least number of frames of a clip here.
        """
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
        self.norm = nn.BatchNorm2d(out_channels)
        self.pool = (pool, pool) if isinstance(pool, int) else tuple(pool)
        self.dropout = dropout
        # Otherwise a maximum over padding and true frames would belong to no true column.
        self.is_cut_off_first = shortest < self.pool[1]

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pooled map, zero after each clip's length, and the pooled lengths."""
        x = self.norm(self.conv(x)).relu()
        if self.is_cut_off_first:
            # After ReLU no value is negative, so that zeroed padding never is a maximum.
            x = x * frame_mask(lengths, x.shape[-1])[:, None, None]
        lengths = pooled(lengths, self.pool[1])
        x = clipped_max_pool(x, self.pool)
        x = x * frame_mask(lengths, x.shape[-1])[:, None, None]
        return self.dropout(x), lengths


class ConvStack(nn.Module):
    """Conv blocks over one spectrogram, the first from one channel."""

    def __init__(
        self,
        channels: Sequence[int],
        pools: Sequence[Union[int, Sequence[int]]],
        dropout: nn.Module,
        kernel_size: int = 3,
    ):
        """One block for each of `channels` and `pools`; all of them use `dropout`."""
        super().__init__()
        if len(pools) != len(channels):
            raise ValueError(f'{len(channels)} conv blocks have {len(pools)} pools')
        self.blocks = nn.ModuleList()
        shortest = MIN_FRAMES
        for n_in, n_out, pool in zip((1, *channels), channels, pools):
            block = ConvBlock(n_in, n_out, pool, dropout, kernel_size, shortest)
            shortest = max(1, shortest // block.pool[1])
            self.blocks.append(block)
        # Max-pooling is ten times as fast if the channels of a position are adjacent in memory.
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, n_features, frames) → (batch, channels, rows, columns), true columns (batch,)."""
        x = x[:, None].contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            x, lengths = block(x, lengths)
        return x, lengths


class CnnBranch(ConvStack):
    """Conv blocks, then the average of each part of a grid, flattened to a fixed width."""

    def __init__(
        self,
        channels: Sequence[int],
        pools: Sequence[int],
        dropout: float,
        grid: tuple[int, int],
    ):
        """`grid`: parts of (features, frames)."""
        super().__init__(channels, pools, nn.Dropout(dropout))
        self.grid = grid
        self.out_features = channels[-1] * grid[0] * grid[1]

    def forward(self, x: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """(batch, n_features, frames), true lengths (batch,) → (batch, out_features)."""
        if lengths is None:
            lengths = torch.full(x.shape[:1], x.shape[-1], device=x.device)
        return average_grid(*super().forward(x, lengths), self.grid).flatten(1)


class BiLstm(nn.Module):
    """A bidirectional LSTM over true steps: `nn.LSTM(bidirectional=True)` as two LSTMs.

    The backward one reads each clip reversed in place, so that padding comes after its steps and
    has no effect. Packed sequences have the same result, but take five times as long on a CPU and
    cannot be exported. Exporting any LSTM with a dynamic length needs
    `torch.export._patches.register_lstm_while_loop_decomposition`.
    """

    def __init__(self, n_in: int, width: int):
        """`width`: of each half."""
        super().__init__()
        self.ahead = nn.LSTM(n_in, width, batch_first=True)
        self.back = nn.LSTM(n_in, width, batch_first=True)

    def forward(self, steps: Tensor, lengths: Tensor) -> Tensor:
        """(batch, n, n_in), true lengths (batch,) → (batch, n, 2 · width)."""
        step = torch.arange(steps.shape[1], device=steps.device)
        end = lengths[:, None]
        mirrored = torch.where(step < end, end - 1 - step, step)[..., None]
        back, _ = self.back(steps.gather(1, mirrored.expand_as(steps)))
        ahead, _ = self.ahead(steps)
        return torch.cat((ahead, back.gather(1, mirrored.expand_as(back))), dim=2)


class AttentionPool(nn.Module):
    """The mean over time, weighted by a softmax of each true step's learned score."""

    def __init__(self, width: int, hidden: int = 0):
        """`hidden`: width of a tanh layer before the score; 0 for none."""
        super().__init__()
        self.score = (
            nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), nn.Linear(hidden, 1))
            if hidden
            else nn.Linear(width, 1)
        )

    def forward(self, steps: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, n, width), real (batch, n) → summary (batch, width), weights (batch, n)."""
        weights = self.score(steps)[..., 0].masked_fill(~real, float('-inf')).softmax(dim=1)
        return (weights[..., None] * steps).sum(dim=1), weights


class Chunks(nn.Module):
    """Cuts a clip into overlapping chunks of equal size; none of its frames is left out.

    They start every `stride` frames, but the last one ends with the clip: the research's 563
    frames become its 7 chunks of 128, and the 51 frames that it dropped are in the last one.
    A clip shorter than a chunk is repeated until it fills one: this is right for any front-end,
    while zeros could mean a loud sound.
    """

    def __init__(self, size: int, stride: int):
        """`size` and `stride` in frames; ValueError if they would leave gaps, or need much memory."""
        super().__init__()
        if not 0 < stride <= size:
            raise ValueError(f'a chunk_stride of {stride} is not between 1 and {size} frames')
        if size > MAX_CHUNK:
            raise ValueError(f'a chunk of {size} frames is longer than {MAX_CHUNK}')
        if size > MAX_OVERLAP * stride:
            raise ValueError(
                f'chunks of {size} frames every {stride} overlap more than {MAX_OVERLAP} times'
            )
        self.size = size
        self.stride = stride

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, n_features, frames) → (batch, n, n_features, size), real (batch, n)."""
        n = x.shape[-1]
        # While exporting, at least two chunks: torch treats a size that may be one as one.
        least = 2 if isinstance(n, torch.SymInt) or n > self.size else 1
        index = torch.arange(torch.sym_max(least, self._count(n)), device=x.device)
        excess = lengths - self.size
        count = torch.maximum(self._count(lengths), 1 + (excess > 0))[:, None]
        last = excess.clamp(min=0)[:, None]
        start = torch.where(index < count - 1, index * self.stride, last)
        frame = start[..., None] + torch.arange(self.size, device=x.device)
        frame = (frame % lengths[:, None, None]).flatten(1)
        chunks = x.gather(2, frame[:, None].expand(-1, x.shape[1], -1))
        return chunks.unflatten(2, (-1, self.size)).transpose(1, 2), index < count

    def _count(self, length: Union[int, Tensor]) -> Union[int, Tensor]:
        """The number of chunks of a clip with at least two."""
        # One more than fit if the last one, moved back to the end, would leave a gap before it.
        return 1 + (length - self.size + max(0, 2 * self.stride - self.size - 1)) // self.stride


def map_real(
    function: Callable[[Tensor], Tensor], items: Tensor, real: Optional[Tensor]
) -> Tensor:
    """Apply `function` to the real ones of `items` (batch, n, ...), as one batch of items.

    The others cost nothing, do not enter a batch norm, and their results are zeros. Without `real`
    (batch, n) all items are real.
    """
    if real is None:
        return function(items.flatten(0, 1)).unflatten(0, items.shape[:2])
    results = function(items[real])
    spread = results.new_zeros(*real.shape, *results.shape[1:])
    spread[real] = results
    return spread

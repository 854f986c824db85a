"""Shared layers: padding never reaches the result."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ser_ros.models.blocks import (
    ConvBlock,
    ConvStack,
    clipped_max_pool,
    frame_mask,
    pooled,
    remove_level,
)


def features(batch, n_mels, n_frames, seed=1):
    return torch.randn(batch, n_mels, n_frames, generator=torch.Generator().manual_seed(seed))


def test_frame_mask():
    mask = frame_mask(torch.tensor([0, 2, 4]), 4)
    assert mask.int().tolist() == [[0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]]


def test_pooled_lengths_are_whole_and_never_none():
    assert pooled(torch.tensor([1, 3, 4, 7, 8]), 4).tolist() == [1, 1, 1, 1, 2]


@pytest.mark.parametrize('shape', [(1, 1), (1, 7), (3, 9), (64, 300)])
def test_pooling_is_clipped_to_the_axis(shape):
    x = torch.arange(shape[0] * shape[1], dtype=torch.float32).reshape(1, *shape)
    out = clipped_max_pool(x, (4, 4))
    assert out.shape[1:] == tuple(max(1, n // 4) for n in shape)
    whole = x[0, : 4 * out.shape[1], : 4 * out.shape[2]]
    assert out.max() == whole.max()


@given(st.integers(1, 40), st.integers(0, 30), st.floats(-60, 60))
def test_level_is_taken_out_over_true_frames_only(n_real, n_padding, gain_db):
    x = features(1, 8, n_real)
    lengths = torch.tensor([n_real])
    alone = remove_level(x, lengths)
    padded = torch.nn.functional.pad(x + gain_db, (0, n_padding))
    level = remove_level(padded, lengths)
    torch.testing.assert_close(level[..., :n_real], alone, atol=1e-4, rtol=0)
    assert (level[..., n_real:] == 0).all()
    assert abs(alone.mean()) < 1e-5


def trained_norms(module):
    """Batch norm as after training: an untrained one's mean of zero hides much."""
    generator = torch.Generator().manual_seed(2)
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_(generator=generator)
            layer.running_var.uniform_(0.5, 2, generator=generator)
            layer.bias.data.normal_(generator=generator)
    return module.eval()


@given(st.integers(1, 40), st.integers(0, 60))
def test_conv_block_ends_where_the_clip_ends(n_real, n_padding):
    torch.manual_seed(1)
    block = trained_norms(ConvBlock(1, 3, pool=4, dropout=0.5))
    x = features(1, 16, n_real)[:, None]
    lengths = torch.tensor([n_real])
    alone, alone_lengths = block(x, lengths)
    padded, padded_lengths = block(torch.nn.functional.pad(x, (0, n_padding)), lengths)
    assert alone_lengths.tolist() == padded_lengths.tolist() == [max(1, n_real // 4)]
    n_out = alone.shape[-1]
    torch.testing.assert_close(padded[..., :n_out], alone)
    assert (padded[..., n_out:] == 0).all()


@pytest.mark.parametrize('n_mels', [64, 128])
@pytest.mark.parametrize('n_frames', [16, 97, 298, 563])
def test_columns_are_adaptive_average_pooling(n_mels, n_frames):
    torch.manual_seed(1)
    stack = trained_norms(ConvStack((4, 8), (2, 4), dropout=0.5))
    x = features(2, n_mels, n_frames)
    maps = x[:, None]
    lengths = torch.tensor([n_frames, n_frames])
    for block in stack.blocks:
        maps, lengths = block(maps, lengths)
    expected = torch.nn.functional.adaptive_avg_pool2d(maps, (1, 4)).flatten(1)
    out = stack(x, torch.tensor([n_frames, n_frames]))
    assert out.shape == (2, stack.out_features)
    torch.testing.assert_close(out, expected)

"""Shared layers: padding does not change the result."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ser_ros.models.blocks import (
    AttentionPool,
    BiLstm,
    Chunks,
    ConvBlock,
    ConvStack,
    average_grid,
    clipped_max_pool,
    frame_mask,
    last_step,
    map_real,
    pooled,
    prepare,
    remove_level,
)


def test_frame_mask():
    mask = frame_mask(torch.tensor([0, 2, 4]), 4)
    assert mask.int().tolist() == [[0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]]


def test_pooled_lengths_are_at_least_one():
    assert pooled(torch.tensor([1, 3, 4, 7, 8]), 4).tolist() == [1, 1, 1, 1, 2]


@pytest.mark.parametrize('level_invariant', [False, True])
def test_prepared_clips_are_zero_after_their_length(features, level_invariant):
    x, lengths = features(2, 3, 9), torch.tensor([9, 5])
    ready, same = prepare(x, lengths, 5, level_invariant)
    assert same.tolist() == [9, 5]
    assert (ready[1, :, 5:] == 0).all()
    assert (abs(ready.sum(dim=(1, 2))) < 1e-5).all() == level_invariant
    assert level_invariant or (ready[0] == x[0]).all()


def test_without_lengths_all_frames_are_real(features):
    x = features(2, 3, 9)
    ready, lengths = prepare(x, None, 9, level_invariant=False)
    assert (ready == x).all()
    assert lengths.tolist() == [9, 9]


@pytest.mark.parametrize('lengths', [None, torch.tensor([9, 7])])
def test_a_clip_that_is_too_short_is_named(features, lengths):
    shortest = 7 if lengths is not None else 9
    with pytest.raises(ValueError, match=rf'^{shortest} frames .* 10 are needed$'):
        prepare(features(2, 3, 9), lengths, 10, level_invariant=False)


@pytest.mark.parametrize('shape', [(1, 1), (1, 7), (3, 9), (64, 300)])
def test_pooling_is_clipped_to_the_axis(shape):
    x = torch.arange(shape[0] * shape[1], dtype=torch.float32).reshape(1, *shape)
    out = clipped_max_pool(x, (4, 4))
    assert out.shape[1:] == tuple(max(1, n // 4) for n in shape)
    whole = x[0, : 4 * out.shape[1], : 4 * out.shape[2]]
    assert out.max() == whole.max()


@given(st.integers(1, 40), st.integers(0, 30), st.floats(-60, 60))
def test_the_level_is_that_of_true_frames_only(features, n_real, n_padding, gain_db):
    x = features(1, 8, n_real)
    lengths = torch.tensor([n_real])
    alone = remove_level(x, lengths)
    padded = nn.functional.pad(x + gain_db, (0, n_padding))
    level = remove_level(padded, lengths)
    torch.testing.assert_close(level[..., :n_real], alone, atol=1e-4, rtol=0)
    assert (level[..., n_real:] == 0).all()
    assert abs(alone.mean()) < 1e-5


@given(st.integers(1, 40), st.integers(0, 60), st.sampled_from([3, 5]))
def test_conv_block_ends_where_the_clip_ends(
    features, trained_norms, n_real, n_padding, kernel_size
):
    torch.manual_seed(1)
    block = trained_norms(ConvBlock(1, 3, (2, 4), nn.Dropout(0.5), kernel_size))
    x = features(1, 16, n_real)[:, None]
    lengths = torch.tensor([n_real])
    alone, alone_lengths = block(x, lengths)
    padded, padded_lengths = block(nn.functional.pad(x, (0, n_padding)), lengths)
    assert alone_lengths.tolist() == padded_lengths.tolist() == [max(1, n_real // 4)]
    n_out = alone.shape[-1]
    assert alone.shape == (1, 3, 8, n_out)
    torch.testing.assert_close(padded[..., :n_out], alone)
    assert (padded[..., n_out:] == 0).all()


def test_one_number_pools_both_axes(features):
    maps, lengths = ConvStack((4, 8), (2, 4), nn.Dropout(0.0))(
        features(2, 64, 97), torch.tensor([97, 50])
    )
    assert maps.shape == (2, 8, 8, 12)
    assert lengths.tolist() == [12, 6]


def test_each_conv_block_needs_its_pool():
    with pytest.raises(ValueError, match=r'3 conv blocks have 2 pools'):
        ConvStack((4, 8, 8), (2, 4), nn.Dropout(0.0))


@given(st.integers(1, 12), st.lists(st.integers(1, 30), min_size=1, max_size=3), st.integers(0, 9))
def test_grid_is_adaptive_average_pooling_of_each_true_length(
    features, n_rows, lengths, n_padding
):
    maps = features(len(lengths) * 2, n_rows, max(lengths) + n_padding)
    maps = maps.unflatten(0, (-1, 2))
    averages = average_grid(maps * 1.0, torch.tensor(lengths), (2, 4))
    for clip, length, average in zip(maps, lengths, averages):
        expected = nn.functional.adaptive_avg_pool2d(clip[..., :length], (2, 4))
        torch.testing.assert_close(average, expected)


def test_last_step_is_the_last_true_one():
    steps = torch.arange(24.0).reshape(2, 4, 3)
    assert last_step(steps, torch.tensor([4, 2])).tolist() == [[9, 10, 11], [15, 16, 17]]


def bidirectional(lstm):
    """PyTorch's own, with the weights of a BiLstm."""
    n_in, width = lstm.ahead.input_size, lstm.ahead.hidden_size
    reference = nn.LSTM(n_in, width, batch_first=True, bidirectional=True)
    weights = lstm.ahead.state_dict()
    weights |= {f'{name}_reverse': value for name, value in lstm.back.state_dict().items()}
    reference.load_state_dict(weights)
    return reference


@given(st.lists(st.integers(1, 12), min_size=1, max_size=4), st.integers(0, 5))
@torch.inference_mode()
def test_lstm_is_that_of_packed_sequences(features, lengths, n_padding):
    torch.manual_seed(1)
    lstm = BiLstm(3, 4)
    n = max(lengths) + n_padding
    steps = 1 + features(len(lengths), n, 3)
    packed = nn.utils.rnn.pack_padded_sequence(
        steps, lengths, batch_first=True, enforce_sorted=False
    )
    expected, _ = nn.utils.rnn.pad_packed_sequence(
        bidirectional(lstm)(packed)[0], batch_first=True, total_length=n
    )
    out = lstm(steps, torch.tensor(lengths))
    real = frame_mask(torch.tensor(lengths), n)
    torch.testing.assert_close(out[real], expected[real])


@pytest.mark.parametrize('hidden', [0, 3])
def test_attention_weighs_true_steps_only(features, hidden):
    torch.manual_seed(1)
    pool = AttentionPool(6, hidden)
    steps, real = features(2, 5, 6), frame_mask(torch.tensor([5, 2]), 5)
    summary, weights = pool(steps, real)
    assert (weights[~real] == 0).all()
    assert (weights[real] > 0).all()
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(2))
    torch.testing.assert_close(summary[1], weights[1, :2] @ steps[1, :2])
    alone, _ = pool(steps[1:, :2], real[1:, :2])
    torch.testing.assert_close(alone[0], summary[1])
    # A score decides, not the place: what weighs most does so wherever it stands.
    flipped = pool(steps[:1].flip(1), real[:1])[1]
    torch.testing.assert_close(flipped.flip(1), weights[:1])


def test_chunks_of_the_research_shape(features):
    x = features(1, 128, 563)
    chunks, real = Chunks(128, 64)(x, torch.tensor([563]))
    assert chunks.shape == (1, 7, 128, 128)
    assert real.all()
    for chunk, start in zip(chunks[0], [0, 64, 128, 192, 256, 320, 563 - 128]):
        assert (chunk == x[0, :, start : start + 128]).all()


@given(st.data())
def test_no_frame_is_left_out_of_the_chunks(data):
    size = data.draw(st.integers(1, 12))
    stride = data.draw(st.integers(1, size))
    lengths = data.draw(st.lists(st.integers(1, 60), min_size=1, max_size=3))
    n_padding = data.draw(st.integers(0, 20))
    x = torch.arange(max(lengths) + n_padding).expand(len(lengths), 1, -1)
    chunks, real = Chunks(size, stride)(x, torch.tensor(lengths))
    for clip, clip_real, length in zip(chunks[:, :, 0], real, lengths):
        frames = clip[clip_real]
        assert set(frames.flatten().tolist()) == set(range(length))
        if length >= size:
            assert (frames.diff(dim=1) == 1).all()
            assert (frames[:-1, 0] == stride * torch.arange(len(frames) - 1)).all()
            assert frames[-1, -1] == length - 1
            # As many as fit, and one more only where frames would be left out without it.
            spare = len(frames) - (1 + (length - size) // stride)
            gap = (length - size) % stride > size - stride
            assert spare == (gap or (len(frames) == 2 and 0 < length - size < stride))
        else:
            assert (frames == torch.arange(size) % length).all()


@pytest.mark.parametrize('stride', [0, -1, 13])
def test_chunks_leave_no_gaps(stride):
    with pytest.raises(ValueError, match=rf'chunk_stride of {stride} .* 12 frames'):
        Chunks(12, stride)


def test_only_real_items_are_processed(features):
    items, seen = features(2, 3, 4), []

    def double(batch):
        seen.append(len(batch))
        return 2 * batch

    real = torch.tensor([[True, True, True], [True, False, False]])
    doubled = map_real(double, items, real)
    assert (doubled[real] == 2 * items[real]).all()
    assert (doubled[~real] == 0).all()
    assert (map_real(double, items, None) == 2 * items).all()
    assert seen == [4, 6]
